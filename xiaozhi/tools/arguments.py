"""Arguments as models write them: parsed, gently corrected, checked; a mistake is one sentence for the model."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from xiaozhi.text.loose_json import NotReadable, read_object

ArgumentCheck: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

_ENVELOPES: Final = ("arguments", "parameters", "args", "kwargs", "input")
_SHOWN_CHARS: Final = 80


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
    """A check by JSON schema; a schema that is itself wrong lets every object pass, its owner judges then.

    References to other documents are never fetched. The schema is looked at when the tool is first called: most tools
    of most devices never are.
    """

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        corrected = corrected_kinds(schema, arguments)
        validator = _validator(orjson.dumps(schema, default=str, option=orjson.OPT_NON_STR_KEYS))
        if validator is None:
            return corrected
        try:
            error = next(iter(validator.iter_errors(corrected)), None)
        except (Unresolvable, RecursionError):
            return corrected  # a schema that cannot be followed says nothing about the arguments
        if error is not None:
            raise BadArguments(_sentence(error))
        return corrected

    return check


@lru_cache(maxsize=256)
def _validator(schema_json: bytes) -> Validator | None:
    """One for all tools with this schema: a hundred boards of one kind have the same tools."""
    schema = orjson.loads(schema_json)
    try:
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        return kind(schema, registry=Registry())
    except (SchemaError, RecursionError, TypeError, ValueError):
        return None


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
        case "integer", float() if value.is_integer():
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
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, kind) else text


def _number(text: str, *, whole: bool) -> int | float | str:
    try:
        number = float(text.strip().rstrip("%"))
    except ValueError:
        return text
    if number.is_integer():
        return int(number)
    return text if whole else number


def _sentence(error: ValidationError) -> str:
    """What a schema says about the arguments, with the place and the value."""
    place = ".".join(str(part) for part in error.absolute_path)
    where = f"Argument {place!r}" if place else "The arguments"
    message = error.message
    if len(message) > 2 * _SHOWN_CHARS:
        message = message[: 2 * _SHOWN_CHARS] + "…"
    return f"{where}: {message}."
