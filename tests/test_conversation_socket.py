"""What once made a device deaf, silent or hung up, through a running server."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bench.standins.transcription import TranscriptionStandIn
from tests.house import SPEED, House, house, question
from xiaozhi.client.microphone import SpokenUtterance, silence_packet
from xiaozhi.conversation.context import ConversationContext
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


@asynccontextmanager
async def greeted(home: House, number: int = 1) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A device whose hello has been answered."""
    headers = {"Device-Id": f"02:00:00:00:00:{number:02x}"}
    async with aiohttp.ClientSession() as session, session.ws_connect(home.url, headers=headers) as ws:
        await ws.send_str('{"type":"hello"}')
        assert (await ws.receive_json(timeout=10))["type"] == "hello"
        yield ws


async def test_hello_is_answered_before_the_past_is_read_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, load = asyncio.Event(), ConversationContext.load

    async def slow(context: ConversationContext) -> None:
        await read.wait()
        await load(context)

    monkeypatch.setattr(ConversationContext, "load", slow)
    async with house(tmp_path) as home, greeted(home) as ws:
        await ws.send_str('{"type":"listen","state":"detect","text":"what time is it"}')
        await asyncio.sleep(2.0)
        assert home.asked == [], "an answer would not know what was said before"
        read.set()
        while (told := await ws.receive_json(timeout=10))["type"] != "stt":
            pass
        assert told["text"] == "what time is it"


async def test_a_device_that_hangs_up_while_its_past_is_read_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_context: ConversationContext) -> None:
        await asyncio.Event().wait()

    closed = asyncio.Event()
    monkeypatch.setattr(ConversationContext, "load", endless)
    monkeypatch.setattr(ConversationContext, "close", lambda _context: closed.set())
    async with house(tmp_path) as home:
        async with greeted(home):
            assert not closed.is_set()
        await asyncio.wait_for(closed.wait(), 10)


async def test_an_idle_device_is_four_tasks(tmp_path: Path) -> None:
    """Two are the web server's: the connection, and its request, which reads. A thousand devices wait in a server."""
    async with house(tmp_path) as home, AsyncExitStack() as devices:
        counts = []
        for number in range(1, 6):
            await devices.enter_async_context(greeted(home, number))
            await asyncio.sleep(2.0)
            counts.append(Counter(str(task.get_coro()).split()[2] for task in asyncio.all_tasks()))
        grown = counts[-1] - counts[0]
        assert sum(count // 4 for count in grown.values()) == 4, grown
