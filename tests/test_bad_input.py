"""Hostile clients and broken upstreams: nothing crashes, no device is left in speaking, others notice nothing."""

import asyncio
import struct
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.house import House, house, question
from xiaozhi.client.device import Device
from xiaozhi.client.manners import DeviceState

LONG_ANSWER = "🙂 " + "".join(f"This is sentence number {n} of a long reply. " for n in range(1, 8))


async def still_well(home: House, number: int = 99) -> None:
    """A bystander asks and is answered as if nothing had happened."""
    home.chat.answer = "🙂 Fine."
    async with home.device(number) as bystander:
        report = await bystander.turn(question())
    assert (report.outcome.value, report.heard, report.dropped, report.starved_count) == (
        "answered",
        "what time is it",
        {},
        0,
    )


HOSTILE: list[str | bytes] = [
    b"",
    b"\x00",
    b"\xff" * 10,
    bytes(range(256)) * 4,
    b"\x58" + b"\xaa" * 3999,
    b"z" * 60_000,
    struct.pack("!HHIII", 2, 0, 0, 0, 4_000_000_000) + b"abc",
    struct.pack("!HHIII", 2, 7, 0, 0, 3) + b"abc",
    struct.pack("!BBH", 0, 0, 65_535) + b"abc",
    "not json",
    "[]",
    "7",
    '{"type":["hello"]}',
    '{"type":"listen","state":{"a":1}}',
    '{"type":"mcp","payload":[]}',
    '{"type":"abort","reason":{}}',
    '{"type":"listen","state":"detect","text":"' + "x" * 65_000 + '"',
    orjson.dumps({"type": "unknown", "junk": "y" * 65_000}).decode(),
    "{" * 3000,
    '{"type":"hello"}',
    '{"type":"hello"}',
]


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_hostile_frames_are_survived(tmp_path: Path, version: int) -> None:
    async with house(tmp_path) as home:
        headers = {"Device-Id": "02:00:00:00:00:66", "Protocol-Version": str(version)}
        async with aiohttp.ClientSession() as session, session.ws_connect(home.url, headers=headers) as socket:
            await socket.send_str('{"type":"listen","state":"start","mode":"auto"}')
            for _ in range(3):
                for frame in HOSTILE:
                    await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
            await socket.send_str('{"type":"ping"}')
            while True:
                message = await asyncio.wait_for(socket.receive(), 10)
                assert message.type is aiohttp.WSMsgType.TEXT, message
                if message.json()["type"] == "pong":
                    break
            await still_well(home)


async def test_a_flood_of_listen_start_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        for _ in range(500):
            device.listen()
        assert (await device.turn(question())).answered


async def test_a_message_above_the_limit_closes_only_its_own_connection(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with aiohttp.ClientSession() as session, session.ws_connect(home.url) as socket:
            await socket.send_str("x" * 200_000)
            message = await asyncio.wait_for(socket.receive(), 10)
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await still_well(home)


async def test_a_client_without_hello_is_heard_with_the_defaults(tmp_path: Path) -> None:
    async with house(tmp_path) as home, aiohttp.ClientSession() as session, session.ws_connect(home.url) as socket:
        await socket.send_str('{"type":"listen","state":"detect","text":"hello there"}')
        states = []
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                states.append((message.json()["type"], message.json().get("state")))
                if states[-1] == ("tts", "stop"):
                    break
        assert states[:2] == [("stt", None), ("tts", "start")]


async def test_a_hello_with_nothing_but_its_type_is_answered_in_full(tmp_path: Path) -> None:
    async with house(tmp_path) as home, aiohttp.ClientSession() as session, session.ws_connect(home.url) as socket:
        await socket.send_str('{"type":"hello"}')
        hello = await asyncio.wait_for(socket.receive_json(), 5)
        assert (hello["type"], hello["transport"]) == ("hello", "websocket")
        assert hello["audio_params"]["sample_rate"] == 24_000


@pytest.mark.parametrize("moment", ["connected", "speaking", "heard", "answering", "playing"])
async def test_a_disconnect_at_any_point_of_a_turn_is_survived(tmp_path: Path, moment: str) -> None:
    async with house(tmp_path, LONG_ANSWER) as home:
        if moment == "answering":
            home.chat.fault = "hang-mid"
        async with home.device() as device:
            turn = None
            if moment != "connected":
                turn = asyncio.create_task(device.turn(question()))
            if moment == "speaking":
                await device.until(lambda: device.manners.microphone_from_ms is not None)
            elif moment in ("heard", "answering"):
                await home.chat.asked(2 if _warmed(home) else 1)
            elif moment == "playing":
                await device.until(lambda: device.manners.speaker.playback.heard_ms > 200)
            await device.close()
            if turn is not None:
                await turn
        home.chat.fault = ""
        async with asyncio.timeout(5):
            await home.server.devices.empty()
            await home.chat.idle()
            await home.speech.idle()
        await still_well(home)


def _warmed(home: House) -> bool:
    return any("messages" not in request.body for request in home.chat.requests)


LLM_FAULTS = "empty 500 429 401 refuse reset cut garbage bad-json wrong-json html hang-mid hang-first".split()
IMPATIENT = {"idle_timeout_s": 0.3, "first_token_timeout_s": 0.5}


@pytest.mark.parametrize("fault", LLM_FAULTS)
async def test_a_model_that_fails_is_apologised_for_and_the_device_listens_again(tmp_path: Path, fault: str) -> None:
    async with house(tmp_path, LONG_ANSWER, llm=IMPATIENT) as home, home.device() as device:
        home.chat.fault = fault
        home.chat.retry_after_s = 0  # how long to stay away after a 429; that this is respected has tests of its own
        report = await device.turn(question())
        assert report.answered, "something is said, and tts/stop follows"
        assert report.trace is not None
        assert "stand-in" in report.trace["error"]
        home.chat.fault = ""
        home.chat.answer = "🙂 Back again."
        assert (await device.turn(question())).text == "Back again."


TTS_FAULTS = ["silence", "html", "json", "empty", "error-500", "reset", "reset-midway", "hang", "truncated"]


@pytest.mark.parametrize("fault", TTS_FAULTS)
@pytest.mark.parametrize("form", ["pcm", "mp3"])
async def test_a_voice_that_fails_is_replaced_by_the_next_for_the_same_sentence(
    tmp_path: Path, fault: str, form: str
) -> None:
    tts = {"first_audio_timeout_s": 0.3, "idle_timeout_s": 0.3}
    async with house(tmp_path, tts=tts) as home:
        home.speech.fault = fault
        async with home.device() as device:
            report = await device.turn(question())
        assert report.answered
        assert report.text == "It is ten past nine."
        assert report.reply_ms >= 180


async def test_without_any_voice_the_device_is_still_told_to_stop(tmp_path: Path) -> None:
    async with house(tmp_path, tts={"engines": ["openai"], "first_audio_timeout_s": 0.3}) as home:
        home.speech.fault = "error-500"
        async with home.device() as device:
            report = await device.turn(question())
            assert report.outcome.value == "no sound in the answer"
            assert device.manners.state is DeviceState.LISTENING
            home.speech.fault = ""
            assert (await device.turn(question())).answered


async def test_a_device_that_stops_reading_costs_nobody_else_anything(tmp_path: Path) -> None:
    async with (
        house(tmp_path, LONG_ANSWER, server={"send_timeout_s": 1.0}) as home,
        aiohttp.ClientSession() as session,
        session.ws_connect(home.url) as stuck,
    ):
        await stuck.send_str('{"type":"listen","state":"detect","text":"tell me a story"}')
        # Nothing is read any more: what the server sends piles up in the sockets.
        await still_well(home)


async def _say_and_wait(device: Device) -> None:
    assert (await device.turn(question())).answered


async def test_a_crowd_of_different_faults_does_not_touch_the_healthy(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device(1) as healthy, aiohttp.ClientSession() as session:
        sockets = [
            await session.ws_connect(home.url, headers={"Device-Id": f"02:00:00:00:01:{n:02x}"}) for n in range(10)
        ]
        talking = asyncio.create_task(_say_and_wait(healthy))
        for socket, frame in zip(sockets, HOSTILE * 2, strict=False):
            await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
        await talking
        for socket in sockets:
            await socket.close()
