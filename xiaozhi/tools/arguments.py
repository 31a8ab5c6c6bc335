"""Arguments as models write them: parsed, gently corrected, checked; a mistake is one sentence for the model.

They are checked by the plain schema of their tool, see `plain_schema`. A full JSON schema is a program: `pattern` may
backtrack for ever, references and combinators double their work with every level. Of a plain one everything is a
comparison: types, choices, bounds, lengths and required names.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import orjson

from xiaozhi.text import bounded_json
from xiaozhi.text.loose_json import NotReadable, read_object

ArgumentCheck: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

MAX_INTEGER: Final = 2**53
"""Above this a number of JSON is no exact integer (RFC 8259, section 6)."""
MAX_STEPS: Final = 4096
"""Comparisons that one check may take: below 5 ms."""

_SHOWN_CHARS: Final = 80
_BOUNDS: Final = (
    ("minimum", "is less than the minimum of", operator.lt),
    ("maximum", "is greater than the maximum of", operator.gt),
)
_LENGTHS: Final = ((str, "minLength", "maxLength", "characters"), (list, "minItems", "maxItems", "items"))
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


def mistake(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """The first thing about the arguments that a plain schema forbids, as a sentence; empty where there is none.

    Never raises, and ends after `MAX_STEPS` comparisons.
    """
    try:
        _Check().value(schema, arguments, "")
    except _Wrong as wrong:
        return str(wrong)
    return ""


class _Wrong(Exception):
    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{f'Argument {place!r}' if place else 'The arguments'}: {what}.")


class _Check:
    """One walk over the arguments; it goes no deeper than they and the schema do."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def value(self, schema: Mapping[str, Any], value: Any, place: str) -> None:
        self._spend(1)
        kind = schema.get("type", "")
        if not _is(kind, value):
            raise _Wrong(place, f"{_shown(value)} is not of type {kind}")
        if choices := schema.get("enum"):
            self._spend(len(choices))
            if not any(_same(value, choice) for choice in choices):
                raise _Wrong(place, f"{_shown(value)} is not one of {_shown(choices)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            for keyword, words, is_outside in _BOUNDS:
                if keyword in schema and is_outside(value, schema[keyword]):
                    raise _Wrong(place, f"{_shown(value)} {words} {schema[keyword]}")
        for of, fewest, most, unit in _LENGTHS:
            if isinstance(value, of) and len(value) < schema.get(fewest, 0):
                raise _Wrong(place, f"needs {schema[fewest]} {unit} at least")
            if isinstance(value, of) and most in schema and len(value) > schema[most]:
                raise _Wrong(place, f"has more than {schema[most]} {unit}")
        if isinstance(value, Mapping):
            self._members(schema, value, place)
        elif isinstance(value, list) and "items" in schema:
            for number, item in enumerate(value):
                self.value(schema["items"], item, f"{place}.{number}".lstrip("."))

    def _members(self, schema: Mapping[str, Any], value: Mapping[str, Any], place: str) -> None:
        required = schema.get("required", ())
        self._spend(len(required))
        for name in required:
            if name not in value:
                raise _Wrong(place, f"{_shown(name)} is a required property")
        known = schema.get("properties", {})
        for name, inner in value.items():
            if name in known:
                self.value(known[name], inner, f"{place}.{name}".lstrip("."))

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _Wrong("", "they are too many; send fewer")


def _is(kind: str, value: object) -> bool:
    """Whether a value is of a type by its name in JSON schema; every value is of one that is unknown here."""
    match kind:
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool) and abs(value) <= MAX_INTEGER  # type: ignore[arg-type]
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, Mapping)
        case _:
            return True


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: object) -> str:
    words = repr(value)
    return words if len(words) <= _SHOWN_CHARS else words[:_SHOWN_CHARS] + "…"
