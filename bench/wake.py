"""How soon a device answers to its wake word: from `listen detect` to the first audio packet of "I'm here".

Two cases of the same server, in real time: the sentence is made by the voice every time (cold), and it comes from the
cache, where it was put ahead when the server started. The stand-in voice has the delays of `bench.first_word`. A device
reports its wake word as the firmware does: the burst of audio it was heard in, `detect`, and `listen/start` behind it,
or without a burst while it listens already. Exit code 1 when the cached answer is later than the target.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from bench.first_word import Upstreams
from bench.harness import server_process
from bench.standins.sound import tone
from bench.standins.speech import SpeechStandIn
from bench.standins.tables import voice_table
from bench.stats import spread, table
from bench.verdict import Line, broken
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt
from xiaozhi.client.device import Device
from xiaozhi.client.manners import DeviceState
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity

TARGET_MS: Final = 150.0
"""A wake reply from the cache is on its way before this."""
# The sentences that a server says of its own accord are made one after the other when it starts.
_PREMADE_S: Final = 10.0
_WAKE_AUDIO_S: Final = 1.0
_ANSWER_S: Final = 10.0
_KEYS: Final = ("n", "p50", "p95", "p99", "max")


@dataclass(slots=True)
class Woken:
    """What came of one case: milliseconds from `detect` to the first packet, by how the wake word came.

    Attributes:
        idle_ms: the device was idle: burst, `detect`, `listen/start`.
        listening_ms: the device listened already: `detect` alone.
        synthesised: sentences that the voice was asked for meanwhile.
    """

    idle_ms: list[float] = field(default_factory=list)
    listening_ms: list[float] = field(default_factory=list)
    synthesised: int = 0


def settings_toml(speech_url: str, folder: Path, *, cached: bool) -> str:
    """A server that answers to its wake word."""
    return f"""
[server]
data_dir = "{folder / "data"}"
drain_s = 0.0
[auth]
mode = "open"
[models]
auto_pull = false
[console]
enabled = false
[turn]
wake_reply = "auto"
[cache]
speech = {str(cached).lower()}
premake = {str(cached).lower()}
{voice_table(speech_url)}"""


def _short(text: str) -> PcmInt:
    return tone(text[:4])


async def wake(device: Device, burst: SpokenUtterance | None) -> float:
    """Call the wake word once and wait until the reply has been played; milliseconds to its first packet."""
    await device.until(lambda: device.manners.settled and not device.manners.replying, _ANSWER_S)
    device.begin_turn()
    called_ms = device.now_ms()
    device.detect("你好小智", wake_audio=burst)
    if burst is not None:
        device.listen()
    log = device.turn_log
    await device.until(lambda: log.tts_stop_ms is not None and device.manners.settled, _ANSWER_S)
    await device.until(lambda: device.manners.state is DeviceState.LISTENING, _ANSWER_S)
    if log.first_packet_ms is None:
        raise RuntimeError("the device was made to speak and got no sound")
    return log.first_packet_ms - called_ms


async def measure(count: int, upstreams: Upstreams, *, cached: bool) -> Woken:
    """Start a server and wake a device `count` times in each way."""
    woken = Woken()
    noise = np.random.default_rng(7).normal(0.0, 100.0, int(UPLINK_RATE_HZ * _WAKE_AUDIO_S)).astype(np.int16)
    burst = await asyncio.to_thread(SpokenUtterance.encode, noise)
    with tempfile.TemporaryDirectory(prefix="xiaozhi-wake-") as name:
        async with (
            SpeechStandIn(first_byte_ms=upstreams.first_byte_ms, speed=4.0, sound=_short) as voice,
            server_process(settings_toml(voice.url, Path(name), cached=cached)) as server,
        ):
            if cached:
                await _made_ahead(voice)
            before = len(voice.requests)
            for number in range(count):
                async with Device(ClientIdentity.numbered(number)) as device:
                    await device.connect(server.url)
                    woken.idle_ms.append(await wake(device, burst))
                    woken.listening_ms.append(await wake(device, None))
                if sys.stderr.isatty():
                    print(f"\r{number + 1} of {count}", end="\r", file=sys.stderr, flush=True)
            woken.synthesised = len(voice.requests) - before
    return woken


async def _made_ahead(voice: SpeechStandIn) -> None:
    """Wait until the voice has not been asked for anything for a second."""
    async with asyncio.timeout(_PREMADE_S * 6):
        asked = -1
        while asked < len(voice.requests) or not asked:
            asked = len(voice.requests)
            await asyncio.sleep(1.0)


def verdict(cached: Woken) -> list[Line]:
    """What must hold."""
    both = spread([*cached.idle_ms, *cached.listening_ms])
    return [
        Line(f"p95 from the cache under {TARGET_MS:.0f} ms", f"{both['p95']:.0f} ms", both["p95"] < TARGET_MS),
        Line("the voice is not asked", f"{cached.synthesised} times", cached.synthesised == 0),
    ]


def show(cases: Sequence[tuple[str, Woken]]) -> str:
    """The table on the terminal."""
    rows = []
    for name, woken in cases:
        for how, values in (("idle", woken.idle_ms), ("already listening", woken.listening_ms)):
            row = spread(values)
            rows.append((f"{name}, device {how}", *(row[key] for key in _KEYS)))
    return table(("ms from `detect` to the first packet", *_KEYS), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 when the cached answer is too late."""
    parser = argparse.ArgumentParser(prog="python -m bench.wake", description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="wake words in each way")
    given = parser.parse_args(arguments)
    if given.count < 1:
        parser.error("--count must be at least 1")
    upstreams = Upstreams()
    cold = asyncio.run(measure(given.count, upstreams, cached=False))
    cached = asyncio.run(measure(given.count, upstreams, cached=True))
    print(show([("cold", cold), ("cached", cached)]))
    print(f"the voice begins after {upstreams.first_byte_ms:.0f} ms; asked {cold.synthesised} times cold")
    lines = verdict(cached)
    print("\n".join(f"  {line}" for line in lines))
    return 1 if broken(lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
