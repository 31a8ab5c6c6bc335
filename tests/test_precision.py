"""Which of a model's files is taken, and what a build without CUDA says."""

from pathlib import Path

import numpy as np
import pytest
from onnx import load, save

from bench.sense_voice_model import build_tiny
from tests.bad_models import copy_zipformer
from tests.speech import needs_speech
from xiaozhi.settings import AsrSettings, SherpaVoiceSettings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.model_files import find_sense_voice, find_transducer, precisions
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.sense_voice import SenseVoice
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.sherpa import SherpaVoice


def with_names(folder: Path, *names: str) -> Path:
    """A SenseVoice folder with its model under these names only."""
    build_tiny(folder, "half")
    (whole,) = folder.glob("*.onnx")
    model = load(whole)
    whole.unlink()
    for name in names:
        save(model, folder / name)
    return folder


def test_a_cpu_takes_int8_and_cuda_takes_fp16_unless_told_otherwise(tmp_path: Path) -> None:
    folder = with_names(tmp_path / "m", "model.int8.onnx", "model.fp16.onnx", "model.onnx")
    taken = {
        (wanted, provider): find_sense_voice(folder, precisions(wanted, provider)).model.name
        for wanted in ("auto", "int8", "fp16", "fp32")
        for provider in ("cpu", "cuda")
    }
    assert taken.pop(("auto", "cpu")) == "model.int8.onnx"
    assert taken.pop(("auto", "cuda")) == "model.fp16.onnx"
    names = {"int8": "model.int8.onnx", "fp16": "model.fp16.onnx", "fp32": "model.onnx"}
    assert all(name == names[wanted] for (wanted, _), name in taken.items())


@pytest.mark.parametrize("name", ["model.fp16.onnx", "model.onnx"])
def test_a_folder_with_one_file_only_is_recognised_with(tmp_path: Path, name: str) -> None:
    folder = with_names(tmp_path / "m", name)
    settings = AsrSettings(engine="sense-voice", model_dir=folder)
    built = build_recognizer(settings, tmp_path, [])
    assert name in built.why
    assert isinstance(built.recognizer, SenseVoice)
    assert built.recognizer.decode(np.full(16_000, 0.05, np.float32)).text == "half"


def test_a_precision_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = with_names(tmp_path / "m", "model.int8.onnx")
    with pytest.raises(EngineError, match=r"holds no model\.fp16\.onnx \(asr\.precision\)"):
        build_recognizer(AsrSettings(engine="sense-voice", model_dir=folder, precision="fp16"), tmp_path, [])


@needs_speech
def test_an_fp16_encoder_is_found_and_its_decoder_taken_as_it_is(tmp_path: Path) -> None:
    folder = copy_zipformer("zipformer-en", tmp_path / "z")
    encoder = next(folder.glob("encoder*.onnx"))
    encoder.rename(folder / "encoder.fp16.onnx")
    assert find_transducer(folder, precisions("auto", "cuda")).encoder.name == "encoder.fp16.onnx"
    assert find_transducer(folder, precisions("fp16", "cpu")).decoder.is_file()
    with pytest.raises(EngineError, match=r"holds no encoder\*\.onnx \(int8, asr\.precision\)"):
        find_transducer(folder, precisions("int8", "cpu"))


def test_a_local_voice_without_cuda_names_the_wheel(tmp_path: Path) -> None:
    tmp_path.joinpath("voice").mkdir()
    with pytest.raises(
        VoiceError, match=r'tts\.sherpa\.provider = "cuda" needs .* \(pip install "sherpa-onnx==.*\+cuda"'
    ):
        SherpaVoice(SherpaVoiceSettings(model_dir=tmp_path / "voice", provider="cuda"), tmp_path)
