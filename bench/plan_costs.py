"""What a turn costs on this machine, for `xiaozhi plan`: measures the parts and a server under devices (five minutes).

    python -m bench.plan_costs                     writes the figures that are shipped, xiaozhi/plan/costs.json
    python -m bench.plan_costs --out mine.json     xiaozhi plan --costs mine.json

What the parts do not explain of the server's processor time under devices is counted as the event loop's; a line
through the runs tells what it needs without turns, and for each.

Exit code 2, and nothing is written, when others took more than a tenth of the machine, or the devices were starved.
"""

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import micro, micro_parts, sampling
from bench.first_word import CACHE
from bench.harness import allow_files
from bench.plan_runs import MAX_LAG_MS, Run, busy_cores, let_talk, reply_s, spoken_s
from bench.quiet import DISTURBED, Others, others_for
from bench.sense_voice_model import build_full
from bench.stats import table
from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.plan.costs import DEFAULT_FILE, Costs, RecognitionCost
from xiaozhi.plan.planner import CONSTANTS
from xiaozhi.stages.asr.model_files import find_sense_voice
from xiaozhi.stages.asr.rewritten import fastest
from xiaozhi.stages.asr.sense_voice import SenseVoice

_LENGTHS_S: Final = (1.0, 3.0, 10.0)
# Replies begun for one given, and utterances decoded for it: the profile `balanced` on recordings (bench.endpointing).
_SPECULATION: Final = 1.3
# A streaming zipformer of 3.3 million parameters on one thread: real-time factor, and the final text after the last
# sample; larger ones cost in proportion.
_ZIPFORMER: Final = RecognitionCost(fixed_s=0.0, per_audio_s=0.02, final_s=0.01, memory_mb=60.0)
# Opus at 16 and 24 kbit/s in packets of 60 ms, each with some 70 bytes of WebSocket, TLS, TCP and IP headers.
_UP_BPS: Final = 16_000 + 70 * 8 / 0.06
_DOWN_BPS: Final = 24_000 + 70 * 8 / 0.06
# Devices and turns a minute of each: two points, so that a line can be drawn.
_RUNS: Final = ((20, 3.0), (40, 4.0))
_RUN_S: Final = 60.0
_LISTEN_S: Final = 5.0


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: what is there at 0, and the rise; neither below 0."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    rise = max(0.0, sum((x - mean_x) * (y - mean_y) for x, y in points) / spread)
    return max(0.0, mean_y - rise * mean_x), rise


def measured_recognition() -> RecognitionCost:
    """Decodes of three lengths with the quickest weights that this processor takes (some 30 s the first time)."""
    model = build_full(CACHE / "sense-voice")
    points = []
    files = find_sense_voice(model)
    before_mb = sampling.rss_mb(os.getpid())
    engine = SenseVoice(replace(files, model=fastest(files.model)), language="zh", threads=1)
    engine.decode(np.zeros(3 * UPLINK_RATE_HZ, np.float32))
    memory_mb = sampling.rss_mb(os.getpid()) - before_mb
    engine.close()
    for length_s in _LENGTHS_S:
        rate = max(row.value for row in micro_parts.recognition(model, length_s))  # seconds of audio a core-second
        points.append((length_s, length_s / rate))
    fixed_s, per_audio_s = line_through(points)
    return RecognitionCost(fixed_s=round(fixed_s, 4), per_audio_s=round(per_audio_s, 4), memory_mb=round(memory_mb))


def merge(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    sense_voice: RecognitionCost,
    speech_s: float,
    about: str,
    others: float = 0.0,
    anyway: bool = False,
) -> Costs:
    """The figures of one turn.

    Args:
        rows: of `bench.micro`.
        runs: outcomes of `bench.devices` at different rates of turns; one will do, without a base.
        sense_voice: measured.
        speech_s: length of what the devices of those runs said.
        about: the machine.
        others: the most that others took of it meanwhile, 0 to 1.
        anyway: also from runs whose devices were starved.

    Raises:
        ValueError: a figure is missing, or there is no run.
    """
    parts = {row["part"]: float(row["value"]) for row in rows}

    def part(name: str) -> float:
        found = next((value for key, value in parts.items() if key.startswith(name)), None)
        if found is None:
            raise ValueError(f"no {name!r} in the figures of bench.micro")
        return found

    vad_s = part("VAD window of 32 ms, 8") * 1e-6 / 0.032
    decode_s, encode_s = part("Opus decode") * 1e-6 / 0.06, part("Opus encode 60 ms, complexity 5") * 1e-6 / 0.06
    if not runs or any(not run["server"] or not run["turns"] for run in runs):
        raise ValueError("a run of bench.devices has no turns, or did not watch its server")
    starved = [run["devices"] for run in runs if run["device_lag_ms"] > MAX_LAG_MS]
    if starved and not anyway:
        raise ValueError(
            f"in the run with {starved[0]} devices the devices themselves were starved: use a calm machine"
        )
    points = [(run["turns_a_minute"] / 60.0, busy_cores(run)) for run in runs]
    base_cores, cpu_s = line_through(points) if len({x for x, _ in points}) > 1 else (0.0, points[0][1] / points[0][0])
    answer_s = reply_s(runs)
    heard_s = speech_s + CONSTANTS["tail_s"]
    explained_s = (
        _SPECULATION * (sense_voice.fixed_s + sense_voice.per_audio_s * heard_s)
        + heard_s * (vad_s + decode_s)
        + answer_s * encode_s
    )
    rss_mb = min(one["rss_mb"] for run in runs for one in run["server"])
    return Costs.model_validate(
        {
            "version": 1,
            "provenance": {
                "machine": about,
                "date": date.today().isoformat(),
                "commands": [
                    "python -m bench.plan_costs",
                    "python -m bench.micro vad opus memory",
                    *(f"python -m bench.devices --devices {one['devices']}" for one in runs),
                ],
                "note": f"devices and stand-ins shared the machine, others took {others:.0%} of it at most; "
                "zipformer: 3.3 million parameters, measured apart from these commands; larger ones cost more",
            },
            "recognition": {"sense-voice": sense_voice.model_dump(), "zipformer": _ZIPFORMER.model_dump()},
            "decodes_per_turn": _SPECULATION,
            "replies_per_turn": _SPECULATION,
            "vad_s": round(vad_s, 6),
            "decode_s": round(decode_s, 6),
            "encode_s": round(encode_s, 6),
            "other_s": round(max(0.0, cpu_s - explained_s) / (speech_s + answer_s), 5),
            "base_cores": round(base_cores, 4),
            "process_mb": round(max(50.0, rss_mb - sense_voice.memory_mb)),
            "connection_kb": round(part("memory of an idle connection"), 1),
            "turn_kb": round(part("memory of a session that listens"), 1),
            "up_bps": round(_UP_BPS),
            "down_bps": round(_DOWN_BPS),
        }
    )


def machine() -> str:
    """This machine in words."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    processor = names[0] if names else platform.machine()
    return f"{os.cpu_count()} cores of {processor}, Python {platform.python_version()}"


def measured_parts() -> tuple[list[dict[str, object]], RecognitionCost]:
    """The rows of `bench.micro` that are needed, and recognition."""
    rows = [row for name in ("vad", "opus", "memory") for row in micro.PARTS[name]()]
    return [asdict(row) for row in rows], measured_recognition()


def shown_runs(runs: Sequence[Run]) -> str:
    """One row for each."""
    header = ("devices", "turns a minute", "answered", "server, cores", "server MB", "first packet p95 ms",
              "devices late ms", "others")  # fmt: skip
    return table(header, [
        (
            one.figures["devices"], one.figures["turns_a_minute"], f"{one.figures['success']:.1%}",
            f"{busy_cores(one.figures):.3f}", max(sample["rss_mb"] for sample in one.figures["server"]),
            one.figures["spans"]["first packet at the device"]["p95"], one.figures["device_lag_ms"],
            f"{one.others:.0%}",
        )
        for one in runs
    ])  # fmt: skip


def shown_costs(costs: Costs) -> str:
    """Every figure of the file."""
    figures = costs.model_dump(exclude={"version", "provenance", "recognition"})
    rows = [(name, value) for name, value in figures.items()]
    for engine, one in costs.recognition.items():
        rows += [(f"{engine} {name}", value) for name, value in one.model_dump(exclude_none=True).items()]
    return "\n".join(f"{name:<26} {value:g}" for name, value in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plan_costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_FILE, help="file to write; the shipped figures")
    parser.add_argument("--duration", type=float, default=_RUN_S, metavar="S", help="of each run with devices; 60")
    parser.add_argument("--machine", default=machine(), help="how to call this machine in the file")
    parser.add_argument("--anyway", action="store_true", help="measure and write on a disturbed machine too")
    given = parser.parse_args(arguments)
    allow_files(4096)
    idle = others_for(_LISTEN_S)
    print(f"others take {idle:.0%} of the machine before we begin", flush=True)
    if idle > DISTURBED and not given.anyway:
        print(f"refused: more than {DISTURBED:.0%}; wait until it is quiet, or say --anyway", file=sys.stderr)
        return 2
    others = Others()
    rows, recognition = measured_parts()
    print("\n" + table(("part", "measured", "unit"), ((row["part"], row["value"], row["unit"]) for row in rows)))
    most = [idle, others.share()]
    runs = []
    for devices, rate in _RUNS:
        print(f"\n{devices} devices, {rate:g} turns a minute each, {given.duration:g} s …", flush=True)
        runs.append(let_talk(devices, rate, given.duration))
    most += [one.others for one in runs]
    print("\n" + shown_runs(runs))
    disturbed = [f"{one.figures['devices']} devices: {one.disturbed}" for one in runs if one.disturbed]
    if most[1] > DISTURBED:
        disturbed.append(f"the parts: others took {most[1]:.0%} of the machine")
    for line in disturbed:
        print(f"disturbed: {line}", file=sys.stderr)
    if disturbed and not given.anyway:
        print("nothing is written: measure again on a quiet machine, or say --anyway", file=sys.stderr)
        return 2
    try:
        costs = merge(
            rows, [one.figures for one in runs], recognition, spoken_s(), given.machine, max(most), given.anyway
        )
    except ValueError as error:
        print(f"nothing is written: {error}", file=sys.stderr)
        return 2
    given.out.write_text(costs.model_dump_json(indent=2) + "\n")
    print(f"\n{shown_costs(costs)}\n\nwritten: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
