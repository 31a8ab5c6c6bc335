"""Recognisers on other machines that take sound while somebody speaks.

Sound goes up as it comes, over a WebSocket that is opened at the onset of the voice: the handshake is over long before
the utterance is. The soft end asks the service for the text of all that was sent up to there.
"""

import asyncio
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import aiohttp
import numpy as np
import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, PcmInt, to_int16
from xiaozhi.concurrency.workers import JobDropped
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.offline import MAX_UNHEARD_S
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections, put, reason

_log = logging.getLogger(__name__)

Message: TypeAlias = str | bytes

_MAX_MESSAGE_BYTES: Final = 1024 * 1024
# What has waited for the connection goes up in pieces of this: Deepgram takes up to 0.25 s, the others more.
_PIECE_SAMPLES: Final = UPLINK_RATE_HZ // 5
# Connections that wait for the next utterance: how many, how long, and how often they say that they are there.
MAX_SPARE: Final = 8
SPARE_S: Final = 60.0
_KEEP_ALIVE_S: Final = 4.0


class StreamProtocol(Protocol):
    """The messages of one connection, without the connection: sound and questions in, texts out.

    Attributes:
        text: of the utterance so far, final or not.
        answered: how many questions of this utterance `text` answers.
    """

    text: str
    answered: int

    def begin(self) -> Sequence[Message]:
        """What comes from now on belongs to another utterance, which this begins; what was left unasked was silence."""
        ...

    def sound(self, pcm: PcmInt) -> Sequence[Message]:
        """What sends int16[n] at 16 kHz up."""
        ...

    def ask(self, voiced_samples: int) -> Sequence[Message]:
        """What asks for the text of all sound so far; nothing that is voiced lies behind `voiced_samples` of it."""
        ...

    def keep_alive(self) -> Sequence[Message]:
        """What a connection says that waits for the next utterance."""
        ...

    def receive(self, said: Any) -> None:
        """Take a message of the service.

        Raises:
            RemoteError: it tells of an error.
            ValueError, KeyError, TypeError, AttributeError, IndexError: it is none that the service would send.
        """
        ...


@dataclass(slots=True, eq=False)
class StreamConnection:
    """An open connection, in the service of one utterance after another; a broken one serves none."""

    socket: aiohttp.ClientWebSocketResponse
    protocol: StreamProtocol
    broken: bool = False

    async def send(self, messages: Sequence[Message]) -> None:
        """Send them in their order.

        Raises:
            aiohttp.ClientError, OSError: the connection broke.
        """
        for message in messages:
            await put(self.socket, message)

    async def receive(self, name: str) -> None:
        """Wait for a message and take it.

        Raises:
            RemoteError: it tells of an error or is none, or the connection ended.
        """
        message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.broken = True
            said = one_line(message.extra, MAX_SHOWN_CHARS) if isinstance(message.extra, str) else ""
            raise RemoteError(": ".join(filter(None, (name, "the connection ended before the text", said))))
        try:
            self.protocol.receive(bounded_json.loads(message.data))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self.broken = True
            shown = one_line(message.data, MAX_SHOWN_CHARS)
            raise RemoteError(f"{name}: sent something that is not an answer: {shown}") from error
        except RemoteError:
            self.broken = True
            raise


class StreamRecognizer(Recognizer):
    """The base of engines that stream; they have to write `dial` and the protocol of their service.

    Args:
        settings: limits.
    """

    remote: RemoteUse
    advice: dict[int, str] = {}  # noqa: RUF012 - engines replace it, nobody writes to it
    """What to do about a handshake that is refused, by its status."""

    def __init__(self, settings: RemoteAsrSettings) -> None:
        self.remote = RemoteUse(self.name, settings)
        self.open_streams = 0
        """Utterances that go up now."""
        self.connections = Connections(None, connect_s=settings.connect_timeout_s, limit=settings.max_concurrent + 8)
        self._spare: dict[StreamConnection, asyncio.Task[None]] = {}

    @abstractmethod
    async def dial(self) -> StreamConnection:
        """Open a connection and say what is wanted of it.

        Raises:
            aiohttp.ClientError, OSError: it cannot be reached.
            RemoteError: a key is missing.
        """

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance; its sound goes up at once, unless the service is left alone now."""
        return StreamUtterance(self, decoding, say)

    async def socket(self, url: str, headers: dict[str, str]) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket that notices a line that is dead."""
        return await self.connections.websocket(url, max_bytes=_MAX_MESSAGE_BYTES, headers=headers, heartbeat=10.0)

    async def take(self) -> StreamConnection:
        """A connection for an utterance: one that waits, or a new one.

        Raises:
            RemoteError: there is none.
        """
        while self._spare:
            connection, waiting = self._spare.popitem()  # the one that waited least
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            with suppress(aiohttp.ClientError, OSError):
                if not (connection.broken or connection.socket.closed):
                    await connection.send(connection.protocol.begin())
                    return connection
        limit_s = self.remote.settings.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self.dial()
        except aiohttp.WSServerHandshakeError as error:
            said = (error.headers.get("dg-error") if error.headers else None) or error.message
            parts = (self.name, f"HTTP {error.status}", self.advice.get(error.status, ""), one_line(said, 120))
            raise RemoteError(": ".join(filter(None, parts))) from error
        except TimeoutError as error:
            raise RemoteError(f"{self.name}: no connection within {limit_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RemoteError(f"{self.name}: cannot be reached: {reason(error)}") from error

    async def give_back(self, connection: StreamConnection, *, quiet: bool) -> None:
        """Keep a connection for the next utterance where nothing is under way on it; close it otherwise."""
        if quiet and not (connection.broken or connection.socket.closed) and len(self._spare) < MAX_SPARE:
            self._spare[connection] = asyncio.create_task(self._wait(connection), name="asr-spare")
        else:
            await connection.socket.close()

    async def _wait(self, connection: StreamConnection) -> None:
        """Keep an unused connection open; what is said to nobody is dropped."""
        with suppress(RemoteError, aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(SPARE_S):
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_KEEP_ALIVE_S):
                            await connection.receive(self.name)
                        continue
                    await connection.send(connection.protocol.keep_alive())
        self._spare.pop(connection, None)
        await connection.socket.close()

    async def connect(self) -> None:
        """Open a connection ahead, which the first utterance takes.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        await self.give_back(await self.take(), quiet=True)

    async def disconnect(self) -> None:
        """Close all that is open."""
        waiting = list(self._spare.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for connection in list(self._spare):
            await connection.socket.close()
        self._spare.clear()
        await self.connections.close()


class StreamUtterance:
    """Sends an utterance up while it goes on, and shows what comes down.

    One question serves until something voiced follows what it asked for. A failure is told where somebody asks.

    Args:
        engine: the recogniser.
        decoding: whether texts are shown while somebody speaks.
        say: takes the text so far; None where nobody wants it.
    """

    ready = False

    def __init__(self, engine: StreamRecognizer, decoding: Decoding, say: Say | None = None) -> None:
        self._engine, self._partials, self._say = engine, decoding.partials, say
        self._up: deque[PcmFloat | int] = deque()  # sound, and where it is asked for: how much of it is voiced
        self._fed, self._changed = asyncio.Event(), asyncio.Event()
        self._samples = self._voiced_samples = self._asked_samples = 0
        self._questions = self._answered = 0
        self._text = ""
        self._failure: RemoteError | None = None
        self._ending = False  # cancelled once, or on its way out: nothing may keep the connection from being closed
        self._streaming: asyncio.Task[None] | None = None
        use = engine.remote
        if use.breaker.would_admit(use.clock()) and engine.open_streams < use.settings.max_concurrent:
            engine.open_streams += 1
            self._streaming = asyncio.create_task(self._stream(), name="asr-stream")
            self._streaming.add_done_callback(self._ended)

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio; it goes up at once. What is longer than `max_audio_s` is not sent."""
        self._samples += len(pcm)
        self._voiced_samples = self._samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)
        if self._failure is None and self._samples <= self._engine.remote.settings.max_audio_s * UPLINK_RATE_HZ:
            self._up.append(pcm)
            self._fed.set()

    async def transcribe(self, question: Question) -> Transcript:
        """Ask for everything that was sent, unless that was asked already; nothing is provisional.

        Raises:
            RemoteError: the service failed at this utterance, before or now, or is left alone.
            JobDropped: the utterance was closed.
        """
        if not self._samples:
            return Transcript("")
        number = self._questions
        unheard = self._samples - self._asked_samples
        covered = number > 0 and self._asked_samples >= self._voiced_samples
        if not covered or (question.held and unheard > MAX_UNHEARD_S * UPLINK_RATE_HZ):
            if self._streaming is None:
                raise RemoteError
            number = self._questions = self._questions + 1
            self._asked_samples = self._samples
            self._up.append(self._samples if question.held else self._voiced_samples)
            self._fed.set()
        if self._answered < number:
            async with self._engine.remote.request(self._samples):
                await self._answer(number)
        return Transcript(self._text[: self._engine.remote.settings.max_text_chars])

    async def _answer(self, number: int) -> None:
        while self._answered < number:
            if self._failure is not None:
                raise self._failure
            if self._streaming is None or self._streaming.done():
                raise JobDropped("closed")
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Show nothing any more; the connection is kept for others where nothing is under way on it."""
        self._say = None
        self._up.clear()
        if self._streaming is not None and not self._ending:
            self._ending = True
            self._streaming.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._engine.open_streams -= 1
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            self._failure = RemoteError(f"{self._engine.name}: {type(error).__name__}")
        self._changed.set()

    async def _stream(self) -> None:
        connection: StreamConnection | None = None
        sending: asyncio.Task[None] | None = None
        try:
            connection = await self._engine.take()
            sending = asyncio.create_task(self._send(connection), name="asr-stream-up")
            while True:
                await connection.receive(self._engine.name)
                self._take(connection.protocol)
        except RemoteError as error:
            self._failure = error
        finally:
            self._ending = True
            self._up.clear()
            if sending is not None:
                sending.cancel()
                (outcome,) = await asyncio.gather(sending, return_exceptions=True)
                if isinstance(outcome, Exception):
                    _log.error("%s: nothing went up", self._engine.name, exc_info=outcome)
            if connection is not None:
                await self._engine.give_back(connection, quiet=self._is_quiet())

    def _is_quiet(self) -> bool:
        """The service owes nothing: it has answered, and what came behind the question was silence."""
        all_told = self._answered == self._questions > 0
        return all_told and self._failure is None and self._asked_samples >= self._voiced_samples

    async def _send(self, connection: StreamConnection) -> None:
        with suppress(aiohttp.ClientError, OSError):  # who receives finds out as well, and says why
            while True:
                await self._fed.wait()
                self._fed.clear()
                while self._up:
                    await connection.send(self._next(connection.protocol))
                    self._take(connection.protocol)  # there may be nothing to ask

    def _next(self, protocol: StreamProtocol) -> Sequence[Message]:
        """What goes up next: a question, or the sound up to the next one, in pieces."""
        first = self._up.popleft()
        if isinstance(first, int):
            return protocol.ask(first)
        chunks, samples = [first], len(first)
        while self._up and samples < _PIECE_SAMPLES and not isinstance(chunk := self._up[0], int):
            chunks.append(chunk)
            samples += len(chunk)
            self._up.popleft()
        return protocol.sound(to_int16(np.concatenate(chunks)))

    def _take(self, protocol: StreamProtocol) -> None:
        news = protocol.text != self._text
        self._text, self._answered = protocol.text, protocol.answered
        if news and self._text and self._say is not None and self._partials.on:
            self._partials.shown += 1
            self._say(self._text[: self._engine.remote.settings.max_text_chars])
        self._changed.set()


def as_json(**fields: object) -> str:
    """A message."""
    return orjson.dumps(fields).decode()
