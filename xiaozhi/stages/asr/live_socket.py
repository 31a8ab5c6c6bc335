"""Services that are sent sound, and send texts, in messages over a WebSocket: the connection, without the messages.

It is opened at the onset of the voice, so that the handshake is over long before the utterance is, and kept for the
next stream where the service takes several.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import aiohttp
from yarl import URL

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.live import Heard, LiveRecognizer, Sound, in_background
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections, NotOpened, put, reason

Message: TypeAlias = str | bytes

_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_MAX_MESSAGES: Final = 10_000  # of one stream
# So much sound goes up at once before the speed of `catch_up` holds: with a factor of two at most 2.6 s in any second,
# where Tencent refuses more than 3 s (error 4000).
_BURST_S: Final = 0.3
# Connections that wait for the next stream: how many, how long, and how often they say that they are there.
MAX_SPARE: Final = 8
SPARE_S: Final = 60.0
_KEEP_ALIVE_S: Final = 4.0


class Dialect(ABC):
    """What is said on one connection, which serves one stream or several. Does no I/O.

    Attributes:
        ready: the service takes sound now; until then only its messages are read.
        text: all of this stream so far.
        over: that is the last text of this stream.
    """

    ready = True
    text = ""
    over = False

    def begin(self) -> Sequence[Message]:
        """The messages that begin a stream; what still comes of the one before is nobody's."""
        return ()

    @abstractmethod
    def sound(self, pcm: bytes) -> Sequence[Message]:
        """The messages that carry int16[n] little-endian at 16 kHz."""

    @abstractmethod
    def end(self, voiced_samples: int) -> Sequence[Message]:
        """The messages that ask for the last text; what lies behind so many samples of the stream is silence."""

    def keep_alive(self) -> Sequence[Message]:
        """What a connection says that waits for the next stream."""
        return ()

    @abstractmethod
    def read(self, said: Any) -> None:
        """Take a message of the service, parsed.

        Raises:
            RemoteError: it tells of an error; the name of the engine is put in front.
            ValueError, KeyError, TypeError, AttributeError, IndexError: it is none that the service would send.
        """

    def take(self, message: Message) -> None:
        """Take a message of the service.

        Raises:
            RemoteError: it is none, or tells of an error; the name of the engine is not in front.
        """
        try:
            self.read(bounded_json.loads(message))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            shown = one_line(message, MAX_SHOWN_CHARS)
            raise RemoteError(f"sent something that is not an answer: {shown}") from error


@dataclass(slots=True, eq=False)
class _Line:
    """An open connection, in the service of one stream after another; a broken one serves none."""

    name: str
    socket: aiohttp.ClientWebSocketResponse
    dialect: Dialect
    broken: bool = False

    async def send(self, messages: Sequence[Message]) -> None:
        """Send them in their order.

        Raises:
            aiohttp.ClientError, OSError: the connection broke.
        """
        for message in messages:
            await put(self.socket, message)

    async def receive(self) -> None:
        """Wait for a message and take it.

        Raises:
            RemoteError: it tells of an error or is none, or the connection ended.
        """
        message = await self.socket.receive()
        try:
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                said = one_line(message.extra, MAX_SHOWN_CHARS) if isinstance(message.extra, str) else ""
                raise RemoteError(": ".join(filter(None, ("the connection ended before the text", said))))
            self.dialect.take(message.data)
        except RemoteError as error:
            self.broken = True
            raise RemoteError(f"{self.name}: {error}", error.rest_s) from error


class SocketRecognizer(LiveRecognizer):
    """The base of engines that speak a `Dialect`; they have to write `address` and `dialect`.

    Args:
        settings: limits.

    Attributes:
        reuses: a connection serves one stream after another.
        advice: what to do about a handshake that is refused, by its status.
    """

    reuses = False
    advice: dict[int, str] = {}  # noqa: RUF012 - engines replace it, nobody writes to it

    def __init__(self, settings: RemoteAsrSettings) -> None:
        super().__init__(settings)
        self._connections = Connections(None, connect_s=settings.connect_timeout_s, limit=settings.max_concurrent + 8)
        self._spare: dict[_Line, asyncio.Task[None]] = {}

    @abstractmethod
    def address(self) -> tuple[str, dict[str, str]]:
        """Where to connect now, percent-encoded and signed if the service wants that, and with which headers.

        Raises:
            RemoteError: a credential is missing or none; the name of the engine is put in front.
        """

    @abstractmethod
    def dialect(self) -> Dialect:
        """For a new connection."""

    async def converse(self, sound: Sound, heard: Heard) -> str:
        """Recognise one stream.

        Raises:
            RemoteError: refused, broke, ended before the sound did, or answered something that is no text.
        """
        line = await self._take()
        dialect = line.dialect
        well = False
        try:
            async with in_background(self._send(line, sound)) as sending, in_background(_read(line, heard)) as reading:
                await asyncio.wait((sending, reading), return_when=asyncio.FIRST_COMPLETED)
                if reading.done() or not dialect.over:  # there may be nothing left to ask for
                    await reading
                if not (sending.done() and sending.result()):
                    raise RemoteError(f"{self.name}: ended before the sound did")
            well = True
            return dialect.text
        finally:
            await self._give_back(line, well=well)

    async def _send(self, line: _Line, sound: Sound) -> bool:
        """Send sound as it comes, and ask for the last text. Whether all was sent; a reader is told why it was not."""
        loop = asyncio.get_running_loop()
        due_s = 0.0
        with suppress(aiohttp.ClientError, OSError):
            async for piece in sound:
                due_s = max(due_s, loop.time() - _BURST_S) + len(piece) / 2 / UPLINK_RATE_HZ / self.catch_up
                if (early_s := due_s - loop.time()) > 0.0:
                    await asyncio.sleep(early_s)
                await line.send(line.dialect.sound(piece))
            await line.send(line.dialect.end(sound.voiced_samples))
            return True
        return False

    async def _take(self) -> _Line:
        """A connection that takes sound: one that waits, or a new one.

        Raises:
            RemoteError: there is none.
        """
        while self._spare:
            line, waiting = self._spare.popitem()  # the one that waited least
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            with suppress(aiohttp.ClientError, OSError):
                if not (line.broken or line.socket.closed):
                    await line.send(line.dialect.begin())
                    return line
        return await self._dial()

    async def _dial(self) -> _Line:
        try:
            url, headers = self.address()
            where = URL(url, encoded=True)
            socket = await self._connections.websocket(
                where, max_bytes=_MAX_MESSAGE_BYTES, advice=self.advice, headers=headers, heartbeat=10.0
            )
        except (RemoteError, NotOpened, ValueError) as error:
            raise RemoteError(f"{self.name}: {error}") from error
        line = _Line(self.name, socket, self.dialect())
        try:
            await line.send(line.dialect.begin())
            for _ in range(_MAX_MESSAGES):
                if line.dialect.ready:
                    return line
                await line.receive()
            raise RemoteError(f"{self.name}: sends without an end")
        except (aiohttp.ClientError, OSError) as error:
            await socket.close()
            raise RemoteError(f"{self.name}: {reason(error)}") from error
        except BaseException:
            await socket.close()
            raise

    async def _give_back(self, line: _Line, *, well: bool) -> None:
        """Keep a connection for the next stream where the service owes nothing on it; close it otherwise."""
        usable = self.reuses and well and not (line.broken or line.socket.closed)
        if usable and len(self._spare) < MAX_SPARE:
            self._spare[line] = asyncio.create_task(self._wait(line), name="asr-spare")
        else:
            await line.socket.close()

    async def _wait(self, line: _Line) -> None:
        """Keep an unused connection open; what is said to nobody is dropped."""
        with suppress(RemoteError, aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(SPARE_S):
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_KEEP_ALIVE_S):
                            await line.receive()
                        continue
                    await line.send(line.dialect.keep_alive())
        self._spare.pop(line, None)
        await line.socket.close()

    async def connect(self) -> None:
        """Open a connection ahead, which the first stream takes where the service allows that.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        await self._give_back(await self._take(), well=True)

    async def disconnect(self) -> None:
        """Close all that is open."""
        waiting = list(self._spare.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for line in list(self._spare):
            await line.socket.close()
        self._spare.clear()
        await self._connections.close()


async def _read(line: _Line, heard: Heard) -> None:
    """Read until the last text is there."""
    for _ in range(_MAX_MESSAGES):
        await line.receive()
        if line.dialect.over:
            return
        heard(line.dialect.text)
    raise RemoteError(f"{line.name}: sends without an end")
