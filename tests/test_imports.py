"""Imports run one way: a place uses what comes before it in `ORDER`, and nothing else of ours."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "xiaozhi"
# From the ground up. The stages stand side by side: none of them knows another.
ORDER = (
    "__init__ program settings logs audio events text turn concurrency upstream models overload store cluster cache "
    "stages plan tools agents memory conversation reload access transport http migrate console observability checks "
    "app client deploy cli __main__"
).split()
STAGES = ("vad", "asr", "llm", "tts")


def imports_of(file: Path) -> Iterator[str]:
    """Dotted names below `xiaozhi` that a file imports; imports for types only count too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "xiaozhi":
            yield from ("__init__" if alias.name == "__version__" else alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xiaozhi."):
            yield node.module.removeprefix("xiaozhi.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("xiaozhi.") for a in node.names if a.name.startswith("xiaozhi."))


def files_of(place: str) -> list[Path]:
    folder = ROOT / place
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{place}.py"]


def test_every_place_is_in_the_list() -> None:
    places = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p.is_dir() and (p / "__init__.py").exists())}
    assert places == set(ORDER)


@pytest.mark.parametrize("place", ORDER)
def test_imports_run_one_way(place: str) -> None:
    below = {*ORDER[: ORDER.index(place)], place}
    found = {
        (str(file.relative_to(ROOT)), name.split(".")[0])
        for file in files_of(place)
        for name in imports_of(file)
        if name.split(".")[0] not in below
    }
    assert found == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_no_other_stage(stage: str) -> None:
    others = tuple(f"stages.{other}" for other in STAGES if other != stage)
    found = [
        f"{f.name} imports {n}" for f in files_of(f"stages/{stage}") for n in imports_of(f) if n.startswith(others)
    ]
    assert found == []


def test_the_parts_of_a_conversation_are_given_what_they_use() -> None:
    """Only the conversation itself knows all that a process shares."""
    users = {f.name for f in files_of("conversation") if "conversation.services" in imports_of(f)}
    assert users == {"conversation.py"}


def test_a_server_on_its_defaults_loads_no_client_of_a_service() -> None:
    """Each takes half a second of the start and memory for nothing."""
    rare = {"openai", "mcp", "redis", "sherpa_onnx", "pocketsphinx", "edge_tts"}
    code = f"import sys, xiaozhi.app.process; print(*sorted({rare} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.split() == []
