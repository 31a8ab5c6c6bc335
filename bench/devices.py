"""Many devices at once: simulated devices in processes of their own, real time, real Opus, against one server.

The stand-in upstreams and the devices share this machine with the server, as they do in an owner's first test. A turn
counts as starved when the device had nothing to play for over 60 ms in the middle of a reply.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from bench.first_word import ANSWER, CACHE, Upstreams, settings_toml, utterances
from bench.harness import ServerProcess, server_process
from bench.sense_voice_model import build_full
from bench.stats import spread, table
from xiaozhi.client.device import Device
from xiaozhi.client.errors import DeviceError
from xiaozhi.client.link import device_session
from xiaozhi.client.ota import Identity

SPANS = ("soft_end", "text", "first_token", "first_clause", "first_speech", "commit", "first_packet")
STARVED_MS = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What the devices do."""

    devices: int
    duration_s: float
    turns_per_minute: float
    ramp_s: float
    seed: int = 1


@dataclass(slots=True)
class Turn:
    """One turn as a device saw it; times in milliseconds after the last voiced sample."""

    outcome: str
    at_s: float
    first_packet_ms: float | None
    starved_ms: float
    spans: dict[str, float | None] = field(default_factory=dict)


def serve_upstreams(upstreams: Upstreams, pipe: Connection) -> None:
    """Process body: both stand-ins, until the other end of the pipe is closed."""
    from bench.standins.chat import ChatStandIn
    from bench.standins.speech import SpeechStandIn

    async def run() -> None:
        async with (
            ChatStandIn(ANSWER, first_token_ms=upstreams.first_token_ms, tokens_per_s=upstreams.tokens_per_s) as chat,
            SpeechStandIn(first_byte_ms=upstreams.first_byte_ms, speed=4.0) as voice,
        ):
            pipe.send((chat.url, voice.url))
            await asyncio.to_thread(_until_closed, pipe)

    asyncio.run(run())


def _until_closed(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return


def drive(url: str, load: Load, first: int, count: int, recordings: Sequence[Path], pipe: Connection) -> None:
    """Process body: `count` devices from number `first`; sends every turn as it ends, then None."""
    speech = utterances(recordings)

    async def device(number: int, session: aiohttp.ClientSession) -> None:
        dice = random.Random(load.seed * 100_003 + number)
        period_s = 60.0 / load.turns_per_minute
        await asyncio.sleep(load.ramp_s * number / max(1, load.devices) + dice.uniform(0.0, period_s))
        began = time.monotonic()
        async with Device(Identity.numbered(number), trace=True, decode_reply=False, session=session) as talker:
            while time.monotonic() - began < load.duration_s:
                turn_began = time.monotonic()
                try:
                    if not talker.connected:
                        await talker.connect(url)
                    report = await talker.turn(dice.choice(speech))
                except DeviceError as error:
                    pipe.send(Turn(type(error).__name__, time.time(), None, 0.0))
                    await asyncio.sleep(1.0)
                    continue
                spans = {name: report.span_ms(name) for name in SPANS}
                pipe.send(Turn(report.outcome.value, time.time(), report.first_packet_ms, report.starved_ms, spans))
                rest_s = period_s * dice.uniform(0.7, 1.3) - (time.monotonic() - turn_began)
                await asyncio.sleep(max(0.2, rest_s))

    async def run() -> None:
        async with device_session() as session:
            await asyncio.gather(*(device(number, session) for number in range(first, first + count)))

    asyncio.run(run())
    pipe.send(None)


@dataclass(slots=True)
class Result:
    """What came of a run."""

    load: Load
    turns: list[Turn]
    cpu_share: list[float]
    """Server CPU over each second, of one core."""
    rss_mb: list[float]

    @property
    def answered(self) -> list[Turn]:
        """Turns whose reply was heard."""
        return [turn for turn in self.turns if turn.outcome == "answered"]

    def success(self) -> float:
        """Share of turns answered."""
        return len(self.answered) / max(1, len(self.turns))

    def starved(self) -> float:
        """Share of answered turns that starved."""
        return sum(turn.starved_ms > STARVED_MS for turn in self.answered) / max(1, len(self.answered))

    def verdict(self) -> list[str]:
        """What of row S1 was missed; empty when everything held."""
        first = spread(turn.first_packet_ms for turn in self.answered)
        missed = []
        if self.success() <= 0.99:
            missed.append(f"only {self.success():.1%} of turns answered (over 99 % asked for)")
        if not first["p95"] <= 2000:
            missed.append(f"first audio p95 {first['p95']:.0f} ms (under 2 s asked for)")
        if self.starved() > 0.01:
            missed.append(f"{self.starved():.1%} of turns starved (1 % at most)")
        return missed

    def show(self) -> str:
        """The tables on the terminal."""
        rows = [("first packet at the device", spread(turn.first_packet_ms for turn in self.answered))]
        rows += [(name, spread(turn.spans.get(name) for turn in self.answered)) for name in SPANS]
        keys = ("n", "p50", "p95", "p99", "max")
        spans = table(
            ("ms after the last voiced sample", *keys), ((name, *(row[k] for k in keys)) for name, row in rows)
        )
        outcomes = Counter(turn.outcome for turn in self.turns)
        cpu, memory = spread(self.cpu_share), spread(self.rss_mb)
        rate = len(self.turns) * 60.0 / self.load.duration_s
        return "\n".join([
            spans, "",
            f"turns {len(self.turns)} ({rate:.0f} a minute), answered {self.success():.2%}, "
            f"starved over {STARVED_MS:.0f} ms {self.starved():.2%}",
            f"outcomes {dict(outcomes)}",
            f"server CPU {100 * cpu['p50']:.0f} % of one core (p95 {100 * cpu['p95']:.0f} %), "
            f"memory {memory['max']:.0f} MB at most",
        ])  # fmt: skip


async def run_load(server: ServerProcess, load: Load, recordings: Sequence[Path], processes: int) -> Result:
    """Let the devices talk and watch the server meanwhile."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    workers = []
    for index in range(processes):
        first = load.devices * index // processes
        count = load.devices * (index + 1) // processes - first
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(
            target=drive, args=(server.url, load, first, count, list(recordings), theirs), daemon=True
        )
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    result = Result(load, [], [], [])
    cpu_s, at = server.cpu_s(), time.monotonic()
    open_pipes = set(pipes)
    while open_pipes:
        await asyncio.sleep(1.0)
        for pipe in list(open_pipes):
            try:
                while pipe.poll():
                    turn = pipe.recv()
                    if turn is None:
                        open_pipes.discard(pipe)
                        break
                    result.turns.append(turn)
            except EOFError:
                open_pipes.discard(pipe)
        now, used_s = time.monotonic(), server.cpu_s()
        result.cpu_share.append((used_s - cpu_s) / (now - at))
        result.rss_mb.append(server.rss_mb())
        cpu_s, at = used_s, now
        if sys.stderr.isatty():
            line = f"\r{load.devices} devices: {len(result.turns)} turns, {len(result.answered)} answered"
            print(f"{line}, CPU {100 * result.cpu_share[-1]:.0f} %", end="", file=sys.stderr, flush=True)
    for worker in workers:
        worker.join()
    return result


async def measure(load: Load, recordings: Sequence[Path], upstreams: Upstreams, processes: int, extra: str) -> Result:
    """Start upstreams and server, run the load, stop everything."""
    model = CACHE / "sense-voice"
    await asyncio.to_thread(build_full, model)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    standins = context.Process(target=serve_upstreams, args=(upstreams, theirs), daemon=True)
    standins.start()
    theirs.close()
    chat_url, speech_url = await asyncio.to_thread(ours.recv)
    try:
        async with server_process(settings_toml(chat_url, speech_url, model, extra)) as server:
            return await run_load(server, load, recordings, processes)
    finally:
        ours.close()
        await asyncio.to_thread(standins.join, 10)


def main() -> int:
    """Run from the command line; exit code 1 when row S1 was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.devices", description=__doc__)
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds")
    parser.add_argument("--turns-per-minute", type=float, default=3.0, help="of each device")
    parser.add_argument("--mix", nargs="*", type=Path, default=[], help="WAV files to say")
    parser.add_argument("--ramp", type=float, default=5.0, help="seconds over which devices appear")
    parser.add_argument("--processes", type=int, default=2, help="for the devices")
    parser.add_argument("--profile", choices=("conservative", "balanced", "aggressive"), default="balanced")
    parser.add_argument("--find-capacity", action="store_true", help="raise the number until the target breaks")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    extra = f'[turn]\nprofile = "{given.profile}"\n'
    devices, last_good, result = given.devices, 0, None
    while True:
        load = Load(devices, given.duration, given.turns_per_minute, given.ramp)
        result = asyncio.run(measure(load, given.mix, Upstreams(), given.processes, extra))
        print(f"\n## {devices} devices\n\n{result.show()}")
        missed = result.verdict()
        print("verdict: " + ("; ".join(missed) if missed else "row S1 holds"))
        if given.json:
            given.json.write_text(json.dumps(asdict(result)))
        if not given.find_capacity:
            return 1 if missed else 0
        if missed:
            print(f"\ncapacity: {last_good} devices; at {devices} broke: {'; '.join(missed)}")
            return 0
        last_good, devices = devices, int(devices * 1.25) + 1


if __name__ == "__main__":
    sys.exit(main())
