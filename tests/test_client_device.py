"""The device over a real socket, against a server that does exactly what each test says."""

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from aiohttp import WSMsgType, web

from tests.scripted_server import TTS_START, TTS_STOP, Script, script
from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt, to_int16
from xiaozhi.client.device import Device
from xiaozhi.client.errors import ChannelLost, ConnectFailed, Unreachable
from xiaozhi.client.link import device_session
from xiaozhi.client.manners import DesktopManners, DeviceState, Manners
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.report import TurnOutcome
from xiaozhi.client.speaker import LossReason
from xiaozhi.turn.machine import ListeningMode

__all__ = ["script"]

ME = ClientIdentity.of("02:00:00:11:22:33")


def tone(ms: int, rate_hz: int = UPLINK_RATE_HZ) -> PcmInt:
    t = np.arange(rate_hz * ms // 1000) / rate_hz
    return to_int16((0.5 * np.sin(2 * np.pi * 300 * t)).astype(np.float32))


REPLY = OpusEncoder(24_000, 60).encode(tone(300, 24_000))
SPEECH = SpokenUtterance.encode(tone(300))


def quick(**options: Any) -> Device:
    """A device whose microphone runs 20 times as fast, and which acts on messages almost at once."""
    options.setdefault("manners", Manners(task_ms=1.0, handler_ms=1.0, microphone_ms=5.0))
    return Device(ME, speed=20.0, **options)


# Finding and reaching the server --------------------------------------------------------------------------------------


async def test_the_request_and_the_hello_are_the_firmwares(script: Script) -> None:
    async with quick(version=3) as device:
        await device.connect(script.url, "tok")
        await script.heard(type="hello")
        assert device.connected
        assert device.session_id == "S1"
        assert device.manners.state is DeviceState.IDLE
    headers = script.requests[0].headers
    assert headers["Authorization"] == "Bearer tok"
    assert headers["Device-Id"] == "02:00:00:11:22:33"
    assert headers["Client-Id"] == ME.client_id
    assert headers["Protocol-Version"] == "3"
    assert headers["Host"] == "127.0.0.1"
    for absent in ("User-Agent", "Origin", "Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"):
        assert absent not in headers
    assert script.texts[0] == {
        "type": "hello",
        "version": 3,
        "features": {"mcp": True, "glyph_push": False},
        "transport": "websocket",
        "audio_params": {"format": "opus", "sample_rate": 16000, "channels": 1, "frame_duration": 60},
    }


@pytest.mark.parametrize(
    ("manners", "token", "header"),
    [
        (Manners, "", None),
        (Manners, "Basic abc", "Basic abc"),
        (DesktopManners, "", "Bearer test-token"),
        (DesktopManners, "t", "Bearer t"),
    ],
)
async def test_the_token_is_sent_as_each_client_sends_it(
    script: Script, manners: type[Manners], token: str, header: str | None
) -> None:
    async with quick(manners=manners()) as device:
        await device.connect(script.url, token)
    assert script.requests[0].headers.get("Authorization") == header


async def test_the_desktop_client_announces_20_ms_and_never_repeats_the_session(script: Script) -> None:
    async with quick(manners=DesktopManners()) as device:
        await device.connect(script.url)
        device.listen()
        await script.heard(type="listen", session_id="")
    assert script.texts[0]["audio_params"]["frame_duration"] == 20


async def test_the_ota_answer_says_where_to_connect(script: Script) -> None:
    script.ota = {"websocket": {"url": script.url, "token": "T", "version": 2}, "server_time": {"timestamp": 1}}
    async with quick() as device:
        reply = await device.boot(script.ota_url)
        await device.connect(reply.url, reply.token)
        await script.heard(type="hello", version=2)
    request = script.requests[0]
    assert request.headers["Device-Id"] == ME.device_id
    assert request.headers["User-Agent"] == "software/2.4.2"
    assert request.headers["Activation-Version"] == "1"
    assert script.ota_body["mac_address"] == ME.device_id
    assert script.ota_body["application"]["version"] == "2.4.2"
    assert script.requests[1].headers["Authorization"] == "Bearer T"


async def test_an_ota_answer_without_a_version_leaves_the_framing_as_it_was(script: Script) -> None:
    script.ota = {"websocket": {"url": script.url}}
    async with quick(version=3) as device:
        reply = await device.boot(script.ota_url)
        assert (reply.token, reply.version, device.version) == ("", None, 3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (web.Response(status=500), "answered 500"),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), "answered 302"),
        (web.Response(text="<html>"), "did not answer JSON"),
        (web.Response(text="[]"), "no object"),
        (web.Response(text=" " * 9000), "9000 bytes"),
        ({"websocket": None}, "no websocket.url"),
        ({"websocket": {"url": ""}}, "no websocket.url"),
    ],
)
async def test_an_ota_answer_that_would_leave_a_device_mute_is_an_error(
    script: Script, answer: Any, message: str
) -> None:
    script.ota = answer
    async with quick() as device:
        with pytest.raises(ConnectFailed, match=message):
            await device.boot(script.ota_url)


async def test_a_refusal_carries_its_status(script: Script) -> None:
    script.status = 401
    async with quick() as device:
        with pytest.raises(ConnectFailed, match="status 401") as caught:
            await device.connect(script.url)
        assert caught.value.status == 401
        assert device.manners.state is DeviceState.IDLE
        script.status = 0
        await device.connect(script.url)
        assert device.connected


async def test_nobody_there_is_an_error_of_its_own() -> None:
    async with quick() as device:
        with pytest.raises(Unreachable):
            await device.connect("ws://127.0.0.1:1/xiaozhi/v1/")
        with pytest.raises(Unreachable):
            await device.boot("http://127.0.0.1:1/xiaozhi/ota/")
        with pytest.raises(ConnectFailed):
            await device.connect("no address")


async def test_a_hello_without_transport_is_refused_because_firmware_crashes_on_it(script: Script) -> None:
    script.hello = {"type": "hello"}
    async with quick() as device:
        with pytest.raises(ConnectFailed, match="crash"):
            await device.connect(script.url)


async def test_a_hello_for_another_transport_is_waited_past(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xiaozhi.client.handset.HELLO_TIMEOUT_S", 0.05)
    script.hello = {"type": "hello", "transport": "udp"}
    async with quick() as device:
        with pytest.raises(ConnectFailed, match=r"no hello from .* within 0.05 s"):
            await device.connect(script.url)


async def test_devices_can_share_one_http_session(script: Script) -> None:
    async with device_session() as session:
        async with quick(session=session) as one, quick(session=session) as other:
            await one.connect(script.url)
            await other.connect(script.url)
            assert len(script.requests) == 2
        assert not session.closed


# A turn ---------------------------------------------------------------------------------------------------------------


async def answer(
    script: Script, device: Device, packets: list[bytes], *, trace: bool = False, wrap: Callable[[bytes], bytes] = bytes
) -> None:
    """Hear the whole utterance, then answer as a well-behaved server does."""
    await script.until(lambda: said(script))
    await script.say({"type": "stt", "text": "what time is it"}, TTS_START)
    await device.until(lambda: speaking(device))
    await script.say({"type": "llm", "emotion": "happy", "text": "🙂"})
    await script.say({"type": "tts", "state": "sentence_start", "text": "It is ten past nine."})
    await script.say(*(wrap(packet) for packet in packets))
    await device.until(lambda: len(device.manners.speaker.playback.heard) == len(packets))
    await script.say(TTS_STOP)
    if trace:
        await script.say({"type": "trace", "turn": 1, "spans": {"text": 180.0}})


def said(script: Script) -> bool:
    """The last packet of the utterance has arrived, in whatever framing."""
    return any(message.endswith(SPEECH.packets[-1]) for message in script.audio)


def speaking(device: Device) -> bool:
    """The device has acted on `tts/start`: nothing that comes now is cleared any more."""
    return device.manners.state is DeviceState.SPEAKING and device.manners.settled


async def test_a_turn_is_reported_as_it_was_heard(script: Script) -> None:
    async with quick(trace=True) as device:
        await device.connect(script.url)
        report, _ = await asyncio.gather(device.turn(SPEECH), answer(script, device, REPLY, trace=True))
    assert report.outcome is TurnOutcome.ANSWERED
    assert report.heard == "what time is it"
    assert report.text == "It is ten past nine."
    assert report.emotion == "happy"
    assert report.reply_ms == pytest.approx(300.0)
    assert report.received == 5
    assert report.dropped == {}
    assert report.starved_count == 0
    assert report.span_ms("text") == 180.0
    assert report.reply_pcm is not None
    spectrum = np.abs(np.fft.rfft(report.reply_pcm))
    assert np.argmax(spectrum) * 24_000 / len(report.reply_pcm) == pytest.approx(300.0, abs=5.0)
    times = (report.stt_ms, report.first_packet_ms, report.first_heard_ms, report.play_end_ms)
    assert None not in times
    assert list(times) == sorted(times)  # type: ignore[type-var]  # none is None, see above
    assert report.play_end_ms == pytest.approx((report.first_heard_ms or 0.0) + 300.0, abs=0.1)
    assert script.texts[0]["features"]["trace"] is True
    assert script.texts[1] == {"session_id": "S1", "type": "listen", "state": "start", "mode": "auto"}
    assert script.audio[: len(SPEECH.packets)] == list(SPEECH.packets)
    assert orjson.loads(orjson.dumps(report.as_dict()))["dropped"] == {}


async def test_after_a_turn_the_device_listens_again_and_takes_another(script: Script) -> None:
    async with quick(decode_reply=False) as device:
        await device.connect(script.url)
        for number in (1, 2):
            script.audio.clear()
            report, _ = await asyncio.gather(device.turn(SPEECH), answer(script, device, REPLY[:1]))
            assert report.answered
            assert report.received == 1
            assert report.reply_pcm is None
            await script.until(lambda wanted=number + 1: script.count(state="start") == wanted)  # type: ignore[misc]


V2 = struct.Struct("!HHIII")
V3 = struct.Struct("!BBH")


@pytest.mark.parametrize(
    ("version", "header", "wrap"),
    [
        (2, 16, lambda opus: V2.pack(2, 0, 0, 1000, len(opus)) + opus),
        (3, 4, lambda opus: V3.pack(0, 0, len(opus)) + opus),
    ],
)
async def test_both_directions_follow_the_devices_framing(
    script: Script, version: int, header: int, wrap: Callable[[bytes], bytes]
) -> None:
    async with quick(version=version) as device:
        await device.connect(script.url)
        report, _ = await asyncio.gather(device.turn(SPEECH), answer(script, device, REPLY[:2], wrap=wrap))
    assert report.reply_ms == pytest.approx(120.0)
    assert [message[header:] for message in script.audio[: len(SPEECH.packets)]] == list(SPEECH.packets)
    unpacked = V2.unpack_from(script.audio[0])[:4] if version == 2 else V3.unpack_from(script.audio[0])[:2]
    assert unpacked == ((2, 0, 0, 0) if version == 2 else (0, 0))


async def test_push_to_talk_releases_the_key_behind_the_last_packet(script: Script) -> None:
    async with quick(mode=ListeningMode.MANUAL) as device:
        await device.connect(script.url)
        turn = asyncio.create_task(device.turn(SPEECH))
        await script.heard(type="listen", state="stop")
        # A busy machine may let a frame of silence out before the key comes up.
        assert script.audio[: len(SPEECH.packets)] == list(SPEECH.packets)
        await answer(script, device, REPLY[:1])
        assert (await turn).answered
        assert device.manners.state is DeviceState.IDLE


async def test_a_typed_turn_is_counted_from_the_moment_it_was_sent(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        turn = asyncio.create_task(device.turn_text("现在几点"))
        await script.heard(type="listen", state="detect", text="现在几点")
        await script.say({"type": "stt", "text": "现在几点"}, TTS_START, TTS_STOP)
        report = await turn
    assert report.outcome is TurnOutcome.SILENT
    assert report.stt_ms is not None
    assert report.stt_ms >= 0.0


async def test_no_answer_and_no_stop_are_told_apart(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        report = await device.turn(SPEECH, answer_timeout_s=0.05)
        assert report.outcome is TurnOutcome.NO_ANSWER
        turn = asyncio.create_task(device.turn(SPEECH, reply_timeout_s=0.1))
        script.audio.clear()
        await script.until(lambda: said(script))
        await script.say(TTS_START)
        assert (await turn).outcome is TurnOutcome.STUCK
        assert device.manners.state is DeviceState.SPEAKING


async def test_a_user_who_is_cut_off_is_reported(script: Script) -> None:
    long = SpokenUtterance.encode(tone(3000))
    async with quick() as device:
        await device.connect(script.url)
        turn = asyncio.create_task(device.turn(long))
        await script.until(lambda: len(script.audio) == 3)
        await script.say(TTS_START)
        await device.until(lambda: device.manners.microphone_from_ms is None)
        await script.say(TTS_STOP)
        report = await turn
    assert report.cut_off_ms > 0.0
    assert report.tts_start_ms is not None
    assert report.tts_start_ms < 0.0


async def test_lost_packets_are_counted_by_reason(script: Script) -> None:
    long = OpusEncoder(24_000, 120).encode(tone(120, 24_000))[0]
    async with quick() as device:
        await device.connect(script.url)
        turn = asyncio.create_task(device.turn(SPEECH))
        await script.until(lambda: said(script))
        await script.say(REPLY[0], TTS_START)
        await device.until(lambda: speaking(device))
        await script.say(long, b"", b"\xff", b"\x58garbage", TTS_STOP)
        report = await turn
    assert report.dropped == {LossReason.NOT_SPEAKING: 1, LossReason.TOO_LONG: 1, LossReason.MALFORMED: 2}
    assert report.received == 5
    assert report.undecodable <= 1


async def test_the_desktop_client_takes_packets_of_any_length(script: Script) -> None:
    long = OpusEncoder(24_000, 120).encode(tone(120, 24_000))[0]
    async with quick(manners=DesktopManners()) as device:
        await device.connect(script.url)
        await script.say(long)
        await device.until(lambda: len(device.manners.speaker.playback.heard) == 1)


async def test_a_realtime_turn_can_break_into_a_reply(script: Script) -> None:
    async with quick(mode=ListeningMode.REALTIME) as device:
        await device.connect(script.url)
        device.listen()
        await script.heard(type="listen", state="start", mode="realtime")
        await script.say(TTS_START)
        await device.until(lambda: speaking(device))
        await script.say(*REPLY)
        await device.until(lambda: device.manners.speaker.busy)
        script.audio.clear()
        turn = asyncio.create_task(device.turn(SPEECH))
        await script.until(lambda: said(script))
        await script.say(TTS_STOP, TTS_START)
        await device.until(lambda: not device.manners.speaker.busy)
        await script.say(REPLY[0])
        await device.until(lambda: device.manners.speaker.busy)
        await script.say(TTS_STOP)
        report = await turn
    assert report.answered
    assert report.reply_ms <= 120.0
    assert script.count(state="start") == 1


# Keys, tools, and the end ---------------------------------------------------------------------------------------------


async def test_wake_audio_comes_before_the_wake_word(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        device.detect("你好小智", SPEECH)
        await script.heard(type="listen", state="detect", text="你好小智", session_id="S1")
        # A busy machine may let a frame of silence out before the key comes up.
        assert script.audio[: len(SPEECH.packets)] == list(SPEECH.packets)


@pytest.mark.real_time
async def test_an_abort_is_sent_and_the_reply_played_to_its_end(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        device.listen()
        await script.say(TTS_START)
        await device.until(lambda: speaking(device))
        await script.say(*REPLY)
        await device.until(lambda: device.manners.speaker.busy)
        device.abort()
        await script.heard(type="abort")
        await script.say(TTS_STOP)
        await device.until(lambda: device.manners.settled and not device.manners.replying)
        assert device.manners.speaker.playback.heard_ms == pytest.approx(300.0)
        await script.until(lambda: script.count(state="start") == 2)


async def test_the_servers_tool_calls_are_answered(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        call = {"name": "self.audio_speaker.set_volume", "arguments": {"volume": 30}}
        await script.say(
            {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": "text", "method": "tools/list"}},
            {"type": "mcp", "payload": {"jsonrpc": "2.0", "method": "notifications/keepalive"}},
            {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": call}},
        )
        await script.heard(type="mcp")
        assert [text["payload"]["id"] for text in script.texts if text["type"] == "mcp"] == [4]
        assert device.tools.volume == 30


async def test_what_the_firmware_ignores_changes_nothing(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        await script.say("no json", "[1]", "{}", {"type": "goodbye"}, {"type": "tts"}, {"type": "mcp", "payload": 3})
        await script.say({"type": "trace", "spans": {}})
        await device.until(lambda: device.turn_log.trace is not None)
        assert device.connected
        assert device.manners.state is DeviceState.IDLE


async def test_hanging_up_drops_tcp_without_a_close_frame(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        device.listen()
        await script.heard(type="listen")
    async with asyncio.timeout(5):
        assert await script.ended == 1006
    assert not device.connected


async def test_a_close_frame_makes_the_device_idle_and_is_never_answered(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        device.listen()
        await script.heard(type="listen")
        waiting = asyncio.create_task(device.until(lambda: False))
        await asyncio.sleep(0)
        assert script.socket is not None
        await script.socket.send_frame(struct.pack("!H", 1001), WSMsgType.CLOSE)
        with pytest.raises(ChannelLost, match="code 1001"):
            await waiting
        assert device.close_code == 1001
        assert device.manners.state is DeviceState.IDLE
        with pytest.raises(ChannelLost):
            await device.until(lambda: False)
        report = await device.turn(SPEECH)
        assert report.outcome is TurnOutcome.LOST
        assert not script.ended.done()  # TCP stays open, as with the firmware
    assert await script.ended == 1006  # no Close frame came, not even an answer to the server's


async def test_a_connection_that_breaks_in_a_turn_is_reported_and_the_device_connects_again(script: Script) -> None:
    async with quick() as device:
        await device.connect(script.url)
        turn = asyncio.create_task(device.turn(SPEECH))
        await script.until(lambda: len(script.audio) >= 2)
        assert script.requests[0].transport is not None
        script.requests[0].transport.abort()
        assert (await turn).outcome is TurnOutcome.LOST
        script.audio.clear()
        await device.connect(script.url)
        report, _ = await asyncio.gather(device.turn(SPEECH), answer(script, device, REPLY[:1]))
        assert report.answered


@pytest.mark.real_time
async def test_a_real_loudspeaker_gets_what_was_accepted_and_is_told_to_forget(script: Script) -> None:
    class Sink:
        def __init__(self) -> None:
            self.played: list[bytes] = []
            self.cleared = 0

        def play(self, opus: bytes) -> None:
            self.played.append(opus)

        def clear(self) -> None:
            self.cleared += 1

    sink = Sink()
    manners = Manners(plays_out=False, task_ms=1.0, handler_ms=1.0, microphone_ms=5.0)
    async with quick(sink=sink, manners=manners) as device:
        await device.connect(script.url)
        device.listen()
        await script.say(REPLY[0], TTS_START)
        await device.until(lambda: speaking(device))
        await script.say(*REPLY, TTS_STOP)
        await script.until(lambda: script.count(state="start") == 2)
        assert sink.played == REPLY
        assert sink.cleared == 1


def test_a_devices_identity_is_stable_and_its_number_its_address() -> None:
    assert ClientIdentity.numbered(1) == ClientIdentity.numbered(1)
    assert ClientIdentity.numbered(258).device_id == "02:00:00:00:01:02"
    assert ClientIdentity.of("AA:BB:CC:DD:EE:FF").device_id == "aa:bb:cc:dd:ee:ff"
    assert ClientIdentity.of_this_machine() == ClientIdentity.of_this_machine()


def test_a_microphone_cannot_run_at_no_speed() -> None:
    with pytest.raises(ValueError, match="speed"):
        Device(ME, speed=0.0)
