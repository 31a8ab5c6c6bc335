"""The bench of cutting utterances: how it joins, cuts, asks and counts."""

import numpy as np
import pytest

from bench.endpointing_material import Clip, Utterance
from bench.prefix_cut import WAYS, Heard, Whole, hear, join_neighbours, make_utterances, measure, report
from bench.word_errors import edits, pieces
from tests.bad_models import ZIPFORMERS
from tests.recognisers import Offline, sound
from tests.speech import SPEECH_DIR, needs_speech, read_wav
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import VadSettings


def utterance(*stretches_ms: int) -> Utterance:
    """Voice and silence in turn, in milliseconds, after half a second and before one of silence."""
    probabilities = [0.0] * 16
    for index, length_ms in enumerate(stretches_ms):
        probabilities += [0.99 if index % 2 == 0 else 0.0] * (length_ms // 32)
    last_voiced_ms = len(probabilities) * 32.0
    probabilities += [0.0] * 32
    pcm = np.zeros(512 * len(probabilities), np.float32)
    return Utterance(Clip("made", "en", pcm), 0, (), pcm, probabilities, last_voiced_ms, onset_found=True)


def test_neighbours_of_one_language_are_joined_until_they_are_long_enough() -> None:
    clips = [
        Clip("a", "en", sound(3.0), "one"),
        Clip("x", "zh", sound(9.0), "一"),
        Clip("b", "en", sound(1.0), "two"),
        Clip("c", "en", sound(2.0), "three"),
        Clip("y", "zh", sound(9.0), "二"),
    ]
    joined = join_neighbours(clips, min_s=5.0)
    assert [clip.name for clip in joined] == ["a+b+c", "b+c+a", "c+a", "x+y", "y+x"]
    assert [len(clip.pcm) // 1600 for clip in joined] == [60, 60, 50, 180, 180]
    assert joined[2].transcript == "three one"


async def test_an_utterance_is_cut_at_its_soft_ends_and_asked_at_its_last() -> None:
    pool = WorkerPool(1, "asr")
    heard = {}
    for way in WAYS:
        engine = Offline()
        heard[way.name] = await hear(engine, pool, utterance(3200, 320, 1600), way, 96.0, 320.0)
        # 0.32 s before the voice, then 3.2 s; 0.32 s of silence; 1.6 s.
        longest = max(len(pcm) for pcm in engine.decoded) / 16_000
        assert (longest > 5.0) is not way.in_parts
    pool.close()
    whole, early, parts, both = (heard[way.name] for way in WAYS)
    assert (whole.parts, early.parts, parts.parts, both.parts) == (1, 1, 2, 2)
    assert whole.tail_s > 5.4 > 2.0 > parts.tail_s > 1.6
    assert early.tail_s < whole.tail_s
    assert both.tail_s < parts.tail_s or both.tail_s == pytest.approx(parts.tail_s, abs=0.1)
    assert parts.text.split()[0] in ("36", "37")


def test_errors_and_changes_are_counted() -> None:
    pcm = sound(1.0)
    said = Utterance(Clip("a", "en", pcm, "turn the light on"), 0, (), pcm)
    texts = ["turn the light on", "turn the lights on", "turn light on", "turn the light on"]
    heard = {
        way.name: [Heard(text, 1 + (index > 1), 1.0)] for index, (way, text) in enumerate(zip(WAYS, texts, strict=True))
    }
    lines = report([said], heard, transcribed=True).splitlines()
    assert [line.split(" | ")[1:4] for line in lines[2:]] == [
        ["0 of 1", "0.0 %", "0.0 %"],
        ["0 of 1", "25.0 %", "25.0 %"],
        ["1 of 1", "25.0 %", "25.0 %"],
        ["1 of 1", "0.0 %", "0.0 %"],
    ]
    assert " |  | " in report([said], heard, transcribed=False)


def test_pieces_are_words_characters_or_letters() -> None:
    assert pieces("What's the TIME?", "en") == ["what's", "the", "time"]
    assert pieces("现在 几点，", "zh") == list("现在几点")
    assert pieces("xiànzài jǐ", "zh") == list("xiànzàijǐ")
    assert edits("abc", "adce") == 2


@needs_speech
async def test_real_recordings_lose_little_by_a_cut() -> None:
    from xiaozhi.stages.asr.model_files import find_transducer
    from xiaozhi.stages.asr.zipformer import Zipformer
    from xiaozhi.stages.vad.silero import load_silero

    clips = [
        Clip(name, "en", read_wav(SPEECH_DIR / "en" / f"{name}.wav"), text)
        for name, text in (
            ("speechbrain_spk1_snt1", "the child almost hurt the small dog"),
            ("goforward", "go forward ten meters"),
        )
    ]
    utterances = make_utterances(load_silero(VadSettings()), clips)
    engine = Whole(Zipformer(find_transducer(ZIPFORMERS / "zipformer-en")))
    heard = await measure(engine, utterances, 96.0, 320.0)
    for found in heard.values():
        for one, other in zip(found, utterances, strict=True):
            assert edits(pieces(other.clip.transcript, "en"), pieces(one.text, "en")) <= 2
    engine.close()
