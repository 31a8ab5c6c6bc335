"""Opus in both directions, through the real codec."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sounds import loudest_hz, sine
from xiaozhi.audio.opus import MAX_PACKET_BYTES, OpusDecoder, OpusEncoder, OpusError
from xiaozhi.audio.packet_time import packet_ms, padded
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ

WAYS: list[Literal["libopus", "libav"]] = ["libopus", "libav"]
PACKETS = OpusEncoder(UPLINK_RATE_HZ).encode(sine(440, 1.0, UPLINK_RATE_HZ))


@pytest.mark.parametrize("through", WAYS)
@pytest.mark.parametrize("rate_hz", [UPLINK_RATE_HZ, DOWNLINK_RATE_HZ])
@pytest.mark.parametrize("frame_ms", [20, 40, 60, 120])
def test_a_tone_goes_in_and_comes_out(frame_ms: int, rate_hz: int, through: Literal["libopus", "libav"]) -> None:
    encoder = OpusEncoder(frame_ms=frame_ms)
    packets = encoder.encode(sine(440, 1.5)) + encoder.flush()
    decoder = OpusDecoder(rate_hz, through)
    pcm = np.concatenate([decoder.decode(packet) for packet in packets])
    assert len(packets) == -(-1500 // frame_ms)
    assert len(pcm) / rate_hz == pytest.approx(len(packets) * frame_ms / 1000, abs=0.002)
    assert loudest_hz(pcm, rate_hz) == pytest.approx(440, abs=2)
    assert 0.2 < np.abs(pcm).max() < 0.5
    assert pcm.dtype == np.float32


@given(
    rate_hz=st.sampled_from([8_000, 16_000, 24_000, 48_000]),
    frame_ms=st.sampled_from([20, 40, 60, 120]),
    bitrate_bps=st.sampled_from([6_000, 16_000, 24_000, 128_000]),
    complexity=st.integers(0, 10),
    application=st.sampled_from(["audio", "voip"]),
    loudness=st.sampled_from([0.0, 300.0, 9000.0]),
)
@settings(max_examples=60, deadline=None)
def test_both_ways_encode_to_the_same_packets(
    rate_hz: int,
    frame_ms: int,
    bitrate_bps: int,
    complexity: int,
    application: Literal["audio", "voip"],
    loudness: float,
) -> None:
    noise = np.random.default_rng(1).normal(0.0, loudness, rate_hz // 2)
    pcm = sine(300, 0.5, rate_hz) + np.clip(noise, -20_000, 20_000).astype(np.int16)
    own, other = (OpusEncoder(rate_hz, frame_ms, bitrate_bps, complexity, application, way) for way in WAYS)
    assert own.encode(pcm[: rate_hz // 5]) == other.encode(pcm[: rate_hz // 5])
    assert own.encode(pcm[rate_hz // 5 :]) + own.flush() == other.encode(pcm[rate_hz // 5 :]) + other.flush()


def test_what_libopus_cannot_encode_is_refused_when_the_encoder_is_made() -> None:
    for rate_hz, complexity in ((44_100, 5), (24_000, 11)):
        with pytest.raises(RuntimeError, match="libopus cannot encode"):
            OpusEncoder(rate_hz, complexity=complexity, through="libopus")


def test_the_encoder_keeps_what_is_less_than_a_frame() -> None:
    encoder = OpusEncoder()
    assert encoder.encode(sine(440, 0.05)) == []
    assert encoder.pending_samples == 1200
    assert len(encoder.encode(sine(440, 0.08))) == 2
    assert encoder.pending_samples == 240
    assert len(encoder.flush()) == 1


def test_an_encoder_that_was_flushed_is_not_used_again() -> None:
    encoder = OpusEncoder()
    assert encoder.flush() == []
    with pytest.raises(RuntimeError):
        encoder.encode(sine(440, 0.1))


def test_cutting_the_sound_differently_changes_no_packet() -> None:
    pcm = sine(300, 0.6)
    whole = OpusEncoder().encode(pcm)
    pieces = OpusEncoder()
    assert [packet for part in np.array_split(pcm, 37) for packet in pieces.encode(part)] == whole


def test_a_lower_bitrate_gives_smaller_packets() -> None:
    noise = np.random.default_rng(1).normal(0, 3000, 24_000).astype(np.int16)
    small, large = (sum(map(len, OpusEncoder(bitrate_bps=rate).encode(noise))) for rate in (12_000, 48_000))
    assert small < large / 2


@pytest.mark.parametrize("through", WAYS)
def test_an_empty_packet_never_reaches_the_codec(through: Literal["libopus", "libav"]) -> None:
    decoder = OpusDecoder(through=through)
    assert len(decoder.decode(b"")) == 0
    assert len(decoder.decode(PACKETS[0])) > 900


@pytest.mark.parametrize("through", WAYS)
def test_tiny_packets_of_a_silent_microphone_are_decoded(through: Literal["libopus", "libav"]) -> None:
    decoder = OpusDecoder(through=through)
    decoder.decode(PACKETS[0])
    # One to three bytes: configuration 15 (20 ms hybrid), then 60 ms of SILK (configuration 11), as DTX sends them.
    for packet in (b"\x78", b"\x58", b"\x58\x00", b"\x58\x00\x00"):
        pcm = decoder.decode(packet)
        # Concealment of packets without content may overshoot full scale a little.
        assert len(pcm) > 0 and np.abs(pcm).max() < 2.0
    assert len(decoder.decode(PACKETS[1])) > 900


@pytest.mark.parametrize("through", WAYS)
@pytest.mark.parametrize("packet", [b"\xff\xff\xff", b"\x03", b"\xff" * 300, b"x" * (MAX_PACKET_BYTES + 1)])
def test_garbage_is_refused_and_the_next_packet_decoded(packet: bytes, through: Literal["libopus", "libav"]) -> None:
    decoder = OpusDecoder(through=through)
    decoder.decode(PACKETS[0])
    with pytest.raises(OpusError):
        decoder.decode(packet)
    assert len(decoder.decode(PACKETS[1])) > 900


@pytest.mark.parametrize("through", WAYS)
@given(packets=st.lists(st.binary(max_size=400), max_size=6))
@settings(max_examples=150, deadline=None)
def test_no_bytes_break_the_decoder(packets: list[bytes], through: Literal["libopus", "libav"]) -> None:
    decoder = OpusDecoder(through=through)
    for packet in packets:
        try:
            pcm = decoder.decode(packet)
        except OpusError:
            continue
        assert len(pcm) <= 0.125 * UPLINK_RATE_HZ
        assert np.isfinite(pcm).all()
    for packet in PACKETS[:3]:
        assert len(decoder.decode(packet)) > 900


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_streams_bring_no_threads_of_their_own() -> None:
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    encoder, decoder = OpusEncoder(), OpusDecoder()
    (packet,) = encoder.encode(np.zeros(encoder.frame_samples, np.int16))
    decoder.decode(packet)
    assert len(list(tasks.iterdir())) <= before


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_a_padded_packet_sounds_as_before(rate_hz: int) -> None:
    frame = rate_hz * 60 // 1000
    rng = np.random.default_rng(3)
    sound = np.concatenate([np.zeros(4 * frame), 9000 * rng.standard_normal(4 * frame), np.zeros(6 * frame)])
    packets = OpusEncoder(rate_hz, 60, 16_000, 5).encode(sound.astype(np.int16))
    packets += OpusEncoder(rate_hz, 20, 16_000, 5).encode(sound.astype(np.int16))  # of one frame each
    packets.append(packets[-1][:1])  # nothing but its first byte: as before, going out
    plain, made_longer = OpusDecoder(rate_hz), OpusDecoder(rate_hz)
    for packet in packets:
        longer = padded(packet, 200)
        assert len(longer) >= min(200, len(packet) + 3) or len(longer) == len(packet)
        assert packet_ms(longer) == packet_ms(packet)
        assert np.allclose(made_longer.decode(longer), plain.decode(packet), atol=0.01)


@given(st.binary(max_size=40), st.integers(0, 300))
def test_anything_may_be_padded(opus: bytes, least_bytes: int) -> None:
    longer = padded(opus, least_bytes)
    assert len(longer) >= len(opus)
    assert len(longer) <= max(len(opus), least_bytes, len(opus) + 3)
