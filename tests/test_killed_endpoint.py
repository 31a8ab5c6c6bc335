"""The process behind an endpoint is killed while it streams: the user hears one reply, every word once."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.standins.chat import ChatStandIn
from bench.standins.sound import tone
from bench.standins.speech import SpeechStandIn
from tests.house import settings_for
from xiaozhi.app.server import serving
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity

pytestmark = pytest.mark.real_time  # a server in a process of its own

SENTENCES = [f"Here comes sentence number {word}." for word in "one two three four five six seven eight".split()]
ANSWER = "🙂 " + " ".join(SENTENCES)
_PROGRAM = """
import asyncio, sys
from bench.standins.chat import ChatStandIn

async def main():
    async with ChatStandIn(sys.argv[1], tokens_per_s=25.0) as chat:
        print(chat.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def _short(_text: str) -> PcmInt:
    """Replies are played in real time: a tenth of a second for each sentence is enough."""
    return tone(".")[: DOWNLINK_RATE_HZ // 10]


@asynccontextmanager
async def chat_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A chat server in a process of its own, and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, ANSWER, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_process_costs_no_word_and_repeats_none(tmp_path: Path) -> None:
    async with chat_process() as (process, url), ChatStandIn(ANSWER) as other, SpeechStandIn(sound=_short) as speech:
        endpoints = [
            {"name": "killed", "base_url": f"{url}/v1", "model": "m", "api_key": "none", "weight": 1000.0},
            {"name": "other", "base_url": f"{other.url}/v1", "model": "m", "api_key": "none", "weight": 0.001},
        ]
        settings = settings_for(tmp_path, url, speech.url, llm={"endpoints": endpoints})
        async with (
            serving(settings) as server,
            Device(ClientIdentity.of("02:00:00:00:00:09"), trace=True, decode_reply=False) as device,
        ):
            await device.connect(server.websocket_url)
            talking = asyncio.create_task(device.turn_text("tell me all of it"))
            await speech.asked()  # the first sentence is being spoken: the stream is in its middle
            assert not other.requests or all(not request.body for request in other.requests)
            process.send_signal(signal.SIGKILL)
            report = await talking
            assert await process.wait() == -signal.SIGKILL
            assert report.answered
            assert report.text.split() == " ".join(SENTENCES).split()
            assert report.trace is not None and report.trace["endpoint"] == "killed+other"
            # The process stays dead: nobody notices.
            report = await device.turn_text("tell me once more")
            assert report.answered and report.text.split() == " ".join(SENTENCES).split()
            assert report.trace is not None and report.trace["endpoint"] == "other"
