"""The recognition stage: speech and questions in, texts out."""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import JobDropped, Priority, Rank, client_rank
from xiaozhi.events import SpeechAudio, SpeechBegan
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.recogniser import Question, Utterance
from xiaozhi.stages.asr.recognition import Recognition

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
class Forget:
    """The open utterance is over."""


AsrInput: TypeAlias = SpeechBegan | SpeechAudio | Ask | Forget


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


async def run_asr(
    inbox: Channel[AsrInput],
    texts: Channel[Recognised | PartialText],
    recognition: Recognition,
    timeout_s: float,
) -> None:
    """Read speech and questions until `inbox` ends; put an answer, if only an error, for all that are not overtaken.

    A newer question makes an older one that has not begun to be decoded stale. Audio is taken while decoding runs. With
    a two-pass recogniser a provisional answer may come first. Where `recognition.partials` are on, or nothing more may
    be said, the text so far is put while the utterance goes on; never that of an utterance that is over.
    """
    open_utterance: Utterance | None = None
    newest = 0
    loop = asyncio.get_running_loop()

    async def answer(asked: Ask, utterance: Utterance) -> None:
        if asked.ticket != newest:  # overtaken, or the utterance closed, before this task began
            return
        client_rank.set(asked.rank)  # of this task alone
        began = loop.time()
        transcript, error = Transcript(""), ""

        def provisionally(text: Transcript) -> None:
            nonlocal transcript
            transcript = text  # it stays the answer when its confirmation fails
            texts.put_nowait(Recognised(asked.ticket, text, loop.time() - began, provisional=True))

        if recognition.full:
            error = "too many utterances wait for recognition (asr.max_concurrent)"
            _log.warning("%s", error)
            texts.put_nowait(Recognised(asked.ticket, transcript, 0.0, error))
            return
        try:
            async with asyncio.timeout(timeout_s):
                transcript = await utterance.transcribe(
                    Question(asked.priority, lambda: asked.ticket != newest, provisionally, asked.held)
                )
        except JobDropped:
            if asked.ticket != newest:
                return
            error = "recognition was given up"
        except TimeoutError:
            error = f"recognition took over {timeout_s:g} s"
        except EngineError as failure:
            error = str(failure)
        except Exception:  # noqa: BLE001 - a fault in one decode must not end the conversation; it is logged whole
            error = "recognition failed"
            _log.exception("recognition failed")
        if error:
            _log.warning("%s", error)
        texts.put_nowait(Recognised(asked.ticket, transcript, loop.time() - began, error))

    def say(utterance: int, text: str, settled: Transcript | None = None) -> None:
        texts.put_nowait(PartialText(utterance, text, settled))

    try:
        async with asyncio.TaskGroup() as decodes:
            async for item in inbox:
                match item:
                    case SpeechBegan():
                        if open_utterance is not None:
                            open_utterance.close()
                        open_utterance = recognition.begin(partial(say, item.utterance))
                        open_utterance.feed(item.pcm)
                    case SpeechAudio() if open_utterance is not None:
                        open_utterance.feed(item.pcm, item.silence_ms - item.unsent_ms)
                    case Ask() if open_utterance is not None:
                        newest = item.ticket
                        decodes.create_task(answer(item, open_utterance), name="asr-decode")
                    case Ask():
                        newest = item.ticket
                        texts.put_nowait(Recognised(item.ticket, Transcript(""), 0.0))
                    case Forget():
                        if open_utterance is not None:
                            open_utterance.close()
                        open_utterance = None
                        newest = -1  # what waits for a worker is stale
                    case SpeechAudio():
                        pass  # behind a Forget: the utterance was closed while this was on its way
    finally:
        if open_utterance is not None:
            open_utterance.close()
        texts.close()
