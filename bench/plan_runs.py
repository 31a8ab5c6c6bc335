"""Runs of `bench.devices` for the planner's figures, each with what others took of the machine meanwhile."""

import asyncio
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.devices import Scene, measure
from bench.first_word import utterances
from bench.quiet import DISTURBED, Others
from bench.user import Load

# Above, the devices' own loops had no processor: nothing that was measured then is the server's.
MAX_LAG_MS = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        figures: as `bench.devices --json` writes them.
        others: what others took of all cores meanwhile, 0 to 1; 0 where it is not known.
    """

    figures: Mapping[str, Any]
    others: float = 0.0

    @property
    def disturbed(self) -> str:
        """Why nothing can be concluded from it; empty when something can."""
        if self.others > DISTURBED:
            return f"others took {self.others:.0%} of the machine"
        if (lag_ms := self.figures["device_lag_ms"]) > MAX_LAG_MS:
            return f"the devices themselves were {lag_ms:.0f} ms late"
        return ""


def let_talk(devices: int, turns_per_minute: float, duration_s: float) -> Run:
    """Let devices talk to a server of their own, with the recogniser of full size."""
    others = Others()
    load = Load(devices, duration_s, turns_per_minute)
    outcome = asyncio.run(measure(load, Scene()))
    multiprocessing.active_children()  # waits for those that have ended: their time counts as ours from then on
    return Run(outcome.as_dict(), others.share())


def busy_cores(figures: Mapping[str, Any]) -> float:
    """Cores that a run's server needed while its devices were there: without the first fifth, in which they come."""
    samples = figures["server"]
    busy = samples[len(samples) // 5 :]
    return float(sum(one["cpu_share"] for one in busy) / len(busy))


def reply_s(runs: Sequence[Mapping[str, Any]]) -> float:
    """Length of a reply, in seconds."""
    return float(sum(one["frames"] for one in runs) * 0.06 / max(1, sum(one["turns"] for one in runs)))


def spoken_s() -> float:
    """Length of what devices say that were given no recordings, in seconds."""
    return fmean(one.duration_ms for one in utterances([])) / 1000.0
