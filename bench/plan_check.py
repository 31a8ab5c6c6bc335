"""Holds the planner against two other things: a simulation of its queue, and real devices on this machine.

    python -m bench.devices --devices 30 --duration 60 --json devices.json     (on a machine that does nothing else)
    python -m bench.plan_check devices.json --cores 2

Without a file only the queue is simulated. Exit code 1 when the simulated 95th percentile of the wait differs from the
formula's by more than 10 % and by more than 0.15 of a service time, or a run's processor time by more than a third;
2 when a run could not be judged because its devices were starved.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.plan_costs import MOST_LAG_MS, busy_cores
from bench.plan_simulation import simulate
from bench.stats import table
from xiaozhi.plan.costs import DEFAULT_FILE, Costs, read_costs
from xiaozhi.plan.model import Box, Demand, load_of, plan, recognition_queue

_WAIT_ALLOWED: Final = 0.1
_WAIT_ALLOWED_SERVICES: Final = 0.15
_CPU_ALLOWED: Final = 0.34
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
        node = load_of(one, box, costs)
        decoding = node.recognition_share * box.workers
        queue = recognition_queue(one, box, costs, max(0.0, node.cpu_cores - decoding))
        if queue is None:
            return "others recognise: there is no queue here", 0.0
        found, expected_s = simulate(queue), queue.wait_quantile_s(0.95)
        worst = max(worst, wait_error(expected_s, found.p95_s, queue.service_s))
        rows.append((
            one.devices, f"{queue.utilisation:.0%}", f"{found.utilisation:.0%}",
            queue.mean_wait_s() * 1000, found.mean_s * 1000, expected_s * 1000, found.p95_s * 1000,
        ))  # fmt: skip
    header = ("devices", "busy", "simulated", "mean wait ms", "simulated", "wait p95 ms", "simulated")
    return table(header, rows), worst


def against_run(run: Mapping[str, Any], box: Box, costs: Costs, speech_s: float) -> tuple[str, float]:
    """Prediction and measurement of one run of `bench.devices`; the difference of processor time as a share."""
    turns = max(1, run["turns"])
    demand = Demand(
        run["devices"],
        turns_per_minute=run["turns_a_minute"] / run["devices"],
        speech_s=speech_s,
        reply_s=run["frames"] * 0.06 / turns,
    )
    node = load_of(demand, box, costs)
    cpu = busy_cores(run)
    rows = [
        ("processor, cores", node.cpu_cores, cpu),
        ("memory, MB", node.memory_gb * 1000, max(one["rss_mb"] for one in run["server"])),
        ("first sound p95, ms", node.first_audio_p95_s * 1000, run["spans"]["first packet at the device"]["p95"]),
    ]
    return table((f"{demand.devices} devices", "planned", "measured"), rows), abs(node.cpu_cores - cpu) / cpu


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plan_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("devices", type=Path, nargs="?", help="written by bench.devices --json")
    parser.add_argument("--cores", type=int, default=4)
    parser.add_argument("--speech-s", type=float, default=2.0, help="length of what the devices of that run said")
    parser.add_argument("--costs", type=Path, default=DEFAULT_FILE)
    given = parser.parse_args(arguments)
    costs, box = read_costs(given.costs), Box(given.cores)
    shown, wait_off = against_simulation(Demand(1000), box, costs)
    print(f"## Against a simulation of the queue\n\n{shown}\n\nworst difference, of what is allowed: {wait_off:.0%}")
    cpu_off, judged = 0.0, True
    if given.devices:
        for run in json.loads(given.devices.read_bytes()):
            shown, off = against_run(run, box, costs, given.speech_s)
            print(f"\n## Against real devices\n\n{shown}\n\nprocessor time differs by {off:.0%}")
            if run["device_lag_ms"] > MOST_LAG_MS:
                print(f"not judged: the devices themselves were {run['device_lag_ms']:.0f} ms late, use a calm machine")
                judged = False
            else:
                cpu_off = max(cpu_off, off)
    if wait_off > 1 or cpu_off > _CPU_ALLOWED:
        return 1
    return 0 if judged else 2


if __name__ == "__main__":
    sys.exit(main())
