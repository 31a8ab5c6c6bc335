"""Checks the arguments of a call by the plain schema of its tool, see `plain_schema`. Pure.

A full JSON schema is a program: `pattern` may backtrack for ever, references and combinators double their work with
every level. Of a plain one everything is a comparison: types, choices, bounds, lengths and required names.
"""

import operator
from collections.abc import Mapping
from typing import Any, Final

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
