"""Whether a question is easy or hard, and so which tier should answer it. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from xiaozhi.settings import RoutingSettings

Tier: TypeAlias = Literal["edge", "cloud"]

_OTHER: Final[Mapping[Tier, Tier]] = {"edge": "cloud", "cloud": "edge"}

# A Chinese character counts one and a word of other scripts two: about the same length when spoken.
_UNIT: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")

# Latin words stand by themselves, also between Chinese characters, where `\b` sees no boundary.
_CODE: Final = re.compile(
    r"代码|编程|程序|函数|算法|正则|数据库|报错|bug|"
    r"(?<![a-z0-9])(?:python|java|javascript|typescript|c\+\+|rust|golang|sql|html|css|regex|code|function|algorithm|compile|"
    r"debug|program(?:ming)?)(?![a-z0-9])|[{};]\s*$|==|=>|</?\w+>",
    re.IGNORECASE,
)
_MATHS: Final = re.compile(
    r"方程|积分|微分|导数|概率|矩阵|证明|几何|三角函数|平方根|解一下|应用题|"
    r"(?<![a-z0-9])(?:equations?|integral|derivative|probability|matrix|prove|proof|theorem|geometry|square root|"
    r"solve)(?![a-z0-9])|"
    r"\d\s*[\^√∫]|[xyz]\s*(?:\^\s*\d|²|[+\-*/]\s*\d+\s*=)",
    re.IGNORECASE,
)
# Words of questions that a tool answers better than a memory.
_TOOL: Final = re.compile(
    r"天气|温度|新闻|股票|股价|汇率|搜索|查一下|查查|打开|关闭|关掉|调到|音量|亮度|播放|闹钟|提醒|定时|导航|拍照|看看|"
    r"(?<![a-z0-9])(?:weather|temperature|news|stock|exchange rate|search|look up|turn (?:on|off|up|down)|"
    r"volume|brightness|play|alarm|remind|timer|navigate|photo|camera)(?![a-z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RoutedQuestion:
    """What is known when a tier is chosen.

    Attributes:
        text: what the user said.
        image: a picture belongs to it.
        tools: the model may call tools.
        preference: the tier the device or its agent prefers; empty or another word for none.
        busy: the share of each tier's slots that are taken, 0 to 1; a tier that is missing is not busy.
    """

    text: str
    image: bool = False
    tools: bool = False
    preference: str = ""
    busy: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """The tier that should answer.

    Attributes:
        tier: asked first.
        fallback: asked when the first cannot answer; None where there is no other.
        reason: in words, for the trace.
        wish: the tier by the question alone, before load and what exists were looked at.
    """

    tier: Tier
    fallback: Tier | None
    reason: str
    wish: Tier

    def __str__(self) -> str:
        """As it stands in a trace: `edge: short and plain`."""
        return f"{self.tier}: {self.reason}"


def choose_tier(question: RoutedQuestion, rules: RoutingSettings, available: Collection[str]) -> Route:
    """Choose a tier.

    Args:
        question: what is asked.
        rules: the settings.
        available: the tiers that have an endpoint, `edge`, `cloud` or both.
    """
    wish, reason = _wish(question, rules)
    other = _OTHER[wish]
    if other not in available:
        return Route(wish, None, reason, wish)
    if wish not in available:
        return Route(other, None, f"{reason}, but there is no {wish} endpoint", wish)
    busy = question.busy or {}
    if busy.get(wish, 0.0) > rules.busy_share >= busy.get(other, 0.0):
        return Route(other, wish, f"{reason}, but {wish} is busy ({busy[wish]:.0%})", wish)
    return Route(wish, other, reason, wish)


def length_of(text: str) -> int:
    """Chinese, Japanese and Korean characters, and words of other scripts times two."""
    return sum(1 if _is_character(unit) else 2 for unit in _UNIT.findall(text))


def _wish(question: RoutedQuestion, rules: RoutingSettings) -> tuple[Tier, str]:
    """The tier by the question alone, and why. The first rule that speaks counts."""
    text = question.text
    if question.image and rules.images != "any":
        return rules.images, "a picture"
    if rules.obey_device and question.preference in _OTHER:
        return ("edge" if question.preference == "edge" else "cloud"), "the device prefers it"
    if rules.code_and_maths != "any":
        if found := _CODE.search(text):
            return rules.code_and_maths, f"programming ({_shown(found[0])})"
        if found := _MATHS.search(text):
            return rules.code_and_maths, f"mathematics ({_shown(found[0])})"
    if rules.tools != "any" and question.tools and (found := _TOOL.search(text)):
        return rules.tools, f"a tool may be needed ({_shown(found[0])})"
    lowered = f" {' '.join(text.lower().split())} "
    for word in rules.hard_words:
        if _has_word(lowered, word.lower().strip()):
            return "cloud", f"a hard question ({_shown(word)})"
    length = length_of(text)
    if length > rules.long_chars:
        return "cloud", f"long ({length} > {rules.long_chars})"
    return "edge", "short and plain"


def _has_word(text: str, word: str) -> bool:
    """Whether `word` is in `text`; a word of Latin letters only where it stands by itself, so `plan` not in `plane`."""
    if not word:
        return False
    if not word.isascii():
        return word in text
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", text) is not None


def _is_character(unit: str) -> bool:
    return len(unit) == 1 and not unit.isascii() and not ("\u00c0" <= unit <= "\u024f")


def _shown(word: str) -> str:
    return word.strip()[:20]
