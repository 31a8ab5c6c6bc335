"""Arguments as models write them: parsed, gently corrected, checked; a mistake is one sentence for the model."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import orjson

from xiaozhi import bounded_json
from xiaozhi.tools.tool_schema import MAX_INTEGER, mistake

ArgumentCheck: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

MOST_CHARS: Final = 16_384
"""Arguments longer than this are refused: no tool needs more, and checking costs time on the loop."""


class BadArguments(Exception):
    """The arguments do not fit; the text tells the model in one sentence what to change."""


def parse_arguments(text: str) -> dict[str, Any]:
    """The JSON object a model wrote; nothing at all counts as no arguments.

    Raises:
        BadArguments: no JSON, no object, or too long.
    """
    if len(text) > MOST_CHARS:
        raise BadArguments(f"The arguments are longer than {MOST_CHARS} characters; shorten them.")
    if not text.strip():
        return {}
    try:
        value = bounded_json.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadArguments(f"The arguments are not valid JSON ({error}); send one JSON object.") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadArguments(f"The arguments must be one JSON object, not {_kind(value)}.")
    return value


def schema_check(schema: Mapping[str, Any]) -> ArgumentCheck:
    """A check of what `tool_schema` lets a stranger's schema demand, after gentle correction."""

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        corrected = corrected_kinds(schema, arguments)
        if wrong := mistake(schema, corrected):
            raise BadArguments(wrong)
        return corrected

    return check


def corrected_kinds(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the right meaning in the right kind: `"50"` and `50.0` for an integer become 50.

    Devices refuse `"50"` and cut 50.9 to 50, and models write both.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return dict(arguments)
    corrected = {}
    for name, value in arguments.items():
        wanted = properties.get(name)
        corrected[name] = _corrected(wanted.get("type"), value) if isinstance(wanted, Mapping) else value
    return corrected


def _corrected(kind: object, value: Any) -> Any:
    match kind, value:
        case "integer", float() if value.is_integer() and abs(value) <= MAX_INTEGER:
            return int(value)
        case "integer" | "number", str():
            return _number(value, whole=kind == "integer")
        case "boolean", str() if value.strip().lower() in {"true", "false"}:
            return value.strip().lower() == "true"
        case "string", int() | float() if not isinstance(value, bool):
            return str(value)
        case _:
            return value


def _number(text: str, *, whole: bool) -> int | float | str:
    try:
        number = float(text.strip().rstrip("%"))
    except ValueError:
        return text
    if number.is_integer() and abs(number) <= MAX_INTEGER:
        return int(number)
    return text if whole or not math.isfinite(number) else number


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")
