"""The microphone's clock: one packet for every frame of time that the microphone is open."""

import asyncio
from collections.abc import Callable
from typing import Final

from xiaozhi.client.microphone import Microphone

# A loop that was held up sends what it missed, but no more than the firmware's queues would have kept.
_MAX_AT_ONCE: Final = 42


class Uplink:
    """Reads the microphone in its own time and hands packets on.

    Times are milliseconds on the loop's clock. A packet leaves when its last sample has been recorded.

    Args:
        microphone: what is read.
        speed: the microphone's clock against real time.
        send: takes each packet.
        voiced: told when the last voiced sample, as far as known, was spoken.
    """

    def __init__(
        self, microphone: Microphone, speed: float, send: Callable[[bytes], None], voiced: Callable[[float], None]
    ) -> None:
        if not 0.0 < speed <= 1000.0:
            raise ValueError("speed must lie above 0 and not above 1000")
        self._microphone = microphone
        self._speed = speed
        self._frame_ms = microphone.frame_ms / speed
        self._send = send
        self._voiced = voiced
        self._from_ms: float | None = None
        self._next_ms = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, from_ms: float | None) -> float:
        """The microphone gives samples from this time on, or is shut (None).

        Returns:
            How much speech was lost because somebody was speaking into it when it was shut, in milliseconds.
        """
        if from_ms == self._from_ms:
            return 0.0
        lost_ms = self._microphone.shut() if self._from_ms is not None else 0.0
        self._from_ms = from_ms
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if from_ms is not None:
            self._next_ms = from_ms + self._frame_ms
            self._arm()
        return lost_ms

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(self._next_ms / 1000.0, self._tick)

    def _tick(self) -> None:
        # Timers may fire a little early; the packet they were set for is due all the same.
        now_ms = max(asyncio.get_running_loop().time() * 1000.0, self._next_ms)
        missed = int((now_ms - self._next_ms) / self._frame_ms) + 1 - _MAX_AT_ONCE
        if missed > 0:
            self._next_ms += missed * self._frame_ms
        while self._next_ms <= now_ms:
            frame = self._microphone.read()
            if frame is not None:
                self._send(frame.opus)
                if frame.voiced_before_end_ms is not None:
                    self._voiced(self._next_ms - frame.voiced_before_end_ms / self._speed)
            self._next_ms += self._frame_ms
        self._arm()
