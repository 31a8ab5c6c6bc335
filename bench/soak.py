"""An hour of bad manners: devices that come, go, press keys and send nonsense, upstreams that refuse, break and stall.

What is asked is that nothing grows: memory, threads, file descriptors and tasks are flat within 3 % from minute 10 to
the end, the server logs no error of its own, and when everybody has gone it holds no more than before they came. Turns
are answered too where they can be; a stalled upstream may cost one its answer. Exit code 1 when something grew.
"""

import argparse
import asyncio
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bench.devices import Scene, let_talk, recordings_of, staged
from bench.drift import Drift, drifts, judged
from bench.harness import allow_files
from bench.misbehaviour import PRANKS, Mischief
from bench.outcome import Outcome, show
from bench.sampling import Sample, Watcher
from bench.stats import table
from bench.upstreams import Faults
from bench.user import Load
from bench.verdict import Line, broken

# Shares of turns. An hour of 30 devices is 5400 turns: 270 aborts, 270 losses, 540 with garbage in them.
MISCHIEF: Final = Mischief(abort=0.05, drop=0.05, garbage=0.10)
# One upstream goes wrong for 4 s about every 30 s: a tenth of all turns meet it.
FAULTS: Final = Faults(every_s=30.0, lasting_s=4.0)
# After the last device has gone the server has this long to free what it held.
_SETTLE_S: Final = 6.0
# Warm upstream connections and lazily begun pool threads that stay when everybody has gone.
_KEPT_FDS: Final = 16
_KEPT_THREADS: Final = 16
_KEPT_TASKS: Final = 4
_ERROR: Final = re.compile(r"\bERROR\b|Traceback \(most recent call last\)")


@dataclass(slots=True)
class Soaked:
    """What came of a soak: the run, and the server before it and when everybody had gone."""

    outcome: Outcome
    before: Sample | None
    after: Sample | None
    errors_logged: list[str]


async def soak(load: Load, scene: Scene) -> Soaked:
    """Start everything, let them misbehave, watch."""
    async with staged(scene) as stage:
        watcher = stage.watcher
        before = await watcher.look() if watcher is not None else None
        outcome = await let_talk(stage, load, scene)
        after = None
        if watcher is not None and not outcome.server_ended:
            await asyncio.sleep(_SETTLE_S)
            after = await _last_look(watcher, outcome)
        log = await asyncio.to_thread(stage.log.read_text, errors="replace") if stage.log is not None else ""
    return Soaked(outcome, before, after, errors_in(log))


async def _last_look(watcher: Watcher, outcome: Outcome) -> Sample | None:
    try:
        return await watcher.look()
    except ProcessLookupError:
        outcome.server_ended = True
        return None


def errors_in(log: str) -> list[str]:
    """Lines in which the server speaks of an error of its own."""
    return [line for line in log.splitlines() if _ERROR.search(line)]


def verdict(soaked: Soaked) -> list[Line]:
    """What a soak must hold."""
    found = [_flat(drift) for drift in drifts(judged_samples(soaked))]
    if not found:
        found = [Line("nothing grows", "not measured: the server's process is not known", None)]
    before, after = soaked.before, soaked.after
    if before is not None and after is not None:
        if before.fds is not None and after.fds is not None:
            found.append(_left("file descriptors", before.fds, after.fds, _KEPT_FDS))
        if before.tasks is not None and after.tasks is not None:
            found.append(_left("tasks", before.tasks, after.tasks, _KEPT_TASKS))
        found.append(_left("threads", before.threads, after.threads, _KEPT_THREADS))
    gone = soaked.outcome.server_ended
    found.append(Line("the server goes on", "it ended during the run" if gone else "it did", not gone))
    logged = soaked.errors_logged
    first = f", first: {logged[0][:160]}" if logged else ""
    found.append(Line("no error of its own in the log", f"{len(logged)} lines{first}", not logged))
    if soaked.outcome.died:
        found.append(Line("the devices go on", f"{soaked.outcome.died} processes died", False))
    return found


def judged_samples(soaked: Soaked) -> list[Sample]:
    """Samples while all devices were there."""
    return soaked.outcome.busy_samples()


def _flat(drift: Drift) -> Line:
    unit = "MB an hour" if drift.name == "rss_mb" else "an hour"
    margin = "" if math.isnan(drift.margin) else f" ± {drift.margin:.1f}"
    found = f"{drift.early:.0f} -> {drift.late:.0f} ({drift.growth:+.1%}), {drift.per_hour:+.1f}{margin} {unit} (95 %)"
    return Line(f"{drift.name} flat within 3 %", found, drift.flat)


def events_table(soaked: Soaked) -> str:
    """What was done to the server, and how often: connections, and everything that went wrong on purpose."""
    outcome = soaked.outcome
    pranks: Counter[str] = sum((Counter(tally.pranks) for tally in outcome.tallies), Counter())
    calls = sum(tally.calls for tally in outcome.tallies)
    rows = [("connections", calls), ("turns", len([turn for turn in outcome.turns if not turn.is_call]))]
    rows += [(f"{prank} on purpose", pranks[prank]) for prank in PRANKS]
    if outcome.load.freezers:
        rows.append(("frozen in mid-reply", outcome.frozen))
    apologies = sum(bool(turn.error) for turn in outcome.answered)
    rows.append(("turns that met a broken upstream and were told so", apologies))
    return table(("what happened", "times"), rows)


def _left(what: str, before: int, after: int, kept: int) -> Line:
    demand = f"{what} come back (at most {kept} more than before)"
    return Line(demand, f"{before} before, {after} after everybody has gone", after - before <= kept)


def ends_table(soaked: Soaked) -> str:
    """The server before, at both ends of the judged stretch, and when everybody had gone."""
    stretch = judged(judged_samples(soaked))
    rows = [("before the first device", soaked.before)]
    if stretch:
        rows += [("after the warm-up", stretch[0]), ("at the end", stretch[-1])]
    rows.append((f"{_SETTLE_S:.0f} s after the last device", soaked.after))
    header = ("server", "MB", "threads", "fds", "tasks")
    return table(
        header,
        ((name, s.rss_mb, s.threads, _or_dash(s.fds), _or_dash(s.tasks)) for name, s in rows if s is not None),
    )


def _or_dash(value: int | None) -> object:
    return "–" if value is None else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 when something grew or broke."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--turns-per-minute", type=float, default=3.0, help="of each device")
    parser.add_argument("--mix", nargs="*", type=Path, default=[], metavar="RECORDINGS", help="WAV files, or folders")
    parser.add_argument(
        "--jitter-ms", type=float, default=40.0, help="microphone packets are held up by 0 to this much"
    )
    parser.add_argument("--processes", type=int, default=2, help="for the devices")
    parser.add_argument("--freezers", type=int, default=1, help="of the devices freeze in mid-reply for 20 s")
    parser.add_argument("--no-faults", action="store_true", help="upstreams that always work")
    parser.add_argument("--tiny", action="store_true", help="a small recogniser, for a quick trial")
    parser.add_argument("--json", type=Path, help="write every sample here")
    given = parser.parse_args(arguments)
    if given.minutes <= 0 or given.devices < 1 or given.turns_per_minute <= 0:
        parser.error("--minutes, --devices and --turns-per-minute must be above 0")
    if not 0 <= given.freezers < given.devices:
        parser.error("--freezers must leave some devices awake")
    try:
        recordings = recordings_of(given.mix)
    except FileNotFoundError as error:
        parser.error(str(error))
    allow_files(65_536)
    faults = None if given.no_faults else FAULTS
    scene = Scene(recordings, given.processes, faults=faults, tiny=given.tiny)
    ramp_s = min(10.0, given.minutes * 6.0)
    duration_s = max(1.0, given.minutes * 60.0 - ramp_s)
    load = Load(given.devices, duration_s, given.turns_per_minute, ramp_s, given.jitter_ms, MISCHIEF)
    load = replace(load, freezers=given.freezers)
    soaked = asyncio.run(soak(load, scene))
    lines = verdict(soaked)
    print(f"{show(soaked.outcome)}\n\n{ends_table(soaked)}\n\n{events_table(soaked)}\n\nSoak:")
    print("\n".join(f"  {line}" for line in lines))
    if given.minutes < 20:
        print("  (shorter than 20 minutes: memory may still be finding its size, so growth says little)")
    if given.json:
        given.json.write_text(json.dumps([asdict(sample) for sample in soaked.outcome.samples]))
    return 1 if broken(lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
