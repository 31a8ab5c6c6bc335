"""What a device plays is taken off what it hears, by the timestamps that its packets repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.echo_cancelling import FRAME, FRAME_MS, Material, Place, cancel, coded, measure, noise, onsets_s, tokens
from tests.speech import SPEECH_DIR, needs_speech
from xiaozhi.audio.echo_canceller import EchoCanceller, SentSound
from xiaozhi.audio.opus import OpusDecoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat

TAIL_PACKETS = 10  # in which an echo may still be heard


@pytest.fixture(scope="module")
def material() -> Material:
    return Material(SPEECH_DIR, most=5)


def db(before: PcmFloat, after: PcmFloat) -> float:
    return 10.0 * float(np.log10(np.sum(before**2) / (np.sum(after**2) + 1e-12)))


def loudspeaker(material: Material, seconds: int) -> tuple[list[bytes], PcmFloat]:
    return coded(np.resize(material.played, seconds * UPLINK_RATE_HZ // FRAME * FRAME), 24_000, 5)


@needs_speech
@pytest.mark.parametrize(
    ("echo_db", "delay_ms", "room", "clips_at", "drift_ppm", "most_wrong"),
    [
        (-12.0, 120.0, "rir1", None, 0.0, 0.17),
        (-20.0, 0.0, "rir3", None, 20.0, 0.17),
        (-30.0, 250.0, "rir1", None, 0.0, 0.12),
        (-12.0, 120.0, "rir1", 0.25, 0.0, 0.20),
    ],
)
def test_an_echo_wakes_nobody_and_words_over_it_are_found_and_understood(
    material: Material,
    echo_db: float,
    delay_ms: float,
    room: str,
    clips_at: float | None,
    drift_ppm: float,
    most_wrong: float,
) -> None:
    found = measure(material, Place(room, echo_db, delay_ms, material.rooms[room], clips_at, drift_ppm))
    assert found.erle_db > 8.0
    assert found.false_onsets <= min(1, found.false_onsets_raw)
    assert found.found == found.said
    assert found.wrong <= most_wrong * found.tokens
    assert found.wrong < found.wrong_raw


@needs_speech
def test_where_there_is_no_echo_not_one_token_changes(material: Material) -> None:
    sent, played = loudspeaker(material, 20)
    said = np.concatenate([np.pad(one, (FRAME, 8000)) for one in material.said])[: len(played)]
    heard = coded(said + noise(len(said)))[1]
    left, _, canceller = cancel(heard, sent)
    assert not canceller.learnt
    assert np.array_equal(left, heard[: len(left)])
    assert tokens(material.engine, left) == tokens(material.engine, heard[: len(left)])


@needs_speech
def test_timestamps_that_are_lost_among_others_cost_little(material: Material) -> None:
    sent, played = loudspeaker(material, 14)
    echo = coded(Place("", -12.0, 120.0, material.rooms["rir1"]).echo(played) + noise(len(played)))[1]
    left, judged, canceller = cancel(echo, sent, frozenset(range(5, len(sent), 23)))
    assert canceller.learnt
    assert db(echo[6 * UPLINK_RATE_HZ : len(left)], left[6 * UPLINK_RATE_HZ :]) > 8.0
    assert len(onsets_s(material.model, judged)) <= 1


@needs_speech
def test_packets_that_the_network_loses_leave_the_reference_where_it_belongs(material: Material) -> None:
    sent, played = loudspeaker(material, 14)
    echo = coded(Place("", -12.0, 120.0, material.rooms["rir1"]).echo(played) + noise(len(played)))[1]
    clock = SentSound()
    clock.kept = True
    canceller = EchoCanceller(clock)
    before, after = [], []
    for number, packet in enumerate(sent[: len(echo) // FRAME]):
        timestamp_ms = clock.sent(packet, FRAME_MS)
        if number % 40 in (7, 8):
            continue
        pcm = echo[number * FRAME : (number + 1) * FRAME]
        left, _ = canceller.cancel(pcm, timestamp_ms)
        if number > 100:
            before.append(pcm)
            after.append(left)
    assert canceller.learnt
    assert db(np.concatenate(before), np.concatenate(after)) > 7.0


@needs_speech
def test_a_room_that_changes_is_learnt_anew(material: Material) -> None:
    sent, played = loudspeaker(material, 24)
    half = len(played) // 2
    before = Place("", -12.0, 60.0, material.rooms["rir1"]).echo(played)
    after = -Place("", -12.0, 240.0, material.rooms["rir3"]).echo(played)
    echo = coded(np.concatenate([before[:half], after[half:]]) + noise(len(played)))[1]
    left, _, canceller = cancel(echo, sent)
    assert canceller.learnt
    late = len(left) - 4 * UPLINK_RATE_HZ
    assert db(echo[late : len(left)], left[late:]) > 7.0


@needs_speech
def test_a_quiet_device_is_not_touched_and_what_follows_a_reply_is_not_either(material: Material) -> None:
    sent, played = loudspeaker(material, 8)
    echo = Place("", -12.0, 120.0, material.rooms["rir3"]).echo(played)
    said = np.resize(material.said[0], 6 * UPLINK_RATE_HZ)
    heard = np.concatenate([echo, said]) + noise(len(echo) + len(said))
    left, judged, _ = cancel(heard.astype(np.float32), sent)
    after = (len(sent) + TAIL_PACKETS) * FRAME
    assert np.array_equal(left[after:], heard[after : len(left)].astype(np.float32))
    assert np.array_equal(judged[after:], left[after:])


@needs_speech
def test_under_load_a_device_is_deaf_while_it_plays_and_nothing_is_computed(material: Material) -> None:
    sent, _ = loudspeaker(material, 2)
    clock = SentSound()
    clock.kept = True
    canceller = EchoCanceller(clock)
    pcm = material.said[0][:FRAME]
    for packet in sent:
        heard, judged = canceller.cancel(pcm, clock.sent(packet, FRAME_MS), half_duplex=True)
        assert np.array_equal(heard, pcm)
        assert not judged.any()
    for _ in range(TAIL_PACKETS + 1):
        heard, judged = canceller.cancel(pcm, 0, half_duplex=True)
    assert np.array_equal(judged, pcm)


def test_a_clock_never_goes_back_nor_stands_at_0() -> None:
    clock = SentSound()
    stamps = [clock.sent(b"", ms) for ms in (60, 20, 120, 60)]
    assert stamps == [1, 61, 81, 201]
    assert not clock.has(1), "nobody wanted it kept"


packets = st.lists(
    st.tuples(st.integers(0, 2**32 - 1) | st.integers(0, 1200), st.sampled_from([0, 1, 320, 480, 960, 1920])),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(packets, st.lists(st.integers(0, 39)))
def test_whatever_timestamps_a_device_makes_up_its_sound_is_counted_and_stays_finite(
    given_packets: list[tuple[int, int]], stops: list[int]
) -> None:
    silence = coded(np.zeros(FRAME, np.float32))[0][0]
    clock = SentSound()
    clock.kept = True
    canceller = EchoCanceller(clock)
    came = left = 0
    dice = np.random.default_rng(1)
    for number, (timestamp_ms, samples) in enumerate(given_packets):
        clock.sent(silence if number % 3 else b"\xff\xff", FRAME_MS)
        if number in stops:
            clock.stop()
        heard, judged = canceller.cancel(dice.uniform(-1.0, 1.0, samples).astype(np.float32), timestamp_ms)
        assert len(heard) == len(judged)
        assert np.isfinite(heard).all()
        came, left = came + samples, left + len(heard)
        assert 0 <= came - left < 320


def test_a_decoder_that_joins_late_finds_into_the_stream() -> None:
    """Packets far behind are not decoded: a device that names the newest costs no more than one that names all."""
    tone = np.sin(np.arange(60 * FRAME) * 0.2).astype(np.float32) * 0.3
    sent, whole = coded(tone, 24_000, 5)
    clock = SentSound()
    clock.kept = True
    stamps = [clock.sent(packet, FRAME_MS) for packet in sent]
    heard = clock.read(stamps[50] * 16, FRAME)
    assert db(whole[50 * FRAME : 51 * FRAME], heard - whole[50 * FRAME : 51 * FRAME]) > 15.0
    assert isinstance(clock._decoder, OpusDecoder)
