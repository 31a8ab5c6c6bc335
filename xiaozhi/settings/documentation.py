"""What the documented default file says about each setting: read from its comments."""

import re
from collections.abc import Sequence
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

    A block of comment lines belongs to the settings that follow it without a blank line, commented-out ones as well, up
    to the next comment; a block with a blank line behind it belongs to its table. What stands behind a value is added.
    Lines are joined; those that are set in, and what follows them, stay lines of their own.
    """
    found = Documentation()
    table, block, begun, used, inside = "", list[str](), True, False, False
    for line in text.splitlines():
        stripped = line.strip()
        bare = stripped.removeprefix("#").strip() if stripped.startswith("#") else stripped
        # `# key = 1` is a setting that is not set; set in further it is a line of an example.
        header, key = _HEADER.match(bare), None if stripped.startswith("#  ") else _KEY.match(bare)
        if inside:  # a list over several lines
            inside = stripped != "]" and bare != "]"
        elif header and (not stripped.startswith("#") or stripped.startswith("# [")):
            table, block, begun = header[1], [], True
            if header[2]:
                found.tables.setdefault(table, header[2])
        elif key and table and _is_value(bare[key.end() :]):
            said = _INLINE.search(bare)
            words = [_joined(block), *([said[1]] if said else [])]
            found.settings.setdefault(f"{table}.{key[1]}", " ".join(word for word in words if word))
            begun, used = False, True
            inside = bare.rstrip().endswith("[")
        elif stripped.startswith("#"):
            if used:
                block = []
            used = False
            block.append(stripped.removeprefix("#"))
        elif not stripped:
            if begun and block and table:
                found.tables.setdefault(table, _joined(block))
                begun = False
            block = []
    return found


# Set in by so much, a line of a comment begins a row of a list; by more, it goes on with the row above.
_ROW_INDENT: Final = range(2, 5)
_NAMED_ROW: Final = re.compile(r"""^("[^"]+"(?=\s)|\S+(?=\s{2}))\s+""")


def _joined(lines: Sequence[str]) -> str:
    """Lines of a comment, without their `#`, as one text."""
    text, in_list = "", False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        row = _NAMED_ROW.sub(r"\1: ", line.strip()) if indent in _ROW_INDENT else line
        words = " ".join(row.split())
        starts = not words or indent in _ROW_INDENT or (in_list and indent < _ROW_INDENT.start)
        in_list = indent >= _ROW_INDENT.start and (in_list or starts)
        text += ("\n" if starts else " ") + words if text else words
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _is_value(text: str) -> bool:
    """A value of TOML begins so; the middle of a sentence does not."""
    return bool(re.match(r"""["'\[{]|-?\d|true\b|false\b""", text))
