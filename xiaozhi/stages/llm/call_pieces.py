"""One piece of a streamed tool call, in the shapes that compatible servers use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a tool call.

    Attributes:
        index: which call of the reply; None where the server does not say.
        id, name: often only in the first piece of a call; empty where they are missing.
        arguments: a piece of JSON text.
        extra: what else the server sends with it.
    """

    index: int | None
    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def call_pieces(listed: Any) -> tuple[CallPiece, ...]:
    """The pieces in `delta.tool_calls`, which may be missing.

    Raises:
        ValueError: it is something else.
    """
    if not listed:
        return ()
    entries = [listed] if isinstance(listed, dict) else listed
    if not isinstance(entries, list):
        raise ValueError("tool_calls must be a list")
    return tuple(_piece(entry) for entry in entries if entry is not None)


def _piece(entry: Any) -> CallPiece:
    if not isinstance(entry, dict):
        raise ValueError("a tool call must be an object")
    function = entry.get("function")
    if not isinstance(function, dict):  # some servers leave this level out
        function = {name: entry[name] for name in ("name", "arguments") if name in entry}
    name, arguments = function.get("name"), function.get("arguments")
    name = name if isinstance(name, str) and name != "null" else ""  # a gateway writes a missing one as a word
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):  # servers that give whole calls sometimes give them as objects
        arguments = orjson.dumps(arguments).decode()
    extra = {key: value for key, value in entry.items() if key not in _KNOWN}
    beside = {key: value for key, value in function.items() if key not in _KNOWN}
    if beside:
        extra["function"] = beside
    return CallPiece(_index(entry.get("index")), _text(entry.get("id")), name, arguments, extra)


_KNOWN = frozenset({"index", "id", "type", "function", "name", "arguments"})


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
