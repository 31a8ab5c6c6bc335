"""Commands that hints name can be typed as they are printed, wherever the program lies."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_serve_cli import environment, free_port
from xiaozhi.cli import COMMANDS
from xiaozhi.program import as_called, program

PACKAGE = Path(__file__).resolve().parents[1] / "xiaozhi"
HINT = re.compile(rf"[^\s`'(]*xiaozhi(?: (?:{'|'.join(COMMANDS)}))+(?: [a-z][a-z-]+)*")
INSTALLED = Path(sys.executable).with_name("xiaozhi")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    program.cache_clear()
    yield
    program.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the virtual environment in it, as after `make serve`."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def typed(words: str, folder: Path, path: str) -> "subprocess.CompletedProcess[str]":
    """What a shell makes of a line; `path` is its PATH."""
    variables = {**environment(free_port(), folder), "PATH": path}
    return subprocess.run(
        ["/bin/sh", "-c", words], cwd=folder, env=variables, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("on_path", [False, True], ids=["after make serve", "on PATH"])
def test_every_command_that_is_named_can_be_typed_as_it_is_printed(checkout: Path, on_path: bool) -> None:
    path = f"{checkout}/.venv/bin:/usr/bin:/bin" if on_path else "/usr/bin:/bin"
    shown = ""
    for words in (".venv/bin/xiaozhi --help", ".venv/bin/xiaozhi check", ".venv/bin/python -m xiaozhi models pull x"):
        done = typed(words, checkout, path)
        shown += done.stdout + done.stderr
    hints = {found[0] for found in HINT.finditer(shown)}
    assert len(hints) >= 5, shown
    for hint in hints:
        assert hint.startswith("xiaozhi " if on_path else ".venv/bin/xiaozhi "), hint
    (pulling,) = {hint for hint in hints if hint.endswith("models pull sense-voice")}
    done = typed(f"{pulling} --help", checkout, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {pulling.removesuffix(' sense-voice')}")


def test_the_binary_is_called_by_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "a folder" / "xiaozhi"
    binary.parent.mkdir()
    binary.touch(mode=0o755)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(binary))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    called = {}
    for folder in (binary.parent, tmp_path, Path("/usr")):
        monkeypatch.chdir(folder)
        program.cache_clear()
        called[folder] = program()
    assert list(called.values()) == ["./xiaozhi", "'a folder/xiaozhi'", f"'{binary}'"]
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{binary.parent}")
    program.cache_clear()
    assert program() == "xiaozhi"
    other = tmp_path / "other" / "xiaozhi"
    other.parent.mkdir()
    shutil.copy(binary, other)
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    program.cache_clear()
    assert program() == f"'{binary}'", "another program of the same name comes first"


def test_without_a_script_it_is_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setattr(sys, "argv", [str(PACKAGE / "__main__.py")])
    assert program() == f"{tmp_path}/python3 -m xiaozhi"
    assert as_called("run: xiaozhi models pull x; xiaozhi/ and .venv/bin/xiaozhi serve stay") == (
        f"run: {tmp_path}/python3 -m xiaozhi models pull x; xiaozhi/ and .venv/bin/xiaozhi serve stay"
    )


def literals(file: Path) -> Iterator[tuple[ast.Constant, list[ast.AST]]]:
    """Every text of a file, and what it stands in."""

    def walk(node: ast.AST, around: list[ast.AST]) -> Iterator[tuple[ast.Constant, list[ast.AST]]]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node, around
        for child in ast.iter_child_nodes(node):
            yield from walk(child, [*around, node])

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), [])


def is_help(around: list[ast.AST]) -> bool:
    """A docstring, or what the command line's help shows, which is put right as a whole."""
    of_parser = any(
        isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("add_parser", "add_argument"))
        for node in around
    )
    return of_parser or isinstance(around[-1], ast.Expr) or isinstance(around[-2], ast.Module)


def test_no_text_names_a_command_by_a_fixed_name() -> None:
    named = re.compile(rf"(?<![\w./-])xiaozhi (?:{'|'.join(COMMANDS)})\b")
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.parent.name != "deploy"]
    found = [
        f"{file.relative_to(PACKAGE)}:{text.lineno} {text.value!r}"
        for file in files
        for text, around in literals(file)
        if named.search(str(text.value)) and not is_help(around)
    ]
    # The screen of a device has no room for a path; generated files are put right as they are printed.
    allowed = ("'xiaozhi devices bind'", "'xiaozhi deploy'")
    assert [line for line in found if not line.endswith(allowed)] == []
