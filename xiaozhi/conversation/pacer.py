"""Lets one reply out at the speed of sound: a fixed lead ahead of playback, one clock per reply, one wheel for all."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.timing_wheel import TimingWheel
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.echo_guard import PlayedPacket
from xiaozhi.events import Clause, ClauseStart, SpeechPacket, SpokenItem
from xiaozhi.turn.playout import PlayoutClock

# What a microphone may hear of the loudspeaker was played no longer ago: 0.7 s are compared, up to 1 s after they were
# to be played, by sound that comes up to 2 s late; with what waits in the device, and packets of 60 ms.
MAX_RECENT_PACKETS: Final = 72
# A wheel that has turned at a packet's time may find it due by the next bit of a sum of floats.
_ROUNDING_MS: Final = 0.01


class Pacer:
    """Sends one reply's packets when they are due and knows what has been played.

    Args:
        link: the device.
        wheel: calls when packets are due.
        generation: of the reply; an interruption silences it.
        lead_ms: the most audio that waits in the device, the packet just sent included.
        most_speech_ms: no further clause is begun when so much speech has left.
    """

    def __init__(
        self, link: DeviceLink, wheel: TimingWheel, generation: int, lead_ms: float, most_speech_ms: float
    ) -> None:
        self._link = link
        self._wheel = wheel
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
        self._items: Channel[SpokenItem] | None = None  # what is let out
        self._on_first_packet: Callable[[], None] | None = None  # until it has left
        self._idle = self._loop.create_future()  # done while nothing is there that could be sent
        self._idle.set_result(None)
        self._turning = False  # the wheel is going to call
        self._over = False  # no more is sent

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
        if not self._turning:
            self._turn_at(self._now_ms())

    def stop(self) -> None:
        """Send no more at all."""
        self._over = True
        if not self._idle.done():
            self._idle.set_result(None)

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
        self._items, self._on_first_packet = items, on_first_packet
        try:
            while not self._over and await items.peek() is not None:
                self._idle = self._loop.create_future()
                if not self._turning:
                    self._send_due()
                await self._idle
        finally:
            self._items = None
        await self._played_out()

    def _turn_at(self, due_ms: float) -> None:
        self._turning = True
        self._wheel.at(due_ms / 1000.0, self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._send_due()

    def _send_due(self) -> None:
        """Send what is due, unless the reply is held, and come back for the rest; when none waits, `play` sees on."""
        if self._items is None or self._idle.done() or self._held_at_ms is not None:
            return
        try:
            while not self._over and (item := self._items.first) is not None:
                duration_ms = 0.0 if isinstance(item, ClauseStart) else item.duration_ms
                due_ms, now_ms = self._clock.due_ms(self._now_ms(), duration_ms), self._now_ms()
                if due_ms - now_ms > _ROUNDING_MS:
                    self._turn_at(due_ms)
                    return
                if isinstance(item, ClauseStart):
                    self._begin(item.clause)
                else:
                    self._send(item)
                self._items.take()
        except Exception as error:  # noqa: BLE001 - of this reply alone: it is raised where the reply waits
            self._idle.set_exception(error)
        else:
            self._idle.set_result(None)

    def _begin(self, clause: Clause) -> None:
        """Show the subtitle of the sound that follows, unless there was enough speech already."""
        if sum(ms for spoken, ms in self._spoken if spoken.sound is None) >= self._most_speech_ms:
            self._over = True
            return
        if clause.text:
            self._link.sentence_start(clause.text)
        self._spoken.append((clause, 0.0))

    def _send(self, packet: SpeechPacket) -> None:
        if self._pause_expected and self._forgive_silence():
            self._pause_expected = False
        self._link.audio(packet.opus, self._generation)
        self._clock.sent(packet.duration_ms, self._now_ms())
        ends_ms = self._clock.ends_ms() or 0.0
        self.recent.append(PlayedPacket(ends_ms - packet.duration_ms, packet.duration_ms, packet.opus))
        if self._spoken:
            clause, sent_ms = self._spoken[-1]
            self._spoken[-1] = (clause, sent_ms + packet.duration_ms)
        if self._on_first_packet is not None:
            self._on_first_packet()
            self._on_first_packet = None

    async def _played_out(self) -> None:
        await self._open.wait()
        while (ends_ms := self._clock.ends_ms()) is not None and (wait_ms := ends_ms - self._now_ms()) > 0.0:
            await asyncio.sleep(wait_ms / 1000.0)
            await self._open.wait()
