"""What a device that sends without end may cost: a little of the loop at a time, and its connection in the end.

A microphone gives 17 to 50 packets a second (frames of 60 to 20 ms), a stall of the Wi-Fi gives 6 s of them back at
once, and test clients speak up to 30 times as fast as people. A flood of one-byte frames is a hundred times as much,
and would have the loop to itself for a second: whoever sends that is no device.
"""

import asyncio
from typing import Final

from aiohttp import WSCloseCode

from xiaozhi.access.rate_limits import TokenBucket

# One unit is the cost of an audio packet, some 10 us of the loop.
AUDIO_COST: Final = 1
TEXT_COST: Final = 10
TURN_COST: Final = 100
"""Of a typed text: it begins a turn, which asks a language model."""
_COSTS_PER_S: Final = 2000.0
_MAX_COSTS: Final = 6000.0
# Others come to their turn after so much, about a millisecond.
_COSTS_AT_A_TIME: Final = 100.0
# Behind a typed text nothing is read for so long: its request to the language model takes the loop some 10 ms.
_TURN_EVERY_S: Final = 0.02
# Bare samples are 32 kB a second. A message in fragments is counted when it is whole, so bytes are counted as well:
# 200 000 empty fragments are 1.2 MB and cost 20 ms (measured).
_BYTES_PER_S: Final = 1_048_576.0
_MAX_BYTES: Final = 4 * 1_048_576.0
# What still comes is thrown away for so long: a socket that is closed with bytes unread is reset, and the client would
# not learn why.
_LINGER_S: Final = 0.5


class FloodGuard(asyncio.Protocol):
    """Counts what comes from one device, and hangs up when it is more than any device sends.

    It stands between the transport and the protocol of the web server, because that shows nothing of a message in
    fragments before the last of them.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        now_s = self._loop.time()
        self._costs = TokenBucket(_COSTS_PER_S, _MAX_COSTS, now_s)
        self._bytes = TokenBucket(_BYTES_PER_S, _MAX_BYTES, now_s)
        self._since_yield = 0.0
        self._transport: asyncio.Transport | None = None
        self._web: asyncio.Protocol | None = None
        self.flooded = False
        """It was hung up for sending too much."""
        self.closed = asyncio.Event()
        """The connection is gone."""

    def bind(self, transport: asyncio.Transport) -> None:
        """Count the bytes of this connection from now on."""
        web = transport.get_protocol()
        assert isinstance(web, asyncio.Protocol)
        self._transport, self._web = transport, web
        transport.set_protocol(self)

    async def spend(self, cost: int) -> bool:
        """A message of this cost has been taken: let others have their turn; False when it was one too many."""
        if not self._costs.spend(cost, self._loop.time()):
            self._hang_up()
            return False
        self._since_yield += cost
        if self._since_yield >= _COSTS_AT_A_TIME:
            self._since_yield = 0.0
            await asyncio.sleep(_TURN_EVERY_S if cost == TURN_COST else 0.0)
        return True

    def _hang_up(self) -> None:
        """Say why, and close past the web server, which would look at all that waits before it did."""
        self.flooded = True
        if self._transport is None or self._transport.is_closing():
            return
        reason = WSCloseCode.POLICY_VIOLATION.to_bytes(2, "big") + b"more messages than any device sends"
        self._transport.write(bytes((0x88, len(reason))) + reason)  # a Close frame, RFC 6455 section 5.5.1
        self._transport.resume_reading()
        self._loop.call_later(_LINGER_S, self._transport.close)

    # As asyncio's transports call it --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Pass it on, unless it is too much."""
        assert self._web is not None
        if self.flooded:
            return
        if self._bytes.spend(len(data), self._loop.time()):
            self._web.data_received(data)
        else:
            self._hang_up()

    def eof_received(self) -> bool | None:
        """Pass it on."""
        assert self._web is not None
        return self._web.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        assert self._web is not None
        self.closed.set()
        self._web.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        assert self._web is not None
        self._web.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        assert self._web is not None
        self._web.resume_writing()
