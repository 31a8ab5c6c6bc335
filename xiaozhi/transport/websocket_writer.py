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
_FRAME_HEADER_BYTES: Final = 4
# Only a device that is too slow already is looked at this often. aiohttp's own signal is one future shared by all who
# write: the first that gives up waiting cancels the others.
_LOOK_EVERY_S: Final = 0.05
_RESET_AT_ONCE: Final = struct.pack("ii", 1, 0)


class FrameSink(Protocol):
    """Writes frames, as `aiohttp.web.WebSocketResponse` does."""

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Write one frame; waits while the socket is full. Raises `ConnectionError` when it is gone."""
        ...


@dataclass(slots=True)
class _Text:
    data: bytes


@dataclass(slots=True)
class _Audio:
    data: bytes
    generation: int
    number: int  # within its reply, from 1


class WebSocketWriter:
    """The single writer of one WebSocket. Implements `Downlink`.

    Control messages and packets keep their order among themselves; before every packet its generation is compared with
    the last one silenced, so a reply that was interrupted cannot leave another sound even if its packets wait here.

    Args:
        sink: the socket.
        protocol: frames packets.
        timeout_s: a single write that takes longer means the device is gone.
    """

    start_margin_ms = stop_margin_ms = 0.0

    def __init__(self, sink: FrameSink, protocol: DeviceProtocol, timeout_s: float) -> None:
        self._sink = sink
        self._protocol = protocol
        self._timeout_s = timeout_s
        self._transport: asyncio.Transport | None = None
        self._items: deque[_Text | _Audio] = deque()
        self._audio_waiting = 0
        self._texts_waiting = self._text_bytes = 0
        self._overflown = False
        self._writing: asyncio.Timeout | None = None
        self._some = asyncio.Event()
        self._silenced = -1
        self._generation = -1  # of the newest packet
        self._numbered = 0  # packets of that reply so far
        self._written_bytes = 0
        # Of its packets: where each ends, its number.
        self._written: deque[tuple[int, int]] = deque(maxlen=_MAX_PACKETS_BEHIND)
        self.dropped = 0
        """Packets not sent because the device does not read fast enough."""
        self.written_at = asyncio.get_running_loop().time()
        """When something was last written, on the loop's clock."""

    def bind(self, transport: asyncio.Transport) -> None:
        """Keep what waits for the device small, and have the kernel give it up.

        The connection breaks (`ConnectionError`, `TimeoutError`) when nothing has been acknowledged, or no room been
        made for more, for `timeout_s`. Something has to be under way for that: the keepalive sees to it that an idle
        device that has gone without a word is found as well.

        Args:
            transport: of the socket.
        """
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, option, round(self._timeout_s * 1000.0))

    @property
    def waiting_bytes(self) -> int:
        """What was written and the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def empty(self) -> bool:
        """Nothing waits to be written."""
        return not self._items

    def send(self, message: Mapping[str, object]) -> None:
        """Queue a message; when too much waits already, the connection is given up instead."""
        data = orjson.dumps(message)
        if self._texts_waiting >= _MAX_TEXTS or self._text_bytes + len(data) > _MAX_TEXT_BYTES:
            self._give_up()
            return
        self._items.append(_Text(data))
        self._texts_waiting += 1
        self._text_bytes += len(data)
        self._some.set()

    def send_audio(self, opus: bytes, generation: int, timestamp_ms: int) -> None:
        """Queue a packet of a reply's generation; dropped when too many wait already."""
        if generation <= self._silenced:
            return
        if generation != self._generation:
            self._generation, self._numbered = generation, 0
            self._written.clear()
        self._numbered += 1
        if self._audio_waiting >= _MAX_AUDIO:
            self.dropped += 1
            return
        self._items.append(_Audio(self._protocol.pack(opus, timestamp_ms), generation, self._numbered))
        self._audio_waiting += 1
        self._some.set()

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

    def _give_up(self) -> None:
        self._overflown = True
        self._some.set()
        if self._writing is not None and not self._writing.expired():
            self._writing.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            TimeoutError: the device has not taken anything for `timeout_s`, or too much waits for it.
            ConnectionError: the connection is gone.
        """
        loop = asyncio.get_running_loop()
        while True:
            while not self._items and not self._overflown:
                self._some.clear()
                await self._some.wait()
            if self._overflown:
                raise TimeoutError("more texts wait than a device that reads leaves waiting")
            item = self._items.popleft()
            if isinstance(item, _Audio):
                self._audio_waiting -= 1
                if item.generation <= self._silenced:
                    continue
            else:
                self._texts_waiting -= 1
                self._text_bytes -= len(item.data)
            try:
                async with asyncio.timeout(self._timeout_s) as self._writing:
                    await self._write(item)
            finally:
                self._writing = None
            self.written_at = loop.time()

    async def _write(self, item: _Text | _Audio) -> None:
        await self._sink.send_frame(item.data, WSMsgType.BINARY if isinstance(item, _Audio) else WSMsgType.TEXT)
        self._written_bytes += len(item.data) + _FRAME_HEADER_BYTES
        if isinstance(item, _Audio) and item.generation == self._generation:
            self._written.append((self._written_bytes, item.number))
        while self.waiting_bytes > _MAX_WAITING_BYTES:  # noqa: ASYNC110 - there is no event of our own, see above
            await asyncio.sleep(_LOOK_EVERY_S)

    def drop(self) -> bool:
        """At the very end: throw away what the device has not taken, with the connection; whether there was anything.

        A closed transport waits until its buffer has been sent. To a device that is frozen, and whose kernel goes on
        answering, it never is.
        """
        if self._transport is None or not self.waiting_bytes:
            return False
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
        self._transport.abort()
        return True
