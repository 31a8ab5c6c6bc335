"""One device of a load: when it talks, what it does wrong, and what it saw of each turn."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from bench.misbehaviour import NO_MISCHIEF, Mischief, Prankster
from xiaozhi.client.device import Device
from xiaozhi.client.errors import ConnectFailed, DeviceError
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.report import TurnReport
from xiaozhi.client.speaker import HeardPacket
from xiaozhi.transport import framing

SPANS: Final = ("soft_end", "text", "first_token", "first_clause", "first_speech", "commit", "first_packet")
# A packet that came this little after the loudspeaker ran dry is a timer's rounding, not a gap anybody hears.
_GAP_MS: Final = 1.0
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the devices go: a WebSocket address, or an OTA address that tells each of them."""

    websocket_url: str = ""
    ota_url: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What the devices do.

    Attributes:
        devices: how many; they appear over `ramp_s` and each begins turns for `duration_s`.
        turns_per_minute: of each device, with a random phase and intervals 30 % around the mean.
        jitter_ms: microphone packets are held up at random by at most this, in order, as Wi-Fi does.
        mischief: what devices do wrong.
        freezers: of the devices, how many freeze in mid-reply (`bench.freezing`); they are not among those judged.
    """

    devices: int
    duration_s: float
    turns_per_minute: float = 3.0
    ramp_s: float = 5.0
    jitter_ms: float = 0.0
    mischief: Mischief = NO_MISCHIEF
    seed: int = 1
    freezers: int = 0


@dataclass(slots=True)
class Turn:
    """One turn as a device saw it; times in milliseconds after the last voiced sample.

    Attributes:
        outcome: the report's, or the name of the error that kept the device from talking.
        meant: it went the way the device wanted: nothing in it was broken off on purpose.
        at_s: when it began, on the machine's monotonic clock.
        is_call: no turn at all, but an attempt to connect that failed.
        first_packet_ms, first_heard_ms: the reply's first packet, and its first sound.
        starved_ms, worst_gap_ms, late_frames, frames: silence in the midst of the reply; packets that came after the
            loudspeaker had run dry, of how many.
        error: what the server says went wrong although it answered (a broken upstream, for which it apologised).
        voice: which of its voices spoke.
    """

    outcome: str
    at_s: float
    meant: bool = True
    is_call: bool = False
    first_packet_ms: float | None = None
    first_heard_ms: float | None = None
    starved_ms: float = 0.0
    worst_gap_ms: float = 0.0
    late_frames: int = 0
    frames: int = 0
    error: str = ""
    voice: str = ""
    spans: dict[str, float | None] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """The device heard a reply."""
        return self.outcome == "answered"


def gaps_ms(heard: Sequence[HeardPacket]) -> list[float]:
    """Silences between packets of one reply as they were played, in milliseconds."""
    gaps = []
    for before, after in itertools.pairwise(heard):
        silence_ms = after.at_ms - (before.at_ms + before.heard_ms)
        if silence_ms > _GAP_MS:
            gaps.append(silence_ms)
    return gaps


def starts_s(load: Load, dice: random.Random) -> list[float]:
    """When a device's turns are due, in seconds after it appeared: a random phase, then intervals around the mean."""
    period_s = 60.0 / load.turns_per_minute
    due_s, found = dice.uniform(0.0, period_s), []
    while due_s < load.duration_s:
        found.append(due_s)
        due_s += period_s * dice.uniform(0.7, 1.3)
    return found


class LoadDevice(Device):
    """A device on bad Wi-Fi: its microphone's packets are held up by 0 to `jitter_ms`, and keep their order."""

    def __init__(
        self, identity: ClientIdentity, session: aiohttp.ClientSession, jitter_ms: float, dice: random.Random
    ) -> None:
        super().__init__(identity, trace=True, decode_reply=False, session=session)
        self._jitter_s = jitter_ms / 1000.0
        self._dice = dice
        self._free_at_s = 0.0

    def _microphone_gave(self, opus: bytes) -> None:
        if not self._jitter_s:
            super()._microphone_gave(opus)
            return
        loop = asyncio.get_running_loop()
        self._free_at_s = max(self._free_at_s, loop.time() + self._dice.uniform(0.0, self._jitter_s))
        loop.call_at(self._free_at_s, super()._microphone_gave, opus)

    async def call(self, target: Target) -> None:
        """Connect the way this load is told to.

        Raises:
            ConnectFailed: see `Handset.connect`.
        """
        if target.ota_url:
            reply = await self.boot(target.ota_url)
            await self.connect(reply.url, reply.token)
        else:
            await self.connect(target.websocket_url)

    def send_raw(self, message: str | bytes) -> None:
        """Put anything at all on the wire."""
        if self._link is not None and self.connected:
            self._link.outbox.put(message if isinstance(message, str) else framing.pack(self.version, message))


class User:
    """One device's hour: appears, talks when a turn is due, comes back when it was lost.

    Args:
        number: which device.
        load: what all of them do.
        target: where they call.
        speech: what they say.
        session: shared by those of one process.
        tell: takes each turn, and each call that failed, as it ends.
    """

    def __init__(
        self,
        number: int,
        load: Load,
        target: Target,
        speech: Sequence[SpokenUtterance],
        session: aiohttp.ClientSession,
        tell: Callable[[Turn], None],
    ) -> None:
        self._load = load
        self._target = target
        self._speech = speech
        self._tell = tell
        self._dice = random.Random(load.seed * 100_003 + number)
        self._device = LoadDevice(ClientIdentity.numbered(number), session, load.jitter_ms, self._dice)
        self._appears_s = load.ramp_s * number / max(1, load.devices)
        self.prankster = Prankster(load.mischief, self._device, self._dice)
        self.due = 0
        """Turns that were to begin."""
        self.calls = 0
        """Connections that came about."""

    async def live(self) -> None:
        """Come, talk on schedule, stay until the end, go."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._appears_s)
        began_s = loop.time()
        dues_s = starts_s(self._load, self._dice)
        self.due = len(dues_s)
        async with self._device:
            for due_s in dues_s:
                if loop.time() - began_s > self._load.duration_s:
                    break  # turns took longer than their interval: the rest of the schedule was missed
                await self._connected_until(began_s + due_s)
                if self._device.connected:
                    await self._one_turn()
                else:
                    self._tell(Turn("not connected when it was due", time.monotonic()))
            # Stays on line and listens to silence, so that all devices are there until the end.
            await asyncio.sleep(max(0.0, began_s + self._load.duration_s - loop.time()))

    async def _connected_until(self, due_s: float) -> None:
        """Be on line while waiting for a turn, as a device is."""
        await self._call_until(due_s)
        await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
        # Lost while nothing was said: a device finds out and calls again when its user speaks.
        await self._call_until(due_s)

    async def _call_until(self, due_s: float) -> None:
        """Call if there is no connection; a refusal is tried again until the turn is due."""
        while not self._device.connected:
            at_s = time.monotonic()
            try:
                await self._device.call(self._target)
                self.calls += 1
            except DeviceError as error:
                status = error.status if isinstance(error, ConnectFailed) else None
                kind = f"call: {type(error).__name__}" + (f" {status}" if status else "")
                self._tell(Turn(kind, at_s, is_call=True))
                if asyncio.get_running_loop().time() > due_s:
                    return
                await asyncio.sleep(_RETRY_S)

    async def _one_turn(self) -> None:
        at_s = time.monotonic()
        utterance = self._dice.choice(self._speech)
        prank = self.prankster.choose()
        work: Coroutine[Any, Any, TurnReport] = self._device.turn(utterance)
        report = await (self.prankster.spoil(prank, work, utterance.duration_ms) if prank else work)
        turn = seen(report, self._device.manners.speaker.playback.heard, at_s)
        turn.meant = not prank or not self.prankster.breaks_off(prank)
        if not turn.meant:
            turn.outcome = f"{prank} on purpose"
        self._tell(turn)


def seen(report: TurnReport, heard: Sequence[HeardPacket], at_s: float) -> Turn:
    """What a bench keeps of a report."""
    silences = gaps_ms(heard)
    trace = report.trace or {}
    return Turn(
        report.outcome.value,
        at_s,
        first_packet_ms=report.first_packet_ms,
        first_heard_ms=report.first_heard_ms,
        starved_ms=report.starved_ms,
        worst_gap_ms=max(silences, default=0.0),
        late_frames=len(silences),
        frames=report.received,
        error=str(trace.get("error") or ""),
        voice=str(trace.get("voice") or ""),
        spans={name: report.span_ms(name) for name in SPANS},
    )
