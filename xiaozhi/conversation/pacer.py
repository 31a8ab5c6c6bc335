"""Lets one reply out at the speed of sound: a fixed lead ahead of playback, one clock per reply."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from xiaozhi.concurrency.channel import Channel
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.echo_guard import PlayedPacket
from xiaozhi.events import Clause, ClauseStart, SpokenItem
from xiaozhi.turn.playout import PlayoutClock

# What a microphone may hear of the loudspeaker was played no longer ago: 0.7 s are compared, up to 1 s after they were
# to be played, by sound that comes up to 2 s late; with what waits in the device, and packets of 60 ms.
MAX_RECENT_PACKETS: Final = 72


class Pacer:
    """Sends one reply's packets when they are due and knows what has been played.

    Args:
        link: the device.
        generation: of the reply; an interruption silences it.
        lead_ms: the most audio that waits in the device, the packet just sent included.
        most_speech_ms: no further clause is begun when so much speech has left.
    """

    def __init__(self, link: DeviceLink, generation: int, lead_ms: float, most_speech_ms: float) -> None:
        self._link = link
        self._generation = generation
        self._clock = PlayoutClock(lead_ms)
        self._most_speech_ms = most_speech_ms
        self._loop = asyncio.get_running_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._held_at_ms: float | None = None
        self._pause_expected = False
        self.recent: deque[PlayedPacket] = deque(maxlen=MAX_RECENT_PACKETS)
        """The newest packets that have left, and when each is played."""
        self._spoken: list[tuple[Clause, float]] = []  # each clause and how much of its audio has left

    def _now_ms(self) -> float:
        return self._loop.time() * 1000.0

    @property
    def starved_ms(self) -> float:
        """How long the device had nothing to play in the middle of the reply."""
        return self._clock.starved_ms

    @property
    def sent_ms(self) -> float:
        """How much audio has left."""
        return self._clock.sent_ms

    def played_ms(self) -> float:
        """How much audio has been played by now."""
        return self._clock.played_ms(self._now_ms() if self._held_at_ms is None else self._held_at_ms)

    def unplayed_ms(self) -> float:
        """How much audio has left and still waits in the device."""
        return self._clock.sent_ms - self._clock.played_ms(self._now_ms())

    def spoken(self) -> list[tuple[Clause, float]]:
        """The clauses whose audio has begun to leave, in order, each with the milliseconds of it that have left."""
        return list(self._spoken)

    def hold(self) -> None:
        """Send no more for now; what has left plays out."""
        if self._held_at_ms is None:
            self._open.clear()
            self._held_at_ms = self._now_ms()

    def resume(self) -> None:
        """Go on where it was held; the silence in between is not starvation."""
        if self._held_at_ms is None:
            return
        self._forgive_silence()
        self._held_at_ms = None
        self._open.set()

    def shorten_lead(self) -> None:
        """Let what waits in the device play out almost, for a moment; nobody hears that."""
        self._clock.shorten_lead(self._now_ms())

    def expect_pause(self) -> None:
        """The reply waits for something else than its own stages: its next silence is not starvation."""
        self._pause_expected = True

    def _forgive_silence(self) -> bool:
        """Do not count the silence since everything was played, if there is one."""
        ends_ms, now_ms = self._clock.ends_ms(), self._now_ms()
        if ends_ms is None or now_ms <= ends_ms:
            return False
        self._clock.held(now_ms - ends_ms)
        return True

    async def play(self, items: Channel[SpokenItem], on_first_packet: Callable[[], None]) -> None:
        """Send everything from `items` in time, up to the limit; returns when the last packet has been played."""
        async for item in self._ready(items):
            if isinstance(item, ClauseStart):
                if sum(ms for clause, ms in self._spoken if clause.sound is None) >= self._most_speech_ms:
                    break
                if item.clause.text:
                    self._link.sentence_start(item.clause.text)
                self._spoken.append((item.clause, 0.0))
                continue
            first = self._clock.sent_ms == 0.0
            if self._pause_expected and self._forgive_silence():
                self._pause_expected = False
            # Framing 2 echoes the timestamp of what is being played; 0 means "nothing plays", so it starts at 1.
            self._link.audio(item.opus, self._generation, 1 + int(self._clock.sent_ms))
            self._clock.sent(item.duration_ms, self._now_ms())
            ends_ms = self._clock.ends_ms() or 0.0
            self.recent.append(PlayedPacket(ends_ms - item.duration_ms, item.duration_ms, item.opus))
            if self._spoken:
                clause, sent_ms = self._spoken[-1]
                self._spoken[-1] = (clause, sent_ms + item.duration_ms)
            if first:
                on_first_packet()
        await self._played_out()

    async def _ready(self, items: Channel[SpokenItem]) -> AsyncIterator[SpokenItem]:
        """Yield each item when it is due and the reply is not held."""
        async for item in items:
            await self._open.wait()
            duration_ms = 0.0 if isinstance(item, ClauseStart) else item.duration_ms
            while (wait_ms := self._clock.due_ms(self._now_ms(), duration_ms) - self._now_ms()) > 0.0:
                await asyncio.sleep(wait_ms / 1000.0)
                await self._open.wait()
            yield item

    async def _played_out(self) -> None:
        await self._open.wait()
        while (ends_ms := self._clock.ends_ms()) is not None and (wait_ms := ends_ms - self._now_ms()) > 0.0:
            await asyncio.sleep(wait_ms / 1000.0)
            await self._open.wait()
