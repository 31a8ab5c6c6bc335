"""How long to wait after the last voiced sample before the turn is the user's no more. Pure.

Two things move the wait: how likely what was said is a whole utterance (`turn/completeness.py`) and how this user
pauses inside sentences. Silences are audio time in milliseconds.
"""

import re
import unicodedata
from typing import Final

from xiaozhi.settings import TurnSettings
from xiaozhi.turn.completeness import PLAINLY_OPEN, PLAINLY_WHOLE, shipped_model

_CJK: Final = re.compile(r"[\u3400-\u9fff]")
# One of these is in each syllable that a recogniser of pinyin writes, without blanks between them.
_PINYIN_TONES: Final = re.compile("[āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ]")
# Where words have no blanks between them (Chinese, Japanese, Thai, Lao, Burmese, Khmer) a character counts as one.
_NO_BLANKS: Final = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD: Final = re.compile(rf"[{_NO_BLANKS}]|[^\W{_NO_BLANKS}](?:[^\W{_NO_BLANKS}]|')*")

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

    def restore(self, habit_ms: float) -> None:
        """What was learned in an earlier conversation, 0 for nothing; what this one has taught already goes before."""
        if self._habit_ms is None and habit_ms > 0.0:
            self._habit_ms = min(habit_ms, _MAX_HABIT_MS)

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

    `complete_ms` after what is plainly whole, `trailing_ms` after what is plainly not, `neutral_ms` half-way between,
    and in between in proportion. `commands` are texts known to be whole, as `plain` writes them.
    """
    if plain(text) in commands:
        return settings.complete_ms
    middle = (PLAINLY_WHOLE + PLAINLY_OPEN) / 2
    odds = shipped_model().log_odds(text, unknown=middle)
    if odds >= PLAINLY_WHOLE:
        return pace.adapt_ms(settings.complete_ms, settings.neutral_ms)
    if odds >= middle:
        share = (odds - middle) / (PLAINLY_WHOLE - middle)
        return pace.adapt_ms(_between(settings.neutral_ms, settings.complete_ms, share), settings.trailing_ms)
    share = min(1.0, (middle - odds) / (middle - PLAINLY_OPEN))
    return pace.adapt_ms(_between(settings.neutral_ms, settings.trailing_ms, share), settings.trailing_ms)


def is_plainly_whole(text: str, commands: frozenset[str] = frozenset()) -> bool:
    """Whether `text` is a whole sentence or one of `commands`, and no more is to be expected."""
    return plain(text) in commands or shipped_model().log_odds(text, unknown=PLAINLY_OPEN) >= PLAINLY_WHOLE


def _between(first_ms: float, second_ms: float, share: float) -> float:
    return first_ms + share * (second_ms - first_ms)


_NOISE: Final = re.compile(r"[\W_]+", re.UNICODE)


def plain(text: str) -> str:
    """Lower case without punctuation and blanks: two recognitions of the same words compare equal."""
    return _NOISE.sub("", text.lower())


# What a listener says, once or several times.
_BACKCHANNELS: Final = re.compile(
    "(?:嗯|哼|哦|噢|喔|啊|呃|额|对|好|的|是|行|呵|哈|嘿|唉"
    "|uh|huh|m*hm+|mm+|yeah|yes|yep|ok|okay|right|sure|oh|ah|aha|isee|wow|cool|nice)+"
)
# The same from a recogniser that writes pinyin, without its tones.
_PINYIN_BACKCHANNELS: Final = re.compile("(?:e?n+g?|o+|a+|e|dui|hao|de|shi|xing|heng|ha)+")


# What begins so is said to a reply, and does not go on with what was said before it.
_TO_REPLY: Final = re.compile(
    r"\W*(?:停|暂停|取消|别[说讲唱放吵闹动]|等等|等一下|等会|算了|够了|闭嘴|安静|不对|不是|错了|[不别]要?了"
    r"|(?:please |hey |ok |okay )*"
    r"(?:stop|wait|no|nope|quiet|be quiet|hold on|hang on|shut up|enough|never ?mind|cancel|pause|forget it|wrong)\b)"
)


def is_to_reply(text: str) -> bool:
    """Whether words spoken over a reply are about the reply: it is to stop, or is wrong."""
    return _TO_REPLY.match(text.lower()) is not None


def is_backchannel(text: str) -> bool:
    """Whether these words, or none, only say that somebody listens."""
    bare = plain(text)
    toneless = _without_tones(bare)
    units = _BACKCHANNELS if toneless == bare else _PINYIN_BACKCHANNELS
    return not bare or units.fullmatch(toneless) is not None


def _without_tones(text: str) -> str:
    """Pinyin as it is typed: without the marks above its vowels."""
    return "".join(mark for mark in unicodedata.normalize("NFD", text) if not unicodedata.combining(mark))


def joined(first: str, second: str) -> str:
    """Two parts of what a user said as one text; what a recogniser has put behind the first is no end."""
    first, second = first.rstrip("。.，,、…！!；;：: "), second.strip()
    if not first or not second:
        return first or second
    return first + ("" if _CJK.match(first[-1]) and _CJK.match(second[0]) else " ") + second


def interrupts(text: str) -> bool:
    """Whether words spoken over a reply are meant to stop it: two Chinese characters or two words, no backchannel."""
    bare = plain(text)
    if is_backchannel(text):
        return False
    if bare in {"停", "别", "stop", "wait", "quiet", "no"}:
        return True
    return words_in(text) >= 2


def words_in(text: str) -> int:
    """How many words a text has; a Chinese character is one, and one of any script without blanks, or of pinyin."""
    return max(len(_WORD.findall(text)), len(_PINYIN_TONES.findall(text.lower())))


def is_echo(text: str, spoken: str) -> bool:
    """Whether `text` is what the device itself just said, heard again by its microphone.

    True when at least 70 % of the character pairs of `text` occur in `spoken` (single-microphone boards with weak echo
    cancellation hear themselves with errors, so equality is not required).
    """
    heard, said = plain(text), plain(spoken)
    if len(heard) < 2 or not said:
        return bool(heard) and heard in said
    pairs = [heard[i : i + 2] for i in range(len(heard) - 1)]
    return sum(pair in said for pair in pairs) >= 0.7 * len(pairs)
