"""Upstreams that fail while people talk: what do the users notice?

Three chat endpoints that are equally quick, a whole server, and devices that type their questions over the real
protocol. First a while in which all is well, then as long with faults that come and go: always one endpoint dead, one
slow and one resetting in the middle of its answers, each for a while, in changing roles. The first token is counted
from the text to the first token in the server's own trace.

Exit code 1 when a turn went unanswered or an answer was not whole, the 95th percentile of the first token is more than
1.3 times the healthy one, or more than 5 % of the requests were extra.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from bench.progress import Progress
from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatStandIn
from bench.standins.sound import tone
from bench.standins.speech import SpeechStandIn
from bench.stats import spread, table
from xiaozhi.app.server import serving
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.report import TurnReport
from xiaozhi.settings import Settings
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.upstream.breaker import BreakerState

V = TypeVar("V")

RESULTS: Final = Path(__file__).parent / "results"
ANSWER: Final = "🙂 好的，我来说说。这件事要从很久以前讲起，那时候还没有电灯。后来大家慢慢习惯了，也就不觉得奇怪了。"
NAMES: Final = ("north", "east", "south")
FAULTS: Final = ("refuse", "slow", "reset")
_LOOK_EVERY_S: Final = 0.25
_ALLOWED_RATIO: Final = 1.3
_ALLOWED_EXTRA: Final = 0.05
_COLOURS: Final = {BreakerState.CLOSED: "#54a24b", BreakerState.HALF_OPEN: "#f2cf5b", BreakerState.OPEN: "#e45756"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done.

    Attributes:
        devices: how many talk.
        half_s: length of the healthy time, and of the time with faults.
        faults_every_s: how long the endpoints keep their roles.
        first_token_ms, tokens_per_s: of a healthy endpoint.
        pause_s: the longest pause of a user between two turns.
        seed: of pauses and roles.
    """

    devices: int = 20
    half_s: float = 180.0
    faults_every_s: float = 60.0
    first_token_ms: float = 300.0
    tokens_per_s: float = 40.0
    pause_s: float = 4.0
    seed: int = 1


@dataclass(slots=True)
class Look:
    """The endpoints at one moment: seconds from the beginning, and each one's fault and breaker."""

    at_s: float
    faults: tuple[str, ...]
    breakers: tuple[BreakerState, ...]


@dataclass(slots=True)
class Half:
    """What happened in one half."""

    reports: list[TurnReport] = field(default_factory=list)
    requests: int = 0
    hedges: int = 0
    failovers: int = 0
    continued: int = 0

    @property
    def answered(self) -> list[TurnReport]:
        """Turns whose whole answer was heard."""
        return [report for report in self.reports if report.answered and whole(report)]

    def first_token(self) -> dict[str, float]:
        """From the text to the first token, in milliseconds."""
        return spread(_first_token_ms(report) for report in self.reports)


def whole(report: TurnReport) -> bool:
    """Whether the answer has all its words, once."""
    words = "".join(char for char in report.text if char.isalnum())
    return words == "".join(char for char in ANSWER if char.isalnum())


def _first_token_ms(report: TurnReport) -> float | None:
    token, text = report.span_ms("first_token"), report.span_ms("text")
    return None if token is None else token - (text or 0.0)


def settings_for(folder: Path, chats: Sequence[ChatStandIn], speech_url: str) -> Settings:
    """A server with three endpoints of equal weight; nothing is answered from a cache."""
    endpoints = [
        {"name": name, "base_url": f"{chat.url}/v1", "model": "bench", "api_key": "none", "max_concurrent": 40}
        for name, chat in zip(NAMES, chats, strict=True)
    ]
    build_tiny(folder / "asr", "hello")
    values = {
        "server": {"host": "127.0.0.1", "port": 0, "data_dir": str(folder / "data"), "drain_s": 0.0},
        "auth": {"mode": "open"},
        "models": {"dir": str(folder / "models"), "auto_pull": False},
        "asr": {"engine": "sense-voice", "model_dir": str(folder / "asr"), "workers": 1},
        "llm": {"endpoints": endpoints},
        "tts": {"engines": ["openai", "espeak"], "openai": {"base_url": f"{speech_url}/v1", "format": "pcm"}},
    }
    if "cache" in Settings.model_fields:
        values["cache"] = {"answers": False}
    return Settings.model_validate(values)


def _brief(text: str) -> PcmInt:
    """Speech that is over soon: how long a reply sounds is not what is measured here."""
    return np.resize(tone("."), max(int(0.3 * DOWNLINK_RATE_HZ), int(0.02 * DOWNLINK_RATE_HZ * len(text))))


async def _talk(
    device: Device, number: int, until_s: float, plan: Plan, half: Half, counter: Callable[[], int]
) -> None:
    loop, dice = asyncio.get_running_loop(), random.Random(f"{plan.seed}/{number}/{until_s}")
    await asyncio.sleep(dice.uniform(0.0, min(plan.pause_s, plan.half_s / 2)))
    while loop.time() < until_s:
        half.reports.append(await device.turn_text(f"第{counter()}个问题，请你说说看"))
        await asyncio.sleep(dice.uniform(0.0, plan.pause_s))


async def _go_wrong(chats: Sequence[ChatStandIn], plan: Plan) -> None:
    """Always one dead, one slow, one resetting; the roles change. Ends all well."""
    dice, roles = random.Random(plan.seed), list(FAULTS)
    try:
        while True:
            dice.shuffle(roles)
            for chat, fault in zip(chats, roles, strict=True):
                chat.fault = fault
                chat.fault_after = dice.randrange(4, 16)
                chat.slow_ms = plan.first_token_ms * dice.uniform(3.0, 8.0)
            await asyncio.sleep(plan.faults_every_s)
    finally:
        for chat in chats:
            chat.fault = ""


async def _look(chat: Chat, chats: Sequence[ChatStandIn], looks: list[Look], began_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        breakers = tuple(state.breaker for state in chat.states())
        looks.append(Look(loop.time() - began_s, tuple(one.fault for one in chats), breakers))
        await asyncio.sleep(_LOOK_EVERY_S)


async def run(plan: Plan) -> tuple[Half, Half, list[Look]]:
    """The healthy half, the half with faults, and how the endpoints did all the time."""
    looks: list[Look] = []
    halves: list[Half] = []
    counter = itertools.count(1)
    progress = Progress()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        chats = [
            await stack.enter_async_context(
                ChatStandIn(ANSWER, first_token_ms=plan.first_token_ms, tokens_per_s=plan.tokens_per_s)
            )
            for _ in NAMES
        ]
        speech = await stack.enter_async_context(SpeechStandIn(sound=_brief))
        settings = await asyncio.to_thread(settings_for, folder, chats, speech.url)
        server = await stack.enter_async_context(serving(settings))
        chat = server.services.chat
        devices = []
        for number in range(plan.devices):
            device = Device(ClientIdentity.numbered(number + 1), trace=True, decode_reply=False)
            devices.append(await stack.enter_async_context(device))
            await device.connect(server.websocket_url)
        loop = asyncio.get_running_loop()
        looking = asyncio.create_task(_look(chat, chats, looks, loop.time()))
        for name in ("healthy", "faults"):
            half = Half()
            before = (chat.pool.requests, chat.pool.hedges, chat.pool.failovers, chat.continued)
            until_s = loop.time() + plan.half_s
            wrong = asyncio.create_task(_go_wrong(chats, plan)) if name == "faults" else None
            async with asyncio.TaskGroup() as users:
                for number, device in enumerate(devices):
                    users.create_task(_talk(device, number, until_s, plan, half, lambda: next(counter)))
            if wrong is not None:
                wrong.cancel()
                await asyncio.gather(wrong, return_exceptions=True)
            after = (chat.pool.requests, chat.pool.hedges, chat.pool.failovers, chat.continued)
            half.requests, half.hedges, half.failovers, half.continued = (
                new - old for new, old in zip(after, before, strict=True)
            )
            halves.append(half)
            progress.say(f"{name}: {len(half.answered)} of {len(half.reports)} turns answered whole")
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    progress.end()
    return halves[0], halves[1], looks


def draw(path: Path, looks: Sequence[Look], title: str) -> None:
    """Two strips for each endpoint over time: its fault in grey, with its name, and the state of its breaker."""
    width, left, right = 900, 80, 20
    most = max((look.at_s for look in looks), default=1.0) or 1.0
    scale = (width - left - right) / most
    height = 90 + 58 * len(NAMES)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="system-ui,sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="24" font-size="16" font-weight="600">{escape(title)}</text>',
    ]
    for number, state in enumerate(BreakerState):
        out.append(f'<rect x="{left + 110 * number}" y="36" width="12" height="12" fill="{_COLOURS[state]}"/>')
        out.append(f'<text x="{left + 17 + 110 * number}" y="46">breaker {state.value}</text>')
    for number, name in enumerate(NAMES):
        y = 64 + 58 * number
        out.append(f'<text x="{left - 8}" y="{y + 24}" text-anchor="end">{escape(name)}</text>')
        for fault, begin, end in _runs([(look.at_s, look.faults[number]) for look in looks]):
            if fault:
                x = left + begin * scale
                out.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{(end - begin) * scale:.1f}" height="18" fill="#ccc"/>'
                    f'<text x="{x + 3:.1f}" y="{y + 13}">{escape(fault)}</text>'
                )
        for state, begin, end in _runs([(look.at_s, look.breakers[number]) for look in looks]):
            out.append(
                f'<rect x="{left + begin * scale:.1f}" y="{y + 20}" width="{(end - begin) * scale:.1f}" height="18" '
                f'fill="{_COLOURS[state]}"/>'
            )
    for step in range(6):
        at = most * step / 5
        out.append(f'<text x="{left + at * scale:.1f}" y="{height - 12}" text-anchor="middle">{at:.0f} s</text>')
    path.write_text("\n".join([*out, "</svg>\n"]))


def _runs(values: Sequence[tuple[float, V]]) -> list[tuple[V, float, float]]:
    """Equal neighbours as one: the value, from when, to when."""
    runs: list[tuple[V, float, float]] = []
    for at, value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1], at)
        else:
            if runs:
                runs[-1] = (*runs[-1][:2], at)
            runs.append((value, at, at))
    return runs


def show(healthy: Half, faults: Half) -> str:
    """Both halves as a Markdown table."""
    rows = []
    for name, half in (("all well", healthy), ("dead, slow, resetting", faults)):
        times = half.first_token()
        rows.append(
            (
                name, len(half.reports), len(half.answered), times["p50"], times["p95"], times["p99"],
                half.requests, half.hedges, half.failovers, half.continued,
            )
        )  # fmt: skip
    header = (
        "endpoints", "turns", "answered whole", "first token p50 ms", "p95", "p99",
        "requests", "extra", "failovers", "continued",
    )  # fmt: skip
    return table(header, rows)


def verdict(healthy: Half, faults: Half) -> list[str]:
    """What was missed, one line each; empty when nothing was."""
    missed = [
        f"{len(half.reports) - len(half.answered)} of {len(half.reports)} turns were not answered whole ({name})"
        for name, half in (("all well", healthy), ("with faults", faults))
        if len(half.answered) < len(half.reports) or not half.reports
    ]
    ratio = faults.first_token()["p95"] / healthy.first_token()["p95"]
    if not ratio <= _ALLOWED_RATIO:
        missed.append(f"first token p95 is {ratio:.2f} times the healthy one, allowed are {_ALLOWED_RATIO}")
    extra = (healthy.hedges + faults.hedges) / max(1, healthy.requests + faults.requests)
    if extra > _ALLOWED_EXTRA:
        missed.append(f"{extra:.1%} of the requests were extra, allowed are {_ALLOWED_EXTRA:.0%}")
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--half", type=float, default=180.0, metavar="S", help="length of each half in seconds")
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="how long endpoints keep their roles")
    parser.add_argument("--first-token-ms", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, default=RESULTS / "chaos.svg")
    given = parser.parse_args(arguments)
    plan = Plan(
        devices=given.devices,
        half_s=given.half,
        faults_every_s=given.every,
        first_token_ms=given.first_token_ms,
        seed=given.seed,
    )
    healthy, faults, looks = asyncio.run(run(plan))
    given.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(given.plot, looks, f"{plan.devices} devices, three endpoints: faults and breakers")
    missed = verdict(healthy, faults)
    print(f"{show(healthy, faults)}\n")
    print("\n".join(f"MISSED: {line}" for line in missed) or "all targets met")
    for report in [report for half in (healthy, faults) for report in half.reports if report not in half.answered][:5]:
        print(f"not whole: {report.outcome.value}, {(report.trace or {}).get('error', '')!r}, said {report.text!r}")
    print(f"timeline: {given.plot}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
