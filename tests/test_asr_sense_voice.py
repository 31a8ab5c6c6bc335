from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bench.sense_voice_model import build_tiny
from tests.speech import SPEECH_DIR, needs_speech, read_wav
from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.model_files import find_sense_voice
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.sense_voice import SenseVoice
from xiaozhi.stages.asr.tagged_text import to_transcript


def noise(seconds: float, amplitude: float = 0.1) -> PcmFloat:
    return (np.random.default_rng(1).standard_normal(int(seconds * 16_000)) * amplitude).astype(np.float32)


def engine(folder: Path, language: Language = "auto", *, itn: bool = True) -> SenseVoice:
    return SenseVoice(find_sense_voice(folder), language=language, itn=itn)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (("你好。", "<|zh|>", "<|HAPPY|>", "<|Speech|>"), Transcript("你好。", "zh", "happy")),
        ((" hello there", "<|en|>", "<|EMO_UNKNOWN|>", "<|BGM|>"), Transcript("hello there", "en", "", ("music",))),
        (
            ("好<|Laughter|>的", "<|yue|>", "<|NEUTRAL|>", "<|BGM|>"),
            Transcript("好的", "yue", "neutral", ("music", "laughter")),
        ),
        (("。", "<|nospeech|>", "<|NEUTRAL|>", "<|Cough|>"), Transcript("", "", "neutral", ("cough",))),
        ((".", "", "", ""), Transcript("")),
        (("", "<|zh|>", "<|SAD|>", "<|Speech|>"), Transcript("", "zh", "sad")),
        (("3 点 <|unheard of|> 半", "<|zh|>", "", "<|new|>"), Transcript("3 点 半", "zh")),
    ],
)
def test_tags_become_fields_and_leave_the_text(tags: tuple[str, str, str, str], expected: Transcript) -> None:
    assert to_transcript(*tags) == expected


def test_a_model_in_the_sense_voice_layout_loads_and_decodes(tmp_path: Path) -> None:
    asr = engine(build_tiny(tmp_path / "m", "你好 world", language="zh", emotion="HAPPY", event="Laughter"))
    assert asr.decode(noise(1.0)) == Transcript("你好 world", "zh", "happy", ("laughter",))
    assert isinstance(asr, OfflineRecognizer)
    asr.close()


def test_what_it_says_depends_on_the_audio(tmp_path: Path) -> None:
    folder = build_tiny(tmp_path / "m", "quiet", loud_text="loud", silent_text="", long_text="long and slow")
    asr = engine(folder)
    texts = [
        asr.decode(pcm).text for pcm in (noise(1, 0.001), noise(1, 0.3), noise(3, 0.3), np.zeros(16_000, np.float32))
    ]
    assert texts == ["quiet", "loud", "long and slow", ""]
    assert asr.decode(np.zeros(16_000, np.float32)).language == ""


@needs_speech
def test_a_recording_goes_through_the_real_front_end(tmp_path: Path) -> None:
    asr = engine(build_tiny(tmp_path / "m", "quiet", loud_text="loud"))
    pcm = read_wav(SPEECH_DIR / "en" / "goforward.wav")
    assert asr.decode(pcm).text == "loud"
    assert asr.decode(pcm * np.float32(0.1)).text == "quiet"


@pytest.mark.parametrize("samples", [1, 400, 719, 1000, 1359, 1360, 1600, 4000])
def test_audio_of_any_length_is_decoded(tmp_path: Path, samples: int) -> None:
    assert engine(build_tiny(tmp_path / "m", "hello")).decode(noise(1)[:samples]).text == "hello"


def test_no_audio_is_no_text(tmp_path: Path) -> None:
    assert engine(build_tiny(tmp_path / "m", "hello")).decode(np.zeros(0, np.float32)) == Transcript("")


def test_a_language_lock_reaches_the_model(tmp_path: Path) -> None:
    folder = build_tiny(tmp_path / "m", "hello", language="en")
    assert [engine(folder, language).decode(noise(1)).language for language in ("auto", "zh", "ja", "ko", "yue")] == [
        "en", "zh", "ja", "ko", "yue",
    ]  # fmt: skip


@pytest.mark.parametrize(("itn", "text"), [(True, "3 点"), (False, "三 点")])
def test_itn_is_asked_of_the_model(tmp_path: Path, itn: bool, text: str) -> None:
    asr = engine(build_tiny(tmp_path / "m", "三点", itn_text="3点"), itn=itn)
    assert asr.decode(noise(1)).text.replace(" ", "") == text.replace(" ", "")


def test_float_models_are_taken_where_there_is_no_int8_one(tmp_path: Path) -> None:
    folder = build_tiny(tmp_path / "m", "hello")
    (folder / "model.int8.onnx").rename(folder / "model.onnx")
    asr = engine(folder)
    assert asr.model.name == "model.onnx"
    assert asr.decode(noise(1)).text == "hello"


def test_one_recogniser_serves_many_threads(tmp_path: Path) -> None:
    asr = engine(build_tiny(tmp_path / "m", "short", long_text="quite long"))
    lengths = [0.5, 3.0] * 20
    with ThreadPoolExecutor(4) as pool:
        texts = [answer.text for answer in pool.map(asr.decode, [noise(length) for length in lengths])]
    assert texts == ["short", "quite long"] * 20


def test_a_build_without_cuda_is_a_clear_error(tmp_path: Path) -> None:
    files = find_sense_voice(build_tiny(tmp_path / "m"))
    with pytest.raises(EngineError, match=r'asr\.provider = "cuda" needs sherpa-onnx built for CUDA'):
        SenseVoice(files, provider="cuda")
