"""The device protocol, sans I/O: framing and messages, by tables and by fuzzing."""

import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.events import MicPacket
from xiaozhi.transport import framing, protocol
from xiaozhi.turn.machine import ListeningMode


@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_is_packed_is_unpacked(version: int) -> None:
    frame = framing.unpack(version, framing.pack(version, b"opus", 1060))
    assert frame.opus == b"opus"
    assert frame.timestamp_ms == (1060 if version == 2 else 0)


def test_the_layouts_are_those_of_the_firmware() -> None:
    assert framing.pack(1, b"ab") == b"ab"
    assert framing.pack(2, b"ab", 7) == struct.pack("!HHIII", 2, 0, 0, 7, 2) + b"ab"
    assert framing.pack(3, b"ab") == struct.pack("!BBH", 0, 0, 2) + b"ab"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (2, b"short"),
        (2, struct.pack("!HHIII", 2, 0, 0, 0, 5) + b"four"),
        (2, struct.pack("!HHIII", 2, 1, 0, 0, 2) + b"{}"),
        (2, struct.pack("!HHIII", 9, 0, 0, 0, 2) + b"ab"),
        (3, b"abc"),
        (3, struct.pack("!BBH", 0, 0, 9) + b"four"),
        (3, struct.pack("!BBH", 1, 0, 2) + b"{}"),
        (1, b"x" * 4001),
    ],
)
def test_a_wrong_frame_is_an_error_that_says_so(version: int, message: bytes) -> None:
    with pytest.raises(framing.FramingError, match=r"\w"):
        framing.unpack(version, message)


@pytest.mark.parametrize(
    ("value", "expected"), [("1", 1), ("2", 2), (3, 3), ("0", 1), ("", 1), ("4", 1), ("x", 1), (None, 1), (True, 1)]
)
def test_an_unknown_framing_version_means_1(value: object, expected: int) -> None:
    assert framing.version_of(value) == expected


@given(st.sampled_from([1, 2, 3]), st.binary(max_size=5000))
def test_no_binary_message_raises(version: int, message: bytes) -> None:
    event = protocol.DeviceProtocol(version).receive_binary(message)
    assert isinstance(event, MicPacket | protocol.Ignored)


def test_an_empty_packet_is_silence() -> None:
    assert protocol.DeviceProtocol(1).receive_binary(b"") == MicPacket(b"")
    assert protocol.DeviceProtocol(3).receive_binary(struct.pack("!BBH", 0, 0, 0)) == MicPacket(b"")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"listen","state":"start","mode":"auto"}', protocol.ListenStart(ListeningMode.AUTO)),
        ('{"type":"listen","state":"start","mode":"manual"}', protocol.ListenStart(ListeningMode.MANUAL)),
        ('{"type":"listen","state":"start","mode":"realtime"}', protocol.ListenStart(ListeningMode.REALTIME)),
        ('{"type":"listen","state":"start"}', protocol.ListenStart(ListeningMode.AUTO)),
        ('{"type":"listen","state":"start","mode":["auto"]}', protocol.ListenStart(ListeningMode.AUTO)),
        ('{"type":"listen","state":"stop"}', protocol.ListenStop()),
        ('{"type":"listen","state":"detect","text":"你好小智"}', protocol.Detect("你好小智")),
        ('{"type":"listen","state":"detect"}', protocol.Detect("")),
        ('{"type":"listen","state":"detect","text":7}', protocol.Detect("")),
        ('{"type":"abort","reason":"wake_word_detected"}', protocol.Abort("wake_word_detected")),
        ('{"type":"abort"}', protocol.Abort("")),
        ('{"type":"mcp","payload":{"id":1}}', protocol.Mcp({"id": 1})),
        ('{"type":"ping"}', protocol.Ping()),
        ('{"type":"hello"}', protocol.Hello(1)),
        ('{"type":"hello","version":3,"features":{"mcp":true,"aec":false}}', protocol.Hello(3, frozenset({"mcp"}))),
        ('{"type":"hello","features":{"trace":true}}', protocol.Hello(1, frozenset({"trace"}), traces=True)),
        ('{"type":"hello","version":"two","features":[1],"audio_params":7}', protocol.Hello(1)),
    ],
)
def test_messages_of_real_clients_are_understood(text: str, expected: protocol.Event) -> None:
    assert protocol.DeviceProtocol().receive_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "7",
        "null",
        '"hello"',
        "{",
        "{}",
        '{"type":7}',
        '{"type":"goodbye"}',
        '{"type":"listen"}',
        '{"type":"listen","state":"sideways"}',
        '{"type":"mcp"}',
        '{"type":"mcp","payload":null}',
        '{"type":"stt","text":"' + "x" * 65_000 + '"}',
    ],
)
def test_what_means_nothing_is_ignored(text: str) -> None:
    assert isinstance(protocol.DeviceProtocol().receive_text(text), protocol.Ignored)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["type", "state", "mode", "text", "version", "features", "audio_params", "payload", "reason"])
VALUES = JSON | st.sampled_from(
    ["hello", "listen", "start", "stop", "detect", "abort", "mcp", "auto", "realtime", "ping"]
)


@given(st.dictionaries(KEYS, VALUES))
def test_no_json_of_any_shape_raises(message: dict[str, object]) -> None:
    protocol.DeviceProtocol().receive_text(orjson.dumps(message).decode())


@given(st.text())
def test_no_text_raises(text: str) -> None:
    protocol.DeviceProtocol().receive_text(text)


@pytest.mark.parametrize(
    ("audio_params", "bare"),
    [
        ({"format": "pcm", "sample_rate": 16000}, True),
        ({"format": "pcm", "sample_rate": "16k"}, False),
        ({"format": ["pcm"], "sample_rate": 16000}, False),
        ({"format": "opus", "sample_rate": 16000}, False),
    ],
)
def test_a_hello_tells_whether_what_follows_are_samples(audio_params: dict[str, object], bare: bool) -> None:
    device = protocol.DeviceProtocol()
    hello = device.receive_text(orjson.dumps({"type": "hello", "audio_params": audio_params}).decode())
    assert hello == protocol.Hello(1)
    assert device.receive_binary(b"1234") == MicPacket(b"1234", bare=bare)


def test_a_second_hello_is_not_answered() -> None:
    device = protocol.DeviceProtocol()
    assert isinstance(device.receive_text('{"type":"hello"}'), protocol.Hello)
    assert isinstance(device.receive_text('{"type":"hello"}'), protocol.Ignored)


def test_the_hello_says_what_the_firmware_must_read() -> None:
    hello = protocol.DeviceProtocol(1, "abc").hello(24_000, 60)
    assert hello["transport"] == "websocket"
    assert hello["session_id"] == "abc"
    assert hello["audio_params"] == {"format": "opus", "sample_rate": 24_000, "channels": 1, "frame_duration": 60}


def test_very_long_typed_text_is_cut() -> None:
    text = orjson.dumps({"type": "listen", "state": "detect", "text": "长" * 60_000}).decode()
    event = protocol.DeviceProtocol().receive_text(text)
    assert event == protocol.Detect("长" * protocol.MAX_TYPED_CHARS)
