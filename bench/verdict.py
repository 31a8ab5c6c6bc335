"""Whether a run holds what is asked: row S1 (a hundred devices on one process) line by line, and the capacity target.

Pure: figures in, lines out.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.outcome import Outcome
from xiaozhi.turn.trace import STARVED_MS

S1_SUCCESS: Final = 0.99
S1_ERRORS: Final = 0.01
S1_END_TO_END_MS: Final = 2000.0
S1_MEMORY: Final = 0.80
S1_CPU: Final = 0.70
# Turns that were due and did not begin: the load was not what the row asks for.
S1_BEGUN: Final = 0.99

CAPACITY_P95_MS: Final = 1500.0
CAPACITY_STARVED: Final = 0.01


@dataclass(frozen=True, slots=True)
class Line:
    """One demand and whether it holds; `holds` None where it could not be measured."""

    demand: str
    found: str
    holds: bool | None

    def __str__(self) -> str:
        mark = {True: "holds ", False: "BROKEN", None: "–     "}[self.holds]
        return f"{mark}  {self.demand}: {self.found}"


def row_s1(outcome: Outcome, cores: int | None = None) -> list[Line]:
    """The row's demands, in its order. The server's CPU counts, the devices' and upstreams' on this machine do not."""
    cores = cores or os.cpu_count() or 1
    p95_ms = outcome.first_audio()["p95"]
    lines = [
        Line(
            f"{outcome.load.turns_per_minute:g} turns a minute each",
            f"{outcome.begun:.1%} of {outcome.due} turns due were begun",
            outcome.begun >= S1_BEGUN and not outcome.died,
        ),
        Line("success over 99 %", f"{outcome.success:.2%}", outcome.success > S1_SUCCESS),
        Line("errors under 1 %", f"{outcome.error_share:.2%}", outcome.error_share < S1_ERRORS),
        Line("first audio p95 under 2 s", _ms(p95_ms), p95_ms < S1_END_TO_END_MS),
        Line(
            f"under 1 % of turns starved over {STARVED_MS:.0f} ms",
            f"{outcome.starved:.2%}, worst gap {outcome.worst_gap_ms:.0f} ms",
            outcome.starved < CAPACITY_STARVED,
        ),
    ]
    if outcome.server_ended:
        lines.append(Line("the server goes on", "it ended during the run", False))
    samples = outcome.busy_samples()
    if not samples:
        return [
            *lines,
            Line("memory under 80 %", "not measured: the server's process is not known", None),
            Line("CPU under 70 %", "not measured: the server's process is not known", None),
        ]
    memory = max(sample.box_memory for sample in samples)
    cpu = sum(sample.cpu_share for sample in samples) / len(samples) / cores
    rss_mb = max(sample.rss_mb for sample in samples)
    return [
        *lines,
        Line("memory under 80 %", f"{memory:.0%} of the machine, the server {rss_mb:.0f} MB", memory < S1_MEMORY),
        Line("CPU under 70 %", f"the server {cpu:.0%} of {cores} cores on average", cpu < S1_CPU),
    ]


def capacity(outcome: Outcome) -> list[Line]:
    """What a number of devices must hold to count as carried, the worst broken line first."""
    p95_ms = outcome.first_audio()["p95"]
    rated = [
        (
            p95_ms / CAPACITY_P95_MS if p95_ms == p95_ms else math.inf,
            Line("first audio p95 at most 1.5 s", _ms(p95_ms), p95_ms <= CAPACITY_P95_MS),
        ),
        (
            outcome.starved / CAPACITY_STARVED,
            Line(
                f"under 1 % of turns starved over {STARVED_MS:.0f} ms",
                f"{outcome.starved:.2%}",
                outcome.starved < CAPACITY_STARVED,
            ),
        ),
        (
            (1.0 - outcome.success) / (1.0 - S1_SUCCESS),
            Line("success over 99 %", f"{outcome.success:.2%}", outcome.success > S1_SUCCESS),
        ),
    ]
    if outcome.server_ended or outcome.died:
        rated.append((math.inf, Line("everything goes on", "the server or the devices ended during the run", False)))
    return [line for _, line in sorted(rated, key=lambda pair: -pair[0])]


def broken(lines: Sequence[Line]) -> list[Line]:
    """The demands that were not met."""
    return [line for line in lines if line.holds is False]


def _ms(value: float) -> str:
    return "nothing was heard" if math.isnan(value) else f"{value:.0f} ms"
