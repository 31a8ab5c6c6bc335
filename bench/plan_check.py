"""Is `xiaozhi plan` right about this machine? Its queue against a simulation, its node against real devices.

    python -m bench.plan_check                        lets 30 devices talk for a minute (two minutes in all)
    python -m bench.plan_check --queue-only           only the simulation of the queue
    python -m bench.plan_check --run devices.json     judges a run that was written by bench.devices --json

The figures come from another run (`bench.plan_costs`), with other numbers of devices and turns. Exit code 0 when every
figure lies within its tolerance; 1 when one does not, or the simulated 95th percentile of the wait differs from the
formula's by more than 10 % and by more than 0.15 of a service time; 2 when the run could not be judged, because others
took more than a tenth of the machine or the devices were starved.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.first_word import Upstreams
from bench.harness import allow_files
from bench.plan_runs import Run, busy_cores, let_talk, reply_s, spoken_s
from bench.plan_simulation import Queue, simulate
from bench.plan_wire import measured_wire
from bench.stats import table
from xiaozhi.plan.costs import DEFAULT_FILE, Costs, CostsError, read_costs
from xiaozhi.plan.planner import Box, Demand, figures_of, load_of, plan

_WAIT_ALLOWED: Final = 0.1
_WAIT_ALLOWED_SERVICES: Final = 0.15
# Neither of the runs that the figures were made from.
_DEVICES: Final = 30
_TURNS_PER_MINUTE: Final = 3.0
# Tokens of the stand-in's first clause: the voice begins when they are there.
_FIRST_CLAUSE_TOKENS: Final = 3
_SHARES: Final = (0.3, 0.6, 0.9, 1.0)


def wait_error(expected_s: float, found_s: float, service_s: float) -> float:
    """How far two waits lie apart, as a share of what is allowed."""
    return abs(found_s - expected_s) / max(_WAIT_ALLOWED * expected_s, _WAIT_ALLOWED_SERVICES * service_s)


def against_simulation(demand: Demand, box: Box, costs: Costs) -> tuple[str, float]:
    """Formula and simulation at several shares of what a node carries; the worst of `wait_error`."""
    most = plan(demand, box, costs).most_per_node
    rows, worst = [], 0.0
    for share in _SHARES:
        one = replace(demand, devices=max(1, int(most * share)))
        figures = figures_of(one, box, costs)
        if not figures["decodes"]:
            return "others recognize: there is no queue here", 0.0
        arrivals_per_s = figures["turns"] * figures["decodes"]
        queue = Queue(arrivals_per_s, figures["service_s"], figures["scatter"], box.workers)
        found, expected_s = simulate(queue), figures["wait_p95_s"]
        worst = max(worst, wait_error(expected_s, found.p95_s, queue.service_s))
        rows.append((
            one.devices, f"{queue.utilisation:.0%}", f"{found.utilisation:.0%}",
            figures["mean_wait_s"] * 1000, found.mean_s * 1000, expected_s * 1000, found.p95_s * 1000,
        ))  # fmt: skip
    header = ("devices", "busy", "simulated", "mean wait ms", "simulated", "wait p95 ms", "simulated")
    return table(header, rows), worst


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure.

    Attributes:
        name: with its unit.
        planned, measured: both of them.
        over, under: how much more and how much less may be planned than is measured, as shares. What is planned too
            high costs money; what is planned too low costs users their answer.
    """

    name: str
    planned: float
    measured: float
    over: float
    under: float

    @property
    def off(self) -> float:
        """How much more is planned than measured, as a share."""
        return self.planned / self.measured - 1.0

    @property
    def good(self) -> bool:
        """Within its tolerance; what is not a number is not."""
        return -self.under <= self.off <= self.over


def against_run(run: Run, box: Box, costs: Costs, said_s: float, upstreams: Upstreams = Upstreams()) -> list[Compared]:  # noqa: B008 - frozen
    """Prediction and measurement of one run.

    Args:
        run: of `bench.devices`.
        box: this machine.
        costs: measured before.
        said_s: length of what the devices said.
        upstreams: the delays of the stand-ins in that run.
    """
    figures = run.figures
    clause_ms = upstreams.first_token_ms + _FIRST_CLAUSE_TOKENS * 1000.0 / upstreams.tokens_per_s
    demand = Demand(
        figures["devices"],
        turns_per_minute=figures["turns_a_minute"] / figures["devices"],
        speech_s=said_s,
        reply_s=reply_s([figures]),
        first_token_s=clause_ms / 1000.0,
        voice_s=upstreams.first_byte_ms / 1000.0,
    )
    node = load_of(demand, box, costs)
    first_ms = figures["spans"]["first packet at the device"]["p95"]
    memory_mb = max(one["rss_mb"] for one in figures["server"])
    return [
        Compared("processor, cores", node.cpu_cores, busy_cores(figures), 0.34, 0.25),
        Compared("memory, MB", node.memory_gb * 1000.0, memory_mb, 0.3, 0.15),
        Compared("first sound p95, ms", node.first_audio_p95_s * 1000.0, first_ms, 0.35, 0.2),
    ]


def against_wire(wire_bps: tuple[float, float], costs: Costs) -> list[Compared]:
    """Bandwidth: what a device takes while sound goes up, and while it goes down, in bits a second.

    The encoders' bit rates are ceilings: what is said decides how much of them is used.
    """
    up, down = wire_bps
    return [
        Compared("up, kbit/s of a device", costs.up_bps / 1000.0, up / 1000.0, 0.5, 0.05),
        Compared("down, kbit/s of a device", costs.down_bps / 1000.0, down / 1000.0, 0.5, 0.05),
    ]


def shown(compared: Sequence[Compared]) -> str:
    """One row for each figure."""
    header = ("", "planned", "measured", "off", "allowed", "")
    return table(header, [
        (one.name, one.planned, one.measured, f"{one.off:+.0%}", f"-{one.under:.0%} to +{one.over:.0%}",
         "good" if one.good else "MISSED")
        for one in compared
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plan_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, metavar="FILE", help="written by bench.devices --json, instead of a run now"
    )
    parser.add_argument("--queue-only", action="store_true", help="no devices")
    parser.add_argument("--devices", type=int, default=_DEVICES, help=f"{_DEVICES}")
    parser.add_argument("--turns-per-minute", type=float, default=_TURNS_PER_MINUTE, help=f"{_TURNS_PER_MINUTE:g}")
    parser.add_argument("--duration", type=float, default=60.0, metavar="S", help="60")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="of this machine")
    parser.add_argument("--speech-s", type=float, help="length of what the devices of --run said")
    parser.add_argument("--costs", type=Path, default=DEFAULT_FILE, help="figures to check; the shipped ones")
    given = parser.parse_args(arguments)
    try:
        costs, box = read_costs(given.costs), Box(given.cores)
    except (CostsError, ValueError) as error:
        parser.error(str(error))
    simulated, wait_off = against_simulation(Demand(1000), Box(), costs)
    print(
        f"## Against a simulation of the queue\n\n{simulated}\n\nworst difference, of what is allowed: {wait_off:.0%}"
    )
    if given.queue_only:
        return int(wait_off > 1)
    allow_files(4096)
    compared: list[Compared] = []
    if given.run:
        runs = [Run(figures) for figures in json.loads(given.run.read_bytes())]
    else:
        print(
            f"\n{given.devices} devices, {given.turns_per_minute:g} turns a minute, {given.duration:g} s …", flush=True
        )
        runs = [let_talk(given.devices, given.turns_per_minute, given.duration)]
    said_s = given.speech_s or spoken_s()
    for run in runs:
        of_run = against_run(run, box, costs, said_s)
        print(f"\n## Against {run.figures['devices']} real devices\n\n{shown(of_run)}")
        compared += of_run
    if not given.run:
        of_wire = against_wire(asyncio.run(measured_wire()), costs)
        print(f"\n## Against one device on the wire\n\n{shown(of_wire)}")
        compared += of_wire
    if disturbed := [run.disturbed for run in runs if run.disturbed]:
        print(f"\nnot judged: {disturbed[0]}; use a quiet machine")
        return 2
    missed = [one.name for one in compared if not one.good]
    print("\n" + (f"MISSED: {', '.join(missed)}" if missed else "every figure lies within its tolerance"))
    return int(wait_off > 1 or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
