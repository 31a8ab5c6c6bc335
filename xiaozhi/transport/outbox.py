"""What waits to be written to one device: control never behind audio, stale audio never written."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_log = logging.getLogger(__name__)

# More audio than this waiting here means a device that does not read: late audio would only raise its delay.
_MAX_AUDIO: Final = 16

# A reply's texts are a few for each sentence. A client that asks on and on (each ping has an answer) and never reads
# may not fill the memory; answers of the device's tools are asked for one by one.
_MAX_TEXTS: Final = 256
_MAX_TEXT_CHARS: Final = 262_144

# No more packets than this wait in the socket behind the kernel, where 4 kB may: a packet has 100 bytes or more.
_REMEMBERED: Final = 64
_FRAME_HEADER_BYTES: Final = 4


@dataclass(slots=True)
class _Audio:
    generation: int
    number: int  # within its reply, from 1
    frame: bytes


class Outbox:
    """The single writer of one connection.

    Control messages and packets keep their order among themselves; before every packet its generation is compared with
    the last one silenced, so a reply that was interrupted cannot leave another sound even if its packets wait here.

    Args:
        send_text: writes a text frame; waits while the socket is full.
        send_bytes: writes a binary frame; likewise.
        timeout_s: a single write that takes longer means the device is gone.
        room: waits, after each write, until the way to the device is free for another.
    """

    def __init__(
        self,
        send_text: Callable[[str], Awaitable[None]],
        send_bytes: Callable[[bytes], Awaitable[None]],
        timeout_s: float,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._send_text = send_text
        self._room = room
        self._send_bytes = send_bytes
        self._timeout_s = timeout_s
        self._items: deque[str | _Audio] = deque()
        self._audio_waiting = 0
        self._texts_waiting = self._text_chars = 0
        self._overflown = False
        self._writing: asyncio.Timeout | None = None
        self._some = asyncio.Event()
        self._silenced = -1
        self._generation = -1  # of the newest packet
        self._numbered = 0  # packets of that reply so far
        self._written_bytes = 0
        self._written: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)  # of its packets: where each ends, its number
        self.dropped = 0
        """Packets not sent because the device does not read fast enough."""
        self.written_at = asyncio.get_running_loop().time()
        """When something was last written, on the loop's clock."""

    @property
    def empty(self) -> bool:
        """Nothing waits to be written."""
        return not self._items

    def put_text(self, text: str) -> None:
        """Queue a text frame; when too much waits already, the connection is given up instead."""
        if self._texts_waiting >= _MAX_TEXTS or self._text_chars + len(text) > _MAX_TEXT_CHARS:
            self._give_up()
            return
        self._items.append(text)
        self._texts_waiting += 1
        self._text_chars += len(text)
        self._some.set()

    def put_audio(self, frame: bytes, generation: int) -> None:
        """Queue a binary frame of a reply's generation; dropped when too many wait already."""
        if generation <= self._silenced:
            return
        if generation != self._generation:
            self._generation, self._numbered = generation, 0
            self._written.clear()
        self._numbered += 1
        if self._audio_waiting >= _MAX_AUDIO:
            self.dropped += 1
            return
        self._items.append(_Audio(generation, self._numbered, frame))
        self._audio_waiting += 1
        self._some.set()

    def silence(self, generation: int) -> None:
        """Write no packet of this generation or an older one any more."""
        self._silenced = max(self._silenced, generation)

    def untaken(self, generation: int, waiting_bytes: int) -> int:
        """How many packets of a reply are behind the last one that has left this process: the device has none of them.

        Args:
            generation: of the newest reply; of older ones nothing is known, and the answer is 0.
            waiting_bytes: so much of what was written waits in the socket for the kernel.
        """
        if generation != self._generation:
            return 0
        left_bytes = self._written_bytes - waiting_bytes
        last = max((number for end, number in self._written if end <= left_bytes), default=0)
        return self._numbered - last

    def _count(self, length: int) -> None:
        self._written_bytes += length + _FRAME_HEADER_BYTES

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
                self._text_chars -= len(item)
            try:
                async with asyncio.timeout(self._timeout_s) as self._writing:
                    if isinstance(item, _Audio):
                        await self._send_bytes(item.frame)
                        self._count(len(item.frame))
                        if item.generation == self._generation:
                            self._written.append((self._written_bytes, item.number))
                    else:
                        await self._send_text(item)
                        self._count(len(item.encode()))
                    if self._room is not None:
                        await self._room()
            finally:
                self._writing = None
            self.written_at = loop.time()
