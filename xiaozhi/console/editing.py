"""Changes of a settings file as text: comments, order and everything that was not changed stay. Pure."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

_HEADER: Final = re.compile(r"\s*(#\s*)?(\[\[?)\s*([A-Za-z0-9_.\"-]+)\s*\]\]?")
_ASSIGNMENT: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


class EditError(Exception):
    """The file cannot be changed; one line says why."""


def edited(text: str, changes: Mapping[str, Any], unset: Sequence[str] = ()) -> str:
    """The text of a settings file with some settings changed and others left to their defaults.

    Args:
        text: valid TOML.
        changes: new values by name, `{"asr.workers": 3}`; what JSON knows, but not null.
        unset: names of settings whose lines go.

    Raises:
        EditError: the file's form cannot be kept; nothing may be written then.
    """
    expected = _parsed(text)
    for name in unset:
        path = name.split(".")
        if _drop(expected, path):
            text = _without(text, path)
    for name, value in changes.items():
        path = name.split(".")
        _put(expected, path, value)
        text = _with(text, path, value)
    _check(text, expected)
    return text


def with_endpoints(text: str, endpoints: Sequence[Mapping[str, Any]], renamed: Mapping[str, str]) -> str:
    """The text of a settings file with another list of `[[llm.endpoints]]`.

    Blocks of endpoints that stay keep their comments; those that go, go whole.

    Args:
        text: valid TOML.
        endpoints: every endpoint with the fields that are to be written, in their order.
        renamed: the name that an endpoint had before, by its new one.

    Raises:
        EditError: the file's form cannot be kept.
    """
    expected = _parsed(text)
    _put(expected, ["llm", "endpoints"], [dict(endpoint) for endpoint in endpoints])
    document = _document(text)
    if "llm" not in document:
        document.append("llm", tomlkit.table(is_super_table=True))
    llm = document["llm"]
    old = llm.get("endpoints") if isinstance(llm, Mapping) else None
    if old is not None and not isinstance(old, AoT):
        raise EditError("llm.endpoints is written as a list in one line; write [[llm.endpoints]] tables instead")
    known = {_endpoint_name(table): table for table in old} if old is not None else {}
    blocks = tomlkit.aot()
    for endpoint in endpoints:
        name = str(endpoint.get("name") or endpoint.get("preset") or "")
        table = known.get(renamed.get(name, name))
        blocks.append(_updated(table, endpoint))
    if old is not None:
        del llm["endpoints"]
    if endpoints:
        llm.append("endpoints", blocks)
    written = tomlkit.dumps(document)
    if not endpoints:
        expected["llm"].pop("endpoints")
        if not expected["llm"]:
            expected.pop("llm")
    _check(written, expected)
    return written


def _endpoint_name(table: Mapping[str, Any]) -> str:
    return str(table.get("name") or table.get("preset") or "")


def _updated(table: Table | None, values: Mapping[str, Any]) -> Table:
    """The block with these values; comments beside values that stay are kept."""
    block = table if table is not None else tomlkit.table()
    for name in [name for name in block if name not in values]:
        del block[name]
    for name, value in values.items():
        if name not in block or block[name] != value:
            block[name] = _item(value)
    return block


def _item(value: Any) -> Any:
    """A value as TOML; tables within a line."""
    if isinstance(value, Mapping):
        inline = tomlkit.inline_table()
        for name, inner in value.items():
            inline.append(name, _item(inner))
        return inline
    if isinstance(value, (list, tuple)):
        array = tomlkit.array()
        array.extend(_item(inner) for inner in value)
        if len(value) > 4 and len(array.as_string()) > 110:
            array.multiline(True)
        return array
    if isinstance(value, str) and "\n" in value and "'''" not in value and value.isprintable() is False:
        plain = all(char == "\n" or char.isprintable() for char in value)
        return tomlkit.string(value, multiline=True) if plain else tomlkit.string(value)
    return tomlkit.item(value)


def _with(text: str, path: Sequence[str], value: Any) -> str:
    document = _document(text)
    table: Any = document
    for part in path[:-1]:
        if not isinstance(table, Mapping) or part not in table:
            table = None
            break
        table = table[part]
    if isinstance(table, Mapping) and path[-1] in table:
        table[path[-1]] = _item(value)  # type: ignore[index]  # tables of tomlkit can be written to
        return tomlkit.dumps(document)
    line = f"{path[-1]} = {_item(value).as_string()}"
    return _inserted(text, path, line)


def _inserted(text: str, path: Sequence[str], line: str) -> str:
    """A line for a setting that was not in the file: below its commented example, else at the end of its table."""
    lines = text.splitlines()
    table = ".".join(path[:-1])
    begin = next((at for at, found in enumerate(lines) if _opens(found, table)), None)
    if begin is None:
        gap = [] if not lines or not lines[-1].strip() else [""]
        return "\n".join([*lines, *gap, f"[{table}]", line, ""])
    end = next((at for at in range(begin + 1, len(lines)) if _is_header(lines[at])), len(lines))
    example = re.compile(rf"\s*#\s*{re.escape(path[-1])}\s*=")
    place = next((at for at in range(begin + 1, end) if example.match(lines[at])), None)
    if place is None:
        place = begin
        for at in range(begin + 1, end):
            if lines[at].strip() and not lines[at].lstrip().startswith("#"):
                place = at
    return "\n".join([*lines[: place + 1], line, *lines[place + 1 :], ""])


def _opens(line: str, table: str) -> bool:
    match = _HEADER.match(line)
    return bool(match) and not match[1] and match[2] == "[" and match[3].replace('"', "") == table  # type: ignore[index]


def _is_header(line: str) -> bool:
    match = _HEADER.match(line)
    return bool(match) and not match[1] and not _ASSIGNMENT.match(line)  # type: ignore[index]


def _without(text: str, path: Sequence[str]) -> str:
    document = _document(text)
    table: Any = document
    for part in path[:-1]:
        table = table[part]
    del table[path[-1]]
    return tomlkit.dumps(document)


def _document(text: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise EditError(f"not valid TOML: {error}") from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise EditError(f"not valid TOML: {error}") from None


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise EditError(f"{'.'.join(path)}: {part} is no table in the file")
    tree[path[-1]] = value


def _drop(tree: dict[str, Any], path: Sequence[str]) -> bool:
    for part in path[:-1]:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            return False
        tree = inner
    return tree.pop(path[-1], _drop) is not _drop


def _check(text: str, expected: Mapping[str, Any]) -> None:
    """That the text says exactly what it should: whatever the file looked like, nothing else has changed."""
    if _pruned(_parsed(text)) != _pruned(expected):
        raise EditError("this change cannot be made without changing more of the file; make it in an editor")


def _pruned(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Without empty tables, which mean nothing."""
    kept = {}
    for name, value in tree.items():
        inner = _pruned(value) if isinstance(value, Mapping) else value
        if not isinstance(value, Mapping) or inner:
            kept[name] = inner
    return kept
