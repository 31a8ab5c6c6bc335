import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.word_errors import edits, words
from tests.bad_models import ZIPFORMERS, copy_zipformer, silence
from tests.recognisers import until
from tests.speech import SPEECH_DIR, needs_speech, read_wav, recordings
from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.model_files import find_transducer
from xiaozhi.stages.asr.recogniser import Question
from xiaozhi.stages.asr.streaming import StreamingRecognizer, StreamingUtterance
from xiaozhi.stages.asr.zipformer import RunningGain, Zipformer, ZipformerStream

pytestmark = needs_speech


@pytest.fixture(scope="module")
def english() -> Zipformer:
    return Zipformer(find_transducer(ZIPFORMERS / "zipformer-en"))


@pytest.fixture(scope="module")
def mandarin() -> Zipformer:
    return Zipformer(find_transducer(ZIPFORMERS / "zipformer-zh-pinyin"))


def feed(stream: ZipformerStream, pcm: PcmFloat, frame_ms: int = 60) -> list[str]:
    """Feed in frames, as a device sends them; the text after each."""
    size = frame_ms * 16
    return [stream.accept(pcm[start : start + size]) for start in range(0, len(pcm), size)]


def quiet(seconds: float) -> PcmFloat:
    """The noise of a quiet room."""
    return (np.random.default_rng(3).standard_normal(int(seconds * 16_000)) * 1e-3).astype(np.float32)


def clip(name: str) -> PcmFloat:
    return read_wav(SPEECH_DIR / "en" / f"{name}.wav")


def test_read_english_is_recognised(english: Zipformer) -> None:
    wrong = total = 0
    for one in recordings("en", "read") + recordings("en", "command") + recordings("en", "speech"):
        stream = english.begin()
        feed(stream, read_wav(one.path))
        said = words(one.transcript)
        wrong += edits(said, words(stream.finish().text))
        total += len(said)
    assert total > 150
    assert wrong / total < 0.16  # measured: 0.11


def test_quiet_english_is_recognised(english: Zipformer) -> None:
    stream = english.begin()
    feed(stream, clip("libri_1995-1837-0001") * np.float32(0.03))
    assert stream.finish().text.startswith("it was the first great sorrow of his life")


def test_read_mandarin_gives_toned_pinyin(mandarin: Zipformer) -> None:
    for one in recordings("zh", "read"):
        stream = mandarin.begin()
        feed(stream, read_wav(one.path))
        heard = stream.finish()
        assert heard.language == "zh"
        bare = unicodedata.normalize("NFD", heard.text)
        assert re.fullmatch("[a-zü\u0300-\u036f ]+", bare), heard.text
        tones = len(re.findall("[\u0300\u0301\u0304\u030c]", bare))
        characters = len(re.findall("[\u4e00-\u9fff]", one.transcript))
        assert 0.5 * characters <= tones <= 1.3 * characters, (one.transcript, heard.text)


def test_text_appears_before_the_end_and_grows(english: Zipformer) -> None:
    stream = english.begin()
    texts = feed(stream, clip("libri_1995-1837-0001"))
    half = texts[len(texts) // 2]
    assert half.startswith("it was the first great sorrow")
    assert stream.finish().text.startswith("it was the first great sorrow of his life")
    assert len(texts[-1]) > len(half)


@pytest.mark.parametrize("name", ["goforward", "speechbrain_spk1_snt1", "azure_weather"])
def test_the_last_word_comes_out_at_the_last_voiced_sample(english: Zipformer, name: str) -> None:
    pcm = clip(name)
    loud = np.flatnonzero(np.abs(pcm) > 0.05 * np.abs(pcm).max())
    cut, whole = english.begin(), english.begin()
    feed(cut, pcm[: loud[-1] + 1])
    feed(whole, np.concatenate([pcm, quiet(2)]))
    assert cut.finish().text == whole.finish().text != ""


def test_a_user_may_go_on_after_finish(english: Zipformer) -> None:
    stream = english.begin()
    feed(stream, clip("goforward"))
    assert stream.finish() == Transcript("go forward ten meters", "en")
    feed(stream, clip("azure_weather"))
    assert stream.finish() == Transcript("go forward ten meters what's the weather like", "en")


def test_a_word_cut_by_finish_does_not_lose_what_follows(english: Zipformer) -> None:
    pcm = clip("libri_1995-1837-0001")
    stream = english.begin()
    feed(stream, pcm[:48_000])
    first = stream.finish().text
    feed(stream, pcm[48_000:])
    whole = stream.finish().text
    assert whole.startswith(first)
    assert whole.endswith("the dreams built around it")


def test_finish_twice_changes_nothing(english: Zipformer) -> None:
    stream = english.begin()
    feed(stream, clip("goforward"))
    first = stream.finish()
    assert stream.finish() is first
    assert stream.accept(silence(0)) == first.text
    assert stream.finish() is first


def test_an_utterance_without_audio_is_empty(english: Zipformer) -> None:
    assert english.begin().finish() == Transcript("")


def test_a_quiet_room_is_empty(english: Zipformer) -> None:
    stream = english.begin()
    feed(stream, quiet(3))
    assert stream.finish() == Transcript("")


def test_streams_do_not_mix(english: Zipformer) -> None:
    one, two = english.begin(), english.begin()
    first, second = clip("goforward"), clip("azure_weather")
    for start in range(0, max(len(first), len(second)), 960):
        one.accept(first[start : start + 960])
        two.accept(second[start : start + 960])
    assert (one.finish().text, two.finish().text) == ("go forward ten meters", "what's the weather like")


def test_a_language_in_the_settings_is_said(english: Zipformer) -> None:
    stream = Zipformer(find_transducer(ZIPFORMERS / "zipformer-en"), language="ja").begin()
    feed(stream, clip("goforward"))
    assert stream.finish().language == "ja"
    assert english.language_of("我 like it") == "zh"


def test_it_is_a_streaming_recogniser(english: Zipformer) -> None:
    assert isinstance(english, StreamingRecognizer)


def test_a_build_without_cuda_is_a_clear_error() -> None:
    with pytest.raises(EngineError, match=r'set asr\.provider = "cpu"'):
        Zipformer(find_transducer(ZIPFORMERS / "zipformer-en"), provider="cuda")


def test_closing_leaves_open_streams_alone_and_refuses_new_audio(tmp_path: Path) -> None:
    engine = Zipformer(find_transducer(copy_zipformer("zipformer-en", tmp_path / "z")))
    before = engine.begin()
    feed(before, clip("goforward"))
    engine.close()
    assert before.finish().text == "go forward ten meters"
    with pytest.raises(EngineError, match="closed"):
        engine.begin().accept(silence(1))


def test_gain_raises_quiet_speech_only_and_only_falls() -> None:
    gain = RunningGain()
    pieces = [np.array([peak, -peak / 2], np.float32) for peak in (0.001, 0.03, 0.02, 0.6, 0.03)]
    raised = [float(gain.apply(piece).max()) for piece in pieces]
    assert raised == pytest.approx([0.03, 0.3, 0.2, 0.6, 0.03])
    assert len(gain.apply(silence(0))) == 0


def test_a_stream_says_how_much_more_sound_the_next_step_of_the_model_takes(english: Zipformer) -> None:
    stream, whole = english.begin(), english.begin()
    pcm, given, handed_over = clip("goforward"), 0, 0
    for end in range(960, len(pcm) + 1, 960):  # packets of 60 ms
        text = whole.accept(pcm[end - 960 : end])
        if end - given >= stream.wants_samples:
            assert stream.accept(pcm[given:end]) == text, "no step is late"
            given, handed_over = end, handed_over + 1
            assert stream.wants_samples > 0
    assert handed_over == 8 and len(pcm) // 960 > 40, "one call for each step, not for each packet"
    stream.accept(pcm[given:])
    whole.accept(pcm[len(pcm) // 960 * 960 :])
    assert stream.finish() == whole.finish()
    assert 0 < stream.wants_samples <= 45 * 160, "after a pause as well"


async def test_an_utterance_takes_a_worker_once_for_each_step_of_the_model(english: Zipformer) -> None:
    pool, calls = WorkerPool(1, "asr"), 0
    utterance = StreamingUtterance(english, Decoding(pool))
    pcm = clip("goforward")
    submit = pool.submit

    async def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return await submit(*given, **named)

    pool.submit = counted  # type: ignore[method-assign]
    for start in range(0, len(pcm), 960):
        utterance.feed(pcm[start : start + 960])
        await until(lambda: utterance._feeding is None or utterance._feeding.done())
    text = await utterance.transcribe(Question())
    assert text.text == "go forward ten meters"
    assert calls == 9 and len(pcm) // 960 > 40, "eight steps and the question, not one for each packet"
    pool.close()
