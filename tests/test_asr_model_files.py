import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sense_voice_model import build_tiny
from tests import bad_models
from tests.speech import needs_speech
from xiaozhi.program import program
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.model_files import find_sense_voice, find_transducer
from xiaozhi.stages.asr.onnx_check import read_tokens
from xiaozhi.text.one_line import one_line


@pytest.mark.parametrize("fault", bad_models.SENSE_VOICE)
def test_a_bad_sense_voice_folder_is_named_in_one_line(tmp_path: Path, fault: str) -> None:
    folder = bad_models.make_sense_voice(tmp_path / "sense-voice", fault)
    with pytest.raises(EngineError) as raised:
        find_sense_voice(folder)
    message = str(raised.value)
    assert bad_models.SENSE_VOICE[fault][1] in message
    assert message.startswith(str(folder))
    assert message.endswith(f"; run: {program()} models pull sense-voice")
    assert "\n" not in message


@needs_speech
@pytest.mark.parametrize("fault", bad_models.ZIPFORMER)
def test_a_bad_zipformer_folder_is_named_in_one_line(tmp_path: Path, fault: str) -> None:
    folder = bad_models.make_zipformer(tmp_path / "zipformer", fault)
    with pytest.raises(EngineError) as raised:
        find_transducer(folder)
    message = str(raised.value)
    assert bad_models.ZIPFORMER[fault][1] in message
    assert message.startswith(str(folder))
    assert message.endswith(f"; run: {program()} models pull zipformer")
    assert "\n" not in message


def test_good_folders_are_found(tmp_path: Path) -> None:
    folder = build_tiny(tmp_path / "sense-voice")
    (folder / "model.onnx").write_bytes(b"not looked at")
    files = find_sense_voice(folder)
    assert (files.model.name, files.tokens.name) == ("model.int8.onnx", "tokens.txt")


@needs_speech
@pytest.mark.parametrize(("name", "symbols"), [("zipformer-en", 500), ("zipformer-zh-pinyin", 197)])
def test_published_names_are_found(name: str, symbols: int) -> None:
    files = find_transducer(bad_models.ZIPFORMERS / name)
    assert files.encoder.name.startswith("encoder")
    assert ".int8." in files.joiner.name
    assert (files.kind, files.chunk_frames, len(files.symbols)) == ("zipformer2", 45, symbols)


@needs_speech
def test_the_int8_files_are_preferred(tmp_path: Path) -> None:
    folder = bad_models.copy_zipformer("zipformer-en", tmp_path / "z")
    (folder / "encoder.onnx").rename(folder / "encoder-epoch-99-avg-1.int8.onnx")
    (folder / "encoder-epoch-99-avg-1.onnx").write_bytes(b"the float one, not looked at")
    assert find_transducer(folder).encoder.name == "encoder-epoch-99-avg-1.int8.onnx"


_SURVIVE = """
import json, sys
from pathlib import Path
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.registry import build_recognizer
for engine, folder in json.loads(sys.argv[1]):
    try:
        build_recognizer(AsrSettings(engine=engine, model_dir=Path(folder)), Path("nowhere"), ())
        print("built", folder)
    except EngineError as error:
        print("refused", error)
print("alive")
"""


def _survive(cases: list[tuple[str, str]]) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", _SURVIVE, json.dumps(cases)], capture_output=True, text=True, check=False, timeout=100
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_the_process_survives_every_bad_sense_voice_folder(tmp_path: Path) -> None:
    cases = [
        ("sense-voice", str(bad_models.make_sense_voice(tmp_path / fault, fault))) for fault in bad_models.SENSE_VOICE
    ]
    *refused, alive = _survive(cases)
    assert alive == "alive"
    assert all(line.startswith("refused") for line in refused)
    assert len(refused) == len(cases)


@needs_speech
def test_the_process_survives_every_bad_zipformer_folder(tmp_path: Path) -> None:
    cases = [("zipformer", str(bad_models.make_zipformer(tmp_path / fault, fault))) for fault in bad_models.ZIPFORMER]
    *refused, alive = _survive(cases)
    assert alive == "alive"
    assert all(line.startswith("refused") for line in refused)
    assert len(refused) == len(cases)


@given(st.binary(max_size=300))
def test_any_bytes_as_tokens_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "tokens.txt"
    path.write_bytes(data)
    try:
        assert len(read_tokens(path, 2, "get another")) == 2
    except EngineError as error:
        assert "\n" not in str(error)


def test_tokens_may_be_wide_blanks_and_lines_may_end_the_windows_way(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes("<blk> 0\r\n\u3000\t1\r\n2\r\n#0 3\r\n\r\n".encode())
    assert read_tokens(path, 3, "") == ["<blk>", "\u3000", " "]


def test_long_errors_are_cut_and_joined_to_one_line() -> None:
    assert one_line("a\n b\t c") == "a b c"
    assert len(one_line("x" * 500)) == 160
