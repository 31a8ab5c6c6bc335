"""The parts of a turn measured alone: models, codecs, text, messages, queues, and what a device costs in memory.

A few seconds each, many voices at once two minutes. The best of several rounds counts: others on the machine only ever
slow a part down.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench import micro_parts, micro_voices
from bench.connections import connected, quiet_server, settled_mb
from bench.first_word import CACHE
from bench.harness import allow_files
from bench.micro_parts import Row
from bench.sense_voice_model import build_full, build_tiny
from bench.stats import table
from xiaozhi.client.handset import Handset
from xiaozhi.client.manners import DeviceState
from xiaozhi.settings import Settings
from xiaozhi.turn.machine import ListeningMode

_LISTEN_S: Final = 3.0


def recognition() -> list[Row]:
    """With the model of `bench/cache`, built where it is missing (some 30 s, once)."""
    return micro_parts.recognition(build_full(CACHE / "sense-voice"))


def loop() -> list[Row]:
    """Beside a server that is embedded in this process."""
    with tempfile.TemporaryDirectory(prefix="xiaozhi-bench-") as folder:
        model = build_tiny(Path(folder) / "model")
        settings = Settings.model_validate(
            {
                "server": {"host": "127.0.0.1", "port": 0, "data_dir": Path(folder) / "data", "drain_s": 0.0},
                "models": {"dir": Path(folder), "auto_pull": False},
                "asr": {"engine": "sense-voice", "model_dir": model},
                "tts": {"engines": ["espeak"]},
            }
        )
        return micro_parts.loop(settings)


async def _memory(count: int) -> list[Row]:
    async with quiet_server() as server:
        base_mb = await settled_mb(server)
        async with connected(server, count) as devices:
            idle_mb = await settled_mb(server)
            for device in devices:
                device.listen(ListeningMode.AUTO)
            await asyncio.sleep(_LISTEN_S)
            _all_listen(devices)
            listening_mb = await settled_mb(server)
    return [
        Row("memory of an idle connection", (idle_mb - base_mb) * 1000.0 / count, "KB", f"{count} connections"),
        Row("memory of a session that listens", (listening_mb - base_mb) * 1000.0 / count, "KB", "silence streams in"),
    ]


def _all_listen(devices: Sequence[Handset]) -> None:
    deaf = sum(device.manners.state is not DeviceState.LISTENING for device in devices)
    if deaf:
        raise RuntimeError(f"{deaf} of {len(devices)} devices do not listen: the figure would be wrong")


def memory(count: int = 200) -> list[Row]:
    """Real connections to a server in a process of its own."""
    allow_files(4096)
    return asyncio.run(_memory(count))


PARTS: Final[dict[str, Callable[[], list[Row]]]] = {
    "vad": micro_parts.voice_activity,
    "asr": recognition,
    "opus": micro_parts.opus,
    "voices": micro_voices.voices,
    "text": micro_parts.text,
    "loop": loop,
    "pieces": micro_parts.pieces,
    "memory": memory,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 when the loop does something in one go that takes over 2 ms."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS) + "; all")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in given.parts or PARTS:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{name} …", end="", file=sys.stderr, flush=True)
        rows += PARTS[name]()
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(table(("part", "measured", "unit", ""), ((row.part, row.value, row.unit, row.note) for row in rows)))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return any(row.note.startswith(micro_parts.OVER) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
