"""What a recogniser is: one for all conversations, an utterance opened for each thing that somebody says."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.remote_use import RemoteUse


class Say(Protocol):
    """Called on the loop with the whole text of an utterance so far, while it goes on."""

    def __call__(self, text: str, settled: Transcript | None = None, /) -> None:
        """Take it.

        Args:
            text: to be shown, where `decoding.partials` are on.
            settled: the same text, where the voice is silent and it has all that was said up to there: it is the answer
                unless more is said. Told whether partial texts are shown or not.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What was said up to here?

    Attributes:
        priority: of the decode.
        is_stale: nobody waits for the answer any more.
        provisional: called at most once, with a text that is known before the one that is returned.
        held: a key is held, and a long silence may hold a whisper that the VAD missed; otherwise all that is silent
            holds nothing, and what has been recognised up to there is the whole text.
        within_s: a decode that no worker has begun by then comes too late for whoever asks.
    """

    priority: Priority = Priority.FINAL
    is_stale: Callable[[], bool] = lambda: False
    provisional: Callable[[Transcript], None] = lambda _text: None
    held: bool = True
    within_s: float = math.inf


class Utterance(Protocol):
    """Sound on its way to text."""

    @property
    def ready(self) -> bool:
        """The whole text is known without waiting."""
        ...

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add float32[n] at 16 kHz, after which the voice has been silent for `silence_ms`. Never waits.

        Sound comes from the onset (with pre-roll) to the end of the utterance; a recogniser that streams sends or
        decodes it as it comes.
        """
        ...

    async def transcribe(self, question: Question) -> Transcript:
        """Recognise everything fed so far. More may be fed while this runs and afterwards.

        Raises:
            JobDropped: `question.is_stale()` became true before a worker was free, none was within `question.within_s`,
                or the pool is closed.
            EngineError: recognition failed.
        """
        ...

    def close(self) -> None:
        """Forget the audio and show nothing any more; a running decode is left to finish, a request is closed."""
        ...


@dataclass(frozen=True, slots=True)
class Quickest:
    """How this machine recognises soonest, as it was measured (`xiaozhi.plan.calibration`).

    Attributes:
        variant: of the model's files, as `Recognizer.variants` names them; empty before anything was measured.
        lone_threads: of a decode while nobody else is being recognised.
    """

    variant: str = ""
    lone_threads: int = 1


@dataclass(frozen=True, slots=True)
class RecognizerContext:
    """What an engine is built from.

    Attributes:
        settings: the `[asr]` table; an engine's own one has its name.
        models_dir: `dir` of the `[models]` table.
        phrases: what the built-in responder understands.
        quickest: what was measured.
    """

    settings: AsrSettings
    models_dir: Path
    phrases: Sequence[str]
    quickest: Quickest = Quickest()

    def folder(self, name: str) -> Path:
        """Where a model is: where the settings say, else in the folder of its name."""
        return self.settings.model_dir or self.models_dir / name


class Recognizer(Protocol):
    """Recognises speech: here, on another machine, or by other recognisers. One object serves every conversation.

    Engines build on `OfflineRecognizer`, `StreamingRecognizer`, `RemoteRecognizer` or `LiveRecognizer` (a service that
    takes sound while somebody speaks), which bring all but the decoding. What an engine says nothing about is as it is
    here.

    Attributes:
        name: of the engine, as in `asr.engine`.
        about: one line for the start-up banner, its name first.
        languages: what it knows (`zh`, `en` …); empty where nobody can tell.
        batches: several utterances are decoded as one for less than they cost one by one.
        names: that are said in this house, the most important first; for services that take hot words.
        remote: how its service does, where it recognises elsewhere; a local recogniser is put behind it then.
    """

    name: str = ""
    about: str = ""
    languages: frozenset[str] = frozenset()
    batches: bool = False
    remote: RemoteUse | None = None
    names: Sequence[str] = ()

    @classmethod
    def build(cls, context: RecognizerContext) -> "Recognizer":
        """Build the engine from settings. Blocking.

        Raises:
            EngineError: it cannot be used; one line with what to do.
        """
        return cls()

    @classmethod
    def variants(cls, context: RecognizerContext) -> "Mapping[str, Callable[[int], Recognizer]]":
        """Ways to load the model that answer alike, by name, the usual one last: each with so many threads. Blocking.

        Raises:
            EngineError: there is no model, or it is unfit.
        """
        return {}

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance; `say` takes its text while it goes on."""
        ...

    def tell_names(self, names: Sequence[str]) -> None:
        """These names are said in this house, from the next utterance on."""
        self.names = names

    async def warm(self, pool: WorkerPool) -> None:
        """Run local models once, so that the first user does not pay for the first run."""
        return

    async def connect(self) -> None:
        """Open what can be opened ahead at a service, without spending money.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        return

    async def disconnect(self) -> None:
        """Close the connections to a service."""
        return

    def close(self) -> None:
        """Free what is held here (processes, models). Blocking."""
        return
