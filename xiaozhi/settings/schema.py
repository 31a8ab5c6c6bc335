"""The settings' names and types, read from the model: what a key takes, how text becomes a value, what a typo meant."""

import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from xiaozhi.settings import Settings
from xiaozhi.settings.section import Applies, Section, When

KeyPath: TypeAlias = tuple[str | int, ...]
"""A key of the settings; numbers are places in a list: `("llm", "endpoints", 0, "model")`."""

Kind: TypeAlias = Literal[
    "section", "sections", "list", "table", "choice", "bool", "int", "float", "path", "secret", "str"
]

PATHS_AS_TEXT = {("vad", "model")}
"""Settings that hold either a word or the path of a file."""

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class Key:
    """One setting or table.

    Attributes:
        path: names from the top; `*` stands for any place in a list of tables.
        field: what pydantic knows of it.
        kind: what the value is.
        choices: the words a `choice`, or each item of a `list`, may be; empty when free.
        item: kind of the items of a `list`, or of the values of a `table`.
        optional: whether the setting may be absent.
        limits: lowest and highest value in words, empty when there is none.
        applies: when a change takes effect in a running server.
    """

    path: tuple[str, ...]
    field: FieldInfo
    kind: Kind
    choices: tuple[str, ...] = ()
    item: Kind = "str"
    optional: bool = False
    limits: str = ""
    applies: Applies = "restart"

    @property
    def max_length(self) -> int | None:
        """Characters of a text, items of a list or table."""
        return next((mark.max_length for mark in self.field.metadata if isinstance(mark, annotated_types.MaxLen)), None)

    @property
    def section(self) -> type[Section] | None:
        """The table that it is, or that each row of its list is."""
        annotation, _ = _bare(self.field.annotation)
        bare = get_args(annotation)[0] if self.kind == "sections" else annotation
        return bare if isinstance(bare, type) and issubclass(bare, Section) else None

    def allowed(self) -> str:
        """What may be written here, in words that follow `must be`."""
        quoted = ", ".join(f'"{choice}"' for choice in self.choices)
        match self.kind:
            case "section" | "table":
                return "a table"
            case "sections":
                return "a list of tables, [[" + dotted(self.path) + "]]"
            case "list":
                return f"a list of {quoted}" if quoted else "a list of texts in quotes"
            case "choice":
                return f"one of {quoted}"
            case "bool":
                return "true or false"
            case "int":
                return "a whole number" + self.limits
            case "float":
                return "a number" + self.limits
            case "path":
                return "a path in quotes"
            case "secret" | "str":
                return "a text in quotes"


def dotted(path: Sequence[str | int]) -> str:
    """`("llm", "endpoints", 0, "model")` as people write it: `llm.endpoints[0].model`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if part.replace("_", "").replace("-", "").isalnum() else json.dumps(part, ensure_ascii=False)
            text += f".{shown}" if text else shown
    return text


def _bare(annotation: Any) -> tuple[Any, bool]:
    """The type without `| None`, and whether that was there."""
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        if len(members) == 1 and len(get_args(annotation)) == 2:
            return members[0], True
    return annotation, False


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...], Kind]:
    """Kind, choices and kind of the items of a type."""
    origin = get_origin(annotation)
    if origin is Literal:
        return "choice", tuple(str(choice) for choice in get_args(annotation)), "str"
    if origin is tuple:
        item, choices, _ = _kind(get_args(annotation)[0])
        return ("sections" if item == "section" else "list"), choices, item
    if origin is dict:
        return "table", (), _kind(get_args(annotation)[1])[0]
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return "section", (), "str"
        simple: tuple[tuple[type, Kind], ...] = (
            (bool, "bool"),
            (int, "int"),
            (float, "float"),
            (Path, "path"),
            (SecretStr, "secret"),
        )
        for python_type, kind in simple:
            if issubclass(annotation, python_type):
                return kind, (), "str"
    return "str", (), "str"


def number_text(bound: Any) -> str:
    """A bound as one would write it: `1`, `0.25`, `65535`, `1_048_576`."""
    if bound != int(bound):
        return str(bound)
    return f"{int(bound):_}" if abs(bound) > 999_999 else str(int(bound))


def _limits(field: FieldInfo) -> str:
    low, high, open_low, open_high = bounds(field)
    words = []
    if low is not None:
        words.append(f"{'above' if open_low else 'from'} {number_text(low)}")
    if high is not None:
        words.append(f"{'and below' if open_high else 'and at most' if open_low else 'to'} {number_text(high)}")
    return "".join(f" {part}" for part in words)


def bounds(field: FieldInfo) -> tuple[float | None, float | None, bool, bool]:
    """Lowest and highest value of a setting, and whether each of them is the first that is not allowed."""
    found: dict[str, Any] = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(limit, name)
    }
    return found.get("ge", found.get("gt")), found.get("le", found.get("lt")), "gt" in found, "lt" in found


def _walk(model: type[Section], path: tuple[str, ...], around: Applies) -> Iterator[Key]:
    rule = model.applies or around
    for name, field in model.model_fields.items():
        annotation, optional = _bare(field.annotation)
        kind, choices, item = _kind(annotation)
        limits = _limits(field) if kind in ("int", "float") else ""
        applies = next((mark.applies for mark in field.metadata if isinstance(mark, When)), rule)
        key = Key((*path, name), field, kind, choices, item, optional, limits, applies)
        if (inner := key.section) is not None and kind == "section":
            applies = inner.applies or applies
            key = replace(key, applies=applies)
        yield key
        if inner is not None:
            yield from _walk(inner, key.path if kind == "section" else (*key.path, "*"), applies)


@cache
def keys() -> dict[tuple[str, ...], Key]:
    """Every setting and table by its path, in the order of the model."""
    return {key.path: key for key in _walk(Settings, (), "restart")}


def find(path: Sequence[str | int]) -> Key | None:
    """The setting at a path of the file, `None` when there is no such."""
    return keys().get(tuple("*" if isinstance(part, int) else part for part in path))


def value_of(settings: Settings, name: str) -> Any:
    """The value of a setting or table, such as `asr.workers`."""
    return functools.reduce(getattr, name.split("."), settings)


def applies(name: str) -> Applies:
    """When a change of a setting or table such as `asr.workers` takes effect; what is not known needs a restart."""
    key = find(tuple(name.split(".")))
    return key.applies if key is not None else "restart"


def need_restart(names: Iterable[str]) -> list[str]:
    """Those of the settings that take effect only after a restart, in their order."""
    return [name for name in names if applies(name) == "restart"]


def nearest(path: Sequence[str | int]) -> str:
    """The valid key most like an unknown one, as people write it; empty when nothing is near.

    Looks among the names of the same table first, then for the same name in another table, then anywhere.
    """
    name = str(path[-1])
    if close := difflib.get_close_matches(name.lower(), [key.path[-1] for key in siblings(path)], 1):
        return dotted((*path[:-1], close[0]))
    elsewhere = {".".join(key): key for key in keys() if "*" not in key}
    for key in elsewhere.values():
        if key[-1] == name.lower():
            return dotted(key)
    leaves = {key[-1]: key for key in elsewhere.values()}
    if close := difflib.get_close_matches(name.lower(), leaves, 1, cutoff=0.8):
        return dotted(leaves[close[0]])
    close = difflib.get_close_matches(".".join(map(str, path)).lower(), elsewhere, 1, cutoff=0.75)
    return dotted(elsewhere[close[0]]) if close else ""


def siblings(path: Sequence[str | int]) -> list[Key]:
    """What is allowed where the last name of `path` stands."""
    parent = tuple("*" if isinstance(part, int) else part for part in path[:-1])
    return [key for key in keys().values() if key.path[:-1] == parent and key.path[-1] != "*"]


def parse_text(key: Key, text: str) -> Any:
    """A value from the environment or the command line.

    Lists and tables are JSON; a list of plain words may be written with commas. Text that does not fit is returned
    unchanged: checking the whole settings will say what was expected.

    Raises:
        ValueError: a list or table is not valid JSON; the message never shows the text.
    """
    stripped = text.strip()
    match key.kind:
        case "int":
            return _number(int, stripped)
        case "float":
            return _number(float, stripped)
        case "bool":
            lowered = stripped.lower()
            return True if lowered in TRUE_WORDS else False if lowered in FALSE_WORDS else text
        case "list" if not stripped.startswith("["):
            return [part.strip() for part in stripped.split(",") if part.strip()]
        case "section" | "sections" | "table" | "list":
            try:
                return json.loads(stripped)
            except RecursionError:
                raise ValueError("is nested too deeply") from None
            except ValueError:
                raise ValueError(f"must be {key.allowed()}, written as JSON") from None
        case "path" if key.optional and not stripped:
            return None
        case _:
            return text


def _number(number: type[int] | type[float], text: str) -> int | float | str:
    try:
        return number(text)
    except ValueError:
        return text
