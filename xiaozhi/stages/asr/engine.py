"""What a recogniser is. Engines are blocking and run on the shared recognition pool, never on the loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from xiaozhi.audio.pcm import PcmFloat


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


@runtime_checkable
class OfflineRecognizer(Protocol):
    """Decodes a whole utterance at once.

    An engine that knows some languages only says which: `languages`, a frozenset of `zh`, `en` ….
    """

    name: str

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Blocking, thread-safe, holds the GIL for less than 5 ms at a time."""
        ...

    def close(self) -> None:
        """Free what the engine holds (processes, models)."""
        ...


@runtime_checkable
class BatchRecognizer(OfflineRecognizer, Protocol):
    """Decodes several utterances as one, for less than it costs to decode them one by one where there is a GPU."""

    def decode_many(self, pcms: Sequence[PcmFloat]) -> list[Transcript]:
        """Recognise utterances, each float32[n] at 16 kHz; the transcripts come in their order. Blocking."""
        ...


class RecognizerStream(Protocol):
    """One utterance being recognised while it is spoken. Calls on one stream never overlap."""

    def accept(self, pcm: PcmFloat) -> str:
        """Feed float32[n] at 16 kHz, decode what is ready and return the text so far. Blocking."""
        ...

    def finish(self) -> Transcript:
        """Flush with silence and return the whole text. More audio may follow: the user went on. Blocking."""
        ...


@runtime_checkable
class StreamingRecognizer(Protocol):
    """Recognises while the user speaks; `languages` as above."""

    name: str

    def open(self) -> RecognizerStream:
        """Begin an utterance. Cheap; safe from any thread."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


Recognizer: TypeAlias = OfflineRecognizer | StreamingRecognizer
