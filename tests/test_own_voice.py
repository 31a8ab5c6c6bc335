"""A device that hears its own loudspeaker: what is played is told from what somebody says over it."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from bench.music_material import band, with_voices
from tests.speech import say
from xiaozhi.audio.echo_likeness import OWN, Echoes, likeness
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.echo_guard import Echo, EchoGuard
from xiaozhi.events import SpeechAudio, SpeechBegan

STEP = UPLINK_RATE_HZ * 60 // 1000


@pytest.fixture(scope="module")
def song() -> list[bytes]:
    """Six seconds of a band with somebody who talks over it, as packets to a device."""
    voices = [say("the quick brown fox jumps over the lazy dog"), say("every morning the river is a little higher")]
    played = with_voices(band(6.0), voices)
    places = np.arange(0, len(played), 44_100 / 24_000)
    pcm = np.interp(places, np.arange(len(played)), played).astype(np.float32)
    return OpusEncoder(24_000, 60).encode(to_int16(pcm))


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(1, "compare")
    yield made
    made.close()


def sound(packets: Sequence[bytes]) -> PcmFloat:
    decoder = OpusDecoder(UPLINK_RATE_HZ)
    return np.concatenate([decoder.decode(packet) for packet in packets])


def echo(packets: Sequence[bytes], late_s: float = 0.12, gain: float = 0.1) -> PcmFloat:
    """As a microphone hears it: later, quieter, through a room, in a little noise."""
    dice = np.random.default_rng(5)
    room = dice.normal(0.0, 0.1, 3200) * np.exp(-np.arange(3200) / 600.0)
    room[0] = 1.0
    heard = np.convolve(sound(packets), room)[: len(packets) * STEP] * gain
    late = np.concatenate([np.zeros(int(late_s * UPLINK_RATE_HZ)), heard])[: len(heard)]
    return (late + dice.normal(0.0, 0.0005, len(late))).astype(np.float32)


def over(heard: PcmFloat, text: str, at_s: float) -> PcmFloat:
    """Somebody speaks over it."""
    voice, at = say(text) * 0.5, int(at_s * UPLINK_RATE_HZ)
    mixed = heard.copy()
    mixed[at : at + len(voice)] += voice[: len(mixed) - at]
    return mixed


def test_an_echo_is_like_what_was_played_and_a_user_is_not(song: list[bytes]) -> None:
    played, heard = sound(song), echo(song)
    spoken = over(heard, "please stop the music now", 3.0)
    here, further = slice(int(2.9 * UPLINK_RATE_HZ), int(3.6 * UPLINK_RATE_HZ)), int(2.1 * UPLINK_RATE_HZ)
    assert likeness(heard[here], played[further : here.stop]) > OWN
    assert likeness(spoken[here], played[further : here.stop]) < OWN
    assert likeness(say("please stop the music now")[:11_200], played[further : here.stop]) < OWN


@pytest.mark.parametrize(("heard", "played"), [(0, 0), (100, 24_000), (11_200, 100), (3600, 24_000)])
def test_what_is_too_short_to_tell_is_no_echo(heard: int, played: int) -> None:
    dice = np.random.default_rng(1)
    noise = dice.normal(0.0, 0.1, 24_000).astype(np.float32)
    assert likeness(noise[:heard], noise[:played]) == 0.0


def test_silence_is_like_nothing() -> None:
    still = np.zeros(11_200, np.float32)
    assert likeness(still, np.zeros(24_000, np.float32)) < 0.1


def steps(heard: PcmFloat, from_s: float) -> Iterator[SpeechBegan | SpeechAudio]:
    """An utterance from half a second before `from_s` on, always voiced."""
    at = int(from_s * UPLINK_RATE_HZ)
    yield SpeechBegan(7, (from_s - 0.5) * 1000.0, from_s * 1000.0, heard[at - UPLINK_RATE_HZ // 2 : at])
    for end in range(at + STEP, len(heard) + 1, STEP):
        yield SpeechAudio(7, end / 16.0, heard[end - STEP : end], 0.0, end / 16.0)


def playing(song: list[bytes], now_ms: float) -> list[bytes]:
    """What has left by then: 240 ms ahead of the loudspeaker."""
    newest = int((now_ms + 240.0) / 60.0)
    return song[max(0, newest - 32) : newest]


async def test_the_devices_own_voice_is_held_back_and_a_user_over_it_is_let_through(
    song: list[bytes], pool: WorkerPool
) -> None:
    echoes = Echoes()
    own = EchoGuard(pool, echoes)
    passed = []
    for event in steps(over(echo(song), "please stop the music now", 3.5), 2.5):
        became = await own.past(event, playing(song, event.end_ms), 96.0)
        assert became is not Echo.OVER
        if became is not Echo.SOUNDS:
            passed.append(became)
    assert echoes == Echoes(held_back=1, let_through=1)
    assert isinstance(passed[0], SpeechBegan) and passed[0].utterance == 7
    assert 3500.0 < passed[0].end_ms < 4400.0
    assert len(passed[0].pcm) == 0.9 * UPLINK_RATE_HZ
    assert passed[0].start_ms == pytest.approx(passed[0].end_ms - 900.0)
    assert all(isinstance(each, SpeechAudio) for each in passed[1:])


async def test_what_was_held_back_is_over_with_a_silence_and_the_next_is_looked_at_afresh(
    song: list[bytes], pool: WorkerPool
) -> None:
    own = EchoGuard(pool, Echoes())
    began = next(steps(echo(song), 2.5))
    assert await own.past(began, playing(song, 2500.0), 96.0) is Echo.SOUNDS
    still = np.zeros(STEP, np.float32)
    assert await own.past(SpeechAudio(7, 2560.0, still, 60.0, 2500.0), playing(song, 2560.0), 96.0) is Echo.SOUNDS
    assert await own.past(SpeechAudio(7, 2620.0, still, 120.0, 2500.0), playing(song, 2620.0), 96.0) is Echo.OVER
    assert await own.past(began, (), 96.0) is began, "nothing sounds: nothing is compared"


async def test_an_echo_that_outlives_its_reply_begins_no_turn(song: list[bytes], pool: WorkerPool) -> None:
    own = EchoGuard(pool, Echoes())
    began, *rest = steps(echo(song), 2.5)
    assert await own.past(began, playing(song, 2500.0), 96.0) is Echo.SOUNDS
    for event in rest[:4]:
        assert await own.past(event, (), 96.0) is Echo.SOUNDS


async def test_everything_passes_when_the_comparing_threads_are_gone(song: list[bytes], pool: WorkerPool) -> None:
    pool.close()
    own = EchoGuard(pool, Echoes())
    for event in steps(echo(song), 2.5):
        assert await own.past(event, playing(song, event.end_ms), 96.0) is event
