"""One piece of a streamed tool call, in the shapes that compatible servers use."""

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a tool call.

    Attributes:
        index: which call of the reply; None where the server does not say.
        id, name: often only in the first piece of a call; empty where they are missing.
        arguments: a piece of JSON text.
    """

    index: int | None
    id: str
    name: str
    arguments: str


def call_pieces(listed: Any) -> tuple[CallPiece, ...]:
    """The pieces in `delta.tool_calls`, which may be missing.

    Raises:
        AttributeError, TypeError, ValueError: it is something else.
    """
    if not listed:
        return ()
    if not isinstance(listed, list):
        raise TypeError("tool_calls must be a list")
    return tuple(_piece(entry) for entry in listed)


def _piece(entry: Any) -> CallPiece:
    function = entry.get("function") or {}
    index, identity, name = entry.get("index"), entry.get("id") or "", function.get("name") or ""
    name = "" if name == "null" else name  # a gateway that writes a missing name as a word
    arguments = function.get("arguments")
    if isinstance(arguments, dict):  # servers that give whole calls sometimes give them as objects
        arguments = orjson.dumps(arguments).decode()
    if not (
        (index is None or isinstance(index, int))
        and isinstance(identity, str)
        and isinstance(name, str)
        and (arguments is None or isinstance(arguments, str))
    ):
        raise ValueError("a tool call of another shape")
    return CallPiece(index, identity, name, arguments or "")
