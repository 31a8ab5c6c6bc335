"""Many devices at once: simulated devices in processes of their own, real time, real Opus, against one server.

The stand-in upstreams and the devices share this machine with the server, as they do in an owner's first test. A turn
counts as starved when the device had nothing to play for over 60 ms in the middle of a reply. Exit code 1 when row S1
(a hundred devices on one process) is missed.
"""

import argparse
import asyncio
import contextlib
import math
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson

from bench.capacity import Search
from bench.first_word import CACHE, Upstreams, settings_toml
from bench.freezing import Freezer
from bench.harness import allow_files, server_process
from bench.load import Fleet
from bench.misbehaviour import Mischief
from bench.outcome import Outcome, show
from bench.plot import line_chart
from bench.progress import Progress
from bench.sampling import Watcher, this_box
from bench.sense_voice_model import build_full, build_tiny
from bench.stats import table
from bench.upstreams import Faults, upstream_process
from bench.user import Load, Target
from bench.verdict import CAPACITY_P95_MS, broken, capacity, row_s1

RESULTS: Final = Path(__file__).parent / "results"
_LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What the devices meet.

    Attributes:
        recordings: what they say; the embedded voice without any.
        processes: how many for the devices.
        extra: further tables of the server's settings.
        upstreams, faults: the stand-ins' delays, and how they go wrong.
        ota_url: a server that runs already; empty to start one.
        pid: its process where it is on this machine.
        tiny: the small recogniser, for a quick trial: its times mean nothing.
        ports: of chat and speech; any where 0.
    """

    recordings: tuple[Path, ...] = ()
    processes: int = 2
    extra: str = ""
    upstreams: Upstreams = Upstreams()  # noqa: RUF009 - frozen
    faults: Faults | None = None
    ota_url: str = ""
    pid: int | None = None
    tiny: bool = False
    ports: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Stage:
    """A server that is ready to be talked to; `log` is its log's file where it is ours."""

    target: Target
    watcher: Watcher | None
    log: Path | None = None


@contextlib.asynccontextmanager
async def staged(scene: Scene) -> AsyncIterator[Stage]:
    """Start upstreams and server, or point at the one that runs."""
    if scene.ota_url:
        yield Stage(Target(ota_url=scene.ota_url), Watcher(scene.pid) if scene.pid else None)
        return
    model = CACHE / ("sense-voice-tiny" if scene.tiny else "sense-voice")
    if not scene.tiny or not (model / "tokens.txt").is_file():
        await asyncio.to_thread(build_tiny if scene.tiny else build_full, model)
    async with (
        upstream_process(scene.upstreams, scene.faults, scene.ports) as (chat_url, speech_url),
        server_process(settings_toml(chat_url, speech_url, model, scene.extra)) as server,
    ):
        yield Stage(Target(websocket_url=server.url), Watcher(server.pid, server.base_url), server.log)


async def let_talk(stage: Stage, load: Load, scene: Scene) -> Outcome:
    """Let the devices talk and watch the server meanwhile."""
    outcome = Outcome(load)
    progress = Progress()
    began_s = time.monotonic()
    fleet = Fleet(stage.target, load, scene.recordings, scene.processes)
    freezer = Freezer(stage.target, load, scene.recordings)
    try:
        while fleet.running:
            await asyncio.sleep(_LOOK_S)
            fleet.poll()
            freezer.poll()
            outcome.turns = fleet.turns
            cpu = ""
            if stage.watcher is not None:
                try:
                    sample = await stage.watcher.look()
                except ProcessLookupError:
                    outcome.server_ended = True
                    break
                outcome.samples.append(sample)
                cpu = f", CPU {100 * sample.cpu_share:.0f} %, {sample.rss_mb:.0f} MB"
            progress.say(
                f"{load.devices} devices, {time.monotonic() - began_s:.0f} s: {len(outcome.fair)} turns, "
                f"{len(outcome.answered)} answered, {outcome.errors().total()} errors{cpu}"
            )
    finally:
        fleet.close()
        freezer.close()
        progress.end()
    outcome.tallies, outcome.died = fleet.tallies, fleet.died
    outcome.frozen, outcome.thawed = freezer.frozen, freezer.thawed
    return outcome


async def measure(load: Load, scene: Scene) -> Outcome:
    """Start everything, run the load, stop everything."""
    async with staged(scene) as stage:
        return await let_talk(stage, load, scene)


def recordings_of(given: Sequence[Path]) -> tuple[Path, ...]:
    """The WAV files named, and those in the folders named.

    Raises:
        FileNotFoundError: a name is neither, or a folder holds none.
    """
    found: list[Path] = []
    for path in given:
        files = sorted(path.rglob("*.wav")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise FileNotFoundError(f"--mix: {path} is no WAV file and no folder with any")
        found += files
    return tuple(found)


def run_one(load: Load, scene: Scene) -> tuple[Outcome, bool]:
    """Measure, print, judge by row S1."""
    outcome = asyncio.run(measure(load, scene))
    lines = row_s1(outcome)
    print(f"\n## {load.devices} devices\n\n{show(outcome)}\n\nRow S1:")
    print("\n".join(f"  {line}" for line in lines), flush=True)
    return outcome, not broken(lines)


def find_capacity(load: Load, scene: Scene, most: int) -> list[Outcome]:
    """Raise the number of devices until the target breaks, and say what broke first."""
    search = Search(load.devices, most=max(most, load.devices))
    outcomes: list[Outcome] = []
    why: dict[int, str] = {}
    while (number := search.next()) is not None:
        outcome, _ = run_one(of_size(load, number), scene)
        missed = broken(capacity(outcome))
        why[number] = "; ".join(f"{line.demand}: {line.found}" for line in missed)
        print(f"carried: {'no, ' + why[number] if missed else 'yes'}", flush=True)
        search.tell(number, not missed)
        outcomes.append(outcome)
    print(f"\ncapacity: {search.last_good} devices (first audio p95 at most 1.5 s, under 1 % of turns starved)")
    if search.first_bad is not None:
        print(f"at {search.first_bad} broke first: {why[search.first_bad]}")
    else:
        print(f"nothing broke; more than {search.last_good} were not tried (--most)")
    return outcomes


def sweep(load: Load, scene: Scene, numbers: Sequence[int], plot: Path) -> tuple[list[Outcome], bool]:
    """Measure several numbers of devices and draw latency against them."""
    outcomes, good = [], True
    for number in numbers:
        outcome, held = run_one(of_size(load, number), scene)
        outcomes.append(outcome)
        good = good and held
    print("\n" + sweep_table(outcomes))
    plot.parent.mkdir(parents=True, exist_ok=True)
    spreads = [outcome.first_audio() for outcome in outcomes]
    line_chart(
        plot,
        "First audio at the device against devices",
        "devices at once",
        "ms after the last voiced sample",
        [float(number) for number in numbers],
        {name: [spread[name] for spread in spreads] for name in ("p50", "p95", "p99")},
        CAPACITY_P95_MS,
    )
    return outcomes, good


def sweep_table(outcomes: Sequence[Outcome]) -> str:
    """One row for each number of devices."""
    header = ("devices", "turns a minute", "answered", "p50 ms", "p95 ms", "p99 ms", "starved", "worst gap ms",
              "late frames", "server CPU, % of one core", "server MB")  # fmt: skip
    rows = []
    for outcome in outcomes:
        first, (late, frames) = outcome.first_audio(), outcome.late
        samples = outcome.busy_samples()
        cpu = 100.0 * sum(sample.cpu_share for sample in samples) / len(samples) if samples else float("nan")
        rows.append((
            outcome.load.devices, f"{outcome.turns_a_minute:.0f}", f"{outcome.success:.1%}",
            first["p50"], first["p95"], first["p99"], f"{outcome.starved:.1%}", outcome.worst_gap_ms,
            f"{late / max(1, frames):.2%}", cpu, max((sample.rss_mb for sample in samples), default=float("nan")),
        ))  # fmt: skip
    return table(header, rows)


def conditions(scene: Scene) -> str:
    """What the figures hold for, in a few lines."""
    caches = "as its settings say" if scene.ota_url else "on" if "[cache]" in scene.extra else "off"
    return f"measured on {this_box()}\ncaches of answers, speech and recognition: {caches}"


def numbers(text: str) -> list[int]:
    """Numbers of devices, rising, from `1,20,40`."""
    found = sorted({int(part) for part in text.split(",")})
    if found[0] < 1:
        raise ValueError("at least one device")
    return found


def freezers(devices: int, percent: float) -> int:
    """How many of so many devices freeze: rounded up, and one is left awake at least."""
    return min(devices - 1, math.ceil(devices * percent / 100.0))


def of_size(load: Load, devices: int) -> Load:
    """The same with more or fewer devices; as large a share of them freezes."""
    return replace(load, devices=devices, freezers=freezers(devices, 100.0 * load.freezers / load.devices))


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.devices", description=__doc__)
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds during which each device begins turns")
    parser.add_argument("--turns-per-minute", type=float, default=3.0, help="of each device")
    parser.add_argument("--mix", nargs="*", type=Path, default=[], metavar="RECORDINGS", help="WAV files, or folders")
    parser.add_argument("--ramp", type=float, default=5.0, help="seconds over which devices appear")
    parser.add_argument("--jitter-ms", type=float, default=0.0, help="microphone packets are held up by 0 to this much")
    parser.add_argument("--drop-percent", type=float, default=0.0, help="turns in which the device vanishes midway")
    parser.add_argument(
        "--freeze-percent", type=float, default=0.0, help="of the devices freeze in mid-reply for 20 s, some for good"
    )
    parser.add_argument("--processes", type=int, default=2, help="for the devices")
    parser.add_argument("--profile", choices=("conservative", "balanced", "aggressive"), default="balanced")
    parser.add_argument("--url", default="", metavar="OTA_URL", help="load a server that runs already")
    parser.add_argument("--pid", type=int, help="its process, to watch CPU and memory, where it is on this machine")
    parser.add_argument("--find-capacity", action="store_true", help="raise the number until the target breaks")
    parser.add_argument("--most", type=int, default=1000, help="no more devices than this with --find-capacity")
    parser.add_argument("--sweep", type=numbers, metavar="1,20,40", help="measure these numbers of devices and plot")
    parser.add_argument("--plot", type=Path, default=RESULTS / "devices.svg", help="where --sweep draws")
    parser.add_argument("--caches", action="store_true", help="with the caches of the settings; off without it")
    parser.add_argument("--tiny", action="store_true", help="a small recogniser: a quick trial, no measurement")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 when row S1 was missed."""
    parser = options()
    given = parser.parse_args(arguments)
    if given.devices < 1 or given.duration <= 0 or given.turns_per_minute <= 0:
        parser.error("--devices, --duration and --turns-per-minute must be above 0")
    if not 0 <= given.freeze_percent < 100:
        parser.error("--freeze-percent lies between 0 and 100: some have to stay awake to notice")
    if not 0 <= given.drop_percent <= 100 or given.jitter_ms < 0 or given.ramp < 0:
        parser.error("--drop-percent lies between 0 and 100; --jitter-ms and --ramp are not negative")
    try:
        recordings = recordings_of(given.mix)
    except FileNotFoundError as error:
        parser.error(str(error))
    extra = f'[turn]\nprofile = "{given.profile}"\n' + ("[cache]\n" if given.caches else "")
    scene = Scene(recordings, given.processes, extra, ota_url=given.url, pid=given.pid, tiny=given.tiny)
    mischief = Mischief(drop=given.drop_percent / 100.0)
    load = Load(given.devices, given.duration, given.turns_per_minute, given.ramp, given.jitter_ms, mischief)
    load = replace(load, freezers=freezers(given.devices, given.freeze_percent))
    allow_files(65_536)
    print(conditions(scene))
    if given.sweep:
        outcomes, good = sweep(load, scene, given.sweep, given.plot)
    elif given.find_capacity:
        outcomes = find_capacity(load, scene, given.most)
        good = bool(outcomes) and any(not broken(capacity(outcome)) for outcome in outcomes)
    else:
        outcome, good = run_one(load, scene)
        outcomes = [outcome]
    if given.json:
        figures = [outcome.as_dict() for outcome in outcomes]
        given.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))  # NaN becomes null
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
