"""What recognition is about: transcripts, and what can go wrong on the way to one."""

from dataclasses import dataclass
from typing import Final

# Chinese and Japanese, with their punctuation; those of full width stand apart from the rest.
_CJK: Final = (range(0x2E80, 0xA000), range(0xFF00, 0xFFA0))


class EngineError(Exception):
    """An engine cannot be built or used; the message says what is wrong and what to do about it, in one line."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said.

    Attributes:
        text: plain text, without the engine's tags; empty when nothing was understood.
        language: `zh`, `en`, `yue`, `ja`, `ko` or empty when the engine does not say.
        emotion: what the voice sounded like (`happy`, `sad`, `angry`, …), empty when the engine does not say.
        events: sounds beside speech (`laughter`, `applause`, `music`, `cough` …).
        confidence: `sure` or `doubtful` that these are the words, empty when the engine does not say.
    """

    text: str
    language: str = ""
    emotion: str = ""
    events: tuple[str, ...] = ()
    confidence: str = ""


def join(first: Transcript, second: Transcript) -> Transcript:
    """Two parts of one utterance as one transcript; a full stop that the cut put between them is taken out."""
    if not first.text:
        return second
    if not second.text:
        return first
    return Transcript(
        run_on(first.text.strip().rstrip("。.,，"), second.text),
        language=second.language or first.language,
        emotion=second.emotion or first.emotion,
        events=tuple(dict.fromkeys(first.events + second.events)),
        confidence=max(first, second, key=lambda part: len(part.text)).confidence,
    )


def run_on(head: str, tail: str) -> str:
    """Two pieces of a text as one, with a blank between them where the script has one."""
    head, tail = head.strip(), tail.strip()
    if not head or not tail:
        return head + tail
    blank = not any(ord(edge) in cjk for edge in (head[-1], tail[0]) for cjk in _CJK)
    return f"{head} {tail}" if blank else head + tail
