"""The small parts of the device in software: packet lengths, microphone, tools, the waterfall."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.speech import needs_speech, read_wav, recordings
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.packet_time import packet_ms
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt, to_int16
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.client.microphone import (
    LiveMicrophone,
    SpeechMicrophone,
    SpokenUtterance,
    last_voiced_ms,
    silence_packet,
)
from xiaozhi.client.report import TurnOutcome, TurnReport
from xiaozhi.client.speaker import Speaker
from xiaozhi.client.waterfall import steps, waterfall


def tone(ms: int, level: float = 0.5) -> PcmInt:
    t = np.arange(UPLINK_RATE_HZ * ms // 1000) / UPLINK_RATE_HZ
    return to_int16((level * np.sin(2 * np.pi * 300 * t)).astype(np.float32))


def silence(ms: int) -> PcmInt:
    return np.zeros(UPLINK_RATE_HZ * ms // 1000, np.int16)


# Packets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame_ms", [20, 40, 60, 80, 100, 120])
def test_a_packets_length_is_read_from_its_first_bytes(frame_ms: int) -> None:
    packets = OpusEncoder(16_000, frame_ms).encode(tone(480))
    assert {packet_ms(packet) for packet in packets} == {float(frame_ms)}


@pytest.mark.parametrize("opus", [b"", b"\xff", b"\x03\x00", b"\x1b\x3f"])
def test_what_is_no_packet_has_no_length(opus: bytes) -> None:
    with pytest.raises(ValueError, match="packet"):
        packet_ms(opus)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_length_up_to_120_ms_or_no_packet(opus: bytes) -> None:
    try:
        length_ms = packet_ms(opus)
    except ValueError:
        return
    assert 2.5 <= length_ms <= 120.0


@given(
    st.lists(st.tuples(st.floats(0, 200), st.sampled_from([20.0, 60.0, 120.0])), max_size=80),
    st.sampled_from([(44, None), (3, None), (None, 500.0)]),
)
def test_a_speaker_never_holds_more_than_it_can(
    puts: list[tuple[float, float]], limits: tuple[int | None, float | None]
) -> None:
    max_packets, max_ms = limits
    speaker = Speaker(max_packets, max_ms)
    now_ms = 0.0
    for gap_ms, duration_ms in puts:
        now_ms += gap_ms
        speaker.put(b"p", duration_ms, now_ms)
        if max_packets is not None:
            assert speaker.queued_ms(now_ms) <= max_packets * 120.0
        if max_ms is not None:
            assert speaker.queued_ms(now_ms) <= max_ms
    ends_ms = speaker.ends_ms()
    if ends_ms is not None:
        speaker.advance(ends_ms + 1e-6)  # sums of thirds do not meet to the last bit
    assert not speaker.busy
    assert len(speaker.playback.heard) + speaker.playback.dropped.total() == len(puts)


# The microphone -------------------------------------------------------------------------------------------------------


def test_speech_ends_at_the_last_ten_milliseconds_above_the_noise() -> None:
    pcm = np.concatenate([silence(100), tone(300), silence(205)])
    assert last_voiced_ms(pcm) == pytest.approx(400.0)
    quiet_tail = np.concatenate([tone(300), tone(100, level=0.5 * 10 ** (-50 / 20))])
    assert last_voiced_ms(quiet_tail) == pytest.approx(300.0)
    assert last_voiced_ms(tone(305)) == pytest.approx(305.0)
    assert last_voiced_ms(silence(100)) == 0.0
    assert last_voiced_ms(np.empty(0, np.int16)) == 0.0


@needs_speech
def test_recorded_commands_end_before_their_files_do() -> None:
    found = recordings(language="en", kind="command")[:10] or recordings(language="en")[:10]
    for recording in found:
        pcm = to_int16(read_wav(recording.path))
        assert 0.0 < last_voiced_ms(pcm) <= len(pcm) / 16.0


@pytest.mark.parametrize("frame_ms", [20, 60, 120])
def test_an_utterance_marks_the_packet_in_which_speech_ends(frame_ms: int) -> None:
    utterance = SpokenUtterance.encode(np.concatenate([tone(250), silence(250)]), frame_ms)
    microphone = SpeechMicrophone(frame_ms)
    microphone.say(utterance)
    marks = []
    for index in range(len(utterance.packets)):
        assert not microphone.silent
        frame = microphone.read()
        if frame.voiced_before_end_ms is not None:
            marks.append((index + 1) * frame_ms - frame.voiced_before_end_ms)
    assert marks == [pytest.approx(250.0)]
    assert microphone.silent
    assert microphone.read().opus == silence_packet(frame_ms)


def test_an_encoded_utterance_sounds_like_the_recording() -> None:
    decoder = OpusDecoder(16_000)
    utterance = SpokenUtterance.encode(tone(600))
    heard = np.concatenate([decoder.decode(packet) for packet in utterance.packets])
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * 16_000 / len(heard) == pytest.approx(300.0, abs=5.0)


def test_a_shut_microphone_loses_what_is_being_said_and_keeps_what_has_not_begun() -> None:
    microphone = SpeechMicrophone(60)
    first, second = SpokenUtterance.encode(tone(600)), SpokenUtterance.encode(tone(120))
    microphone.say(first)
    microphone.say(second)
    microphone.read()
    microphone.read()
    assert microphone.shut() == pytest.approx(480.0)
    assert microphone.read().opus == second.packets[0]
    assert SpeechMicrophone(60).shut() == 0.0


def test_packets_of_another_length_and_empty_speech_are_refused() -> None:
    with pytest.raises(ValueError, match="20 ms in a microphone of 60 ms"):
        SpeechMicrophone(60).say(SpokenUtterance.encode(tone(60), 20))
    with pytest.raises(ValueError, match="needs samples"):
        SpokenUtterance.encode(np.empty(0, np.int16))


def test_a_live_microphone_gives_whole_packets_and_forgets_what_nobody_fetches() -> None:
    microphone = LiveMicrophone(60)
    assert microphone.read() is None
    for _ in range(9):
        microphone.feed(tone(10))
    frame = microphone.read()
    assert frame is not None
    assert frame.voiced_before_end_ms == 0.0
    assert microphone.read() is None
    microphone.feed(silence(90))
    microphone.read()
    quiet = microphone.read()
    assert quiet is not None
    assert quiet.voiced_before_end_ms is None
    microphone.feed(silence(6000))
    assert sum(1 for _ in iter(microphone.read, None)) == 40
    microphone.feed(silence(600))
    microphone.shut()
    assert microphone.read() is None


# The device's tools ---------------------------------------------------------------------------------------------------


def ask(tools: DeviceMcpServer, method: str, params: Any = None, number: Any = 1) -> dict[str, Any] | None:
    payload = {"jsonrpc": "2.0", "id": number, "method": method}
    if params is not None:
        payload["params"] = params
    return tools.answer(payload)


def test_the_tools_can_be_listed_page_by_page() -> None:
    tools = DeviceMcpServer(page_bytes=350)
    names, cursor, pages = [], "", 0
    while True:
        reply = ask(tools, "tools/list", {"cursor": cursor})
        assert reply is not None
        names += [tool["name"] for tool in reply["result"]["tools"]]
        pages += 1
        cursor = reply["result"].get("nextCursor", "")
        if not cursor:
            break
    assert names == ["self.get_device_status", "self.audio_speaker.set_volume", "self.screen.set_brightness"]
    assert pages > 1


def test_tools_for_the_user_are_listed_only_when_asked_for() -> None:
    reply = ask(DeviceMcpServer(), "tools/list", {"withUserTools": True})
    assert reply is not None
    (user_only,) = [tool for tool in reply["result"]["tools"] if "annotations" in tool]
    assert user_only["annotations"] == {"audience": ["user"]}


def test_a_call_changes_the_device() -> None:
    tools = DeviceMcpServer()
    reply = ask(tools, "tools/call", {"name": "self.audio_speaker.set_volume", "arguments": {"volume": 50.9}}, 7)
    assert reply == {
        "jsonrpc": "2.0",
        "id": 7,
        "result": {"content": [{"type": "text", "text": "true"}], "isError": False},
    }
    assert tools.volume == 50
    assert tools.calls == [("self.audio_speaker.set_volume", {"volume": 50})]
    status = ask(tools, "tools/call", {"name": "self.get_device_status"})
    assert status is not None
    assert '"volume":50' in status["result"]["content"][0]["text"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": "self.audio_speaker.set_volume", "arguments": {"volume": "50"}}, "Missing valid argument: volume"),
        ({"name": "self.audio_speaker.set_volume"}, "Missing valid argument: volume"),
        (
            {"name": "self.audio_speaker.set_volume", "arguments": {"volume": 101}},
            "Value exceeds maximum allowed: 100",
        ),
        ({"name": "self.audio_speaker.set_volume", "arguments": {"volume": -1}}, "Value is below minimum allowed: 0"),
        ({"name": "self.audio_speaker.set_volume", "arguments": None}, "Invalid arguments"),
        ({"name": "self.dance"}, "Unknown tool: self.dance"),
        ({}, "Missing name"),
    ],
)
def test_a_wrong_call_is_an_error_without_a_code(params: dict[str, Any], message: str) -> None:
    reply = ask(DeviceMcpServer(), "tools/call", params)
    assert reply is not None
    assert reply["error"] == {"message": message}


@pytest.mark.parametrize(
    "payload",
    [
        {"jsonrpc": "2.0", "id": "1", "method": "tools/list"},
        {"jsonrpc": "2.0", "method": "tools/list"},
        {"jsonrpc": "1.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": None},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "method": "notifications/keepalive"},
    ],
)
def test_the_firmware_is_silent_about_what_it_does_not_understand(payload: dict[str, Any]) -> None:
    assert DeviceMcpServer().answer(payload) is None


def test_initialize_takes_the_cameras_address() -> None:
    tools = DeviceMcpServer()
    vision = {"url": "http://192.0.2.10/vision", "token": "t"}
    reply = ask(tools, "initialize", {"capabilities": {"vision": vision}})
    assert reply is not None
    assert reply["result"]["protocolVersion"] == "2024-11-05"
    assert tools.vision == vision
    unknown = ask(tools, "prompts/list")
    assert unknown is not None
    assert "error" in unknown


# The waterfall --------------------------------------------------------------------------------------------------------

SPANS = {
    "soft_end": 130.0,
    "text": 180.0,
    "first_token": 480.0,
    "first_clause": 560.0,
    "first_speech": 700.0,
    "commit": 540.0,
    "first_packet": 702.0,
    "end": None,
}


def a_turn(spans: dict[str, float | None] | None) -> TurnReport:
    return TurnReport(
        TurnOutcome.ANSWERED,
        tts_start_ms=541.0,
        first_packet_ms=703.0,
        first_heard_ms=703.0,
        play_end_ms=4183.0,
        reply_ms=3480.0,
        trace=None if spans is None else {"spans": spans},
    )


def test_every_step_begins_where_the_one_it_waited_for_ended() -> None:
    found = {step.name: (step.begins_ms, step.ends_ms) for step in steps(a_turn(SPANS))}
    assert found["text"] == (130.0, 180.0)
    assert found["first token"] == (180.0, 480.0)
    assert found["first speech"] == (560.0, 700.0)
    assert found["first packet sent"] == (700.0, 702.0)
    assert found["first packet here"] == (702.0, 703.0)
    assert found["reply"] == (703.0, 4183.0)


def test_steps_are_sorted_by_their_end_and_none_ends_before_it_begins() -> None:
    found = steps(a_turn(SPANS))
    assert [step.ends_ms for step in found] == sorted(step.ends_ms for step in found)
    assert all(step.begins_ms <= step.ends_ms for step in found)


def test_without_a_trace_only_what_the_device_knows_is_drawn() -> None:
    assert [step.name for step in steps(a_turn(None))] == ["told to speak", "first packet here", "reply"]
    assert waterfall(TurnReport(TurnOutcome.NO_ANSWER)) == []


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("width", [30, 79, 200])
def test_the_waterfall_is_aligned_and_fits(width: int, plain: bool) -> None:
    lines = waterfall(a_turn(SPANS), width, plain=plain)
    assert len(lines) == 10
    assert all(len(line) <= max(width, 60) for line in lines)
    assert len({line.index(" ms") for line in lines}) == 1
    assert all(line.isascii() for line in lines) is plain


_TIMES = st.none() | st.floats(-500, 20_000)


@given(st.fixed_dictionaries(dict.fromkeys(SPANS, _TIMES)), _TIMES, _TIMES, st.booleans())
def test_any_times_can_be_drawn(
    spans: dict[str, float | None], start_ms: float | None, packet_ms: float | None, plain: bool
) -> None:
    report = a_turn(spans)
    report.tts_start_ms, report.first_packet_ms, report.first_heard_ms = start_ms, packet_ms, packet_ms
    for line in waterfall(report, plain=plain):
        assert len(line) <= 79


def test_a_span_that_is_no_number_is_none() -> None:
    report = a_turn({"text": None})
    report.trace = {"spans": {"text": "soon", "commit": True}}
    assert report.span_ms("text") is None
    assert report.span_ms("commit") is None
    report.trace = {"spans": 3}
    assert report.span_ms("text") is None
