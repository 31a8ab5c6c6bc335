"""Where settings come from: the owner's file, the console's, variables of the environment, options of a command."""

import codecs
import datetime
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from xiaozhi.settings.errors import SettingsError, one_line, show, unknown_key
from xiaozhi.settings.schema import PATHS_AS_TEXT, KeyPath, dotted, find, keys, parse_text

Origin: TypeAlias = Literal["default", "file", "local", "environment", "command line"]
"""Where a setting comes from; `local` is the file that the console writes."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8", "begins with a byte order mark, which is passed over"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "is UTF-16 text and read as that; save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "is UTF-16 text and read as that; save it as UTF-8"),
)
_FOREIGN_MARKS: Final = "“”‘’＝［］，：＂＇\u00a0\u3000"
_TEXT_OR_COMMENT: Final = re.compile(r"""\"[^"]*\"|'[^']*'|#.*""")


class Layers(BaseSettings):
    """The tables of several sources put together, the first of them on top; `Settings` says whether they hold."""

    model_config = SettingsConfigDict(extra="allow")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources that `Layers(sources=…)` is given, and no others."""
        return tuple(init_settings()["sources"])


class SettingsLayer(PydanticBaseSettingsSource):
    """Settings from one place.

    Attributes:
        origin: the kind of place.
        label: how a message names it: the file, the variable or the option.
        values: its tables.
        remarks: what is to be said of its form, one line each.
    """

    def __init__(self, origin: Origin, label: str) -> None:
        super().__init__(Layers)
        self.origin = origin
        self.label = label
        self.values: dict[str, Any] = {}
        self.remarks: list[str] = []

    def place(self, path: KeyPath) -> str:
        """How a message names a setting that was given here."""
        return f"{self.label}: {dotted(path)}"

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See the base class, whose other ways to be asked are not used."""
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The tables, without those that are one setting (`hotwords`) and that a source above gives already."""
        return _beneath(self.values, self.current_state, ())


def _beneath(low: dict[str, Any], high: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in low.items():
        over, path = high.get(name), (*above, name)
        if isinstance(over, dict) and isinstance(value, dict):
            value = {} if (key := find(path)) and key.kind == "table" else _beneath(value, over, path)
        kept[name] = value
    return kept


class TextSource(SettingsLayer):
    """One setting, as a variable of the environment or an option of the command line has it.

    Args:
        origin: which of them.
        label: the variable or the option.
        path: the setting, or the table.
        text: its value.

    Raises:
        SettingsError: there is no such setting, or the text cannot be one.
    """

    def __init__(self, origin: Origin, label: str, path: tuple[str, ...], text: str) -> None:
        super().__init__(origin, label)
        self._path = path
        key = find(path)
        if key is None or "*" in path:
            raise SettingsError([f"{label}{show(path, text)}: {unknown_key(path)}"])
        try:
            text.encode()
            value = parse_text(key, text)
        except UnicodeEncodeError:
            raise SettingsError([f"{one_line(label)}: is not UTF-8 text"]) from None
        except ValueError as error:
            raise SettingsError([f"{label}{show(path, text)}: {error}"]) from None
        for part in reversed(path):
            value = {part: value}
        self.values = value

    def place(self, path: KeyPath) -> str:
        """The variable or the option; behind it the setting, where that is only a part of what was given."""
        return self.label if path == self._path else super().place(path)


class FileSource(SettingsLayer):
    """A settings file, its relative paths made relative to its folder. Blocking.

    Args:
        origin: whose file it is.
        path: where it is.
        text: what it is taken to hold, where that is not what it holds.

    Raises:
        SettingsError: it cannot be read, or is no TOML that settings can be in.
    """

    def __init__(self, origin: Origin, path: Path, text: str | None = None) -> None:
        super().__init__(origin, one_line(str(path)))
        try:
            if text is None:
                text = self._read(path)
            self.values = tomllib.loads(text)
        except UnicodeDecodeError:
            raise self._refused("not valid TOML: the file is not UTF-8 text: save it as UTF-8") from None
        except RecursionError:
            raise self._refused("not valid TOML: nested too deeply") from None
        except ValueError as error:  # of TOML, or a number of more digits than Python reads
            raise self._refused(f"not valid TOML: {one_line(str(error))}{_foreign_mark(text or '')}") from None
        except OSError as error:
            raise self._refused(f"cannot be read: {error.strerror or error}") from None
        if dates := [*_dates(self.values, ())]:
            raise SettingsError(
                [one_line(f"{self.place(where)}{show(where, value)}: {_expected(where)}") for where, value in dates]
            )
        _anchor_paths(self.values, path.parent)

    def _read(self, path: Path) -> str:
        if not path.is_file():
            raise self._refused("not a file" if path.exists() else "no such file")
        text, remark = read_text(path.read_bytes())
        self.remarks += [f"{self.label}: {remark}"] if remark else []
        return text

    def _refused(self, why: str) -> SettingsError:
        return SettingsError([f"{self.label}: {why}"])


def read_text(content: bytes) -> tuple[str, str]:
    """The text of a file, its lines ended by line feeds, and what is to be said of its form; empty for nothing.

    Raises:
        UnicodeDecodeError: it is neither UTF-8 nor UTF-16.
    """
    mark, codec, remark = next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8", ""))
    if not mark and b"\0" in content[:2]:  # the first character of a settings file is ASCII
        _, codec, remark = _MARKS[1 if content[1:2] == b"\0" else 2]
    text = content[len(mark) :].decode(codec)
    return text.replace("\r\n", "\n").replace("\r", "\n"), remark


def _foreign_mark(text: str) -> str:
    """What a TOML error may come from: marks of another keyboard where the file's own are meant."""
    for number, line in enumerate(text.splitlines(), 1):
        bare = _TEXT_OR_COMMENT.sub("", line)
        if found := next((mark for mark in bare if mark in _FOREIGN_MARKS), ""):
            return f"; line {number} has {one_line(found)} where TOML takes only ASCII marks and blanks"
    return ""


def _dates(tree: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """TOML's dates and times, which no setting takes and JSON does not know."""
    if isinstance(tree, (datetime.date, datetime.time)):
        yield path, tree
    elif isinstance(tree, (dict, list)):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _dates(value, (*path, name))


def _expected(path: KeyPath) -> str:
    key = find(path)
    return f"must be {key.allowed()}" if key is not None else unknown_key(path)


def value_at(path: KeyPath, tree: Any) -> tuple[bool, Any]:
    """Whether something stands at `path` in tables and lists, and what."""
    for part in path:
        is_there = part in tree if isinstance(tree, dict) else isinstance(tree, list) and part in range(len(tree))
        if not is_there:
            return False, None
        tree = tree[part]
    return True, tree


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of a file relative to its folder; left as they are when that is the current folder."""
    if folder.resolve() == Path.cwd():
        return
    for key in keys().values():
        if key.kind != "path" and key.path not in PATHS_AS_TEXT:
            continue
        found, value = value_at(key.path, values)
        if not found or not isinstance(value, str) or not value or value.startswith("~"):
            continue
        if key.kind == "path" or "/" in value or value.endswith(".onnx"):
            value_at(key.path[:-1], values)[1][key.path[-1]] = str(folder / value)
