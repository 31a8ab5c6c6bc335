"""Changes of a settings file as text: comments, order and everything that was not changed stay. Pure."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

_HEADER: Final = re.compile(r"\s*(#\s*)?(\[\[?)\s*([A-Za-z0-9_.\"-]+)\s*\]\]?\s*(?:#.*)?$")
_ENDPOINTS: Final = "llm.endpoints"
_WINDOWS: Final = "\r\n"


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
    if _WINDOWS in text:
        return edited(text.replace(_WINDOWS, "\n"), changes, unset).replace("\n", _WINDOWS)
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
    if _WINDOWS in text:
        return with_endpoints(text.replace(_WINDOWS, "\n"), endpoints, renamed).replace("\n", _WINDOWS)
    expected = _parsed(text)
    _put(expected, ["llm", "endpoints"], [dict(endpoint) for endpoint in endpoints])
    llm = expected["llm"]
    if not endpoints:
        del llm["endpoints"]
    lines = _lines(text)
    spans = _blocks(lines)
    if not spans and isinstance(_parsed(text).get("llm", {}).get("endpoints"), list):
        raise EditError("llm.endpoints is written as a list in one line; write [[llm.endpoints]] tables instead")
    known = {_name_of(block): block for block in (lines[begin:end] for begin, end in spans)}
    blocks = []
    for endpoint in endpoints:
        name = str(endpoint.get("name") or endpoint.get("preset") or "")
        blocks.append(_updated(known.get(renamed.get(name, name)), endpoint))
    place = spans[0][0] if spans else _end_of_table(lines, "llm")
    for begin, end in reversed(spans):
        while end < len(lines) and not lines[end].strip():
            end += 1
        del lines[begin:end]
    written = "\n".join(_joined(lines[:place], blocks, lines[place:]))
    _check(written, expected)
    return written


def _lines(text: str) -> list[str]:
    """The lines of a TOML text; only a line feed ends one, unlike for `str.splitlines`."""
    lines = text.split("\n")
    return lines[:-1] if not lines[-1] else lines


def _blocks(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Where each `[[llm.endpoints]]` block begins, with the comment right above it, and ends."""
    spans = []
    headers = [at for at, line in enumerate(lines) if _is_header(line)] + [len(lines)]
    for number, at in enumerate(headers[:-1]):
        if not _opens(lines[at], _ENDPOINTS, "[["):
            continue
        after = number + 1
        while headers[after] < len(lines) and _header_name(lines[headers[after]]).startswith(f"{_ENDPOINTS}."):
            after += 1  # a table of this endpoint's own, such as extra_body
        begin, end = at, headers[after]
        while begin and lines[begin - 1].lstrip().startswith("#"):
            begin -= 1
        spans.append((begin, _without_tail(lines, at, end)))
    return spans


def _without_tail(lines: Sequence[str], begin: int, end: int) -> int:
    """The end of a table without the comment that stands right above the next one, and without blank lines."""
    if end < len(lines):
        while end > begin + 1 and lines[end - 1].lstrip().startswith("#"):
            end -= 1
    while end > begin + 1 and not lines[end - 1].strip():
        end -= 1
    return end


def _end_of_table(lines: Sequence[str], table: str) -> int:
    """Behind the last line of a table; the end of the file where there is none."""
    headers = [at for at, line in enumerate(lines) if _is_header(line)] + [len(lines)]
    for number, at in enumerate(headers[:-1]):
        if _opens(lines[at], table):
            return _without_tail(lines, at, headers[number + 1])
    return len(lines)


def _joined(before: Sequence[str], blocks: Sequence[Sequence[str]], after: Sequence[str]) -> list[str]:
    """Lines with a blank one between blocks, and one at the end of the file."""
    result = list(before)
    for block in blocks:
        if result and result[-1].strip():
            result.append("")
        result += block
    rest = list(after)
    while blocks and rest and not rest[0].strip():
        rest.pop(0)
    if blocks and any(line.strip() for line in rest):
        result.append("")
    result += rest
    while result and not result[-1].strip():
        result.pop()
    return [*result, ""]


def _name_of(block: Sequence[str]) -> str:
    values = _parsed("\n".join(block))["llm"]["endpoints"][0]
    return str(values.get("name") or values.get("preset") or "")


def _updated(block: Sequence[str] | None, values: Mapping[str, Any]) -> list[str]:
    """The lines of a block with these values; what stays keeps its comments."""
    document = _document("\n".join([*(block or [f"[[{_ENDPOINTS}]]"]), ""]))
    table: Any = document["llm"]["endpoints"][0]
    for name in [name for name in table if name not in values]:
        del table[name]
    for name, value in values.items():
        if name not in table or table[name] != value:
            table[name] = _item(value)
    return _lines(tomlkit.dumps(document).rstrip("\n"))


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
    if isinstance(table, Mapping) and table and not any(_opens(line, ".".join(path[:-1])) for line in _lines(text)):
        table[path[-1]] = _item(value)  # type: ignore[index]  # written in one line, or with dotted names
        return tomlkit.dumps(document)
    line = f"{path[-1]} = {_item(value).as_string()}"
    return _inserted(text, path, line)


def _inserted(text: str, path: Sequence[str], line: str) -> str:
    """A line for a setting that was not in the file: below its commented example, else at the end of its table."""
    lines = _lines(text)
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


def _opens(line: str, table: str, bracket: str = "[") -> bool:
    match = _HEADER.match(line)
    return match is not None and _is_header(line) and match[2] == bracket and _header_name(line) == table


def _header_name(line: str) -> str:
    match = _HEADER.match(line)
    return match[3].replace('"', "") if match is not None else ""


def _is_header(line: str) -> bool:
    match = _HEADER.match(line)
    return match is not None and not match[1]


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
