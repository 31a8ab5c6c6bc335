"""How long a person waits for the first word: one device, real time, every span of the trace.

The upstreams are stand-ins with set delays and the recogniser is a full-size SenseVoice-shaped int8 model, so what is
measured is the engine's own share: first audio minus first token, first clause and first speech byte as served.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.harness import ServerProcess, server_process
from bench.sense_voice_model import build_full
from bench.spoken import spoken
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from bench.standins.tables import chat_table, voice_table
from bench.stats import spread, table
from xiaozhi.audio.pcm import PcmInt, to_int16
from xiaozhi.audio.wav import read_wav
from xiaozhi.client.device import Device
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.report import TurnReport

CACHE = Path(__file__).parent / "cache"
SPANS = ("soft_end", "text", "first_token", "first_clause", "first_speech", "commit", "first_packet")
# Of the own share, one behind the other.
PARTS = (
    "· words known",
    "· asking the model",
    "· cutting a clause",
    "· voice, decoding, encoding",
    "· gate, pacer, wire",
)
ANSWER = "😊 好的，我听到了，这就去办。"


# What is measured is the way of a fresh question; `bench.cached` measures that of a repeated one.
_CACHES_OFF = "[cache]\nanswers = false\nspeech = false\nrecognition = false\n"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What the stand-in upstreams are set to: first token and first speech byte in milliseconds, and a pace."""

    first_token_ms: float = 300.0
    tokens_per_s: float = 40.0
    first_byte_ms: float = 150.0

    def min_ms(self, tokens: int = 3) -> float:
        """The upstreams' own share of a turn whose first clause ends with this token."""
        return self.first_token_ms + tokens * 1000.0 / self.tokens_per_s + self.first_byte_ms


def settings_toml(chat_url: str, speech_url: str, model_dir: Path, extra: str = "", asr: str = "") -> str:
    """Settings of a server on the stand-ins; `extra` holds further tables, `asr` further keys of `[asr]`."""
    given = {line.partition("=")[0].strip() for line in asr.splitlines()}
    engine = "" if "engine" in given else 'engine = "sense-voice"\n'
    folder = "" if "model_dir" in given else f'model_dir = "{model_dir}"\n'
    return f"""
[server]
data_dir = "data"
max_devices = 2000
[auth]
mode = "open"
[models]
auto_pull = false
[asr]
{engine}{folder}language = "zh"
{asr}
{chat_table(chat_url)}{voice_table(speech_url)}{"" if "[cache]" in extra else _CACHES_OFF}{extra}
"""


def utterances(recordings: Sequence[Path]) -> list[SpokenUtterance]:
    """Recordings, or a few sentences by the embedded voice where none are given, encoded for the uplink."""
    pcms: list[PcmInt] = [to_int16(read_wav(path)) for path in recordings]
    if not pcms:
        sentences = ("今天天气怎么样", "请帮我打开客厅的灯", "明天早上七点叫我起床", "给我讲一个有趣的故事")
        pcms = [spoken(text) for text in sentences]
    return [SpokenUtterance.encode(pcm, 60) for pcm in pcms]


async def measure(server: ServerProcess, speech: Sequence[SpokenUtterance], turns: int, label: str) -> list[TurnReport]:
    """`turns` turns of one device, one connection, in real time."""
    reports: list[TurnReport] = []
    async with Device(ClientIdentity.numbered(1), trace=True, decode_reply=False) as device:
        await device.connect(server.url)
        await device.turn(speech[0])  # not counted: connections and caches are cold once in a device's life
        for number in range(turns):
            reports.append(await device.turn(speech[number % len(speech)]))
            if sys.stderr.isatty():
                print(f"\r{label}: turn {number + 1} of {turns}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return reports


def summary(reports: Sequence[TurnReport], upstreams: Upstreams) -> dict[str, dict[str, float]]:
    """Every span, the first packet as the device saw it, and the engine's own share, in milliseconds."""
    result = {name: spread(report.span_ms(name) for report in reports) for name in SPANS}
    result["first packet at the device"] = spread(report.first_packet_ms for report in reports)
    result["own share"] = spread(
        None if first is None else first - upstreams.min_ms()
        for first in (report.span_ms("first_packet") for report in reports)
    )
    for name in PARTS:
        result[name] = spread(parts.get(name) for parts in (own_parts(report, upstreams) for report in reports))
    result["starved"] = spread(report.starved_ms for report in reports)
    return result


def own_parts(report: TurnReport, upstreams: Upstreams, tokens: int = 3) -> dict[str, float]:
    """What the engine's own share of a turn is made of, in milliseconds; empty where a time is missing."""
    times = [report.span_ms(name) for name in ("text", "first_token", "first_clause", "first_speech", "first_packet")]
    waits = (0.0, upstreams.first_token_ms, tokens * 1000.0 / upstreams.tokens_per_s, upstreams.first_byte_ms, 0.0)
    if None in times:
        return {}
    steps = pairwise([0.0, *(time for time in times if time is not None)])
    return {name: after - before - wait for name, (before, after), wait in zip(PARTS, steps, waits, strict=True)}


def show(result: dict[str, dict[str, float]]) -> str:
    """The summary as a Markdown table."""
    header = ("ms after the last voiced sample", "n", "p50", "p95", "p99", "max")
    return table(header, ([name, *(row[key] for key in header[1:])] for name, row in result.items()))


async def run(
    turns: int, recordings: Sequence[Path], upstreams: Upstreams, extra: str = "", asr: str = "", label: str = "turns"
) -> tuple[dict[str, dict[str, float]], list[TurnReport]]:
    """Start everything, measure, stop everything."""
    model = CACHE / "sense-voice"
    await asyncio.to_thread(build_full, model)
    speech = await asyncio.to_thread(utterances, recordings)
    async with (
        ChatStandIn(ANSWER, first_token_ms=upstreams.first_token_ms, tokens_per_s=upstreams.tokens_per_s) as chat,
        SpeechStandIn(first_byte_ms=upstreams.first_byte_ms, speed=4.0) as voice,
        server_process(settings_toml(chat.url, voice.url, model, extra, asr)) as server,
    ):
        reports = await measure(server, speech, turns, label)
    return summary(reports, upstreams), reports


def main() -> int:
    """Run from the command line; exit code 1 when a turn went unanswered."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_word", description=__doc__)
    parser.add_argument("recordings", nargs="*", type=Path, help="WAV files to say; the embedded voice without any")
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--profile", choices=("conservative", "balanced", "aggressive"), default="balanced")
    parser.add_argument("--engine", default="sense-voice", help="sense-voice, zipformer or two-pass")
    parser.add_argument("--streaming-model", type=Path, help="folder of the zipformer")
    parser.add_argument("--json", type=Path, help="write every turn here")
    given = parser.parse_args()
    extra = f'[turn]\nprofile = "{given.profile}"\n'
    asr = f'engine = "{given.engine}"\n'
    if given.streaming_model:
        key = "model_dir" if given.engine == "zipformer" else "streaming_model_dir"
        asr += f'{key} = "{given.streaming_model.resolve()}"\n'
    upstreams = Upstreams()
    result, reports = asyncio.run(run(given.turns, given.recordings, upstreams, extra, asr))
    print(show(result))
    answered = sum(report.answered for report in reports)
    print(f"\n{answered} of {len(reports)} turns answered; upstreams alone: {upstreams.min_ms():.0f} ms")
    if given.json:
        given.json.write_text(json.dumps([report.as_dict() for report in reports], ensure_ascii=False, indent=1))
    return 0 if answered == len(reports) else 1


if __name__ == "__main__":
    sys.exit(main())
