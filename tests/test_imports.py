"""Imports run one way, downwards: a place may use what stands below it and nothing else of ours."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "xiaozhi"
PURE = ("turn", "text")
STAGES = ("vad", "asr", "llm", "tts")
ABOVE_STAGES = ("session", "conversation", "services", "transport", "server", "process", "cli", "console", "client")


def imported(place: str) -> dict[str, set[str]]:
    """What each file of a place imports of ours, as dotted names below `xiaozhi`; imports for types only count too."""
    files = sorted((ROOT / place).rglob("*.py")) if (ROOT / place).is_dir() else [ROOT / f"{place}.py"]
    found: dict[str, set[str]] = {}
    for file in files:
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xiaozhi."):
                names.add(node.module.removeprefix("xiaozhi."))
            elif isinstance(node, ast.Import):
                names |= {
                    alias.name.removeprefix("xiaozhi.") for alias in node.names if alias.name.startswith("xiaozhi.")
                }
        found[str(file.relative_to(ROOT))] = names
    return found


def reaching(place: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{file} imports {name}"
        for file, names in imported(place).items()
        for name in sorted(names)
        if any(name == one or name.startswith(f"{one}.") for one in forbidden)
    ]


@pytest.mark.parametrize("place", PURE)
def test_decisions_know_nothing_but_events_and_settings(place: str) -> None:
    allowed = ("events", "settings", *PURE)
    outside = [
        f"{file} imports {name}"
        for file, names in imported(place).items()
        for name in sorted(names)
        if name.split(".")[0] not in allowed
    ]
    assert outside == []


@pytest.mark.parametrize("place", ["audio", "channel", "workers", "cache", "upstream", "pressure", "store", "settings"])
def test_mechanisms_know_nothing_of_stages_and_above(place: str) -> None:
    assert reaching(place, ("stages", "tools", *ABOVE_STAGES)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_no_other_stage_and_nothing_above(stage: str) -> None:
    others = tuple(f"stages.{other}" for other in STAGES if other != stage)
    assert reaching(f"stages/{stage}", (*others, *ABOVE_STAGES)) == []


def test_tools_know_nothing_above_the_stages() -> None:
    assert reaching("tools", ABOVE_STAGES) == []


@pytest.mark.parametrize("place", ["session", "conversation", "services"])
def test_a_conversation_knows_no_transport(place: str) -> None:
    assert reaching(place, ("transport", "server", "process", "cli")) == []


@pytest.mark.parametrize("place", ["transport", "console", "metrics", "health"])
def test_what_serves_knows_nothing_of_the_process(place: str) -> None:
    assert reaching(place, ("server", "process", "cli")) == []
