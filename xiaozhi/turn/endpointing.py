"""How long to wait after the last voiced sample before the turn is the user's no more. Pure.

Two things move the wait: what was said (a question is over sooner than a sentence that ends in "because") and how this
talker pauses inside sentences. Silences are audio time in milliseconds.
"""

import re
from enum import Enum
from typing import Final

from xiaozhi.settings import TurnSettings


class Completeness(Enum):
    """What the words say about whether the talker has finished."""

    COMPLETE = "complete"
    NEUTRAL = "neutral"
    TRAILING = "trailing"


# Words after which a talker of Chinese goes on: fillers, connectives, verbs and particles that want an object.
_TRAILING_ZH: Final = re.compile(
    r"(?:嗯|呃|额|唔|那个|这个|那|然后|就是|就是说|因为|所以|但是|可是|不过|而且|或者|还是|还有|以及|如果|要是|假如|虽然"
    r"|比如|例如|比方说|包括|和|跟|与|把|被|给|对|向|从|在|的|地|得|我想|我要|我觉得|帮我|请|请你|先|再|就|又|也|都|一个|一下子|第一|首先)$"
)
# Final particles and question endings after which a talker of Chinese has finished.
_COMPLETE_ZH: Final = re.compile(
    r"(?:吗|呢|吧|了|啊|呀|啦|嘛|哦|谢谢|再见|拜拜|你好|几点|多少|什么|怎么样|怎么办|哪里|哪儿|是谁|天气|停|好的|可以|不用|不要|一下)$"
)
_TRAILING_EN: Final = frozenset(
    "and or but because so the a an to of with if that is are was were my your his her our their um uh er erm hmm like "
    "for in on at from by about than then when while where which who whose as into i you we they it's i'm let's also "
    "maybe well could would should can will do does did have has had not very really just".split()
) - {"you"}
_COMPLETE_EN: Final = frozenset(
    "please thanks bye goodbye now today tomorrow tonight yes no okay ok stop hello hi again right".split()
)
_QUESTION_EN: Final = frozenset(
    "what who where when why how which whose is are do does did can could would will".split()
)
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
    if _CJK.search(bare[-1]):
        if _COMPLETE_ZH.search(bare):
            return Completeness.COMPLETE
        return Completeness.TRAILING if _TRAILING_ZH.search(bare) else Completeness.NEUTRAL
    words = _WORD.findall(bare.lower())
    if not words:
        return Completeness.NEUTRAL
    if words[-1] in _TRAILING_EN:
        return Completeness.TRAILING
    if words[-1] in _COMPLETE_EN or words[-2:] == ["thank", "you"] or (words[0] in _QUESTION_EN and len(words) >= 4):
        return Completeness.COMPLETE
    return Completeness.NEUTRAL


class TalkerPace:
    """This talker's habit: an exponential average of the pauses that turned out to be inside a sentence.

    Args:
        weight: how much the newest pause counts (0.3: three pauses make a habit).
        margin: how much longer than the habit to wait (a habit is a mean; half of the pauses are longer).
    """

    __slots__ = ("_margin", "_mean_ms", "_weight")

    def __init__(self, weight: float = 0.3, margin: float = 1.3) -> None:
        self._weight = weight
        self._margin = margin
        self._mean_ms: float | None = None

    @property
    def mean_pause_ms(self) -> float | None:
        """The average inner pause, or None before the first."""
        return self._mean_ms

    def paused_and_went_on(self, pause_ms: float) -> None:
        """Speech resumed after a pause of `pause_ms`."""
        previous = self._mean_ms
        self._mean_ms = pause_ms if previous is None else previous + self._weight * (pause_ms - previous)

    def finished(self) -> None:
        """A turn ended without an inner pause: the habit fades slowly."""
        if self._mean_ms is not None:
            self._mean_ms *= 1.0 - self._weight / 4

    def adapt_ms(self, base_ms: float, most_ms: float) -> float:
        """Lengthen `base_ms` to this talker's habit, to `most_ms` at the most; never shorten it."""
        if self._mean_ms is None:
            return base_ms
        return max(base_ms, min(most_ms, self._mean_ms * self._margin))


def hangover_ms(text: str, pace: TalkerPace, settings: TurnSettings, commands: frozenset[str] = frozenset()) -> float:
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
