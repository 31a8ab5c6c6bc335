"""The text of the file that the console writes. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

HEADER: Final = """\
# Written by the console of xiaozhi, which keeps no comments here. What stands here wins over settings.toml; delete a
# line, or take the override away in the console, and settings.toml counts again.
# 由小智的控制台写入，这里的注释不会保留。这里的设置优先于 settings.toml；
# 删掉一行，或在控制台取消覆盖，就恢复 settings.toml 的值。
"""


class EditError(Exception):
    """The file cannot be changed; one line says why."""


def values_of(text: str) -> dict[str, Any]:
    """What a file holds. Raises `EditError`."""
    try:
        return tomlkit.parse(text).unwrap()
    except (TOMLKitError, RecursionError) as error:
        raise EditError(f"not valid TOML: {error}") from None


def edited(text: str, changes: Mapping[str, Any], unset: Sequence[str] = ()) -> str:
    """The text with some settings changed and others taken out; empty where nothing is left.

    Args:
        text: valid TOML.
        changes: new values by name, `{"asr.workers": 3}`; what JSON knows, but not null.
        unset: names of settings that go; one that is not there is no mistake.

    Raises:
        EditError: it cannot be written as TOML.
    """
    values = values_of(text)
    for name in unset:
        _drop(values, name.split("."))
    for name, value in changes.items():
        _put(values, name.split("."), value)
    if not values:
        return ""
    try:
        written = tomlkit.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise EditError(f"cannot be written as TOML: {error}") from None
    if values_of(written) != values:
        raise EditError("cannot be written as TOML")
    return f"{HEADER}\n{written}"


def value_at(values: Mapping[str, Any], name: str) -> Any:
    """What stands there under a name such as `asr.workers`; None where nothing does."""
    found: Any = values
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise EditError(f"{'.'.join(path)}: {part} is no table in the file")
    values[path[-1]] = value


def _drop(values: dict[str, Any], path: Sequence[str]) -> None:
    """Take a setting out, and the tables that are empty without it."""
    inner = values.get(path[0])
    if len(path) > 1 and isinstance(inner, dict):
        _drop(inner, path[1:])
    if len(path) == 1 or inner == {}:
        values.pop(path[0], None)
