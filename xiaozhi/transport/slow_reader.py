"""What a device that does not read may cost: little waits on the way to it, and nothing waits for it in the end.

A reply is 3 kB a second, so buffers of the usual size hide half a minute of speech: a device that is frozen, out of
range or switched off would be found out by nobody, and hear all of it late when it comes back.
"""

import asyncio
import socket
import struct
from typing import Final

# Of the kernel, which doubles it. It is full after about 10 s of Opus at 24 kbit/s once the device's own is (measured).
_SEND_BUFFER_BYTES: Final = 8192
# Of the process, behind the kernel's: when more waits, writing waits. Some 20 packets, a little over a second.
_MAX_WAITING_BYTES: Final = 4096
# Only a device that is too slow already is looked at this often. aiohttp's own signal is one future shared by all who
# write: the first that gives up waiting cancels the others.
_LOOK_EVERY_S: Final = 0.05
_RESET_AT_ONCE: Final = struct.pack("ii", 1, 0)


class WayOut:
    """The bytes between the server and one device."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None

    def bind(self, transport: asyncio.Transport, silent_s: float) -> None:
        """Keep what waits for the device small, and have the kernel give it up.

        Args:
            transport: of its connection.
            silent_s: the connection breaks (`ConnectionError`, `TimeoutError`) when nothing has been acknowledged, or
                no room been made for more, for this long. Something has to be under way for that: the keepalive sees
                to it that an idle device that has gone without a word is found as well.
        """
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, option, round(silent_s * 1000.0))

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def room(self) -> None:
        """Wait until little waits."""
        while self.waiting > _MAX_WAITING_BYTES:  # noqa: ASYNC110 - there is no event of our own, see _LOOK_EVERY_S
            await asyncio.sleep(_LOOK_EVERY_S)

    def drop(self) -> bool:
        """At the very end: throw away what the device has not taken, with the connection; whether there was anything.

        A closed transport waits until its buffer has been sent. To a device that is frozen, and whose kernel goes on
        answering, it never is.
        """
        if self._transport is None or not self.waiting:
            return False
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
        self._transport.abort()
        return True
