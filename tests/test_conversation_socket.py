"""What once made a device deaf, silent or hung up, through a running server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bench.standins.transcription import TranscriptionStandIn
from tests.house import SPEED, House, house, question
from xiaozhi.client.microphone import SpokenUtterance, silence_packet
from xiaozhi.text.messages import message
from xiaozhi.turn.machine import ListeningMode

FRAME_S = 0.06


@dataclass
class Socket:
    """A device that sends exactly what a test says."""

    ws: aiohttp.ClientWebSocketResponse
    replies: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[str] = field(default_factory=list)

    async def read(self) -> None:
        async for frame in self.ws:
            if frame.type is aiohttp.WSMsgType.TEXT:
                told = orjson.loads(frame.data)
                self.heard += [told["text"]] if told["type"] == "stt" else []
                if told["type"] == "tts" and told["state"] == "stop":
                    self.replies += 1
                    self.stopped.set()

    async def send(self, packets: Sequence[bytes], speed: float = SPEED) -> None:
        for packet in packets:
            await self.ws.send_bytes(packet)
            await asyncio.sleep(FRAME_S / speed)

    async def say(self, **message: str) -> None:
        await self.ws.send_str(orjson.dumps(message).decode())

    async def replied(self, silence: bytes | None) -> None:
        """Send silence, or nothing, until the reply is over."""
        self.stopped.clear()
        async with asyncio.timeout(20):
            while not self.stopped.is_set():
                if silence is not None:
                    await self.ws.send_bytes(silence)
                await asyncio.sleep(FRAME_S / SPEED)


@asynccontextmanager
async def socket(home: House, mode: str = "auto") -> AsyncIterator[Socket]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(home.url, headers={"Device-Id": "02:00:00:00:00:07"}) as ws,
    ):
        device = Socket(ws)
        await device.say(type="hello")
        await device.say(type="listen", state="start", mode=mode)
        reading = asyncio.create_task(device.read())
        yield device
        assert not ws.closed, "nobody has hung up"
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def packets() -> tuple[bytes, ...]:
    return SpokenUtterance.encode(question()).packets


@pytest.mark.parametrize("text", ["你好小智", ""])
async def test_a_wake_word_after_half_a_sentence_leaves_nobody_deaf(tmp_path: Path, text: str) -> None:
    async with house(tmp_path) as home, socket(home) as device:
        await device.send(packets()[:9])
        await device.say(type="listen", state="detect", text=text)
        for count in range(1, 4):
            await device.send(packets())
            await device.replied(silence_packet(60))
            assert device.heard == ["what time is it"] * count
            await device.say(type="listen", state="start", mode="auto")


@pytest.mark.parametrize("silence", [None, b""], ids=["nothing", "empty packets"])
async def test_who_sends_no_silence_is_answered(tmp_path: Path, silence: bytes | None) -> None:
    async with house(tmp_path) as home, socket(home) as device:
        await device.send(packets(), speed=1.0)
        await device.replied(silence)
        assert device.heard == ["what time is it"]
        (asked,) = home.asked
        assert asked[-1]["content"] == "what time is it"


ENDPOINT = {"name": "e", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key": "k"}
FAULTS: dict[str, dict[str, Any]] = {
    "a key that no header takes": {"endpoints": [ENDPOINT | {"api_key": "clé-à-moi"}]},
    "a prompt that compares text with numbers": {
        "endpoints": [ENDPOINT],
        "system_prompt": "Be kind.{% if room > 3 %} And big.{% endif %}",
    },
}


@pytest.mark.parametrize("mode", list(ListeningMode))
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_fails_before_a_reply_is_excused_and_the_device_listens_again(
    tmp_path: Path, mode: ListeningMode, fault: str
) -> None:
    async with house(tmp_path, llm=FAULTS[fault]) as home, home.device(mode=mode) as device:
        for _ in range(2):
            report = await device.turn(question())
            assert (report.outcome, report.text) == ("answered", message("apology", "en"))


async def test_a_recogniser_that_takes_long_is_asked_once(tmp_path: Path) -> None:
    async with TranscriptionStandIn("how late is it over there") as recogniser:
        recogniser.fault = "hang"
        values = {"base_url": recogniser.base_url, "api_key": recogniser.key}
        asr = {"engine": "openai", "fallback": "sense-voice", "openai": values, "remote": {"early_decode": True}}
        async with house(tmp_path, asr=asr) as home, home.device() as device:
            turn = asyncio.create_task(device.turn(question()))
            await recogniser.asked()
            await asyncio.sleep(1.0)  # 3 s of silence, at the speed of tests
            recogniser.released.set()
            report = await turn
            assert report.answered and report.heard == "how late is it over there"
            assert len(recogniser.requests) == 1
