"""Two parts of one utterance as one transcript. Pure."""

from typing import Final

from xiaozhi.stages.asr.engine import Transcript

_CJK_END: Final = range(0x2E80, 0xA000)


def join(first: Transcript, second: Transcript) -> Transcript:
    """Two parts of one utterance as one transcript; a full stop that the cut put between them is taken out."""
    if not first.text:
        return second
    if not second.text:
        return first
    head = first.text.strip().rstrip("。.,，")
    tail = second.text.strip()
    glue = "" if ord(head[-1:] or " ") in _CJK_END or ord(tail[:1] or " ") in _CJK_END else " "
    return Transcript(
        head + glue + tail,
        language=second.language or first.language,
        emotion=second.emotion or first.emotion,
        events=tuple(dict.fromkeys(first.events + second.events)),
        confidence=max(first, second, key=lambda part: len(part.text)).confidence,
    )
