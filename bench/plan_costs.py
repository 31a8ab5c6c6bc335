"""What a turn costs on this machine, for `xiaozhi plan`: measures recognition and merges it with two benches' figures.

    python -m bench.micro vad opus memory --json micro.json
    python -m bench.devices --devices 20 --duration 60 --json devices.json
    python -m bench.plan_costs micro.json devices.json --out costs.json

What the parts do not explain of the server's processor time under devices is counted as the event loop's.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

from bench import micro_parts
from bench.first_word import CACHE
from bench.sense_voice_model import build_full
from xiaozhi.plan.costs import Costs, Recognition
from xiaozhi.plan.model import TAIL_S

_LENGTHS_S: Final = (1.0, 3.0, 10.0)
# Replies begun for one given, and utterances decoded for it: the profile `balanced` on recordings (bench.endpointing).
_SPECULATION: Final = 1.3
# A streaming zipformer of 3.3 million parameters on one thread: real-time factor, and the final text after the last
# sample; larger ones cost in proportion.
_ZIPFORMER: Final = Recognition(fixed_s=0.0, per_audio_s=0.02, final_s=0.01, memory_mb=60.0)
# 50 packets in 3 s of at most 100 and 180 bytes, with WebSocket, TCP and IP headers of about 70.
_UP_BPS: Final = (16_000 + 70 * 8 / 0.06)
_DOWN_BPS: Final = (24_000 + 70 * 8 / 0.06)


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: what is there at 0, and the rise; neither below 0."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    rise = max(0.0, sum((x - mean_x) * (y - mean_y) for x, y in points) / spread)
    return max(0.0, mean_y - rise * mean_x), rise


def measured_recognition() -> Recognition:
    """Decodes of three lengths with the quickest weights that this processor takes (some 30 s the first time)."""
    model = build_full(CACHE / "sense-voice")
    points = []
    for length_s in _LENGTHS_S:
        rate = max(row.value for row in micro_parts.recognition(model, length_s))  # seconds of audio a core-second
        points.append((length_s, length_s / rate))
    fixed_s, per_audio_s = line_through(points)
    size_mb = (model / "model.int8.onnx").stat().st_size / 1e6
    return Recognition(fixed_s=round(fixed_s, 4), per_audio_s=round(per_audio_s, 4), memory_mb=round(size_mb * 1.9))


def merge(
    rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any], sense_voice: Recognition, speech_s: float, about: str
) -> Costs:
    """The figures of one turn.

    Args:
        rows: of `bench.micro`.
        run: one outcome of `bench.devices`.
        sense_voice: measured.
        speech_s: length of what the devices of that run said.
        about: the machine.

    Raises:
        ValueError: a figure is missing.
    """
    parts = {row["part"]: float(row["value"]) for row in rows}

    def part(name: str) -> float:
        found = next((value for key, value in parts.items() if key.startswith(name)), None)
        if found is None:
            raise ValueError(f"no {name!r} in the figures of bench.micro")
        return found

    vad_s = part("VAD window of 32 ms, 8") * 1e-6 / 0.032
    decode_s, encode_s = part("Opus decode") * 1e-6 / 0.06, part("Opus encode 60 ms, complexity 5") * 1e-6 / 0.06
    samples, turns = run["server"], run["turns"]
    if not samples or not turns:
        raise ValueError("the run of bench.devices has no turns, or did not watch its server")
    busy = samples[len(samples) // 5 :]
    cpu_s = sum(one["cpu_share"] for one in busy) / len(busy) * 60.0 / run["turns_a_minute"]
    reply_s, heard_s = run["frames"] * 0.06 / turns, speech_s + TAIL_S
    explained_s = (
        _SPECULATION * (sense_voice.fixed_s + sense_voice.per_audio_s * heard_s)
        + heard_s * (vad_s + decode_s)
        + reply_s * encode_s
    )
    rss_mb = min(one["rss_mb"] for one in samples)
    return Costs.model_validate(
        {
            "version": 1,
            "provenance": {
                "machine": about,
                "date": date.today().isoformat(),
                "commands": [
                    "python -m bench.micro vad opus memory",
                    f"python -m bench.devices --devices {run['devices']}",
                    "python -m bench.plan_costs",
                ],
                "note": "the machine was shared with other work and with the devices; processor time, not wall time",
            },
            "recognition": {"sense-voice": sense_voice.model_dump(), "zipformer": _ZIPFORMER.model_dump()},
            "decodes_per_turn": _SPECULATION,
            "replies_per_turn": _SPECULATION,
            "vad_s": round(vad_s, 6),
            "decode_s": round(decode_s, 6),
            "encode_s": round(encode_s, 6),
            "other_s": round(max(0.0, cpu_s - explained_s) / (speech_s + reply_s), 5),
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
    parser.add_argument("devices", type=Path, help="written by bench.devices --json")
    parser.add_argument("--speech-s", type=float, default=2.0, help="length of what the devices said")
    parser.add_argument("--machine", default=f"{platform.machine()}, Python {platform.python_version()}")
    parser.add_argument("--out", type=Path, default=Path("costs.json"))
    given = parser.parse_args(arguments)
    rows, runs = json.loads(given.micro.read_bytes()), json.loads(given.devices.read_bytes())
    costs = merge(rows, runs[0], measured_recognition(), given.speech_s, given.machine)
    given.out.write_text(costs.model_dump_json(indent=2) + "\n")
    print(f"written: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
