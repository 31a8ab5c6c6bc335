"""The protocol's conformance checklist, each line as a client on a real socket sees it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from bench.standins.sound import tone
from tests.house import House, house, noise, question, settings_for
from xiaozhi.app.server import serving
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.client.manners import DesktopManners, DeviceState, Manners
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.report import TurnReport
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.transport import websocket
from xiaozhi.turn.machine import ListeningMode

LONG_ANSWER = "🙂 " + "".join(f"This is sentence number {n} of a long reply. " for n in range(1, 16))
# More may not wait in a device: its queue holds 44 packets, and what waits cannot be taken back.
MAX_LEAD_MS = 300.0
# None on a machine of one's own; tests share two processors, and one that stalls longer than the lead is heard.
MAX_STARVED_MS = 500.0
# A device whose queue is cleared by `tts/stop` must have been given this long after the last frame was played.
MIN_TAIL_MS = 150.0


@asynccontextmanager
async def raw(home: House, **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A socket without a device around it; it answers Close and pings only when told."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(home.url, headers=headers, autoclose=False, autoping=False) as socket,
    ):
        yield socket


async def texts(socket: aiohttp.ClientWebSocketResponse, until: str) -> list[dict[str, Any]]:
    """JSON messages up to and with the first of the type (or `tts` state) `until`."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(15):
        while True:
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            if message.type is aiohttp.WSMsgType.TEXT:
                found.append(message.json())
                if until in (found[-1]["type"], found[-1].get("state")):
                    return found


async def closed(socket: aiohttp.ClientWebSocketResponse) -> int:
    """Wait for the server's Close frame; its code."""
    async with asyncio.timeout(15):
        while (message := await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
            assert message.type is not aiohttp.WSMsgType.CLOSED, "TCP ended without a Close frame"
    return int(message.data)


# Handshake ------------------------------------------------------------------------------------------------------------


async def test_the_hello_is_the_first_message_and_complete(tmp_path: Path) -> None:
    async with house(tmp_path) as home, raw(home) as socket:
        await socket.send_str('{"type":"listen","state":"start","mode":"auto"}')  # browser clients may be this early
        await socket.send_str('{"type":"hello","version":1,"transport":"websocket","features":{"mcp":true}}')
        (hello,) = await texts(socket, "hello")
    assert hello == {
        "type": "hello",
        "transport": "websocket",
        "session_id": hello["session_id"],
        "audio_params": {"format": "opus", "sample_rate": 24_000, "channels": 1, "frame_duration": 60},
    }
    assert isinstance(hello["session_id"], str)
    assert hello["session_id"]


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer None", "Bearer test-token", "Basic dXNlcjpwYXNz", "🔑"])
async def test_a_wrong_token_is_refused_by_status(tmp_path: Path, token: str) -> None:
    async with house(tmp_path, auth={"mode": "token"}) as home:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with raw(home, Authorization=token):
                pass
        assert refused.value.status == 401
        assert len(home.server.devices) == 0


async def test_browser_clients_identify_themselves_in_the_query(tmp_path: Path) -> None:
    async with (
        house(tmp_path, auth={"mode": "token", "tokens": ["let-me-in"]}) as home,
        aiohttp.ClientSession() as http,
    ):
        url = f"{home.url}?device-id=web-1&client-id=c&authorization=Bearer%20let-me-in"
        async with http.ws_connect(url) as socket:
            await socket.send_str('{"type":"hello"}')
            await texts(socket, "hello")
            assert len(home.server.devices) == 1


async def test_neither_compression_nor_a_sub_protocol_is_agreed_on(tmp_path: Path) -> None:
    """The firmware offers none and understands none."""
    async with (
        house(tmp_path) as home,
        aiohttp.ClientSession() as http,
        http.ws_connect(home.url, compress=15, protocols=["xiaozhi"]) as socket,
    ):
        assert not socket.compress
        assert socket.protocol is None


async def test_one_device_too_many_is_asked_to_come_back(tmp_path: Path) -> None:
    async with house(tmp_path, server={"max_devices": 1}) as home, raw(home, **{"Device-Id": "one"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with raw(home, **{"Device-Id": "two"}):
                pass
        assert refused.value.status == 503
        assert refused.value.headers is not None
        assert int(refused.value.headers["Retry-After"]) > 0
        async with raw(home, **{"Device-Id": "one"}) as again:  # the same device may always replace itself
            await again.send_str('{"type":"hello"}')
            await texts(again, "hello")


async def test_the_newest_connection_of_a_device_wins_in_the_middle_of_a_reply(tmp_path: Path) -> None:
    async with house(tmp_path, LONG_ANSWER) as home, home.device() as old:
        turn = asyncio.create_task(old.turn_text("tell me a story"))
        await old.until(lambda: old.manners.speaker.playback.heard_ms > 300)
        async with home.device() as new:
            report = await turn
            assert report.outcome.value in ("connection lost", "left in speaking")
            assert not old.connected
            assert len(home.server.devices) == 1
            async with asyncio.timeout(5):
                await home.chat.idle()
            home.chat.answer = "🙂 Yes."
            assert (await new.turn_text("hello")).text == "Yes."
            assert all("sentence number" not in message.get("text", "") for _, message in new.received)


# A minute of speech ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
async def test_every_frame_of_a_minute_is_heard_by_every_kind_of_client(tmp_path: Path) -> None:
    kinds: list[Manners] = [Manners(), Manners(plays_out=False), DesktopManners(), Manners(), Manners()]
    modes = [ListeningMode.AUTO, ListeningMode.AUTO, ListeningMode.AUTO, ListeningMode.MANUAL, ListeningMode.REALTIME]

    async def minute(home: House, number: int) -> TurnReport:
        async with home.device(number, manners=kinds[number], mode=modes[number], version=1 + number % 3) as device:
            report = await device.turn(question())
            assert device.manners.state is (
                DeviceState.IDLE if modes[number] is ListeningMode.MANUAL else DeviceState.LISTENING
            )
            return report

    async with house(tmp_path, LONG_ANSWER) as home:
        home.speech.sound = lambda text: np.resize(tone("."), int(DOWNLINK_RATE_HZ * 0.1 * len(text)))
        reports = await asyncio.gather(*(minute(home, number) for number in range(len(kinds))))
    for kind, report in zip(kinds, reports, strict=True):
        assert report.answered, kind
        assert report.reply_ms > 60_000.0
        assert report.dropped == {}, kind
        assert report.received * 60.0 == pytest.approx(report.reply_ms, abs=1.0), "heard is sent"
        assert report.undecodable == 0
        assert report.starved_ms <= MAX_STARVED_MS, (kind, report.starved_count, report.trace)
        assert report.lead_max_ms <= MAX_LEAD_MS, kind
        assert report.text == LONG_ANSWER.removeprefix("🙂 ").strip()
        assert len(report.said) > 5
        assert report.tts_stop_ms is not None and report.play_end_ms is not None
        assert report.tts_stop_ms - report.play_end_ms >= MIN_TAIL_MS


# The end of a reply ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before anything", "while listening", "after a reply"])
async def test_an_abort_in_silence_is_answered_with_a_stop(tmp_path: Path, moment: str) -> None:
    async with house(tmp_path) as home, raw(home) as socket:
        await socket.send_str('{"type":"hello"}')
        await texts(socket, "hello")
        if moment != "before anything":
            await socket.send_str('{"type":"listen","state":"start","mode":"auto"}')
        if moment == "after a reply":
            await socket.send_str('{"type":"listen","state":"detect","text":"hello there"}')
            await texts(socket, "stop")
        await socket.send_str('{"type":"abort"}')
        await socket.send_str('{"type":"ping"}')
        after = await texts(socket, "pong")
    assert [(message["type"], message.get("state")) for message in after] == [("tts", "stop"), ("pong", None)]


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_nothing_of_a_reply_follows_the_stop_of_its_abort(tmp_path: Path, version: int) -> None:
    headers = {"Protocol-Version": str(version)}
    async with house(tmp_path, LONG_ANSWER) as home, raw(home, **headers) as socket:
        await socket.send_str('{"type":"listen","state":"start","mode":"manual"}')
        await socket.send_str('{"type":"listen","state":"detect","text":"tell me a story"}')
        for _ in range(10):
            await asyncio.wait_for(socket.receive(), 10)
        await socket.send_str('{"type":"abort","reason":"wake_word_detected"}')
        await texts(socket, "stop")
        await socket.send_str('{"type":"ping"}')
        message = await asyncio.wait_for(socket.receive(), 5)
        assert message.type is aiohttp.WSMsgType.TEXT, "a packet came after the stop"
        assert message.json()["type"] == "pong"


async def test_timestamps_of_framing_2_rise_from_1(tmp_path: Path) -> None:
    """0 would mean that nothing plays."""
    stamps: list[int] = []
    async with house(tmp_path) as home, raw(home, **{"Protocol-Version": "2"}) as socket:
        await socket.send_str('{"type":"listen","state":"detect","text":"hello there"}')
        while True:
            message = await asyncio.wait_for(socket.receive(), 10)
            if message.type is aiohttp.WSMsgType.BINARY:
                version, kind, reserved, stamp, size = struct.unpack_from("!HHIII", message.data)
                assert (version, kind, reserved, size) == (2, 0, 0, len(message.data) - 16)
                stamps.append(stamp)
            elif message.json().get("state") == "stop":
                break
    assert stamps[0] >= 1
    assert set(np.diff(stamps)) == {60}


# Listening ------------------------------------------------------------------------------------------------------------


async def test_an_empty_recognition_keeps_listening(tmp_path: Path) -> None:
    """Speech that the recogniser makes nothing of: no `stt`, no `tts/start`, and the next words are heard."""
    async with house(tmp_path, cache={"recognition": False}) as home, home.device() as device:
        engine = home.server.devices._services.recognition.engine
        assert isinstance(engine, OfflineRecognizer)
        decode = engine.decode
        empty = decode(np.zeros(1600, np.float32))
        heard: list[int] = []

        def nothing(pcm: Any) -> Any:
            heard.append(len(pcm))
            return type(empty)("")

        engine.decode = nothing  # type: ignore[method-assign]  # the room is loud, the words are none
        report = await device.turn(question(), answer_timeout_s=2.0)
        assert not report.answered
        assert heard, "there was speech to decode"
        assert {message["type"] for _, message in device.received} <= {"hello", "mcp"}
        assert device.manners.state is DeviceState.LISTENING
        engine.decode = decode  # type: ignore[method-assign]
        assert (await device.turn(question())).heard == "what time is it"
        assert len(home.asked) == 1


@pytest.mark.parametrize("session_id", ["", "somebody-else", None, 7])
async def test_the_session_id_is_not_relied_on(tmp_path: Path, session_id: object) -> None:
    async with house(tmp_path) as home, raw(home) as socket:
        await socket.send_json({"type": "hello", "session_id": session_id})
        await texts(socket, "hello")
        await socket.send_json({"type": "listen", "state": "detect", "text": "hello there", "session_id": session_id})
        kinds = [message["type"] for message in await texts(socket, "stop")]
    assert kinds[:2] == ["stt", "tts"]


async def test_unknown_texts_and_mcp_messages_are_neither_answered_nor_fatal(tmp_path: Path) -> None:
    strange: list[str] = [
        '{"type":"goodbye"}',
        '{"type":"iot","descriptors":[]}',
        '{"type":"mcp","payload":{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}}',
        '{"type":"mcp","payload":{"jsonrpc":"2.0","id":"x","error":{"message":"unescaped"}}}',
        '{"type":"mcp","payload":{"jsonrpc":"2.0","method":"notifications/anything"}}',
        '{"type":"mcp","payload":{"jsonrpc":"2.0","id":1,"error":{"message":"a "quote""}}}',
        '{"type":"hello"}',
        "hello",
    ]
    async with house(tmp_path) as home, raw(home) as socket:
        await socket.send_str(strange[2])  # before the hello
        await socket.send_str('{"type":"hello"}')
        await texts(socket, "hello")
        for text in strange:
            await socket.send_str(text)
        await socket.send_str('{"type":"ping"}')
        assert [message["type"] for message in await texts(socket, "pong")] == ["pong"]


async def test_a_wake_burst_in_the_middle_of_a_reply_and_repeated_starts_do_no_harm(tmp_path: Path) -> None:
    async with house(tmp_path, LONG_ANSWER) as home, home.device(speed=1.0) as device:
        turn = asyncio.create_task(device.turn_text("tell me a story"))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 500)
        device.listen(reason="wake_word_detected")
        device.detect("你好小智", wake_audio=SpokenUtterance.encode(question(), 60))
        await turn
        device.listen()
        device.listen()
        home.chat.answer = "🙂 Yes."
        report = await device.turn(question())
        assert (report.heard, report.text) == ("what time is it", "Yes.")
        assert len(home.asked) == 2


async def test_a_key_released_at_once_is_not_answered(tmp_path: Path) -> None:
    """Manual mode with under 0.3 s of sound: the device is idle already and waits for nothing."""
    async with house(tmp_path) as home, home.device(mode=ListeningMode.MANUAL) as device:
        report = await device.turn(noise(0.1), answer_timeout_s=1.0)
        assert not report.answered
        assert {message["type"] for _, message in device.received} <= {"hello", "mcp"}
        assert (await device.turn(question())).heard == "what time is it"


# Open and idle --------------------------------------------------------------------------------------------------------


async def test_an_open_idle_channel_is_kept_alive_by_json_and_never_pinged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings do not reset the firmware's 120 s timer, and old firmware breaks on them."""
    async with house(tmp_path, server={"keepalive_s": 50.0, "idle_close_s": 600.0}) as home, raw(home) as socket:
        await socket.send_str('{"type":"hello"}')
        await texts(socket, "hello")
        writer = home.writer()
        assert isinstance(writer._socket, aiohttp.web.WebSocketResponse)
        assert writer._socket._heartbeat is None
        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(writer, "written_at", writer.written_at - 51.0)
                message = await asyncio.wait_for(socket.receive(), 10)
            assert message.type is aiohttp.WSMsgType.TEXT
            assert message.json()["type"] == "mcp"
            payload = message.json()["payload"]
            assert payload["jsonrpc"] == "2.0"
            assert "id" not in payload, "a notification: nobody answers it"
        await socket.send_str('{"type":"ping"}')
        assert len(await texts(socket, "pong")) == 1, "none comes when none is due"


async def test_pings_of_a_desktop_client_are_answered(tmp_path: Path) -> None:
    """It pings every 20 s and hangs up without an answer."""
    async with house(tmp_path) as home, raw(home) as socket:
        await socket.ping(b"desktop")
        message = await asyncio.wait_for(socket.receive(), 5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"desktop")


async def test_a_channel_on_which_nobody_speaks_is_closed(tmp_path: Path) -> None:
    async with house(tmp_path, server={"idle_close_s": 5.0}) as home, raw(home) as socket:
        await socket.send_str('{"type":"hello"}')
        await socket.send_str('{"type":"listen","state":"start","mode":"auto"}')
        await texts(socket, "hello")
        connection = home.session()
        connection._conversation._active_at -= 6.0
        assert await closed(socket) == aiohttp.WSCloseCode.OK
        async with asyncio.timeout(5):
            await home.server.devices.empty()


async def test_a_client_that_says_nothing_is_closed(tmp_path: Path) -> None:
    async with house(tmp_path, server={"hello_timeout_s": 1.0}) as home, raw(home) as socket:
        assert await closed(socket) == aiohttp.WSCloseCode.OK


async def test_a_close_is_over_in_a_second_although_the_device_never_answers_it(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with house(tmp_path) as home, raw(home) as socket:
        await socket.send_str('{"type":"hello"}')
        await texts(socket, "hello")
        connection = home.session()
        began = loop.time()
        connection.end("the test says so")
        async with asyncio.timeout(5):
            await home.server.devices.empty()
        assert websocket._CLOSE_S <= 1.0
        assert loop.time() - began < 3.0
        assert await closed(socket) == aiohttp.WSCloseCode.OK


# The end of the server ------------------------------------------------------------------------------------------------


async def test_a_server_that_stops_lets_a_running_reply_finish_and_takes_no_new_device(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        settings = settings_for(tmp_path / "two", home.chat.url, home.speech.url, server={"drain_s": 20.0})
        async with serving(settings) as server:
            draining = House(server, home.chat, home.speech)
            async with draining.device(1) as device:
                turn = asyncio.create_task(device.turn_text("hello there"))
                await device.until(lambda: device.manners.speaker.playback.heard_ms > 100)
                stopping = asyncio.create_task(server.devices.drain(20.0))
                await asyncio.sleep(0)
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    async with raw(draining, **{"Device-Id": "late"}):
                        pass
                assert refused.value.status == 503
                assert refused.value.headers is not None
                assert "Retry-After" in refused.value.headers
                report = await turn
                assert (report.answered, report.dropped, report.text) == (True, {}, "It is ten past nine.")
                await stopping
                await device.until(lambda: not device.connected)
