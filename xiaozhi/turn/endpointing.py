"""How long to wait after the last voiced sample before the turn is the user's no more. Pure.

Two things move the wait: what was said (a question is over sooner than a sentence that ends in "because") and how this
user pauses inside sentences. Silences are audio time in milliseconds.
"""

import re
from enum import Enum
from typing import Final

from xiaozhi.settings import TurnSettings


class Completeness(Enum):
    """What the words say about whether the user has finished."""

    COMPLETE = "complete"
    NEUTRAL = "neutral"
    TRAILING = "trailing"


# Words after which a user of Chinese goes on: fillers, connectives, verbs and particles that want an object.
_TRAILING_ZH: Final = re.compile(
    r"(?:嗯|呃|额|唔|那个|这个|那|这|这[种些份位次]|那[种些份位次]|一些|然后|就是|就是说|因为|所以|但是|可是|不过|而且|或者"
    r"|还是|还有|以及|如果|要是|假如|虽然|比如|例如|比方说|包括|关于|和|跟|与|把|被|给|(?<!不)对|向|从|在|的|得|我想|我要|我觉得"
    r"|帮我|给我|请|请你|请问|先|再|就|又|也|(?<![首成])都|一个|第一|首先|提供|告诉我|提醒我|[查搜问找讲]一下)$"
)
# Final particles and question endings after which a user of Chinese has finished; they go before the list above.
_COMPLETE_ZH: Final = re.compile(
    r"(?:吗|呢|吧|了|啊|呀|啦|嘛|哦|谢谢|再见|拜拜|你好|几点|多少|什么|怎么样|怎么办|哪里|哪儿|是谁|天气|停|好的|是的|真的|对的"
    r"|可以|不用|不要|没有|[等停听试歇]一下|休息一下|再来一个|换一个|不在|来一[首个])$"
)
# Whole answers, though sentences go on after some of them.
_ANSWERS_ZH: Final = frozenset("对 对对 不对 是 不是 好 行 要 有 会".split())
_TRAILING_EN: Final = frozenset(
    "and or but because so the a an to of with if that is are was were my your his her our their um uh er erm hmm like "
    "for in on at from by about than then when while where which who whose as into i we they i'm let's also some any "
    "another every between without until unless since whether mr mrs maybe well could would should can will do does "
    "did have has had not very really just".split()
)
# Endings in two words after which a user goes on.
_TRAILING_PAIRS_EN: Final = frozenset(
    "tell me|give me|show me|remind me|play me|bring me|get me|order me|i want|i need|i'd like|you please|it is".split(
        "|"
    )
)
_COMPLETE_EN: Final = frozenset(
    "please thanks bye goodbye now today tomorrow tonight yes no okay ok stop hello hi again right".split()
)
# Questions that open with these are short; requests that open with "can" or "would" are not: "can I get a large".
_QUESTION_EN: Final = frozenset(
    "what what's who who's where where's when why how how's which whose is are do does did".split()
)
# A question may end in these: "what is it for", "where are you from".
_STRANDED_EN: Final = frozenset("to of with for in on at from by about like do does did are is was were".split())
# Commands that close with their particle: "turn the light on".
_SWITCH_EN: Final = frozenset("turn switch put keep leave come go log".split())
_CJK: Final = re.compile(r"[\u3400-\u9fff]")
_WORD: Final = re.compile(r"[a-z']+")


def completeness(text: str) -> Completeness:
    """Judge a recognised text, Chinese or English, by its end.

    A full stop is no evidence: recognisers with inverse text normalisation put one behind everything. A question mark
    is.
    """
    bare = text.strip().rstrip("。.，,、…!！;；:： ")
    if not bare:
        return Completeness.NEUTRAL
    if bare[-1] in "?？":
        return Completeness.COMPLETE
    return _chinese(bare) if _CJK.search(bare[-1]) else _english(_WORD.findall(bare.lower()))


def _chinese(bare: str) -> Completeness:
    if _COMPLETE_ZH.search(bare) or plain(bare) in _ANSWERS_ZH:
        return Completeness.COMPLETE
    return Completeness.TRAILING if _TRAILING_ZH.search(bare) else Completeness.NEUTRAL


def _english(words: list[str]) -> Completeness:
    if not words:
        return Completeness.NEUTRAL
    question = words[0] in _QUESTION_EN and len(words) >= 4
    switched = words[0] in _SWITCH_EN and len(words) >= 3 and words[-1] in {"on", "in", "off", "up", "down"}
    if " ".join(words[-2:]) in _TRAILING_PAIRS_EN:
        return Completeness.TRAILING
    if words[-1] in _TRAILING_EN and not switched:
        stranded = question and words[-1] in _STRANDED_EN and words[-2] not in _TRAILING_EN
        return Completeness.NEUTRAL if stranded else Completeness.TRAILING
    if words[-1] in _COMPLETE_EN or words[-2:] == ["thank", "you"] or question or switched:
        return Completeness.COMPLETE
    return Completeness.NEUTRAL


# Longer pauses say nothing about the next one: a second thought, or somebody else.
_MAX_HABIT_MS: Final = 1000.0


class UserPace:
    """This user's habit: how long the pauses are that turn out to be inside a sentence.

    Not their mean, half of the pauses are longer than that, but a level most of them stay below: a longer pause raises
    it fast, a shorter one lowers it slowly. Measured (`python -m bench.endpointing`) with pauses of 600 ms, replies
    at once and a neutral wait of 550 ms: of a known user's utterances 2 to 4 % are cut off; with a mean that moved
    by 0.3 for each pause it was 17 to 20 %.

    Args:
        rise: how much of the way to a longer pause the habit goes.
        fall: how much of the way to a shorter one, and by how much it fades with a turn that had none.
        margin: how much longer than the habit to wait: the VAD knows of resumed speech 60 to 150 ms late.
    """

    __slots__ = ("_fall", "_habit_ms", "_margin", "_rise")

    def __init__(self, rise: float = 0.5, fall: float = 0.1, margin: float = 1.3) -> None:
        self._rise = rise
        self._fall = fall
        self._margin = margin
        self._habit_ms: float | None = None

    @property
    def habit_ms(self) -> float | None:
        """How long this user pauses inside sentences, or None before the first pause."""
        return self._habit_ms

    def paused_and_went_on(self, pause_ms: float) -> None:
        """Speech resumed after a pause of `pause_ms`."""
        pause_ms = min(pause_ms, _MAX_HABIT_MS)
        if self._habit_ms is None:
            self._habit_ms = pause_ms
        else:
            self._habit_ms += (self._rise if pause_ms > self._habit_ms else self._fall) * (pause_ms - self._habit_ms)

    def finished(self) -> None:
        """A turn ended without an inner pause: the habit fades slowly."""
        if self._habit_ms is not None:
            self._habit_ms *= 1.0 - self._fall

    def adapt_ms(self, base_ms: float, max_ms: float) -> float:
        """Lengthen `base_ms` to this user's habit, to `max_ms` at the most; never shorten it."""
        if self._habit_ms is None:
            return base_ms
        return max(base_ms, min(max_ms, self._habit_ms * self._margin))


def hangover_ms(text: str, pace: UserPace, settings: TurnSettings, commands: frozenset[str] = frozenset()) -> float:
    """How much silence, in audio milliseconds, must follow `text` before its turn may be committed.

    `commands` are texts known to be whole (`commands` holds them lower-cased and without punctuation).
    """
    if plain(text) in commands:
        return settings.complete_ms
    match completeness(text):
        case Completeness.COMPLETE:
            return pace.adapt_ms(settings.complete_ms, settings.neutral_ms)
        case Completeness.TRAILING:
            return settings.trailing_ms
        case Completeness.NEUTRAL:
            return pace.adapt_ms(settings.neutral_ms, settings.trailing_ms)


_NOISE: Final = re.compile(r"[\W_]+", re.UNICODE)


def plain(text: str) -> str:
    """Lower case without punctuation and blanks: two recognitions of the same words compare equal."""
    return _NOISE.sub("", text.lower())


_BACKCHANNELS: Final = frozenset(
    "嗯 嗯嗯 哦 哦哦 噢 啊 对 对对 对对对 好 好的 好好 是 是的 行 嗯哼 呵呵 哈哈 哈哈哈 嘿 唉 "
    "uhhuh mhm mm hmm yeah yes yep ok okay right sure oh ah aha isee haha wow cool nice".split()
)


def interrupts(text: str) -> bool:
    """Whether words spoken over a reply are meant to stop it: two Chinese characters or two words, no backchannel."""
    bare = plain(text)
    if not bare or bare in _BACKCHANNELS:
        return False
    if bare in {"停", "别", "stop", "wait", "quiet", "no"}:
        return True
    units = len(_CJK.findall(text)) + len(_WORD.findall(text.lower()))
    return units >= 2


def is_echo(text: str, spoken: str) -> bool:
    """Whether `text` is what the device itself just said, heard again by its microphone.

    True when at least 70 % of the character pairs of `text` occur in `spoken` (single-microphone boards with weak echo
    cancellation hear themselves with errors, so equality is not required).
    """
    heard, said = plain(text), plain(spoken)
    if len(heard) < 2 or not said:
        return False
    pairs = [heard[i : i + 2] for i in range(len(heard) - 1)]
    return sum(pair in said for pair in pairs) >= 0.7 * len(pairs)
