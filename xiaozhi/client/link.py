"""The WebSocket as the firmware's client speaks it: its headers, no extensions, no Close frame, a short send queue."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import aiohttp
from yarl import URL

from xiaozhi.client.errors import connect_error
from xiaozhi.client.microphone import UPLINK_QUEUE_PACKETS
from xiaozhi.client.ota import ClientIdentity

# Firmware: the upgrade must be answered within 10 s.
_UPGRADE_TIMEOUT_S: Final = 10.0
_MAX_MESSAGE_BYTES: Final = 1 << 20


class DeviceSocket(aiohttp.ClientWebSocketResponse):
    """A WebSocket that can be dropped as a device drops it: TCP ends, no Close frame is sent."""

    def drop(self) -> None:
        """End TCP now; what has not been sent is lost."""
        connection = self._conn
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    def release(self) -> None:
        """Hand the dropped connection back to its session, which complains of a lost one otherwise."""
        if self._conn is not None:
            self._conn.close()


def device_session() -> aiohttp.ClientSession:
    """An HTTP session for any number of devices: no limit on connections, none of the headers a browser would add."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        ws_response_class=DeviceSocket,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


async def open_socket(
    session: aiohttp.ClientSession, url: str, identity: ClientIdentity, token: str, version: int
) -> DeviceSocket:
    """Upgrade with the headers that firmware 2.4.2 sends; the host is named without its port, as there.

    A token with a space in it is sent verbatim, any other as a bearer token, none when it is empty.

    Raises:
        ConnectFailed: refused; `status` says how.
        Unreachable: no server there.
    """
    headers = {
        "Protocol-Version": str(version),
        "Device-Id": identity.device_id,
        "Client-Id": identity.client_id,
    }
    if token:
        headers["Authorization"] = token if " " in token else f"Bearer {token}"
    try:
        headers["Host"] = URL(url).host or ""
        async with asyncio.timeout(_UPGRADE_TIMEOUT_S):
            socket = await session.ws_connect(
                url, headers=headers, compress=0, autoclose=False, autoping=True, max_msg_size=_MAX_MESSAGE_BYTES
            )
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise connect_error(url, error) from error
    if not isinstance(socket, DeviceSocket):
        raise TypeError("the session must come from device_session()")
    return socket


class Outbox:
    """Messages on their way out, in order; audio that the network does not take is forgotten, oldest first."""

    def __init__(self) -> None:
        self._messages: deque[str | bytes] = deque()
        self._audio = 0
        self._filled = asyncio.Event()
        self.dropped = 0
        """Audio packets forgotten."""

    def put(self, message: str | bytes) -> None:
        """Add JSON (text) or audio (bytes)."""
        if isinstance(message, bytes):
            if self._audio == UPLINK_QUEUE_PACKETS:
                oldest = next(index for index, waiting in enumerate(self._messages) if isinstance(waiting, bytes))
                del self._messages[oldest]
                self.dropped += 1
            else:
                self._audio += 1
        self._messages.append(message)
        self._filled.set()

    async def send_all(self, socket: DeviceSocket) -> None:
        """Send what is put, for ever.

        Raises:
            ConnectionError: the connection broke.
        """
        while True:
            while self._messages:
                message = self._messages.popleft()
                if isinstance(message, bytes):
                    self._audio -= 1
                    await socket.send_bytes(message)
                else:
                    await socket.send_str(message)
            self._filled.clear()
            await self._filled.wait()


class Link:
    """An open WebSocket: messages in by callback, messages out in order.

    Args:
        socket: from `open_socket`.
        on_text, on_binary: called with every message.
        on_lost: called once with the reason when the server closes the connection, or it breaks.
    """

    def __init__(
        self,
        socket: DeviceSocket,
        on_text: Callable[[str], None],
        on_binary: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.outbox = Outbox()
        self.close_code: int | None = None
        """The code of the server's Close frame; None while there was none."""
        self._socket = socket
        self._on_text = on_text
        self._on_binary = on_binary
        self._on_lost = on_lost
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Drop the connection without a Close frame; an error inside a callback is raised here."""
        self._socket.drop()
        for task in self._tasks:
            task.remove_done_callback(self._ended)
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.release()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError | ConnectionError):
                raise result

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self._on_text(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                self._on_binary(message.data)
            elif message.type is aiohttp.WSMsgType.CLOSE:
                # The firmware neither answers with a Close frame nor closes TCP: the server is left waiting.
                self.close_code = self._socket.close_code
                return
            else:
                raise ConnectionResetError("the connection broke")

    async def _write(self) -> None:
        await self.outbox.send_all(self._socket)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for other in self._tasks:
            other.remove_done_callback(self._ended)
            if other is not task:
                other.cancel()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_lost(str(error) or type(error).__name__)
        else:
            self._on_lost(f"the server closed the connection (code {self.close_code})")
