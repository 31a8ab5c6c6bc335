"""The way down a WebSocket: control never behind audio, stale audio never written, little waits for a slow device.

A reply is 3 kB a second, so buffers of the usual size hide half a minute of speech: a device that is frozen, out of
range or switched off would be found out by nobody, and hear all of it late when it comes back.
"""

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import orjson
from aiohttp import WSMsgType

from xiaozhi.transport.protocol import DeviceProtocol

_log = logging.getLogger(__name__)

# More audio than this waiting here means a device that does not read: late audio would only raise its delay.
_MAX_AUDIO: Final = 15

# A reply's texts are a few for each sentence. A client that asks on and on (each ping has an answer) and never reads
# may not fill the memory; answers of the device's tools are asked for one by one.
_MAX_TEXTS: Final = 256
_MAX_TEXT_BYTES: Final = 262_144

# Of the kernel, which doubles it. It is full after about 10 s of Opus at 24 kbit/s once the device's own is (measured).
_SEND_BUFFER_BYTES: Final = 8192
# Of the process, behind the kernel's: when more waits, writing waits. Some 20 packets, a little over a second.
_MAX_WAITING_BYTES: Final = 4096
# No more packets than this wait behind the kernel: one has 100 bytes or more.
_MAX_PACKETS_BEHIND: Final = 64
# Instead of a length of 7 bits: it follows in 16 or 64.
_LENGTH_16, _LENGTH_64 = 126, 127
# Only a device that is too slow already is looked at this often.
_LOOK_EVERY_S: Final = 0.05
_RESET_AT_ONCE: Final = struct.pack("ii", 1, 0)


class WebSocket(Protocol):
    """What is asked of the socket, as `aiohttp.web.WebSocketResponse` answers it."""

    @property
    def closed(self) -> bool:
        """A Close frame has been sent, or is about to be: nothing may follow it."""
        ...


@dataclass(slots=True)
class _Text:
    frame: bytes


@dataclass(slots=True)
class _Audio:
    frame: bytes
    generation: int
    number: int  # within its reply, from 1


def _frame(opcode: WSMsgType, data: bytes) -> bytes:
    """A whole frame of a server, RFC 6455 section 5.2."""
    first = 0x80 | opcode
    if len(data) < _LENGTH_16:
        return bytes((first, len(data))) + data
    if len(data) < 1 << 16:
        return struct.pack("!BBH", first, _LENGTH_16, len(data)) + data
    return struct.pack("!BBQ", first, _LENGTH_64, len(data)) + data


class WebSocketWriter:
    """The single writer of one WebSocket. Implements `Downlink`.

    What is sent is written at once, as long as the device reads: no task and no timer stands between a packet and the
    socket. When the device does not read, what is sent waits here, and the socket is looked at from time to time.
    Control messages and packets keep their order among themselves; before every packet its generation is compared with
    the last one silenced, so a reply that was interrupted cannot leave another sound even if its packets wait here.

    Args:
        socket: the socket.
        protocol: frames packets.
        timeout_s: a device that takes nothing for so long is gone.

    Attributes:
        over: fails when the device does not read: `TimeoutError`, or the connection is gone: `ConnectionError`.
    """

    start_margin_ms = stop_margin_ms = 0.0

    def __init__(self, socket: WebSocket, protocol: DeviceProtocol, timeout_s: float) -> None:
        self._socket = socket
        self._protocol = protocol
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._items: deque[_Text | _Audio] = deque()
        self._audio_waiting = 0
        self._texts_waiting = self._text_bytes = 0
        self._full_since = 0.0
        self._look: asyncio.TimerHandle | None = None  # while the device does not read
        self._silenced = -1
        self._generation = -1  # of the newest packet
        self._numbered = 0  # packets of that reply so far
        self._written_bytes = 0
        # Of its packets: where each ends, its number.
        self._written: deque[tuple[int, int]] = deque(maxlen=_MAX_PACKETS_BEHIND)
        self.dropped = 0
        """Packets not sent because the device does not read fast enough."""
        self.written_at = self._loop.time()
        """When something was last written, on the loop's clock."""

    def bind(self, transport: asyncio.Transport) -> None:
        """Write to this from now on; keep what waits for the device small, and have the kernel give it up.

        The connection breaks (`ConnectionError`, `TimeoutError`) when nothing has been acknowledged, or no room been
        made for more, for `timeout_s`. Something has to be under way for that: the keepalive sees to it that an idle
        device that has gone without a word is found as well.

        Args:
            transport: of the socket.
        """
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:  # Linux
                sock.setsockopt(socket.IPPROTO_TCP, option, round(self._timeout_s * 1000.0))
        self._write()

    @property
    def waiting_bytes(self) -> int:
        """What was written and the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def empty(self) -> bool:
        """Nothing waits to be written."""
        return not self._items

    def send(self, message: Mapping[str, object]) -> None:
        """Write a message behind what waits; when too much does already, the connection is given up instead."""
        frame = _frame(WSMsgType.TEXT, orjson.dumps(message))
        if self._texts_waiting >= _MAX_TEXTS or self._text_bytes + len(frame) > _MAX_TEXT_BYTES:
            self._end(TimeoutError("more texts wait than a device that reads leaves waiting"))
            return
        self._items.append(_Text(frame))
        self._texts_waiting += 1
        self._text_bytes += len(frame)
        self._write()

    def send_audio(self, opus: bytes, generation: int, timestamp_ms: int) -> None:
        """Write a packet of a reply's generation behind what waits; dropped when too many do already."""
        if generation <= self._silenced:
            return
        if generation != self._generation:
            self._generation, self._numbered = generation, 0
            self._written.clear()
        self._numbered += 1
        if self._audio_waiting >= _MAX_AUDIO:
            self.dropped += 1
            return
        frame = _frame(WSMsgType.BINARY, self._protocol.pack(opus, timestamp_ms))
        self._items.append(_Audio(frame, generation, self._numbered))
        self._audio_waiting += 1
        self._write()

    def silence(self, generation: int) -> None:
        """Write no packet of this generation or an older one any more."""
        self._silenced = max(self._silenced, generation)

    def untaken(self, generation: int) -> int:
        """How many packets of a reply are behind the last one that has left this process: the device has none of them.

        Args:
            generation: of the newest reply; of older ones nothing is known, and the answer is 0.
        """
        if generation != self._generation:
            return 0
        left_bytes = self._written_bytes - self.waiting_bytes
        last = max((number for end, number in self._written if end <= left_bytes), default=0)
        return self._numbered - last

    def _end(self, error: OSError) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    def _write(self) -> None:
        """Write what waits, until the device does not read."""
        while self._items and self._transport is not None and self._look is None and not self.over.done():
            if self._socket.closed or self._transport.is_closing():
                self._end(ConnectionResetError("the connection is closed"))
                return
            item = self._items.popleft()
            if isinstance(item, _Audio):
                self._audio_waiting -= 1
                if item.generation <= self._silenced:
                    continue
            else:
                self._texts_waiting -= 1
                self._text_bytes -= len(item.frame)
            self._transport.write(item.frame)
            self._written_bytes += len(item.frame)
            if isinstance(item, _Audio) and item.generation == self._generation:
                self._written.append((self._written_bytes, item.number))
            self.written_at = self._loop.time()
            if self.waiting_bytes > _MAX_WAITING_BYTES:
                self._full_since = self.written_at
                self._look = self._loop.call_later(_LOOK_EVERY_S, self._look_again)

    def _look_again(self) -> None:
        """Go on when the device has read; give it up when it has not for `timeout_s`."""
        self._look = None
        if self.waiting_bytes <= _MAX_WAITING_BYTES:
            self._write()
        elif self._loop.time() - self._full_since >= self._timeout_s:
            self._end(TimeoutError(f"nothing was taken for {self._timeout_s:g} s"))
        else:
            self._look = self._loop.call_later(_LOOK_EVERY_S, self._look_again)

    def drop(self) -> bool:
        """At the very end: throw away what the device has not taken, with the connection; whether there was anything.

        A closed transport waits until its buffer has been sent. To a device that is frozen, and whose kernel goes on
        answering, it never is.
        """
        if self._look is not None:
            self._look.cancel()
        if not self.over.cancel() and not self.over.cancelled():
            self.over.exception()  # perhaps nobody waits for it
        if self._transport is None or not self.waiting_bytes:
            return False
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
        self._transport.abort()
        return True
