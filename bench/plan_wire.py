"""What a device's sound takes on the wire: one real device through a relay that reads the WebSocket's frames."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.devices import Scene, staged
from bench.first_word import utterances
from bench.relay import pour
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity

# Around each frame, which leaves at once in a segment of its own: IPv4 20, TCP 20 and its timestamps 12, TLS 1.3 22.
_AROUND_BYTES: Final = 74
_PACKET_S: Final = 0.06
_BINARY: Final = 2
_TURNS: Final = 3


@dataclass(slots=True)
class Frames:
    """One direction of one WebSocket: its binary frames counted as their bytes come by.

    Attributes:
        count: binary frames.
        wire_bytes: of these, with the WebSocket's own headers.
    """

    count: int = 0
    wire_bytes: int = 0
    _rest: bytearray = field(default_factory=bytearray)
    _upgraded: bool = False

    def take(self, data: bytes) -> None:
        """The next bytes; the HTTP upgrade comes before the first frame."""
        self._rest += data
        if not self._upgraded:
            head, blank, behind = bytes(self._rest).partition(b"\r\n\r\n")
            if not blank:
                return
            del head
            self._upgraded, self._rest = True, bytearray(behind)
        while (length := frame_length(self._rest)) is not None and length <= len(self._rest):
            if self._rest[0] & 0x0F == _BINARY:
                self.count += 1
                self.wire_bytes += length
            del self._rest[:length]

    @property
    def bps(self) -> float:
        """Bits a second while sound goes this way.

        Raises:
            ValueError: there was no sound.
        """
        if not self.count:
            raise ValueError("no sound went this way")
        return (self.wire_bytes / self.count + _AROUND_BYTES) * 8.0 / _PACKET_S


def frame_length(data: bytes | bytearray) -> int | None:
    """Length of the frame that begins here, header included (RFC 6455, 5.2); None while that is not known. Pure."""
    if len(data) < 2:
        return None
    short, masked = data[1] & 0x7F, 4 * bool(data[1] & 0x80)
    extended = {126: 2, 127: 8}.get(short, 0)
    if len(data) < 2 + extended:
        return None
    payload = int.from_bytes(data[2 : 2 + extended], "big") if extended else short
    return 2 + extended + masked + payload


@asynccontextmanager
async def relay(port: int, up: Frames, down: Frames) -> AsyncIterator[int]:
    """A way to that port of this machine on which frames are counted; gives its own port."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pour(reader, far_writer, up.take), pour(far_reader, writer, down.take))

    async with await asyncio.start_server(carry, "127.0.0.1") as server:
        yield int(server.sockets[0].getsockname()[1])


async def measured_wire() -> tuple[float, float]:
    """Bits a second up while a device listens and down while it speaks, all headers included (some 25 s).

    Raises:
        RuntimeError: a turn was not answered.
    """
    up, down = Frames(), Frames()
    speech = await asyncio.to_thread(utterances, [])
    async with staged(Scene(tiny=True)) as stage:
        port = int(stage.target.websocket_url.split(":")[2].split("/")[0])
        async with relay(port, up, down) as own_port, Device(ClientIdentity.numbered(1), decode_reply=False) as device:
            await device.connect(stage.target.websocket_url.replace(f":{port}/", f":{own_port}/"))
            for number in range(_TURNS):
                report = await device.turn(speech[number % len(speech)])
                if not report.answered:
                    raise RuntimeError(f"a turn ended otherwise: {report.outcome.value}")
    return up.bps, down.bps
