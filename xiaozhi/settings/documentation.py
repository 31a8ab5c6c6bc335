"""What the documented default file says about each setting: read from its comments."""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

_HEADER: Final = re.compile(r"\[\[?\s*([a-z0-9_.]+)\s*\]\]?\s*(?:#\s*(.*))?$")
_KEY: Final = re.compile(r"([a-z0-9_]+)\s*=\s*")
_INLINE: Final = re.compile(r"""\s{2,}#\s+(.*)$""")
_PACKAGED: Final = "default.toml"


@dataclass(slots=True)
class Documentation:
    """Texts of the default file.

    Attributes:
        tables: what is said about a table, by its name.
        settings: what is said about a setting, by its name: `asr.workers`.
    """

    tables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def default_text() -> str:
    """The documented default file: packaged, or in the folder above the package; empty where there is neither."""
    packaged = resources.files("xiaozhi.settings") / _PACKAGED
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    beside = Path(__file__).resolve().parents[2] / "settings.toml"
    return beside.read_text(encoding="utf-8") if beside.is_file() else ""


@cache
def documentation() -> Documentation:
    """The texts of the documented default file. Blocking at the first call."""
    return read_documentation(default_text())


def read_documentation(text: str) -> Documentation:
    """Read the comments of a settings file.

    A block of comment lines belongs to the settings that follow it without a blank line, commented-out ones as well; a
    block with a blank line behind it belongs to its table. What stands behind a value is added to it.
    """
    found = Documentation()
    table, block, begun, inside = "", list[str](), True, False
    for line in text.splitlines():
        stripped = line.strip()
        bare = stripped.removeprefix("#").strip() if stripped.startswith("#") else stripped
        header, key = _HEADER.match(bare), _KEY.match(bare)
        if inside:  # a list over several lines
            inside = stripped != "]" and bare != "]"
        elif header and (not stripped.startswith("#") or stripped.startswith("# [")):
            table, block, begun = header[1], [], True
            if header[2]:
                found.tables.setdefault(table, header[2])
        elif key and table and _is_value(bare[key.end() :]):
            said = _INLINE.search(bare)
            words = [" ".join(block), *([said[1]] if said else [])]
            found.settings.setdefault(f"{table}.{key[1]}", " ".join(word for word in words if word))
            begun = False
            inside = bare.rstrip().endswith("[")
        elif stripped.startswith("#"):
            if not begun and block and block[-1] == "":
                block = []
            block.append(bare)
        elif not stripped:
            if begun and block and table:
                found.tables.setdefault(table, " ".join(block))
                begun = False
            block = []
    return found


def _is_value(text: str) -> bool:
    """A value of TOML begins so; the middle of a sentence does not."""
    return bool(re.match(r"""["'\[{]|-?\d|true\b|false\b""", text))
