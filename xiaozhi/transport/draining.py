"""A server that stops lets its devices go: turns under way are answered, the others hang up one after the other.

Each device has a moment at which its ears are shut for good, soon after the signal: from then on it begins no new turn,
and it is hung up in that very instant if it is doing nothing, or else when its turn is over. Until that moment it is
served as ever, so nothing that the server has taken is lost; what a device says while it is being hung up is the
device's to say again, to the node that serves then.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

_log = logging.getLogger(__name__)

# Speech is found up to 200 ms after it began, and needs 128 ms of it (`vad.min_speech_ms`) and a tick: who listens is
# not hung up sooner, so that a word begun before the signal is heard.
ONSET_S: Final = 0.4
# Moments lie this far apart: each device asks the OTA address and connects elsewhere, some 4 ms of a processor.
_APART_S: Final = 0.01
# So long the moments take at the most, and no more than this share of the time there is.
_MAX_MOMENTS_S: Final = 2.0
_MOMENTS_SHARE: Final = 0.25
_LOOK_S: Final = 0.05
_WHY: Final = "the server stops"


class Drained(Protocol):
    """What draining needs of a connection."""

    @property
    def device_id(self) -> str:
        """Whose it is."""
        ...

    @property
    def doing(self) -> str:
        """What its conversation is doing: the state of the turn machine."""
        ...

    @property
    def listens(self) -> bool:
        """Its microphone is open and nothing has been found in it yet."""
        ...

    @property
    def busy(self) -> bool:
        """A turn is under way."""
        ...

    @property
    def settled(self) -> bool:
        """No turn is under way, and the device has acted on the last `tts/stop`."""
        ...

    @property
    def refused_turns(self) -> int:
        """Texts that came when its ears were shut."""
        ...

    def finish(self) -> None:
        """Begin no new turn; may be said more than once."""
        ...

    def end(self, why: str) -> object:
        """Hang up."""
        ...


@dataclass(slots=True)
class Report:
    """What became of the devices.

    Attributes:
        doing: how many did what when the signal came.
        cut: how many were hung up in the midst of a turn, because the time was over.
        refused: texts that came to shut ears.
        took_s: until the last one was hung up, in seconds.
    """

    doing: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    refused: int = 0
    took_s: float = 0.0


def moments_s(listening: Sequence[bool], within_s: float) -> list[float]:
    """When each device's ears are shut, in seconds after the signal. Pure.

    Args:
        listening: of each device, whether it listens.
        within_s: the time there is for everything.
    """
    onset_s = min(ONSET_S, within_s * _MOMENTS_SHARE)
    spread_s = min(_APART_S * len(listening), _MAX_MOMENTS_S, within_s * _MOMENTS_SHARE)
    apart_s = spread_s / max(1, len(listening))
    return [number * apart_s + onset_s * listens for number, listens in enumerate(listening)]


class Drain:
    """Lets the devices of one server go.

    Args:
        connections: those that are open now.
        within_s: turns that are not over after this time are cut; 0 cuts them at once.
    """

    def __init__(self, connections: Callable[[], Sequence[Drained]], within_s: float) -> None:
        self._connections = connections
        self._within_s = within_s
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._at_signal: dict[Drained, str] = {}
        self._moments: dict[Drained, float] = {}
        self._ended: set[Drained] = set()
        self.report = Report()
        """What became of them so far."""

    async def run(self) -> Report:
        """Hang all of them up; the last may not be gone yet when this returns."""
        connections = list(self._connections())
        self._at_signal = {one: one.doing for one in connections}
        moments = moments_s([one.listens for one in connections], self._within_s)
        self._moments = dict(zip(connections, moments, strict=True))
        self.report.doing = Counter(self._at_signal.values())
        if connections:
            _log.info("draining: %d devices", len(connections), extra=dict(self.report.doing))
        try:
            async with asyncio.timeout(self._within_s):
                while self._open():
                    self._look()
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            self.report.cut = sum(one.busy for one in self._open())
            if self.report.cut:
                _log.warning("%d turns still running after %g s are cut", self.report.cut, self._within_s)
        for one in self._open():
            self._hang_up(one)
        self.report.refused = sum(one.refused_turns for one in self._ended)
        self.report.took_s = self._elapsed_s()
        return self.report

    def _open(self) -> list[Drained]:
        return [one for one in self._connections() if one not in self._ended]

    def _elapsed_s(self) -> float:
        return self._loop.time() - self._began_s

    def _look(self) -> None:
        """Shut the ears whose moment has come, and hang up who is doing nothing."""
        now_s = self._elapsed_s()
        for one in self._open():
            if self._moments.get(one, 0.0) > now_s:
                continue
            if one.settled:
                self._hang_up(one)
            elif one.busy:
                one.finish()

    def _hang_up(self, one: Drained) -> None:
        self._ended.add(one)
        one.finish()
        # What was going on when the signal came, and now: a turn that was taken and is not answered shows up here.
        doing = {"at_signal": self._at_signal.get(one, "not here"), "at_close": one.doing}
        after = {"device": one.device_id, "after_s": round(self._elapsed_s(), 2), "refused": one.refused_turns}
        _log.info("let go", extra={**after, **doing})
        one.end(_WHY)
