"""MQTT without a network: what is written is what is read, and nothing that comes breaks more than its connection."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.transport.mqtt_codec import (
    Connect,
    MqttError,
    MqttReader,
    Packet,
    PacketKind,
    Publish,
    UnsupportedLevel,
    acknowledged,
)

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
topics = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=40)
connects = st.builds(Connect, words, words.filter(bool), words, st.integers(0, 65_535))
publishes = st.builds(Publish, topics, st.binary(max_size=300))
packets = st.one_of(
    connects.map(Connect.packet),
    publishes.map(Publish.packet),
    st.builds(
        Packet,
        st.sampled_from([kind for kind in PacketKind if kind is not PacketKind.PUBLISH]),
        st.binary(max_size=300),
    ),
    st.builds(Packet, st.just(PacketKind.PUBLISH), st.binary(max_size=300), st.integers(0, 15)),
)


def read(data: bytes, piece: int = 0, reader: MqttReader | None = None) -> list[Packet]:
    reader = reader or MqttReader()
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)] if piece else [data]
    return [packet for one in pieces for packet in reader.feed(one)]


@given(st.lists(packets, max_size=6), st.integers(0, 7))
def test_what_is_written_is_read_again_in_pieces_of_any_length(written: list[Packet], piece: int) -> None:
    assert read(b"".join(packet.encode() for packet in written), piece) == written


@given(connects, publishes)
def test_what_a_client_says_is_understood_as_it_was_meant(connect: Connect, message: Publish) -> None:
    assert Connect.read(connect.packet().body) == connect
    assert Publish.read(message.packet()) == message


def understand(packet: Packet) -> object:
    """As a listener does."""
    match packet.kind:
        case PacketKind.CONNECT:
            return Connect.read(packet.body)
        case PacketKind.PUBLISH:
            return Publish.read(packet)
        case PacketKind.SUBSCRIBE | PacketKind.UNSUBSCRIBE:
            return acknowledged(packet)
    return packet


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_noise_is_an_mqtt_error_or_packets_and_never_anything_else(pieces: list[bytes]) -> None:
    reader = MqttReader()
    with contextlib.suppress(MqttError):
        for piece in pieces:
            for packet in reader.feed(piece):
                understand(packet)


@given(packets, st.data())
def test_a_byte_that_is_changed_on_the_way_is_an_mqtt_error_or_packets(packet: Packet, data: st.DataObject) -> None:
    wire = bytearray(packet.encode())
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MqttError):
        for one in read(bytes(wire)):
            understand(one)


@pytest.mark.parametrize("wire", [b"\x10\xff\xff\xff\x7f", b"\x30\x81\x80\x01"])
def test_a_packet_that_says_it_is_too_long_is_refused_before_it_has_come(wire: bytes) -> None:
    with pytest.raises(MqttError, match="at most 16384"):
        read(wire)


def test_a_length_that_does_not_end_is_refused() -> None:
    with pytest.raises(MqttError, match="four bytes"):
        read(b"\x30\x80\x80\x80\x80")


def test_a_connect_with_a_will_is_read_and_the_will_forgotten() -> None:
    body = b"\x00\x04MQTT\x04\xce\x00\x3c" + b"\x00\x01a" + b"\x00\x01t\x00\x02by" + b"\x00\x01u" + b"\x00\x01p"
    assert Connect.read(body) == Connect("a", "u", "p", 60)


def test_the_older_protocol_is_understood_and_the_newer_one_named() -> None:
    assert Connect.read(b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a") == Connect("a", keep_alive_s=60)
    with pytest.raises(UnsupportedLevel):
        Connect.read(b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a")


def test_every_filter_of_a_subscription_is_granted_without_acknowledgements() -> None:
    filters = b"\x00\x01a\x01\x00\x03b/#\x02"
    assert acknowledged(Packet(PacketKind.SUBSCRIBE, b"\x00\x07" + filters)) == Packet(
        PacketKind.SUBACK, b"\x00\x07\x00\x00"
    )
    assert acknowledged(Packet(PacketKind.UNSUBSCRIBE, b"\x00\x08\x00\x01a")) == Packet(
        PacketKind.UNSUBACK, b"\x00\x08"
    )


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x10, b"\x00\x04HTTP\x04\x02\x00\x00\x00\x00"),
        (0x10, b"\x00\x04MQTT\x04\x03\x00\x00\x00\x00"),  # the reserved flag
        (0x10, b"\x00\x04MQTT\x04\x42\x00\x00\x00\x01a\x00\x01p"),  # a password, no name
        (0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x02\xff\xfe"),  # no UTF-8
        (0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01a!"),  # more than it holds
        (0x34, b"\x00\x01t\x00\x01"),  # QoS 2
        (0x36, b"\x00\x01t\x00\x01"),  # QoS 3
        (0x32, b"\x00\x01t\x00\x00"),  # packet identifier 0
        (0x30, b"\x00\x02a#"),
        (0x30, b"\x00\x00"),
        (0x80, b"\x00\x01\x00\x01a\x00"),  # SUBSCRIBE without its flags
        (0x82, b"\x00\x01"),
        (0x82, b"\x00\x01\x00\x01a\x03"),
        (0xA2, b"\x00\x01\x00\x00"),
        (0x82, b"\x00\x01" + b"\x00\x01a\x00" * 65),
        (0xF0, b""),
        (0x00, b""),
    ],
)
def test_what_breaks_the_standard_is_refused(first: int, body: bytes) -> None:
    with pytest.raises(MqttError):
        for packet in read(bytes((first,)) + Packet(PacketKind.PINGREQ, body).encode()[1:]):
            understand(packet)
