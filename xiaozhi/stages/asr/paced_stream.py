"""Services that recognise one stretch of speech on a WebSocket of its own, and want its sound at the pace of speech."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
from yarl import URL

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.concurrency.channel import Channel
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.cloud_stream import CloudRecognizer
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.upstream.connections import Connections, put, reason

PIECE_BYTES: Final = UPLINK_RATE_HZ * 40 // 1000 * 2
"""Sound in one message: 40 ms of int16, which is what Tencent's and iFlytek's documents ask for."""
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_MAX_MESSAGES: Final = 10_000
# Sound that has waited goes up at twice the speed of speech once 0.6 s of it are out: at most 2.6 s in any second,
# where Tencent refuses more than 3 s (error 4000).
_CATCH_UP: Final = 2.0
_BURST_S: Final = 0.3


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


class PacedRecognizer(CloudRecognizer):
    """The base of engines that speak a `Dialect`; they have to write `address` and `dialect`.

    Args:
        settings: limits.
    """

    def __init__(self, settings: RemoteAsrSettings) -> None:
        super().__init__(settings)
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

    async def connect(self) -> None:
        """Connect once, until the service would take sound; no connection is kept.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        async with self._line() as (socket, dialect):
            await _until_ready(self.name, socket, dialect)

    async def disconnect(self) -> None:
        """Close what is open."""
        await self._connections.close()

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, Dialect]]:
        """A connection and what is said on it.

        Raises:
            RemoteError: no connection, refused, or broke within.
        """
        try:
            async with self._connections.websocket(
                URL(self.address(), encoded=True), max_bytes=_MAX_MESSAGE_BYTES
            ) as socket:
                yield socket, self.dialect()
        except aiohttp.WSServerHandshakeError as error:
            raise RemoteError(f"{self.name}: {self.refusal(error.status, error.message)}") from error
        except aiohttp.ClientConnectorError as error:
            raise RemoteError(f"{self.name}: cannot be reached: {reason(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteError(f"{self.name}: {reason(error)}") from error

    async def stream(self, audio: Channel[bytes], say: Callable[[str], None]) -> str:
        """Recognise a stretch of speech.

        Raises:
            RemoteError: refused, broke, ended before the sound did, or answered something that is no text.
        """
        async with self._line() as (socket, dialect):
            await _until_ready(self.name, socket, dialect)
            sending = asyncio.create_task(_send(socket, dialect, audio), name="asr-send")
            try:
                for _ in range(_MAX_MESSAGES):
                    heard = dialect.read(await _message(self.name, socket))
                    if heard is None:
                        continue
                    if not heard.final:
                        say(heard.text)
                    elif sending.done() and sending.result():
                        return heard.text
                    else:
                        raise RemoteError(f"{self.name}: ended before the sound did")
            finally:
                sending.cancel()
        raise RemoteError(f"{self.name}: sends without an end")


async def _send(socket: aiohttp.ClientWebSocketResponse, dialect: Dialect, audio: Channel[bytes]) -> bool:
    """Send sound as it comes, and the end. Returns whether all was sent; a reader is told why it was not."""
    loop = asyncio.get_running_loop()
    piece_s = PIECE_BYTES / 2 / UPLINK_RATE_HZ / _CATCH_UP
    due_s, waiting = 0.0, bytearray()

    async def piece() -> None:
        nonlocal due_s
        due_s = max(due_s, loop.time() - _BURST_S) + piece_s
        if (early_s := due_s - loop.time()) > 0.0:
            await asyncio.sleep(early_s)
        await put(socket, dialect.audio(bytes(waiting[:PIECE_BYTES])))
        del waiting[:PIECE_BYTES]

    with suppress(ConnectionError):
        async for data in audio:
            waiting += data
            while len(waiting) >= PIECE_BYTES:
                await piece()
        if waiting:
            await piece()
        for message in dialect.end():
            await put(socket, message)
        return True
    return False


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
