"""The recognition stage: speech and questions in, texts out."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from xiaozhi.concurrency.workers import JobDropped, Priority, Rank, client_rank
from xiaozhi.events import SpeechAudio, SpeechBegan
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.recogniser import Question, Say, Utterance

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """Recognise the open utterance up to here.

    Attributes:
        ticket: comes back with the text.
        priority: among all that is to be recognised.
        rank: the user's.
        held: the user held a key, so that what is silent may hold a whisper.
    """

    ticket: int
    priority: Priority
    rank: Rank = Rank.NORMAL
    held: bool = False


@dataclass(frozen=True, slots=True)
class Recognised:
    """The answer to `Ask`.

    Attributes:
        ticket: of the question.
        transcript: the text; empty when recognition failed before there was any.
        took_s: from the question to this answer, waiting for a worker included.
        error: why recognition failed, empty when it did not.
        provisional: a reply may be prepared, but another answer with the same ticket confirms or corrects this one.
    """

    ticket: int
    transcript: Transcript
    took_s: float
    error: str = ""
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class PartialText:
    """What has been recognised so far of the utterance with this number, which goes on; see `Say`."""

    utterance: int
    text: str
    settled: Transcript | None = None


class Ears(Protocol):
    """Begins utterances, see `Recognition`."""

    @property
    def full(self) -> bool:
        """So much waits for recognition that another answer would come too late to be worth waiting for."""
        ...

    @property
    def max_wait_s(self) -> float:
        """A question that no worker has begun by then is given up, in seconds."""
        ...

    def begin(self, say: Say | None = None) -> Utterance:
        """Begin an utterance."""
        ...


class AsrStage:
    """Takes one conversation's speech and questions, and says an answer, if only an error, for all not overtaken.

    A newer question makes an older one that has not begun to be decoded stale. Audio is taken while decoding runs. With
    a two-pass recogniser a provisional answer may come first. Where `recognition.partials` are on, or nothing more may
    be said, the text so far is said while the utterance goes on; never that of an utterance that is over.

    Args:
        recognition: the shared recogniser.
        say: takes the answers, and what is known meanwhile.
        timeout_s: for one answer.
    """

    def __init__(self, recognition: Ears, say: Callable[[Recognised | PartialText], None], timeout_s: float) -> None:
        self._recognition = recognition
        self._say = say
        self._timeout_s = timeout_s
        self._utterance: Utterance | None = None  # the open one
        self._newest = -1  # question

    def speech(self, event: SpeechBegan | SpeechAudio) -> None:
        """The open utterance goes on, or another one begins."""
        if isinstance(event, SpeechBegan):
            self.forget()
            self._utterance = self._recognition.begin(partial(self._show, event.utterance))
            self._utterance.feed(event.pcm)
        elif self._utterance is not None:  # else it was closed while this was on its way
            self._utterance.feed(event.pcm, event.silence_ms - event.unsent_ms)

    def ask(self, asked: Ask, tasks: asyncio.TaskGroup) -> None:
        """Answer a question about the open utterance, in a task of this group."""
        self._newest = asked.ticket
        if self._utterance is None:
            self._say(Recognised(asked.ticket, Transcript(""), 0.0))
        else:
            tasks.create_task(self._answer(asked, self._utterance), name="asr-decode")

    def forget(self) -> None:
        """The open utterance is over, where there is one; what waits for a worker is stale."""
        utterance, self._utterance, self._newest = self._utterance, None, -1
        if utterance is not None:
            utterance.close()

    def _show(self, utterance: int, text: str, settled: Transcript | None = None) -> None:
        self._say(PartialText(utterance, text, settled))

    async def _answer(self, asked: Ask, utterance: Utterance) -> None:
        if asked.ticket != self._newest:  # overtaken, or the utterance closed, before this task began
            return
        client_rank.set(asked.rank)  # of this task alone
        loop = asyncio.get_running_loop()
        began = loop.time()
        transcript, error = Transcript(""), ""

        def provisionally(text: Transcript) -> None:
            nonlocal transcript
            transcript = text  # it stays the answer when its confirmation fails
            self._say(Recognised(asked.ticket, text, loop.time() - began, provisional=True))

        if self._recognition.full:
            error = "too many utterances wait for recognition (asr.max_concurrent)"
            _log.warning("%s", error)
            self._say(Recognised(asked.ticket, transcript, 0.0, error))
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                transcript = await utterance.transcribe(
                    Question(
                        asked.priority,
                        lambda: asked.ticket != self._newest,
                        provisionally,
                        asked.held,
                        self._recognition.max_wait_s,
                    )
                )
        except JobDropped as dropped:
            if asked.ticket != self._newest:
                return
            error = f"recognition was given up: {dropped}"
        except TimeoutError:
            error = f"recognition took over {self._timeout_s:g} s"
        except EngineError as failure:
            error = str(failure)
        except Exception:  # noqa: BLE001 - a fault in one decode must not end the conversation; it is logged whole
            error = "recognition failed"
            _log.exception("recognition failed")
        if error:
            _log.warning("%s", error)
        self._say(Recognised(asked.ticket, transcript, loop.time() - began, error))
