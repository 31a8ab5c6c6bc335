import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.sense_voice_model import build_tiny
from tests.bad_models import copy_zipformer
from tests.speech import needs_speech
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.registry import Built, build_recognizer


def build(models_dir: Path, **settings: object) -> Built:
    built = build_recognizer(AsrSettings.model_validate(settings), models_dir, ("hello",))
    built.recognizer.close()
    return built


def test_auto_takes_sense_voice_where_it_is_installed(tmp_path: Path) -> None:
    build_tiny(tmp_path / "sense-voice", "hello")
    built = build_recognizer(AsrSettings(), tmp_path, ())
    assert built.recognizer.name == "sense-voice"
    assert "sense-voice" in built.why
    assert str(tmp_path) in built.why
    assert not built.hint
    assert isinstance(built.recognizer, OfflineRecognizer)
    assert built.recognizer.decode(np.zeros(16_000, np.float32)).text == "hello"


def test_auto_takes_the_folder_of_the_settings_first(tmp_path: Path) -> None:
    build_tiny(tmp_path / "models" / "sense-voice")
    mine = build_tiny(tmp_path / "mine")
    assert str(mine) in build(tmp_path / "models", model_dir=mine).why


def test_auto_without_a_model_is_the_embedded_one_with_a_hint(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert built.recognizer.name == "pocketsphinx"
    assert "no model is installed" in built.why
    assert "xiaozhi models pull sense-voice" in built.hint
    assert "\n" not in built.why + built.hint


@pytest.mark.parametrize("place", ["models_dir", "model_dir"])
def test_auto_names_an_unfit_folder_and_falls_back(tmp_path: Path, place: str) -> None:
    folder = build_tiny(tmp_path / "sense-voice")
    (folder / "tokens.txt").write_bytes(b"")
    built = build(tmp_path) if place == "models_dir" else build(tmp_path / "none", model_dir=folder)
    assert built.recognizer.name == "pocketsphinx"
    assert f"{folder / 'tokens.txt'}: has 0 symbols" in built.why
    assert "\n" not in built.why


def test_auto_names_a_folder_of_the_settings_that_is_not_there(tmp_path: Path) -> None:
    assert "mine: no such folder" in build(tmp_path, model_dir=tmp_path / "mine").why


@needs_speech
def test_auto_knows_a_zipformer_by_its_files(tmp_path: Path) -> None:
    folder = copy_zipformer("zipformer-en", tmp_path / "zipformer")
    assert build(tmp_path).recognizer.name == "zipformer"
    assert build(tmp_path / "none", model_dir=folder).recognizer.name == "zipformer"
    build_tiny(tmp_path / "sense-voice")
    assert build(tmp_path).recognizer.name == "sense-voice", "it knows English only, and Chinese may be spoken"
    both = build(tmp_path, language="en")
    assert both.recognizer.name == "two-pass"
    assert str(tmp_path / "zipformer") in both.why and str(tmp_path / "sense-voice") in both.why
    (tmp_path / "zipformer" / "tokens.txt").unlink()
    assert build(tmp_path, language="en").recognizer.name == "sense-voice"


@pytest.mark.parametrize("engine", ["sense-voice", "zipformer"])
def test_an_engine_that_is_named_must_be_there(tmp_path: Path, engine: str) -> None:
    with pytest.raises(EngineError, match=f"{engine}: no such folder; run: .*xiaozhi models pull {engine}"):
        build(tmp_path, engine=engine)


def test_pocketsphinx_may_be_named(tmp_path: Path) -> None:
    build_tiny(tmp_path / "sense-voice")
    assert build(tmp_path, engine="pocketsphinx").recognizer.name == "pocketsphinx"


def test_cuda_without_a_cuda_build_is_an_error_for_a_named_engine(tmp_path: Path) -> None:
    build_tiny(tmp_path / "sense-voice")
    with pytest.raises(EngineError, match="cuda"):
        build(tmp_path, engine="sense-voice", provider="cuda")
    assert "built for CUDA" in build(tmp_path, provider="cuda").why


def test_engines_are_imported_only_when_chosen() -> None:
    code = """
import sys
from pathlib import Path
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.registry import build_recognizer
assert not {"sherpa_onnx", "pocketsphinx", "onnxruntime"} & set(sys.modules)
build_recognizer(AsrSettings(engine="pocketsphinx"), Path("none"), ()).recognizer.close()
assert not {"sherpa_onnx", "pocketsphinx", "onnxruntime"} & set(sys.modules), "in the child only"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
