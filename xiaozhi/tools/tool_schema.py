"""What of a tool's schema binds the arguments of a call; see `plain_schema` for what is taken in of one. Pure.

A full JSON schema is a program: `pattern` may backtrack for ever, references and combinators double their work with
every level. Here only what is a comparison binds: types, choices, bounds, lengths, required and unknown names. Whatever
else a schema demands is for the model to read, and its owner judges when it is called.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_NAME_CHARS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 4096
MAX_INTEGER: Final = 2**53
"""Above this a number of JSON is no exact integer (RFC 8259, section 6)."""
MAX_STEPS: Final = 4096
"""Comparisons that one check may take: below 5 ms."""

_SHOWN_CHARS: Final = 80
_BOUNDS: Final = (
    ("minimum", "is less than the minimum of", operator.lt),
    ("maximum", "is greater than the maximum of", operator.gt),
    ("exclusiveMinimum", "must be greater than", operator.le),
    ("exclusiveMaximum", "must be less than", operator.ge),
)
_LENGTHS: Final = (
    (str, "minLength", "maxLength", "characters"),
    (list, "minItems", "maxItems", "items"),
    (dict, "minProperties", "maxProperties", "members"),
)


def mistake(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """The first thing about the arguments that the schema forbids, as a sentence; empty where there is none.

    A keyword of the wrong shape binds nothing. Never raises, and ends after `MAX_STEPS` comparisons.
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
    """One walk over the arguments; it goes no deeper than they do."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def value(self, schema: object, value: Any, place: str) -> None:
        self._spend(1)
        if not isinstance(schema, Mapping):
            return
        kinds = _names(schema.get("type"))
        if kinds and not any(_is(kind, value) for kind in kinds):
            raise _Wrong(place, f"{_shown(value)} is not of type {' or '.join(kinds)}")
        self._choice(schema, value, place)
        if isinstance(value, int | float) and not isinstance(value, bool):
            for keyword, words, is_outside in _BOUNDS:
                bound: Any = schema.get(keyword)
                if _is("number", bound) and is_outside(value, bound):
                    raise _Wrong(place, f"{_shown(value)} {words} {bound}")
        for kind, fewest, most, unit in _LENGTHS:
            if isinstance(value, kind):
                self._length(schema.get(fewest), schema.get(most), unit, len(value), place)
        if isinstance(value, Mapping):
            self._members(schema, value, place)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                self.value(schema.get("items"), item, f"{place}.{number}".lstrip("."))

    def _members(self, schema: Mapping[str, Any], value: Mapping[str, Any], place: str) -> None:
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        required = _names(schema.get("required"))
        self._spend(len(required))
        for name in required:
            if name in known and name not in value:  # nobody can give what is described nowhere
                raise _Wrong(place, f"{_shown(name)} is a required property")
        for name, inner in value.items():
            if name in known:
                self.value(known[name], inner, f"{place}.{name}".lstrip("."))
            elif schema.get("additionalProperties") is False and "patternProperties" not in schema:
                raise _Wrong(place, f"there is no {_shown(name)}")

    def _choice(self, schema: Mapping[str, Any], value: Any, place: str) -> None:
        choices = schema.get("enum")
        if not isinstance(choices, list):
            choices = [schema["const"]] if "const" in schema else []
        if not choices:
            return
        self._spend(len(choices))
        if not any(_same(value, choice) for choice in choices):
            raise _Wrong(place, f"{_shown(value)} is not one of {_shown(choices)}")

    def _length(self, fewest: object, most: object, unit: str, length: int, place: str) -> None:
        if _is("integer", fewest) and length < fewest:  # type: ignore[operator]  # `_is` has seen to it
            raise _Wrong(place, f"needs {fewest} {unit} at least")
        if _is("integer", most) and length > most:  # type: ignore[operator]  # `_is` has seen to it
            raise _Wrong(place, f"has more than {most} {unit}")

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
        case "null":
            return value is None
        case _:
            return True


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _names(value: object) -> Sequence[str]:
    """One name or a list of them; what is no text in it names nothing."""
    if isinstance(value, str):
        return (value,)
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else ()


def _shown(value: object) -> str:
    words = repr(value)
    return words if len(words) <= _SHOWN_CHARS else words[:_SHOWN_CHARS] + "…"
