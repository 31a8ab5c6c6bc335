import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.speech import Recording, needs_speech, read_wav, recordings
from tests.test_vad_tick import GatedModel, entered
from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import PcmFloat, to_int16
from xiaozhi.concurrency.channel import Channel
from xiaozhi.events import KeyReleased, MicInput, MicPacket, SpeechAudio, SpeechBegan, SpeechEvent, SpeechLikely
from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import SileroModel, SpeechModel, States, Windows, built_in_model
from xiaozhi.stages.vad.stage import VadControl, run_vad
from xiaozhi.turn.decisions import Mic
from xiaozhi.turn.segmenter import Segmenter

SETTINGS = VadSettings(tick_ms=0)  # not in real time: packets come faster than any crowd would send them
SILERO = SileroModel(built_in_model(), SETTINGS)
CLOSE_AFTER_MS = 700.0


class LoudIsSpeech:
    """For tests that need speech at will."""

    def probabilities(self, windows: Windows, states: States) -> tuple[PcmFloat, States]:
        loud = np.sqrt(np.mean(windows[:, 64:] ** 2, axis=1)) > 0.05
        return np.where(loud, 0.98, 0.01).astype(np.float32), states


def tone(ms: int) -> PcmFloat:
    return (0.3 * np.sin(np.arange(ms * 16) * 2 * np.pi * 220 / 16_000)).astype(np.float32)


def hush(ms: int) -> PcmFloat:
    return np.random.default_rng(7).normal(0, 1e-3, ms * 16).astype(np.float32)


@dataclass
class Rig:
    """The stage between its channels, as a session holds it."""

    tick: VadBatcher
    control: VadControl
    mic: Channel[MicInput]
    speech: Channel[SpeechEvent | SpeechLikely | KeyReleased]
    task: asyncio.Task[None]
    encoder: OpusEncoder = field(default_factory=lambda: OpusEncoder(16_000, 60, 24_000, 0))

    def expect(self, mic: Mic = Mic.OPEN, *, afresh: bool = False) -> None:
        """Close the utterance, as a session does."""
        self.control.expect(self.control.utterance + 1, mic, afresh=afresh)

    def put(self, *pieces: PcmFloat) -> None:
        for packet in self.encoder.encode(to_int16(np.concatenate(pieces))):
            self.mic.put_nowait(MicPacket(packet))

    async def said(self) -> list[SpeechEvent]:
        """What the stage says about everything put so far; a released key goes behind it as a marker."""
        self.mic.put_nowait(KeyReleased(1))
        events: list[SpeechEvent] = []
        async for event in self.speech:
            if isinstance(event, KeyReleased):
                break
            if not isinstance(event, SpeechLikely):
                events.append(event)
        return events

    async def hear(self, *pieces: PcmFloat) -> list[SpeechEvent]:
        """Put sound packet by packet and return what the stage says about it."""
        events: list[SpeechEvent] = []
        for packet in self.encoder.encode(to_int16(np.concatenate(pieces))):
            self.mic.put_nowait(MicPacket(packet))
            events += await self.said()
        return events


MakeRig = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def make_rig() -> AsyncIterator[MakeRig]:
    rigs: list[Rig] = []

    async def make(model: SpeechModel | None = None, pre_roll_ms: float = 320) -> Rig:
        tick = VadBatcher(model or LoudIsSpeech(), SETTINGS)
        mic: Channel[MicInput] = Channel(2000.0, lambda _item: 0.0)
        speech: Channel[SpeechEvent | SpeechLikely | KeyReleased] = Channel(2000.0)
        control = VadControl(mic)
        control.expect(1, Mic.OPEN)
        segmenter = Segmenter(SETTINGS.threshold, SETTINGS.release_threshold, SETTINGS.min_speech_ms)
        task = asyncio.create_task(
            run_vad(mic, speech, tick, tick.open(), segmenter, pre_roll_ms=pre_roll_ms, control=control)
        )
        await asyncio.sleep(0)
        rigs.append(Rig(tick, control, mic, speech, task))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.mic.close()
        await rig.task
        rig.tick.close()


def began(events: list[SpeechEvent]) -> list[SpeechBegan]:
    return [event for event in events if isinstance(event, SpeechBegan)]


async def test_an_utterance_has_pre_roll_and_no_gap(make_rig: MakeRig) -> None:
    rig = await make_rig()
    events = await rig.hear(hush(1200), tone(600), hush(600))
    (first,) = began(events)
    assert events[0] is first
    assert first.start_ms == pytest.approx(1200 - 320, abs=40)
    assert first.end_ms == pytest.approx(1200 + 128, abs=70)
    assert len(first.pcm) / 16 == pytest.approx(first.end_ms - first.start_ms)
    end_ms = first.end_ms
    for event in events[1:]:
        assert isinstance(event, SpeechAudio)
        end_ms += len(event.pcm) / 16
        assert event.end_ms == pytest.approx(end_ms)
    assert end_ms == pytest.approx(2400, abs=2)
    last = events[-1]
    assert isinstance(last, SpeechAudio)
    assert last.last_voiced_ms == pytest.approx(1800, abs=40)
    assert last.silence_ms == pytest.approx(last.end_ms - last.last_voiced_ms)


async def test_nothing_is_said_about_hush(make_rig: MakeRig) -> None:
    rig = await make_rig()
    assert await rig.hear(hush(3000)) == []


async def test_a_closed_utterance_is_followed_by_the_next(make_rig: MakeRig) -> None:
    rig = await make_rig()
    assert len(began(await rig.hear(tone(600), hush(600)))) == 1
    rig.expect()
    assert await rig.hear(hush(300)) == []
    (second,) = began(await rig.hear(tone(600)))
    assert second.start_ms == pytest.approx(1500 - 320, abs=70)
    assert second.start_ms > 1198  # nothing of the closed utterance comes again


async def test_speech_that_goes_on_when_it_is_closed_is_found_again(make_rig: MakeRig) -> None:
    rig = await make_rig()
    await rig.hear(tone(600))
    rig.expect()
    (second,) = began(await rig.hear(tone(600)))
    assert second.start_ms == pytest.approx(600, abs=2)


async def test_a_reset_forgets_the_utterance_and_what_waits(make_rig: MakeRig) -> None:
    rig = await make_rig()
    await rig.hear(tone(300))
    rig.put(tone(600))  # the wake word, still on its way
    rig.expect(afresh=True)
    assert len(rig.mic) == 0
    assert await rig.hear(hush(600)) == []
    (event,) = began(await rig.hear(tone(300)))
    assert event.end_ms > 1500  # what was forgotten took its time all the same
    assert event.start_ms > 898


async def test_a_reset_takes_back_what_has_not_been_read(make_rig: MakeRig) -> None:
    rig = await make_rig()
    rig.put(tone(600))
    assert await rig.speech.peek() is not None
    rig.expect(afresh=True)
    assert len(rig.speech) == 0
    assert await rig.hear(hush(300)) == []


async def test_a_key_that_was_released_stays_released_whatever_is_forgotten(make_rig: MakeRig) -> None:
    rig = await make_rig()
    rig.put(tone(600))
    rig.mic.put_nowait(KeyReleased(1))
    rig.expect(afresh=True)
    assert await rig.speech.get() == KeyReleased(1)
    rig.speech.put_nowait(KeyReleased(2))
    rig.expect(afresh=True)
    assert await rig.speech.get() == KeyReleased(2)


async def test_a_reset_drops_what_is_being_judged(make_rig: MakeRig) -> None:
    model = GatedModel()
    rig = await make_rig(model)
    model.gate.clear()
    rig.expect(Mic.HELD)
    rig.put(hush(120))
    await entered(model)
    rig.expect(afresh=True)
    model.gate.set()
    assert await rig.said() == []


async def test_a_close_while_audio_is_being_judged_leaves_that_audio_to_the_next(make_rig: MakeRig) -> None:
    model = GatedModel()
    rig = await make_rig(model)
    rig.expect(Mic.HELD)
    assert len(began(await rig.hear(hush(120)))) == 1
    model.entered.clear()
    model.gate.clear()
    rig.put(hush(120))
    await entered(model)
    rig.expect(Mic.HELD)
    model.gate.set()
    (event,) = await rig.said()
    assert isinstance(event, SpeechBegan)
    assert event.start_ms == pytest.approx(120, abs=2)


async def test_the_deaf_hear_nothing_but_time_passes(make_rig: MakeRig) -> None:
    rig = await make_rig()
    rig.expect(Mic.SHUT)
    assert await rig.hear(tone(1200)) == []
    rig.expect()
    (event,) = began(await rig.hear(tone(600)))
    assert event.start_ms == pytest.approx(1200, abs=2)


async def test_going_deaf_ends_the_utterance(make_rig: MakeRig) -> None:
    rig = await make_rig()
    await rig.hear(tone(600))
    rig.expect(Mic.SHUT)
    await rig.hear(tone(60))
    rig.expect()
    assert isinstance((await rig.hear(tone(600)))[0], SpeechBegan)


async def test_held_everything_is_one_utterance_at_once(make_rig: MakeRig) -> None:
    rig = await make_rig()
    rig.expect(Mic.HELD, afresh=True)
    events = await rig.hear(hush(300), tone(600), hush(300))
    assert len(began(events)) == 1 and isinstance(events[0], SpeechBegan)
    assert events[0].start_ms == 0
    assert sum(len(event.pcm) for event in events) == pytest.approx(1200 * 16, abs=32)
    silences = [event.silence_ms for event in events[1:] if isinstance(event, SpeechAudio)]
    assert silences[2] > 100  # silent from the beginning
    assert min(silences) == 0
    assert silences[-1] > 200
    rig.expect()
    assert await rig.hear(hush(300)) == []


async def test_a_released_key_goes_behind_the_audio_before_it(make_rig: MakeRig) -> None:
    rig = await make_rig()
    rig.expect(Mic.HELD)
    rig.put(hush(300))
    rig.mic.put_nowait(KeyReleased(1))
    rig.put(hush(60))
    rig.mic.close()
    seen = [event async for event in rig.speech if not isinstance(event, SpeechLikely)]
    assert [type(event) for event in seen] == [SpeechBegan, KeyReleased, SpeechAudio]
    assert isinstance(seen[0], SpeechBegan) and seen[0].end_ms == pytest.approx(300, abs=2)


async def test_lost_packets_take_their_time_in_silence(make_rig: MakeRig) -> None:
    rig = await make_rig()
    events = await rig.hear(tone(600))
    rig.mic.put_nowait(MicPacket(b"\xff\xff\xff"))
    rig.mic.put_nowait(MicPacket(b""))
    events += await rig.said()
    last = events[-1]
    assert isinstance(last, SpeechAudio)
    assert last.end_ms == pytest.approx(720, abs=2)
    assert not last.pcm[-900:].any()
    assert rig.tick.stats.errors == 1


async def test_packets_that_were_lost_on_the_way_are_made_up_for_by_the_decoder(make_rig: MakeRig) -> None:
    rig = await make_rig()
    packets = rig.encoder.encode(to_int16(tone(960)))
    lost = packets[5:7]
    for packet in packets[:5]:
        rig.mic.put_nowait(MicPacket(packet))
    rig.mic.put_nowait(MicPacket(packets[7], lost=len(lost)))
    (event,) = await rig.said()
    assert isinstance(event, SpeechBegan)
    assert event.end_ms == pytest.approx(480, abs=2), "the time of what was lost has passed"
    made_up = event.pcm[-3 * 960 : -960]
    assert len(made_up) == 1920 and np.abs(made_up[:480]).max() > 0.02, "and the voice has not broken off"


async def test_the_end_of_the_microphone_ends_the_speech(make_rig: MakeRig) -> None:
    rig = await make_rig()
    rig.put(tone(600))
    rig.mic.close()
    events = [event async for event in rig.speech if not isinstance(event, SpeechLikely)]
    assert len(events) == 1
    assert rig.speech.closed
    rig.expect(afresh=True)  # a late word of the session harms nobody


async def test_a_cancelled_stage_ends_its_speech(make_rig: MakeRig) -> None:
    rig = await make_rig()
    rig.task.cancel()
    await asyncio.gather(rig.task, return_exceptions=True)
    assert rig.speech.closed
    rig.task = asyncio.create_task(asyncio.sleep(0))


# Recorded speech, through Opus and the real model ---------------------------------------------------------------------


async def utterances(rig: Rig, pcm: PcmFloat) -> list[float]:
    """Lengths in milliseconds of the utterances found in `pcm` when 700 ms of silence close one."""
    found: list[float] = []
    start_ms = 0.0
    for packet in rig.encoder.encode(to_int16(pcm)):
        rig.mic.put_nowait(MicPacket(packet))
        for event in await rig.said():
            if isinstance(event, SpeechBegan):
                start_ms = event.start_ms
            elif event.silence_ms >= CLOSE_AFTER_MS:
                found.append(event.last_voiced_ms - start_ms)
                rig.expect()
    return found


def padded(pcm: PcmFloat, before_ms: int = 600, after_ms: int = 1200) -> PcmFloat:
    return np.concatenate([hush(before_ms) * 0.1, pcm, hush(after_ms) * 0.1])


@needs_speech
async def test_read_recordings_are_one_utterance_each(make_rig: MakeRig) -> None:
    rows = recordings(kind="read") + recordings(kind="command") + recordings(kind="word")[::3]
    found = [await utterances(await make_rig(SILERO), padded(read_wav(row.path))) for row in rows]
    assert [row.path.name for row, lengths in zip(rows, found, strict=True) if not lengths] == []
    several = [row.path.name for row, lengths in zip(rows, found, strict=True) if len(lengths) > 1]
    assert len(several) <= len(rows) // 25, several  # inner pauses over 700 ms: 4.2 % of Mandarin, 2.9 % of English


@needs_speech
async def test_quiet_speech_is_found(make_rig: MakeRig) -> None:
    rows = recordings(kind="read")

    async def found(row: Recording) -> bool:
        pcm = read_wav(row.path)
        quiet = (pcm * (10 ** (-35 / 20) / np.sqrt(np.mean(pcm**2)))).astype(np.float32)
        return bool(await utterances(await make_rig(SILERO), padded(quiet)))

    assert [row.path.name for row in rows if not await found(row)] == []


@needs_speech
@pytest.mark.parametrize("row", recordings(kind="noise") + recordings(kind="silence"), ids=lambda row: row.path.stem)
async def test_noise_and_silence_raise_nothing(make_rig: MakeRig, row: Recording) -> None:
    rig = await make_rig(SILERO)
    # A stream that begins in the middle of a loud noise is another matter: v5 then takes one of these clips for speech,
    # at one in eight positions of its windows.
    events = await rig.hear(hush(600) * 0.1, read_wav(row.path)[: 16_000 * 30])
    assert events == []


@needs_speech
async def test_a_word_is_found_after_half_a_minute_of_office(make_rig: MakeRig) -> None:
    (office,) = [row for row in recordings(kind="noise") if "office" in row.path.name]
    rig = await make_rig(SILERO)
    assert await rig.hear(read_wav(office.path)[: 16_000 * 30] * np.float32(0.3)) == []
    for row in recordings("en", "letter")[:4]:
        assert await utterances(rig, padded(read_wav(row.path))), row.path.name
