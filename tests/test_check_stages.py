"""The check builds and tries every engine; a pulled model is tried the same way."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from bench.standins.speech import SpeechStandIn
from tests.speech import SPEECH_DIR, needs_speech
from xiaozhi.checks import stages
from xiaozhi.checks.finding import Finding, Level, bad, ok, warn
from xiaozhi.cli import main
from xiaozhi.models.catalogue import MODELS, Model, find
from xiaozhi.program import program
from xiaozhi.settings import AsrSettings, TtsSettings, VadSettings
from xiaozhi.stages.verify import verify


def known(name: str) -> Model:
    model = find(name)
    assert model is not None
    return model


def tts(**more: Any) -> TtsSettings:
    return TtsSettings.model_validate(more)


def level(finding: Finding) -> tuple[Level, bool]:
    return finding.level, finding.required


def test_the_built_in_vad_is_good() -> None:
    found = stages.voice_activity(VadSettings())
    assert level(found) == (Level.OK, False)
    assert "silero" in found.text


def test_a_vad_file_that_is_missing_or_none_is_bad(tmp_path: Path) -> None:
    for name in ("none.onnx", "text.onnx"):
        (tmp_path / "text.onnx").write_text("no model")
        found = stages.voice_activity(VadSettings(model=str(tmp_path / name)))
        assert level(found) == (Level.BAD, True)
        assert name in found.text


def test_the_embedded_recogniser_works_and_says_that_there_are_better_ones(tmp_path: Path) -> None:
    found = stages.recognition(AsrSettings(), tmp_path)
    assert level(found) == (Level.WARN, False)
    assert "pocketsphinx" in found.text
    assert "xiaozhi models pull sense-voice" in found.text


@pytest.mark.parametrize("engine", ["sense-voice", "zipformer"])
def test_a_recogniser_without_its_model_is_bad(tmp_path: Path, engine: str) -> None:
    found = stages.recognition(AsrSettings.model_validate({"engine": engine, "model_dir": tmp_path / "none"}), tmp_path)
    assert level(found) == (Level.BAD, True)
    assert str(tmp_path / "none") in found.text


@needs_speech
def test_a_real_zipformer_is_good(tmp_path: Path) -> None:
    found = stages.recognition(
        AsrSettings(engine="zipformer", model_dir=SPEECH_DIR / "models" / "zipformer-en"), tmp_path
    )
    assert level(found) == (Level.OK, False)


async def test_the_embedded_voice_speaks(tmp_path: Path) -> None:
    (found,) = await stages.voices(tts(engines=["espeak"]), tmp_path)
    assert (found.subject, found.level) == ("tts espeak", Level.OK)
    assert stages.last_resort(tts(engines=["espeak"]), [found]) is None


async def test_a_local_voice_without_its_model_stops_the_server(tmp_path: Path) -> None:
    found, _ = await stages.voices(tts(engines=["sherpa", "espeak"]), tmp_path)
    assert (found.subject, *level(found)) == ("tts sherpa", Level.BAD, True)
    assert "xiaozhi models pull" in found.text


@pytest.mark.parametrize(
    ("fault", "checked", "words"),
    [
        ("", Level.OK, "speaks: openai tts-1"),
        ("error-401", Level.WARN, "openai: HTTP 401: stand-in says 401"),
        ("json", Level.WARN, "text instead of sound"),
        ("silence", Level.WARN, "sent only silence"),
    ],
)
async def test_a_speech_server_is_asked_as_a_turn_asks_it(
    tmp_path: Path, fault: str, checked: Level, words: str
) -> None:
    async with SpeechStandIn() as server:
        server.fault = fault
        settings = tts(engines=["openai"], openai={"base_url": server.base_url, "api_key": "K"})
        (found,) = await stages.voices(settings, tmp_path)
        assert [asked.text for asked in server.requests] == ["你好。"]
    assert (found.level, found.required) == (checked, False)
    assert words in found.text


async def test_a_speech_server_without_a_key_is_bad_where_it_wants_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = tts(engines=["openai"], openai={"base_url": "https://127.0.0.1:1/v1"})
    (found,) = await stages.voices(settings, tmp_path)
    assert level(found) == (Level.BAD, False)
    assert found.text.endswith("no key: set tts.openai.api_key or OPENAI_API_KEY")


async def test_a_voice_that_cannot_be_reached_is_a_warning(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{probe.getsockname()[1]}/edge"
    (found,) = await stages.voices(tts(engines=["edge"], edge={"url": url}), tmp_path)
    assert level(found) == (Level.WARN, False)


def test_devices_must_not_be_left_without_a_voice() -> None:
    nothing = stages.last_resort(tts(engines=["edge", "openai"]), [warn("a", ""), bad("b", "", required=False)])
    assert nothing is not None
    assert level(nothing) == (Level.BAD, True)
    only_far = stages.last_resort(tts(engines=["edge"]), [ok("a", "")])
    assert only_far is not None
    assert level(only_far) == (Level.WARN, False)


def test_a_check_of_embedded_engines_is_ready_and_exits_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.toml").write_text("[asr]\nworkers = 1\n")
    (tmp_path / "settings.local.toml").write_text("[asr]\nworkers = 2\n")
    argv = ["check", "--host", "127.0.0.1", "--port", "0", "--set", "tts.engines=espeak", "--set", "auth.mode=open"]
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok    settings               settings.toml, settings.local.toml"
    assert lines[1].startswith("warn  settings ") and "asr.workers (1 there, 2 holds)" in lines[1]
    assert lines[-1] == f"ready: {program()} serve"
    subjects = {line[6:28].strip(): line[:4].strip() for line in lines[:-1]}
    assert {
        "settings",
        "server.port",
        "server.data_dir",
        "libraries",
        "vad",
        "asr",
        "llm",
        "tts espeak",
        "disk",
    } <= set(subjects)
    assert "BAD" not in subjects.values()


def test_a_check_of_a_missing_model_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["--set", "asr.engine=sense-voice", "--set", "tts.engines=espeak", "--set", "server.port=0"]
    assert main([*settings, "check"]) == 1
    printed = capsys.readouterr().out
    assert "BAD   asr " in printed
    assert printed.endswith("serving would fail: mend what is BAD\n")


@needs_speech
def test_a_pulled_zipformer_is_tried(tmp_path: Path) -> None:
    folder = tmp_path / "ready"
    shutil.copytree(SPEECH_DIR / "models" / "zipformer-en", folder)
    assert verify(known("zipformer"), folder) == ""
    (folder / "encoder.int8.onnx").write_bytes(b"cut")
    assert "encoder.int8.onnx" in verify(known("zipformer"), folder)


@pytest.mark.parametrize("name", [model.name for model in MODELS])
def test_files_that_are_no_model_do_not_pass(tmp_path: Path, name: str) -> None:
    for file in known(name).files:
        (tmp_path / file).write_bytes(b"nothing of the kind")
    reason = verify(known(name), tmp_path)
    assert reason
    assert "\n" not in reason
