"""Voices that take text as it comes, over a WebSocket: what all of them have in common.

A session has a connection to itself, so that a service is never asked for more sound than somebody takes: it waits in
the socket. Where the service allows it, the connection serves the next session afterwards; late sound of the one before
is known by its id. Where it does not, another one is opened ahead as soon as one is taken.
"""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, Protocol, TypeAlias

import aiohttp
import numpy as np

from xiaozhi.stages.tts.engine import Mark, Spoken, Voice, VoiceContext, VoiceError, VoiceSession
from xiaozhi.stages.tts.errors import short
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.text import bounded_json
from xiaozhi.upstream.connections import Connections, NotOpened, reason

Socket: TypeAlias = aiohttp.ClientWebSocketResponse

_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_SPARE: Final = 8
"""Connections that wait for the next session."""
SPARE_S: Final = 120.0
"""How long they wait: services close idle ones after three minutes and more."""


class SpeechProtocol(Protocol):
    """The messages of one session, without the connection.

    Attributes:
        quiet_s: `overdue` is asked when nothing has come for so long; None where the service tells all by itself.
    """

    quiet_s: float | None

    def begin(self) -> Sequence[str]:
        """What comes before the first text."""
        ...

    def text(self, text: str, language: str) -> Sequence[str]:
        """What has a text spoken behind those before."""
        ...

    def end(self) -> Sequence[str]:
        """What says that no further text comes."""
        ...

    def cancel(self) -> Sequence[str]:
        """What stops the session; nothing where only closing the connection does."""
        ...

    def receive(self, said: Any) -> Iterator[bytes | Mark | None]:
        """What a message holds: samples of int16 at 24 kHz, however cut; the end of a text; None: that of the session.

        Raises:
            VoiceError: it tells of an error.
            ValueError, KeyError, TypeError, AttributeError: it is none that the service would send.
        """
        ...

    def overdue(self) -> Iterator[Mark]:
        """Texts whose sound has all come, as nothing follows it."""
        ...


class SocketVoice(Voice):
    """The base of such engines; they have to write `protocol` and `address`.

    Args:
        connect_s: the longest time to connect.
    """

    spans_clauses = True
    warm_s = SPARE_S
    reuses: bool = False
    """A connection serves one session after another."""
    advice: dict[int, str] = {}  # noqa: RUF012 - engines replace it, nobody writes to it
    """What to do about a handshake that is refused, by its status."""

    def __init__(self, connect_s: float) -> None:
        self._connections = Connections(None, connect_s=connect_s, limit=0)
        self._spare: dict[Socket, tuple[str, asyncio.Task[None]]] = {}
        self._opening: set[asyncio.Task[None]] = set()

    @classmethod
    def build(cls, context: VoiceContext) -> Voice:
        """From its table; who waits for the connection waits for the first sound."""
        return cls(context.own, context.settings.first_audio_timeout_s)  # type: ignore[call-arg]  # engines take these two

    @abstractmethod
    def address(self, request: VoiceRequest) -> tuple[str, dict[str, str]]:
        """Where a session is opened, and with which headers.

        Raises:
            VoiceError: the key is missing or none.
        """

    @abstractmethod
    def protocol(self, request: VoiceRequest) -> SpeechProtocol:
        """The messages of a new session."""

    def open(self, request: VoiceRequest = ANY_VOICE) -> VoiceSession:
        """Begin a session; it connects with its first text."""
        return _SocketSession(self, request)

    async def warm(self) -> None:
        """Open a connection ahead; that costs nothing.

        Raises:
            VoiceError: it cannot be reached, or refuses the key.
        """
        url, headers = self.address(ANY_VOICE)
        await self._keep(url, await self._dial(url, headers))

    async def close(self) -> None:
        """Close what is open."""
        tasks = [task for _, task in self._spare.values()] + list(self._opening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for socket in list(self._spare):
            await socket.close()
        self._spare.clear()
        await self._connections.close()

    async def take(self, request: VoiceRequest) -> tuple[str, Socket]:
        """A connection for a session and its address.

        Raises:
            VoiceError: there is none.
        """
        url, headers = self.address(request)
        socket = None
        while socket is None and (found := next((one for one, (at, _) in self._spare.items() if at == url), None)):
            _, waiting = self._spare.pop(found)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            socket = None if found.closed else found
        socket = socket or await self._dial(url, headers)
        if not self.reuses:  # the next session's, opened behind this one's back
            task = asyncio.create_task(self._ahead(url, headers), name="tts-ahead")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        return url, socket

    async def give_back(self, url: str, socket: Socket, *, well: bool) -> None:
        """Keep a connection for the next session where the service allows it; close it otherwise."""
        if self.reuses and well and not socket.closed:
            await self._keep(url, socket)
        else:
            await socket.close()

    async def _keep(self, url: str, socket: Socket) -> None:
        if len(self._spare) < MAX_SPARE:
            self._spare[socket] = url, asyncio.create_task(self._wait(socket), name="tts-spare")
        else:
            await socket.close()

    async def _wait(self, socket: Socket) -> None:
        """What comes for nobody is dropped, late sound above all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SPARE_S):
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
        self._spare.pop(socket, None)
        await socket.close()

    async def _ahead(self, url: str, headers: dict[str, str]) -> None:
        if all(at != url for at, _ in self._spare.values()):
            with suppress(VoiceError):  # who needs one opens it, and says why it cannot be had
                await self._keep(url, await self._dial(url, headers))

    async def _dial(self, url: str, headers: dict[str, str]) -> Socket:
        try:
            return await self._connections.websocket(
                url, max_bytes=_MAX_MESSAGE_BYTES, advice=self.advice, headers=headers, heartbeat=10.0
            )
        except NotOpened as error:
            raise VoiceError(f"{self.name}: {error}") from error


class _SocketSession:
    """Whoever reads `sound` owns the connection, and gives it back when done."""

    def __init__(self, voice: SocketVoice, request: VoiceRequest) -> None:
        self._voice, self._request = voice, request
        self._protocol = voice.protocol(request)
        self._url = ""
        self._socket: Socket | None = None
        self._sending = asyncio.Lock()
        self._opened = asyncio.Event()  # there is a connection, or there will be none
        self._texts = self._marks = 0
        self._ended = self._over = self._reading = False
        self._well = False  # the connection can serve another session

    async def send(self, text: str, language: str) -> None:
        """Connect where this is the first text, and send it; several are sent in the order of the calls."""
        async with self._sending:
            if self._over:
                raise VoiceError(f"{self._voice.name}: the session is over")
            messages = [*self._protocol.text(text, language)]
            if self._socket is None:
                messages = [*self._protocol.begin(), *messages]
                await self._connect()
            self._texts += 1
            self._opened.set()
            await self._send(messages)

    async def _connect(self) -> None:
        try:
            self._url, socket = await self._voice.take(self._request)
            if self._over:  # cancelled meanwhile
                await self._voice.give_back(self._url, socket, well=True)
                raise VoiceError(f"{self._voice.name}: the session is over")
            self._socket = socket
        except BaseException:
            self._over = True
            self._opened.set()
            raise

    async def _send(self, messages: Sequence[str]) -> None:
        try:
            for message in messages:
                if self._socket is not None:
                    await self._socket.send_str(message)
        except (aiohttp.ClientError, OSError) as error:
            raise VoiceError(f"{self._voice.name}: {reason(error)}") from error

    async def end(self) -> None:
        """Say that no further text comes."""
        async with self._sending:
            if self._ended or self._over:
                return
            self._ended = True
            self._opened.set()
            if self._socket is not None:
                await self._send(self._protocol.end())

    async def sound(self) -> AsyncGenerator[Spoken, None]:
        """The sound as it arrives, and where each text ends."""
        self._reading = True
        try:
            await self._opened.wait()
            if self._socket is None:  # nothing was said
                return
            odd = b""
            async with aclosing(self._items(self._socket)) as items:
                async for item in items:
                    if self._marks >= self._texts:
                        continue  # nothing is being said
                    if isinstance(item, Mark):
                        self._marks += 1
                        yield Mark(self._marks - 1)
                        continue
                    data = odd + item
                    odd = data[len(data) & ~1 :]
                    if len(data) > 1:
                        yield np.frombuffer(data[: len(data) & ~1], "<i2").astype(np.int16, copy=False)
            self._over = self._well = True
            while self._marks < self._texts:
                self._marks += 1
                yield Mark(self._marks - 1)
        except VoiceError:
            self._over = True  # and the connection is not to be used again
            raise
        finally:
            await self._stop()
            await self._leave()

    async def _items(self, socket: Socket) -> AsyncGenerator[bytes | Mark, None]:
        """What comes, up to the end of the session."""
        name, protocol = self._voice.name, self._protocol
        while True:
            try:
                message = await socket.receive(protocol.quiet_s)
            except TimeoutError:
                for mark in protocol.overdue():
                    yield mark
                continue
            if message.type is not aiohttp.WSMsgType.TEXT:
                if self._ended and socket.close_code == aiohttp.WSCloseCode.OK:
                    return
                said = short(message.extra) if isinstance(message.extra, str) else ""
                raise VoiceError(": ".join(filter(None, (name, "the connection ended before the sound", said))))
            try:
                items = list(protocol.receive(bounded_json.loads(message.data)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise VoiceError(f"{name}: sent something that is not an answer: {short(message.data)}") from error
            for item in items:
                if item is None:
                    return
                yield item

    async def cancel(self) -> None:
        """Stop at once; whoever reads gives the connection back."""
        await self._stop()
        if not self._reading:
            await self._leave()

    async def _stop(self) -> None:
        """Tell the service to stop, unless the session is over."""
        self._opened.set()
        if self._over:
            return
        self._over = True
        messages = self._protocol.cancel() if self._socket is not None else ()
        with suppress(VoiceError):
            await self._send(messages)
            self._well = bool(messages)

    async def _leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await self._voice.give_back(self._url, socket, well=self._well)
