"""Sound over UDP without a network: what is used, what is dropped, and to whom anything is sent."""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.transport.udp import HEADER, MAX_CONCEALED, DatagramDrop, UdpSession

HOME = ("192.0.2.7", 5000)
ROAMED = ("192.0.2.7", 5001)
ELSEWHERE = ("198.51.100.1", 9)
PACKET = bytes((0x58, *range(60)))  # SILK, wide band, mono, one frame of 60 ms
SHORTER = bytes((0x48, *range(60)))  # one of 20 ms


def session(control_host: str = HOME[0]) -> UdpSession:
    return UdpSession(0xABCD1234, 0.0, control_host)


def crypt(key: bytes, header: bytes, data: bytes) -> bytes:
    return Cipher(AES(key), CTR(header)).encryptor().update(data)


def uplink(of: UdpSession, sequence: int, opus: bytes = PACKET, timestamp_ms: int = 0) -> bytes:
    """As the firmware fills in the nonce that it was given."""
    header = bytearray(of.nonce)
    header[2:4] = len(opus).to_bytes(2, "big")
    header[8:12] = timestamp_ms.to_bytes(4, "big")
    header[12:16] = sequence.to_bytes(4, "big")
    return bytes(header) + crypt(of.key, bytes(header), opus)


def test_the_nonce_is_a_header_with_the_type_and_the_ssrc() -> None:
    assert session().nonce.hex() == "01000000abcd12340000000000000000"


def test_a_packet_is_taken_with_its_timestamp_and_its_sender_is_known() -> None:
    one = session()
    assert one.receive(uplink(one, 1, timestamp_ms=1060), HOME, 0.0) == (PACKET, 1060, 0)
    assert one.address == HOME


def test_what_was_lost_in_between_is_told_up_to_five_packets() -> None:
    one = session()
    one.receive(uplink(one, 1), HOME, 0.0)
    assert one.receive(uplink(one, 2 + MAX_CONCEALED), HOME, 0.0) == (PACKET, 0, MAX_CONCEALED)
    assert one.receive(uplink(one, 9 + 2 * MAX_CONCEALED), HOME, 0.0) == (PACKET, 0, 0)


def test_what_is_late_or_repeated_is_dropped() -> None:
    one = session()
    one.receive(uplink(one, 3), HOME, 0.0)
    assert one.receive(uplink(one, 3), HOME, 0.0) is DatagramDrop.LATE
    assert one.receive(uplink(one, 2), ELSEWHERE, 0.0) is DatagramDrop.LATE
    assert one.address == HOME


def test_a_stream_that_jumps_far_ahead_is_followed_when_it_goes_on_from_there() -> None:
    one = session()
    one.receive(uplink(one, 1), HOME, 0.0)
    assert one.receive(uplink(one, 5000), HOME, 0.0) is DatagramDrop.FAR_AHEAD
    assert one.receive(uplink(one, 2), HOME, 0.0) == (PACKET, 0, 0), "one that was forged changes nothing"
    assert one.receive(uplink(one, 5001), HOME, 0.0) == (PACKET, 0, 0)


def test_nobody_moves_a_session_far_ahead_from_another_address() -> None:
    one = session()
    one.receive(uplink(one, 1), HOME, 0.0)
    for sequence in (5000, 5001, 5002):
        assert one.receive(uplink(one, sequence), ELSEWHERE, 0.0) is DatagramDrop.FAR_AHEAD
    assert one.address == HOME


def test_a_new_address_needs_a_newer_packet_that_sounds_like_those_before() -> None:
    one = session()
    one.receive(uplink(one, 1), HOME, 0.0)
    assert one.receive(uplink(one, 2, SHORTER), ROAMED, 0.0) is DatagramDrop.NO_OPUS
    assert one.receive(uplink(one, 2), ROAMED, 0.0) == (PACKET, 0, 0)
    assert one.address == ROAMED


def test_a_length_that_does_not_match_is_dropped() -> None:
    one = session()
    assert one.receive(uplink(one, 1) + b"x", HOME, 0.0) is DatagramDrop.LENGTH
    assert one.receive(uplink(one, 1)[:-1], HOME, 0.0) is DatagramDrop.LENGTH
    assert one.address is None


def test_stereo_and_what_is_no_opus_is_dropped() -> None:
    one = session()
    assert one.receive(uplink(one, 1, bytes((0x5C, 1, 2))), HOME, 0.0) is DatagramDrop.NO_OPUS
    assert one.receive(uplink(one, 1, bytes((0x5B, 0x3F, 2))), HOME, 0.0) is DatagramDrop.NO_OPUS


def test_a_flood_is_dropped_and_ends() -> None:
    one = session()
    taken = sum(not isinstance(one.receive(uplink(one, n), HOME, 0.0), DatagramDrop) for n in range(1, 3000))
    assert taken == 1500
    assert one.receive(uplink(one, 1600), HOME, 10.0) == (PACKET, 0, 0)


def test_the_downlink_is_numbered_on_and_no_header_is_used_twice_or_in_both_directions() -> None:
    one = session()
    one.receive(uplink(one, 1), HOME, 0.0)
    sent = [one.pack(PACKET, 1 + 60 * n) for n in range(5)]
    headers = [HEADER.unpack_from(datagram or b"") for datagram in sent]
    assert [header[5] for header in headers] == [1, 2, 3, 4, 5]
    assert [header[4] for header in headers] == [1, 61, 121, 181, 241]
    assert {header[:4] for header in headers} == {(1, 0x80, len(PACKET), one.ssrc)}
    assert sent[0] is not None
    assert crypt(one.key, sent[0][:16], sent[0][16:]) == PACKET


def test_nothing_is_sent_before_the_device_was_heard_nor_what_no_device_takes() -> None:
    one = session()
    assert one.pack(PACKET, 1) is None
    one.receive(uplink(one, 1), HOME, 0.0)
    assert one.pack(bytes((0x58, *bytes(1200))), 1) is None
    assert HEADER.unpack_from(one.pack(PACKET, 1) or b"")[5] == 1, "what was not sent is no gap in the sequence"


@given(st.lists(st.one_of(st.just("in"), st.integers(1, 300)), max_size=80))
def test_never_more_goes_to_an_address_than_came_from_it_before_it_is_proven(steps: list[str | int]) -> None:
    one = session(control_host="203.0.113.9")
    came = left = packets = 0
    for step in steps:
        if step == "in" and packets < 15:
            packets += 1
            datagram = uplink(one, packets)
            came += len(datagram)
            one.receive(datagram, ELSEWHERE, 0.0)
        elif isinstance(step, int):
            left += len(one.pack(PACKET + bytes(step), 1) or b"")
        assert left <= came


def test_sixteen_packets_of_who_has_the_key_prove_an_address() -> None:
    one = session(control_host="203.0.113.9")
    for sequence in range(1, 17):
        one.receive(uplink(one, sequence), ELSEWHERE, 0.0)
    assert all(one.pack(PACKET + bytes(200), 1) for _ in range(50))


@given(st.binary(min_size=17, max_size=200), st.booleans())
def test_noise_takes_a_session_over_only_where_it_guesses_number_and_sound(noise: bytes, proper: bool) -> None:
    """Noise in a right header decrypts to noise: one in some hundred sounds like a packet before."""
    one = session()
    one.receive(uplink(one, 100), HOME, 0.0)
    datagram = noise
    if proper:  # who has guessed the ssrc, and not the sequence
        datagram = HEADER.pack(1, 0, len(noise) - 16, one.ssrc, 0, int.from_bytes(noise[:4], "big")) + noise[16:]
    result = one.receive(datagram, ELSEWHERE, 0.0)
    assert isinstance(result, DatagramDrop) or 100 < HEADER.unpack_from(datagram)[5] <= 600


def test_the_firmware_takes_every_packet_however_short() -> None:
    one = session()
    one.receive(uplink(one, 1), HOME, 0.0)
    for opus in (b"\x58", b"\x58\xff\xfe", b"\x5b\x01" + bytes(5)):
        datagram = one.pack(opus, 60)
        assert datagram is not None and len(datagram) >= 24  # sizeof(std::string) on a board
