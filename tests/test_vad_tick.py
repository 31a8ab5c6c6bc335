import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.speech import needs_speech, read_wav, recordings
from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import PcmFloat, to_int16
from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.batcher import JudgedSound, VadBatcher
from xiaozhi.stages.vad.silero import SileroModel, States, VadError, Windows, built_in_model
from xiaozhi.stages.vad.uplink import FORGET_WINDOWS, STILL_WINDOWS, UplinkStream

_MODEL = SileroModel(built_in_model(), VadSettings())


def encode(pcm: PcmFloat, frame_ms: int = 60) -> list[bytes]:
    encoder = OpusEncoder(16_000, frame_ms, 24_000, 0)
    return encoder.encode(to_int16(pcm)) + encoder.flush()


def sound(seed: int, samples: int = 9600) -> PcmFloat:
    rng = np.random.default_rng(seed)
    hum = np.sin(np.arange(samples) * 2 * np.pi * (90 + 13 * seed) / 16_000)
    return (0.2 * hum * (1 + rng.normal(0, 0.3, samples))).astype(np.float32)


class GatedModel:
    """Silero behind a gate: `entered` tells that a run has begun, `gate` lets it go on."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.failure: Exception | None = None

    def probabilities(self, windows: Windows, states: States) -> tuple[PcmFloat, States]:
        self.entered.set()
        assert self.gate.wait(30)
        self.batches.append(len(windows))
        if self.failure is not None:
            raise self.failure
        return _MODEL.probabilities(windows, states)


@pytest.fixture
def model() -> Iterator[GatedModel]:
    gated = GatedModel()
    yield gated
    gated.gate.set()


async def entered(model: GatedModel) -> None:
    assert await asyncio.to_thread(model.entered.wait, 30)
    model.entered.clear()


def memory(ear: UplinkStream) -> States | None:
    """Asked anew each time, as below."""
    return ear.state


def awake(ear: UplinkStream) -> bool:
    """Asked anew each time: mypy takes a property for a constant."""
    return ear.awake


async def alone(pcm: PcmFloat) -> JudgedSound:
    """What one device hears on a tick of its own, packet by packet."""
    tick = VadBatcher(_MODEL, VadSettings())
    ear = tick.open()
    heard = [await tick.hear(ear, [packet]) for packet in encode(pcm)]
    tick.close()
    return JudgedSound(
        np.concatenate([part.pcm for part in heard]),
        [probability for part in heard for probability in part.probabilities],
        sum(part.errors for part in heard),
    )


async def test_many_ears_hear_what_each_would_hear_alone() -> None:
    tick = VadBatcher(_MODEL, VadSettings(batch_max=8))
    ears = [tick.open() for _ in range(20)]
    parts = await asyncio.gather(
        *(tick.hear(ear, encode(sound(seed, 5000 + 800 * seed))) for seed, ear in enumerate(ears))
    )
    for seed, together in enumerate(parts):
        expected = await alone(sound(seed, 5000 + 800 * seed))
        np.testing.assert_allclose(together.pcm, expected.pcm, atol=1e-6)
        np.testing.assert_allclose(together.probabilities, expected.probabilities, atol=1e-5)
        assert len(together.probabilities) == len(together.pcm) // 512
    assert tick.stats.batches == 1 and tick.stats.served == 20
    assert tick.stats.largest_batch == 8
    tick.close()


@pytest.mark.parametrize("frame_ms", [20, 40, 60, 120])
async def test_windows_do_not_depend_on_the_length_of_packets(frame_ms: int) -> None:
    tick = VadBatcher(_MODEL, VadSettings())
    ear = tick.open()
    heard = [await tick.hear(ear, [packet]) for packet in encode(sound(3, 19_200), frame_ms)]
    assert sum(len(part.pcm) for part in heard) >= 19_200 - 32  # up to 2 ms stay in the resampler
    assert sum(len(part.probabilities) for part in heard) == sum(len(part.pcm) for part in heard) // 512
    tick.close()


async def test_what_is_only_decoded_keeps_the_decoder_in_step() -> None:
    packets = encode(sound(5, 19_200))
    tick = VadBatcher(_MODEL, VadSettings())
    ear, other = tick.open(), tick.open()
    judged = [await tick.hear(ear, [packet]) for packet in packets]
    first = await tick.hear(other, packets[:10], judge=False)
    assert first.probabilities == [] and len(first.pcm) == sum(len(part.pcm) for part in judged[:10])
    rest = await tick.hear(other, packets[10:])
    np.testing.assert_array_equal(rest.pcm, np.concatenate([part.pcm for part in judged[10:]]))
    assert len(rest.probabilities) == len(rest.pcm) // 512  # on a grid of its own
    tick.close()


async def test_forgetting_judges_afresh_but_decodes_on() -> None:
    packets = encode(sound(6, 19_200))
    tick = VadBatcher(_MODEL, VadSettings())
    ear, fresh = tick.open(), tick.open()
    await tick.hear(ear, packets[:7])
    ear.forget()
    again = await tick.hear(ear, packets[7:])
    await tick.hear(fresh, packets[:7], judge=False)
    expected = await tick.hear(fresh, packets[7:])
    assert again.probabilities == expected.probabilities
    tick.close()


async def test_garbage_becomes_silence_and_harms_nobody() -> None:
    tick = VadBatcher(_MODEL, VadSettings())
    good, bad = tick.open(), tick.open()
    packets = encode(sound(1))
    heard, garbage = await asyncio.gather(
        tick.hear(good, packets), tick.hear(bad, [packets[0], b"\xff" * 7, b"", bytes(5000), packets[1]])
    )
    assert heard.errors == 0
    assert garbage.errors == 2  # an empty packet is no error: the encoder had nothing to say
    assert 5 * 960 - 32 <= len(garbage.pcm) <= 5 * 960
    assert not garbage.pcm[960 : 4 * 960 - 32].any() and garbage.pcm[:900].any() and garbage.pcm[-900:].any()
    assert tick.stats.errors == 2
    tick.close()


@given(st.lists(st.binary(max_size=300), max_size=8))
@hypothesis_settings(max_examples=40, deadline=None)
def test_any_bytes_are_heard_as_something(packets: list[bytes]) -> None:
    async def hear() -> JudgedSound:
        tick = VadBatcher(_MODEL, VadSettings())
        heard = await tick.hear(tick.open(), packets)
        tick.close()
        return heard

    heard = asyncio.run(hear())
    assert heard.errors <= len(packets)
    assert np.all(np.abs(heard.pcm) <= 1.0)
    assert all(0.0 <= probability <= 1.0 for probability in heard.probabilities)
    assert len(heard.probabilities) == len(heard.pcm) // 512


async def test_packets_wait_for_company_only_when_it_is_to_be_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[str] = []
    call_at = loop.call_at

    def record(when: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timers.append(callback.__name__)
        return call_at(when, callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", record)
    tick = VadBatcher(_MODEL, VadSettings(tick_ms=10))
    packet = encode(sound(1))[0]
    for _ in range(5):
        await tick.hear(tick.open(), [packet])
    assert "_start" not in timers
    await tick.hear(tick.open(), [packet] * 30)  # as good as 30 devices at once
    assert "_start" in timers
    tick.close()


async def test_packets_gather_when_many_come_and_while_the_thread_is_busy(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings(tick_ms=1))
    packet = encode(sound(1))[0]
    model.gate.clear()
    first = asyncio.create_task(tick.hear(tick.open(), [packet]))
    await entered(model)
    rest = [asyncio.create_task(tick.hear(tick.open(), [packet])) for _ in range(30)]
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(first, *rest)
    assert tick.stats.batches == 2
    assert tick.stats.largest_batch == 30
    tick.close()


async def test_a_crowd_is_served_oldest_first_up_to_the_cap(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings(max_concurrent=4))
    order: list[int] = []
    packet = encode(sound(1))[0]

    async def device(number: int) -> None:
        await tick.hear(tick.open(), [packet])
        order.append(number)

    await asyncio.gather(*(device(number) for number in range(10)))
    assert tick.stats.batches == 3
    assert [sorted(order[0:4]), sorted(order[4:8]), sorted(order[8:])] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert max(model.batches) == 4
    tick.close()


async def test_handing_packets_over_costs_the_same_however_many_wait(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings())
    packet = encode(sound(1))[0]
    model.gate.clear()
    waiting = [asyncio.create_task(tick.hear(tick.open(), [packet]))]
    await entered(model)

    async def calls() -> int:
        """Functions called until one more device waits."""
        count = 0

        def called(_frame: object, _event: str, _argument: object) -> None:
            nonlocal count
            count += 1

        hearing = tick.hear(tick.open(), [packet])
        sys.setprofile(called)
        try:
            waits_for = hearing.send(None)
        finally:
            sys.setprofile(None)
        hearing.close()
        assert asyncio.isfuture(waits_for)
        return count

    few = await calls()
    waiting += [asyncio.create_task(tick.hear(tick.open(), [packet])) for _ in range(300)]
    await asyncio.sleep(0)
    assert await calls() == few
    model.gate.set()
    await asyncio.gather(*waiting)
    tick.close()


async def test_a_cancelled_caller_that_waits_costs_nothing(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings())
    packets = encode(sound(1))
    model.gate.clear()
    first = asyncio.create_task(tick.hear(tick.open(), packets))
    await entered(model)
    gone_ear = tick.open()
    gone = asyncio.create_task(tick.hear(gone_ear, packets))
    stays = asyncio.create_task(tick.hear(tick.open(), packets))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    again = asyncio.create_task(tick.hear(gone_ear, packets[:1]))  # its ear is free again
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(first, stays)
    assert len((await again).pcm) > 900
    assert tick.stats.served == 3
    tick.close()


async def test_a_caller_cancelled_in_its_tick_leaves_the_others_alone(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings())
    packets = encode(sound(1))
    model.gate.clear()
    ear = tick.open()
    gone = asyncio.create_task(tick.hear(ear, packets))
    stays = asyncio.create_task(tick.hear(tick.open(), packets))
    await entered(model)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    ear.close()
    assert awake(ear)  # the tick still works on it
    model.gate.set()
    assert len((await stays).probabilities) == 18
    assert not awake(ear)  # and gives it back afterwards
    with pytest.raises(RuntimeError, match="after close"):
        await tick.hear(ear, packets)
    tick.close()


async def test_one_call_at_a_time_for_an_ear(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings())
    ear = tick.open()
    packets = encode(sound(1))
    first = asyncio.create_task(tick.hear(ear, packets))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one hear"):
        await tick.hear(ear, packets)
    await first
    tick.close()


async def test_a_failing_model_fails_its_tick_and_no_other(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings())
    ear = tick.open()
    packets = encode(sound(1))
    model.failure = RuntimeError("out of memory")
    with pytest.raises(VadError, match="out of memory"):
        await tick.hear(ear, packets)
    model.failure = None
    assert len((await tick.hear(ear, packets)).probabilities) > 15
    tick.close()


async def test_closing_ends_those_that_wait(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings())
    packets = encode(sound(1))
    model.gate.clear()
    runs = asyncio.create_task(tick.hear(tick.open(), packets))
    await entered(model)
    waits = asyncio.create_task(tick.hear(tick.open(), packets))
    await asyncio.sleep(0)
    tick.close()
    with pytest.raises(VadError, match="closing"):
        await waits
    model.gate.set()
    assert len((await runs).probabilities) == 18
    with pytest.raises(RuntimeError, match="after close"):
        await tick.hear(tick.open(), packets)


async def test_no_packets_are_heard_at_once_as_nothing() -> None:
    tick = VadBatcher(_MODEL, VadSettings())
    heard = await tick.hear(tick.open(), [])
    assert len(heard.pcm) == 0 and heard.probabilities == [] and heard.errors == 0
    assert tick.stats.batches == 0
    tick.close()


async def test_an_ear_holds_a_decoder_only_while_it_hears() -> None:
    tick = VadBatcher(_MODEL, VadSettings())
    ear = tick.open()
    assert not awake(ear)
    packets = encode(sound(1))
    before = await tick.hear(ear, packets)
    assert awake(ear)
    ear.rest()
    assert not awake(ear)
    after = await tick.hear(ear, packets)
    np.testing.assert_array_equal(before.pcm, after.pcm)
    assert before.probabilities == after.probabilities
    tick.close()


async def test_ears_of_silent_devices_are_put_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    rested = asyncio.Event()
    rest = UplinkStream.rest

    def rest_and_tell(ear: UplinkStream) -> None:
        rest(ear)
        rested.set()

    monkeypatch.setattr(UplinkStream, "rest", rest_and_tell)
    monkeypatch.setattr("xiaozhi.stages.vad.batcher._REST_AFTER_S", 0.001)
    tick = VadBatcher(_MODEL, VadSettings())
    ear = tick.open()
    await tick.hear(ear, encode(sound(1)))
    await asyncio.wait_for(rested.wait(), 10)
    assert not awake(ear)
    tick.close()


async def test_a_long_digital_silence_needs_no_model(model: GatedModel) -> None:
    tick = VadBatcher(model, VadSettings())
    ear = tick.open()
    heard = await tick.hear(ear, encode(np.zeros(16_000 * 5, np.float32)))
    assert len(heard.probabilities) == len(heard.pcm) // 512
    assert set(heard.probabilities[STILL_WINDOWS:]) == {0.0}
    assert len(model.batches) == STILL_WINDOWS
    assert tick.stats.still_windows == len(heard.probabilities) - STILL_WINDOWS
    await tick.hear(ear, encode(sound(1)))
    assert len(model.batches) > STILL_WINDOWS
    tick.close()


def test_the_models_memory_is_cleared_after_two_seconds_without_speech() -> None:
    ear = UplinkStream()
    state = np.ones((2, 128), np.float32)
    for _ in range(FORGET_WINDOWS - 1):
        ear.judged(0.01, state)
    assert memory(ear) is not None
    ear.judged(0.01, state)
    assert memory(ear) is None, "all zeros"
    ear.judged(0.9, state)
    for _ in range(FORGET_WINDOWS - 1):
        ear.judged(0.01, state)
    assert memory(ear) is not None


async def test_every_tick_is_observed() -> None:
    tick = VadBatcher(_MODEL, VadSettings())
    seen: list[tuple[int, float, float]] = []
    tick.observe = lambda devices, wait_s, took_s: seen.append((devices, wait_s, took_s))
    await asyncio.gather(*(tick.hear(tick.open(), encode(sound(1))) for _ in range(3)))
    assert [devices for devices, _, _ in seen] == [3]
    assert all(wait_s >= 0 and took_s >= 0 for _, wait_s, took_s in seen)
    tick.close()


@needs_speech
async def test_real_speech_is_speech_and_random_bytes_are_not() -> None:
    tick = VadBatcher(_MODEL, VadSettings())
    speech = await tick.hear(tick.open(), encode(read_wav(recordings("zh", "read")[0].path)))
    assert max(speech.probabilities) > 0.95
    garbage = await tick.hear(tick.open(), [b"\xff" + os.urandom(60) for _ in range(40)])
    assert garbage.errors > 0
    tick.close()


def test_bare_samples_are_taken_as_they_are_and_what_is_none_is_silence() -> None:
    ear = UplinkStream()
    ear.bare = True
    wave = sound(1, 960)
    pcm, _, errors = ear.decode([to_int16(wave).astype("<i2").tobytes(), b"odd", b"", bytes(2 * 1921)])
    assert errors == 2
    assert len(pcm) == 4 * 960
    assert np.abs(pcm[:960] - np.clip(wave, -1.0, 1.0)).max() < 1e-4
    assert not pcm[960:].any()
    assert not awake(ear), "no decoder is made for them"
