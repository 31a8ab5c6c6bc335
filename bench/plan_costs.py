"""What a turn costs on this machine, for `xiaozhi plan`: measures recognition and merges it with two benches' figures.

    python -m bench.micro vad opus memory --json micro.json
    python -m bench.devices --devices 20 --duration 60 --json few.json
    python -m bench.devices --devices 40 --turns-per-minute 4 --duration 60 --json many.json
    python -m bench.plan_costs micro.json few.json many.json --out costs.json

What the parts do not explain of the server's processor time under devices is counted as the event loop's; a line
through the runs tells what it needs without turns, and for each.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import micro_parts, sampling
from bench.first_word import CACHE
from bench.sense_voice_model import build_full
from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.plan.costs import Costs, Recognition
from xiaozhi.plan.model import TAIL_S
from xiaozhi.stages.asr.model_files import find_sense_voice
from xiaozhi.stages.asr.rewritten import fastest
from xiaozhi.stages.asr.sense_voice import SenseVoice

_LENGTHS_S: Final = (1.0, 3.0, 10.0)
# Replies begun for one given, and utterances decoded for it: the profile `balanced` on recordings (bench.endpointing).
_SPECULATION: Final = 1.3
# A streaming zipformer of 3.3 million parameters on one thread: real-time factor, and the final text after the last
# sample; larger ones cost in proportion.
_ZIPFORMER: Final = Recognition(fixed_s=0.0, per_audio_s=0.02, final_s=0.01, memory_mb=60.0)
# Opus at 16 and 24 kbit/s in packets of 60 ms, each with some 70 bytes of WebSocket, TLS, TCP and IP headers.
_UP_BPS: Final = 16_000 + 70 * 8 / 0.06
_DOWN_BPS: Final = 24_000 + 70 * 8 / 0.06


# Above, the devices' own loops had no processor: nothing that was measured then is the server's.
MOST_LAG_MS: Final = 60.0


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: what is there at 0, and the rise; neither below 0."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    rise = max(0.0, sum((x - mean_x) * (y - mean_y) for x, y in points) / spread)
    return max(0.0, mean_y - rise * mean_x), rise


def busy_cores(run: Mapping[str, Any]) -> float:
    """Cores that a run's server needed while its devices were there: without the first fifth, in which they come."""
    samples = run["server"]
    busy = samples[len(samples) // 5 :]
    return float(sum(one["cpu_share"] for one in busy) / len(busy))


def measured_recognition() -> Recognition:
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
    return Recognition(fixed_s=round(fixed_s, 4), per_audio_s=round(per_audio_s, 4), memory_mb=round(memory_mb))


def merge(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    sense_voice: Recognition,
    speech_s: float,
    about: str,
) -> Costs:
    """The figures of one turn.

    Args:
        rows: of `bench.micro`.
        runs: outcomes of `bench.devices` at different rates of turns; one will do, without a base.
        sense_voice: measured.
        speech_s: length of what the devices of those runs said.
        about: the machine.

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
    if starved := [run["devices"] for run in runs if run["device_lag_ms"] > MOST_LAG_MS]:
        raise ValueError(
            f"in the run with {starved[0]} devices the devices themselves were starved: use a calm machine"
        )
    points = [(run["turns_a_minute"] / 60.0, busy_cores(run)) for run in runs]
    base_cores, cpu_s = line_through(points) if len({x for x, _ in points}) > 1 else (0.0, points[0][1] / points[0][0])
    reply_s = sum(run["frames"] for run in runs) * 0.06 / sum(run["turns"] for run in runs)
    heard_s = speech_s + TAIL_S
    explained_s = (
        _SPECULATION * (sense_voice.fixed_s + sense_voice.per_audio_s * heard_s)
        + heard_s * (vad_s + decode_s)
        + reply_s * encode_s
    )
    rss_mb = min(one["rss_mb"] for run in runs for one in run["server"])
    return Costs.model_validate(
        {
            "version": 1,
            "provenance": {
                "machine": about,
                "date": date.today().isoformat(),
                "commands": [
                    "python -m bench.micro vad opus memory",
                    *(f"python -m bench.devices --devices {one['devices']}" for one in runs),
                    "python -m bench.plan_costs",
                ],
                "note": "processor time of a machine shared with the devices and other work; of a single run, what the "
                "server needs without turns counts as cost of its turns; "
                "zipformer: 3.3 million parameters, measured apart from these commands; larger ones cost more",
            },
            "recognition": {"sense-voice": sense_voice.model_dump(), "zipformer": _ZIPFORMER.model_dump()},
            "decodes_per_turn": _SPECULATION,
            "replies_per_turn": _SPECULATION,
            "vad_s": round(vad_s, 6),
            "decode_s": round(decode_s, 6),
            "encode_s": round(encode_s, 6),
            "other_s": round(max(0.0, cpu_s - explained_s) / (speech_s + reply_s), 5),
            "base_cores": round(base_cores, 4),
            "process_mb": round(max(50.0, rss_mb - sense_voice.memory_mb)),
            "connection_kb": round(part("memory of an idle connection"), 1),
            "turn_kb": round(part("memory of a session that listens"), 1),
            "up_bps": round(_UP_BPS),
            "down_bps": round(_DOWN_BPS),
        }
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plan_costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("micro", type=Path, help="written by bench.micro --json")
    parser.add_argument("devices", type=Path, nargs="+", help="written by bench.devices --json")
    parser.add_argument("--speech-s", type=float, default=2.0, help="length of what the devices said")
    parser.add_argument("--machine", default=f"{platform.machine()}, Python {platform.python_version()}")
    parser.add_argument("--out", type=Path, default=Path("costs.json"))
    given = parser.parse_args(arguments)
    rows = json.loads(given.micro.read_bytes())
    runs = [run for path in given.devices for run in json.loads(path.read_bytes())]
    costs = merge(rows, runs, measured_recognition(), given.speech_s, given.machine)
    given.out.write_text(costs.model_dump_json(indent=2) + "\n")
    print(f"written: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
