"""A device that hears its own loudspeaker: what is played is told from what somebody says over it."""

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bench.music_material import band, with_voices
from tests.recognisers import until
from tests.speech import say_the_same as say
from xiaozhi.audio.echo_likeness import OWN, Echoes, likeness, own_until
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.conversation.echo_guard import Echo, EchoGuard, PlayedPacket
from xiaozhi.conversation.pacer import MAX_RECENT_PACKETS
from xiaozhi.events import SpeechAudio, SpeechBegan
from xiaozhi.turn.microphone_clock import MicrophoneClock

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


@pytest.mark.parametrize("echo_db", [-12.0, -20.0, -30.0])
def test_where_an_echo_ends_and_somebody_begins_is_known(song: list[bytes], echo_db: float) -> None:
    played = sound(song)
    heard = over(echo(song, gain=10.0 ** (echo_db / 20.0)), "please stop the music now", 3.0)
    errors_ms = []
    for begins_ms in (350, 450, 550):
        first = int(3.0 * UPLINK_RATE_HZ) - begins_ms * 16
        last = first + int(0.9 * UPLINK_RATE_HZ)
        found = own_until(heard[first:last], played[first - UPLINK_RATE_HZ : last])
        errors_ms.append(found / 16.0 - begins_ms)
    assert all(-120.0 < error < 120.0 for error in errors_ms), errors_ms


def test_who_speaks_without_an_echo_loses_nothing(song: list[bytes]) -> None:
    dice = np.random.default_rng(1)
    room = dice.normal(0.0, 0.0005, int(0.9 * UPLINK_RATE_HZ)).astype(np.float32)
    room[4800:] += say("please stop the music now")[: len(room) - 4800]
    assert own_until(room, sound(song)[UPLINK_RATE_HZ : int(2.9 * UPLINK_RATE_HZ)]) == 0
    assert own_until(room[:100], sound(song)) == own_until(room, room[:100]) == 0


@pytest.mark.parametrize(("heard", "played"), [(0, 0), (100, 24_000), (11_200, 100), (3600, 24_000)])
def test_what_is_too_short_to_tell_is_no_echo(heard: int, played: int) -> None:
    dice = np.random.default_rng(1)
    noise = dice.normal(0.0, 0.1, 24_000).astype(np.float32)
    assert likeness(noise[:heard], noise[:played]) == 0.0


def test_silence_is_like_nothing() -> None:
    still = np.zeros(11_200, np.float32)
    assert likeness(still, np.zeros(24_000, np.float32)) < 0.1


def steps(heard: PcmFloat, from_s: float, before_s: float = 0.5) -> Iterator[SpeechBegan | SpeechAudio]:
    """An utterance from so long before `from_s` on, always voiced."""
    at = int(from_s * UPLINK_RATE_HZ)
    first = at - int(before_s * UPLINK_RATE_HZ)
    yield SpeechBegan(7, first / 16.0, at / 16.0, heard[first:at])
    for end in range(at + STEP, len(heard) + 1, STEP):
        yield SpeechAudio(7, end / 16.0, heard[end - STEP : end], 0.0, end / 16.0)


def playing(song: list[bytes], begins_ms: float = 0.0) -> list[PlayedPacket]:
    """A reply that begins to sound then."""
    return [PlayedPacket(begins_ms + 60.0 * at, 60.0, packet) for at, packet in enumerate(song)]


@dataclass
class Ears:
    """A guard behind a microphone whose sound comes at once, or later by some time from some sample on."""

    pool: WorkerPool
    stall_ms: float = 0.0
    stall_from_ms: float = math.inf
    echoes: Echoes = field(default_factory=Echoes)
    clock: MicrophoneClock = field(default_factory=MicrophoneClock)

    def __post_init__(self) -> None:
        self.guard = EchoGuard(self.pool, self.echoes, self.clock)
        self.clock.came(60.0, 60.0)

    async def past(
        self, event: SpeechBegan | SpeechAudio, played: Sequence[PlayedPacket], *, taken: bool = False
    ) -> SpeechBegan | SpeechAudio | Echo:
        late_ms = self.stall_ms if event.end_ms >= self.stall_from_ms else 0.0
        self.clock.came(event.end_ms, event.end_ms + late_ms)
        return await self.guard.past(event, played, 96.0, taken=taken)


async def test_the_devices_own_voice_is_held_back_and_a_user_over_it_is_let_through(
    song: list[bytes], pool: WorkerPool
) -> None:
    ears = Ears(pool)
    passed: list[SpeechBegan | SpeechAudio] = []
    for event in steps(over(echo(song), "please stop the music now", 3.5), 2.5):
        became = await ears.past(event, playing(song), taken=bool(passed))
        assert became is not Echo.OVER
        if became is not Echo.SOUNDS:
            passed.append(became)
    assert ears.echoes == Echoes(held_back=1, let_through=1)
    assert isinstance(passed[0], SpeechBegan) and passed[0].utterance == 7
    assert 3500.0 < passed[0].end_ms < 4900.0  # while it is being said, however espeak's noise falls this time
    assert len(passed[0].pcm) <= 0.9 * UPLINK_RATE_HZ
    assert 3350.0 < passed[0].start_ms < 3550.0, "without the song in front of the first word"
    assert all(isinstance(each, SpeechAudio) for each in passed[1:])


@pytest.mark.parametrize("gain", [0.25, 0.1, 0.0316])
@pytest.mark.parametrize("late_s", [0.12, 0.18])
async def test_a_reply_that_begins_with_voice_is_not_answered_by_its_own_echo(
    pool: WorkerPool, gain: float, late_s: float
) -> None:
    """The pre-roll reaches back before the reply, where nothing was played."""
    for text in ("hello there how are you today", "sunday is the first day of the week", "once upon a time"):
        reply = OpusEncoder(16_000, 60).encode(to_int16(say(text)))
        heard = np.concatenate([np.zeros(UPLINK_RATE_HZ, np.float32), echo(reply, 0.0, gain)])
        heard = np.roll(heard, int(late_s * UPLINK_RATE_HZ))
        ears = Ears(pool)
        for event in steps(heard, 1.0 + late_s + 0.35, 0.6):
            assert isinstance(await ears.past(event, playing(reply, 1000.0)), Echo), (text, event.end_ms)


@pytest.mark.parametrize("stall_ms", [300.0, 1000.0])
async def test_an_echo_that_the_network_brings_late_is_still_an_echo(
    song: list[bytes], pool: WorkerPool, stall_ms: float
) -> None:
    """What was played meanwhile is of no account, only what was played when the microphone heard it."""
    for stall_from_ms in (0.0, 2700.0):
        ears = Ears(pool, stall_ms, stall_from_ms)
        for event in steps(echo(song), 2.5):
            due = [packet for packet in playing(song) if packet.at_ms < event.end_ms + stall_ms + 240.0]
            assert isinstance(await ears.past(event, due[-MAX_RECENT_PACKETS:]), Echo), event.end_ms


async def test_an_echo_that_was_taken_for_somebody_is_known_soon(song: list[bytes], pool: WorkerPool) -> None:
    voice = say("wait a moment")
    heard = echo(song)
    at = int(2.5 * UPLINK_RATE_HZ)
    heard[at - 8000 : at] += voice[:8000]  # a word over it, and nothing more
    ears = Ears(pool)
    became = [await ears.past(event, playing(song)) for event in steps(heard, 2.5)]
    assert isinstance(became[0], SpeechBegan)
    assert Echo.OVER in became[:20]


async def test_who_is_a_turn_already_is_not_looked_at_any_more(song: list[bytes], pool: WorkerPool) -> None:
    began, *rest = steps(echo(song), 2.5)
    ears = Ears(pool)
    assert await ears.past(began, ()) is began
    for event in rest[:12]:
        assert await ears.past(event, playing(song), taken=True) is event


@pytest.mark.parametrize("own", [True, False])
async def test_a_beginning_too_short_to_tell_is_held_until_it_can_be_told(
    song: list[bytes], pool: WorkerPool, own: bool
) -> None:
    """Right behind an utterance there is no sound before the first voiced sample."""
    heard = echo(song) if own else over(echo(song, gain=0.001), "please stop the music now", 2.3)
    ears = Ears(pool)
    became = [await ears.past(event, playing(song)) for event in list(steps(heard, 2.5, 0.12))[:8]]
    assert became[0] is Echo.SOUNDS
    began = [each for each in became if isinstance(each, SpeechBegan)]
    assert not began if own else began[0].end_ms < 2800.0


async def test_what_was_held_back_is_over_with_a_silence_and_the_next_is_looked_at_afresh(
    song: list[bytes], pool: WorkerPool
) -> None:
    ears = Ears(pool)
    began = next(steps(echo(song), 2.5))
    assert await ears.past(began, playing(song)) is Echo.SOUNDS
    still = np.zeros(STEP, np.float32)
    assert await ears.past(SpeechAudio(7, 2560.0, still, 60.0, 2500.0), playing(song)) is Echo.SOUNDS
    assert await ears.past(SpeechAudio(7, 2620.0, still, 120.0, 2500.0), playing(song)) is Echo.OVER
    assert await ears.past(began, ()) is began, "nothing sounds: nothing is compared"


async def test_an_echo_that_outlives_its_reply_begins_no_turn(song: list[bytes], pool: WorkerPool) -> None:
    ears = Ears(pool)
    sung = song[: 2600 // 60]  # the reply is over at 2.58 s, its sound a little later
    for event in list(steps(echo(sung), 2.5, 0.5))[:2]:
        assert await ears.past(event, playing(sung)) is Echo.SOUNDS


async def test_who_may_be_interrupting_goes_before_voices_that_have_more_to_say(song: list[bytes]) -> None:
    begun: list[str] = []

    class Watched(WorkerPool):
        def _begin(self, job: Any) -> None:
            begun.append(job.call.__qualname__.split(".")[0])
            super()._begin(job)

    pool, gate, loop = Watched(1, "watched"), threading.Event(), asyncio.get_running_loop()

    def has_400_ms() -> None: ...
    def has_20_ms() -> None: ...

    has_400_ms.__qualname__, has_20_ms.__qualname__ = "has_400_ms", "has_20_ms"
    ears, (began, *_) = Ears(pool), steps(echo(song), 2.5)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pool.submit(gate.wait, Priority.FINAL))
        tasks.create_task(pool.submit(has_400_ms, Priority.PROBE, deadline_s=loop.time() + 0.4))
        tasks.create_task(ears.past(began, playing(song)))
        tasks.create_task(pool.submit(has_20_ms, Priority.PROBE, deadline_s=loop.time() + 0.02))
        await until(lambda: pool.waiting == 3)
        gate.set()
    assert begun == ["Event", "has_20_ms", "EchoGuard", "has_400_ms"]
    pool.close()


async def test_while_nothing_can_be_compared_nobody_is_taken_for_somebody(song: list[bytes], pool: WorkerPool) -> None:
    pool.close()
    ears = Ears(pool)
    for event in steps(echo(song), 2.5):
        assert await ears.past(event, playing(song)) is Echo.SOUNDS
    began = next(steps(echo(song), 2.5))
    assert await ears.past(began, ()) is began, "nothing sounds: nothing has to be compared"
