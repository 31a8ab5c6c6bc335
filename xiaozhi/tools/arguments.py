"""Arguments as models write them: parsed, gently corrected, checked; a mistake is one sentence for the model."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import orjson

from xiaozhi.text import bounded_json
from xiaozhi.text.loose_json import NotReadable, read_object
from xiaozhi.tools.tool_schema import MAX_INTEGER, mistake

ArgumentCheck: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

_ENVELOPES: Final = ("arguments", "parameters", "args", "kwargs", "input")


class BadArguments(Exception):
    """The arguments do not fit; the text tells the model in one sentence what to change."""


def parse_arguments(text: str) -> dict[str, Any]:
    """The JSON object a model meant; nothing at all counts as no arguments. See `read_object`.

    Raises:
        BadArguments: there is none, or several, or it is too long.
    """
    try:
        return read_object(text)
    except NotReadable as error:
        raise BadArguments(f"The arguments {error}; send one JSON object.") from None


def unwrapped(schema: Mapping[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments without an envelope that the tool does not know: `{"arguments": {"x": 1}}`, with or without a name.

    Raises:
        BadArguments: what is in the envelope cannot be read.
    """
    known = schema.get("properties") or {}
    for envelope in _ENVELOPES:
        if envelope in arguments and envelope not in known and set(arguments) <= {envelope, "name", "type", "id"}:
            inner = arguments[envelope]
            if isinstance(inner, str):
                return parse_arguments(inner)
            return inner if isinstance(inner, dict) else arguments
    return arguments


def schema_check(schema: Mapping[str, Any]) -> ArgumentCheck:
    """A check of what binds of a tool's schema, see `mistake`, after gentle correction."""

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
    needed = schema.get("required")
    for name, value in arguments.items():
        if value is None and name in properties and name not in (needed if isinstance(needed, list) else ()):
            continue  # as good as not given
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
        case "array" | "object", str() if value.lstrip().startswith("[" if kind == "array" else "{"):
            return _inner(value, list if kind == "array" else dict)
        case _:
            return value


def _inner(text: str, kind: type) -> Any:
    """A list or an object that was encoded as a text once more."""
    try:
        value = bounded_json.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, kind) else text


def _number(text: str, *, whole: bool) -> int | float | str:
    try:
        number = float(text.strip().rstrip("%"))
    except ValueError:
        return text
    if number.is_integer() and abs(number) <= MAX_INTEGER:
        return int(number)
    return text if whole or not math.isfinite(number) else number
