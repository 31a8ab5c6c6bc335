"""The single executable: nothing is left out that the program imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _excluded() -> set[str]:
    """What the PyInstaller recipe leaves out."""
    recipe = ast.parse((ROOT / "packaging" / "xiaozhi.spec").read_text())
    found = [word.value for word in ast.walk(recipe) if isinstance(word, ast.keyword) and word.arg == "excludes"]
    return set().union(*({str(name) for name in ast.literal_eval(one)} for one in found if isinstance(one, ast.List)))


def _imports(file: Path) -> set[str]:
    """Modules that a file names in its import statements, wherever they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_nothing_is_left_out_of_the_executable_that_the_program_imports() -> None:
    excluded = _excluded() - {"sounddevice"}  # for a machine with a loudspeaker; `talk` says how to get it
    assert "torch" in excluded
    for file in (ROOT / "xiaozhi").rglob("*.py"):
        for name in _imports(file):
            parts = name.split(".")
            missing = {".".join(parts[: count + 1]) for count in range(len(parts))} & excluded
            assert not missing, f"{file.relative_to(ROOT)} imports {name}, which packaging/xiaozhi.spec leaves out"
