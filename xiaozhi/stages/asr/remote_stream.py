"""Recognisers on other machines that take sound while somebody speaks, over a WebSocket for each part of an utterance.

A part goes from a voice's onset, with pre-roll, to a question (the soft end). The service gets its sound as it comes
and is asked for its final text by the question. Whoever goes on behind a question begins another part; the text of the
utterance is that of its parts in a row. Silence behind a question is not sent.
"""

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from typing import Final, Protocol

import aiohttp
from yarl import URL

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.concurrency.workers import JobDropped
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript, join
from xiaozhi.stages.asr.offline import MAX_UNHEARD_S
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.remote import to_text
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse
from xiaozhi.upstream.connections import Connections, reason

PIECE_BYTES: Final = UPLINK_RATE_HZ * 40 // 1000 * 2
"""Sound in one message: 40 ms of int16, which is what Tencent's and iFlytek's documents ask for."""
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_MAX_MESSAGES: Final = 10_000
# Sound that has waited goes up at twice the speed of speech once 0.8 s of it are out: at most 2.8 s in any second,
# where Tencent refuses more than 3 s (error 4000).
_CATCH_UP: Final = 2.0
_BURST_S: Final = 0.4
# Of the silence before a voice that goes on behind a question.
_PRE_ROLL_SAMPLES: Final = UPLINK_RATE_HZ // 2


@dataclass(frozen=True, slots=True)
class Heard:
    """What a service has recognised of the sound of one connection.

    Attributes:
        text: all of it so far.
        final: it will not change, and the connection is of no further use.
    """

    text: str
    final: bool = False


class Dialect(Protocol):
    """What is said on one connection. Does no I/O."""

    @property
    def ready(self) -> bool:
        """The service takes sound now; until then only its messages are read."""
        ...

    def audio(self, pcm: bytes) -> str | bytes:
        """The message that carries int16[n] little-endian at 16 kHz."""
        ...

    def end(self) -> Sequence[str | bytes]:
        """The messages that ask for the final text."""
        ...

    def read(self, message: str | bytes) -> Heard | None:
        """Take a message of the service; None where it tells nothing of the text.

        Raises:
            RemoteError: it is no message of the service, or tells of an error.
        """
        ...


class StreamingService(Recognizer):
    """The base of engines that stream to another machine; they have to write `address` and `dialect`.

    Args:
        settings: limits.
    """

    remote: RemoteUse

    def __init__(self, settings: RemoteAsrSettings) -> None:
        self.remote = RemoteUse(self.name, settings)
        self.open_parts = 0
        """Connections of utterances that are open now."""
        self._connections = Connections(None, connect_s=settings.connect_timeout_s)

    @abstractmethod
    def address(self) -> str:
        """Where to connect now, signed if the service wants that.

        Raises:
            RemoteError: a credential is missing.
        """

    @abstractmethod
    def dialect(self) -> Dialect:
        """For a new connection."""

    def refusal(self, status: int, message: str) -> str:
        """A refused handshake in words."""
        return f"HTTP {status}: {message}"

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance; the connection is opened with its first sound."""
        return _StreamedUtterance(self, decoding, say)

    async def connect(self) -> None:
        """Connect once, until the service would take sound; no connection is kept.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        async with self.line() as (socket, dialect):
            await _until_ready(self.name, socket, dialect)

    async def disconnect(self) -> None:
        """Close what is open."""
        await self._connections.close()

    @asynccontextmanager
    async def line(self) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, Dialect]]:
        """A connection and what is said on it.

        Raises:
            RemoteError: no connection, refused, or broke within.
        """
        # Nobody waits for the other side's goodbye.
        waits = aiohttp.ClientWSTimeout(ws_close=0.1)
        try:
            async with self._connections.session.ws_connect(
                URL(self.address(), encoded=True), max_msg_size=_MAX_MESSAGE_BYTES, timeout=waits
            ) as socket:
                yield socket, self.dialect()
        except aiohttp.WSServerHandshakeError as error:
            raise RemoteError(f"{self.name}: {self.refusal(error.status, error.message)}") from error
        except aiohttp.ClientConnectorError as error:
            raise RemoteError(f"{self.name}: cannot be reached: {reason(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteError(f"{self.name}: {reason(error)}") from error

    @property
    def may_be_asked(self) -> bool:
        """It does not rest, and has not too much to do."""
        use = self.remote
        return self.open_parts < use.settings.max_concurrent and use.breaker.would_admit(use.clock())


class _StreamedUtterance:
    """Sends the utterance as it comes, in parts; see the module.

    Args:
        engine: the service.
        decoding: whether texts are shown while somebody speaks.
        say: takes the text so far; None where nobody wants it.
    """

    def __init__(self, engine: StreamingService, decoding: Decoding, say: Say | None) -> None:
        self._engine, self._partials, self._say = engine, decoding.partials, say
        self._parts: list[_Part] = []
        self._samples = 0
        self._unsent: deque[PcmFloat] = deque()  # silence behind the last part
        self._shown = ""

    @property
    def ready(self) -> bool:
        """The service has told the final text of all that may be speech."""
        return bool(self._parts) and all(part.heard.final for part in self._parts)

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio."""
        self._samples += len(pcm)
        if self._samples > self._engine.remote.settings.max_audio_s * UPLINK_RATE_HZ:
            self._leave()  # it is too long to be asked for
        elif self._parts and not self._parts[-1].ended:
            self._parts[-1].feed(pcm)
        else:
            self._unsent.append(pcm)
            if silence_ms * UPLINK_RATE_HZ / 1000.0 < len(pcm):  # voiced
                while len(self._unsent) > 1 and self._unsent_samples - len(pcm) > _PRE_ROLL_SAMPLES:
                    self._unsent.popleft()
                self._begin()

    @property
    def _unsent_samples(self) -> int:
        return sum(map(len, self._unsent))

    def _begin(self) -> None:
        """Begin another part, unless one has failed: the text of the utterance would have a hole."""
        if not any(part.failed for part in self._parts):
            self._parts.append(_Part(self._engine, self._show))
            for pcm in self._unsent:
                self._parts[-1].feed(pcm)
        self._unsent.clear()

    async def transcribe(self, question: Question) -> Transcript:
        """Ask for the final text of what was sent; nothing is provisional.

        Raises:
            JobDropped: the utterance was closed.
            RemoteError: the service failed at a part of it, or (without a text) may not be asked now.
        """
        if question.held and self._unsent_samples > MAX_UNHEARD_S * UPLINK_RATE_HZ:
            self._begin()
        parts = tuple(self._parts)
        if not parts:
            return Transcript("")
        if any(part.refused for part in parts):
            raise RemoteError
        if not self.ready:
            async with self._engine.remote.request(self._samples):
                parts[-1].end()
                for part in parts:
                    await asyncio.wait([part.task])  # closing cancels it, and this must not look like cancelled
                    if part.task.cancelled():
                        raise JobDropped("the utterance is over")
                    part.task.result()
        return reduce(join, (to_text(part.heard.text, self._engine.name, self._limit) for part in parts))

    @property
    def _limit(self) -> int:
        return self._engine.remote.settings.max_text_chars

    def _show(self) -> None:
        if self._say is None or not self._partials.on:
            return
        parts = [Transcript(part.heard.text[: self._limit]) for part in self._parts]
        text = reduce(join, parts).text
        if text and text != self._shown:
            self._shown = text
            self._partials.shown += 1
            self._say(text)

    def close(self) -> None:
        """Leave the service; nothing is shown any more."""
        self._say = None
        self._leave()

    def _leave(self) -> None:
        self._unsent.clear()
        for part in self._parts:
            part.task.cancel()


class _Part:
    """One connection: sound up, texts down. Its task ends with the final text, or by raising why there is none.

    Args:
        engine: the service.
        show: called when the text so far has changed.
    """

    def __init__(self, engine: StreamingService, show: Callable[[], None]) -> None:
        self._engine, self._show = engine, show
        self.heard = Heard("")
        self.refused = not engine.may_be_asked
        """It was not even connected."""
        self._waiting: deque[PcmFloat] = deque()
        self._asked = self._end_sent = False
        self._news = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._talk(), name="asr-stream")
        self.task.add_done_callback(_look)

    @property
    def failed(self) -> bool:
        """There will be no text."""
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    @property
    def ended(self) -> bool:
        """It takes no further sound."""
        return self._asked or self.task.done()

    def feed(self, pcm: PcmFloat) -> None:
        self._waiting.append(pcm)
        self._news.set()

    def end(self) -> None:
        """Ask for the final text."""
        self._asked = True
        self._news.set()

    async def _talk(self) -> None:
        if self.refused:
            raise RemoteError
        self._engine.open_parts += 1
        try:
            async with self._engine.line() as (socket, dialect):
                await _until_ready(self._engine.name, socket, dialect)
                sending = asyncio.create_task(self._send(socket, dialect), name="asr-stream-send")
                try:
                    await self._read(socket, dialect)
                finally:
                    sending.cancel()
        finally:
            self._engine.open_parts -= 1

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, dialect: Dialect) -> None:
        for _ in range(_MAX_MESSAGES):
            heard = dialect.read(await _message(self._engine.name, socket))
            if heard is None:
                continue
            if heard.final and not self._end_sent:
                raise RemoteError(f"{self._engine.name}: ended before the sound did")
            self.heard = heard
            if heard.final:
                return
            self._show()
        raise RemoteError(f"{self._engine.name}: sends without an end")

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, dialect: Dialect) -> None:
        loop = asyncio.get_running_loop()
        piece_s = PIECE_BYTES / 2 / UPLINK_RATE_HZ / _CATCH_UP
        due_s, data = 0.0, bytearray()
        with suppress(ConnectionError):  # whoever reads is told why, or that it is so
            while not self._end_sent:
                while self._waiting:
                    data += to_int16(self._waiting.popleft()).astype("<i2", copy=False).tobytes()
                while len(data) >= PIECE_BYTES or (self._asked and data):
                    due_s = max(due_s, loop.time() - _BURST_S) + piece_s
                    if (early_s := due_s - loop.time()) > 0.0:
                        await asyncio.sleep(early_s)
                    await _put(socket, dialect.audio(bytes(data[:PIECE_BYTES])))
                    del data[:PIECE_BYTES]
                if self._waiting:
                    continue
                if self._asked:
                    self._end_sent = True
                    for message in dialect.end():
                        await _put(socket, message)
                    return
                self._news.clear()
                await self._news.wait()


async def _put(socket: aiohttp.ClientWebSocketResponse, message: str | bytes) -> None:
    await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))


async def _message(name: str, socket: aiohttp.ClientWebSocketResponse) -> str | bytes:
    message = await socket.receive()
    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        raise RemoteError(f"{name}: the connection ended before the text")
    data: str | bytes = message.data
    return data


async def _until_ready(name: str, socket: aiohttp.ClientWebSocketResponse, dialect: Dialect) -> None:
    for _ in range(_MAX_MESSAGES):
        if dialect.ready:
            return
        dialect.read(await _message(name, socket))
    raise RemoteError(f"{name}: sends without an end")


def _look(task: asyncio.Task[None]) -> None:
    """Look at the exception of a connection that perhaps nobody asks for."""
    if not task.cancelled():
        task.exception()
