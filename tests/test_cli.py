"""The command line as a user meets it: words in, text and an exit code out."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from xiaozhi import __version__
from xiaozhi.cli import main
from xiaozhi.cli.progress import ProgressBar
from xiaozhi.reload.model_pulls import missing_models
from xiaozhi.settings import Settings
from xiaozhi.settings.load import Loaded


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """The settings with which `serve` would have begun; the server itself is replaced."""
    seen: list[Loaded] = []
    process = type(sys)("xiaozhi.app.process")

    def run(settings: Settings, source: Path | None, _again: object, _origin: object, warnings: tuple[str, ...]) -> int:
        seen.append(Loaded(settings, source, warnings))
        return 7

    process.run = run  # type: ignore[attr-defined]  # a module made for this test
    monkeypatch.setitem(sys.modules, "xiaozhi.app.process", process)
    monkeypatch.setenv("XIAOZHI_MODELS__AUTO_PULL", "false")
    return seen


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("serve", "talk", "check", "models", "--settings FILE", "--set KEY=VALUE", "exit codes"):
        assert word in text


@pytest.mark.parametrize("command", ["serve", "check", "models"])
def test_every_command_has_help_with_the_common_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--settings FILE" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from xiaozhi.cli import main; main(['--help']); main(['serve', '--help']);"
        "sys.exit(','.join(name for name in ('pydantic', 'aiohttp', 'numpy', 'asyncio') if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_version_is_told_wherever_it_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"xiaozhi {__version__}\n"


@pytest.mark.parametrize(
    "argv", [[], ["serv"], ["serve", "--prot", "80"], ["--set", "asr.workers", "serve"], ["models"]]
)
def test_wrong_usage_exits_with_2_and_says_how(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert "usage:" in printed.out + printed.err


def test_settings_options_work_before_and_after_the_command(served: list[Loaded], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[asr]\nthreads = 3\n")
    before = ["--settings", str(file), "--set", "asr.workers=3", "serve", "--set", "vad.threads=2", "--port", "81"]
    after = ["serve", "--port=81", "--set=vad.threads=2", "--set", "asr.workers=3", "--settings", str(file)]
    assert main(before) == 7  # the exit code of the server
    assert main(after) == 7
    assert served[0] == served[1]
    chosen = served[0].settings
    assert (chosen.asr.threads, chosen.asr.workers, chosen.vad.threads, chosen.server.port) == (3, 3, 2, 81)
    assert served[0].source == file


def test_host_and_port_are_options_of_serve(served: list[Loaded]) -> None:
    assert main(["serve", "--host", "127.0.0.1", "--port", "0"]) == 7
    assert (served[0].settings.server.host, served[0].settings.server.port) == ("127.0.0.1", 0)


def test_mistakes_in_the_settings_are_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("settings.toml").write_text("[asr]\nworker = 3\n[vad]\nthreshold = 2\n")
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "settings.toml: vad.threshold = 2: must be below 1",
        "settings.toml: asr.worker = 3: unknown key; did you mean asr.workers?",
    ]
    assert main(["serve", "--settings", "nowhere.toml"]) == 2
    assert capsys.readouterr().err == "nowhere.toml: no such file\n"


def test_a_check_of_bad_settings_says_that_serving_would_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--settings", "nowhere.toml"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "BAD   settings               nowhere.toml: no such file",
        "serving would fail: mend what is BAD",
    ]


def test_the_server_is_given_the_warnings_for_its_log(served: list[Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIAOZHI_ASR_WORKERS", "3")
    main(["serve"])
    (line,) = served[0].warnings
    assert line.startswith("XIAOZHI_ASR_WORKERS: no such setting")


def test_an_interruption_exits_with_130(
    served: list[Loaded], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["xiaozhi.app.process"], "run", interrupted)
    assert main(["serve"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert served == []


def test_models_list_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("models/sense-voice")
    folder.mkdir(parents=True)
    for name in ("model.int8.onnx", "tokens.txt"):
        (folder / name).write_bytes(b"x")
    Path("models/zipformer").mkdir()
    assert main(["models", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "models/" in line]
    there = {words[0]: words[-2] for words in lines}
    assert there["sense-voice"] == "yes"
    assert there["zipformer"] == "no"
    assert {
        "zipformer-bilingual",
        "zipformer-zh-14m",
        "zipformer-en-20m",
        "matcha-zh",
        "vits-zh-ll",
    } <= set(there)


def test_a_model_nobody_knows_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "sensevoice"]) == 2
    assert capsys.readouterr().err == "xiaozhi: no model is called 'sensevoice'; did you mean sense-voice?\n"
    assert main(["models", "remove", "qqq"]) == 2
    assert "xiaozhi models list` shows them" in capsys.readouterr().err


def test_a_pull_that_fails_is_one_line_and_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert main(["models", "pull", "sense-voice", "--url", "http://127.0.0.1:1/there"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xiaozhi: sense-voice: http://127.0.0.1:1/there: 127.0.0.1:1: ")


def test_removing_a_model_deletes_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("models/zipformer").mkdir(parents=True)
    assert main(["models", "remove", "zipformer"]) == 0
    assert not Path("models/zipformer").exists()
    assert main(["models", "remove", "zipformer"]) == 0
    assert capsys.readouterr().out == "zipformer is gone from models\nzipformer was not in models\n"


def test_models_are_fetched_only_where_nobody_chose_one_and_none_is_there(tmp_path: Path) -> None:
    def missing(**sections: object) -> list[str]:
        return missing_models(Settings.model_validate({"models": {"dir": tmp_path / "m"}} | sections))

    assert missing() == ["sense-voice"]
    assert missing(asr={"engine": "pocketsphinx"}) == missing(asr={"model_dir": tmp_path}) == []
    assert missing(models={"dir": tmp_path / "m", "auto_pull": False}) == []
    (tmp_path / "m" / "zipformer").mkdir(parents=True)
    assert missing() == []


def test_models_list_says_how_far_a_pull_has_come(capsys: pytest.CaptureFixture[str]) -> None:
    part = Path("models/.partial/sense-voice/0123456789-model.int8.onnx.part")
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(96_000_000)
    assert main(["models", "list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sense-voice")]
    assert line.split()[-3:-1] == ["40", "%"]


def test_progress_without_a_terminal_is_a_line_for_every_tenth() -> None:
    stream = io.StringIO()
    with ProgressBar(stream) as bar:
        for done in range(0, 1_000_001, 50_000):
            bar.show("model.onnx", done, 1_000_000)
        bar.show("tokens.txt", 5, None)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[0] == "model.onnx: 0.0 of 1.0 MB, 0 %"
    assert lines[10] == "model.onnx: 1.0 of 1.0 MB, 100 %"
    assert lines[11] == "tokens.txt: 0.0 MB"


def test_progress_on_a_terminal_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with ProgressBar(stream) as bar:
        bar.show("model.onnx", 500, 1000)
        bar.show("model.onnx", 1000, 1000)
        bar.show("tokens.txt", 10, 10)
    assert "model.onnx: 100%" in stream.getvalue()
    assert "tokens.txt: 100%" in stream.getvalue()
