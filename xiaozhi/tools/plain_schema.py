"""A tool's JSON schema from elsewhere, made one that every model service takes. Pure; nothing of it is evaluated.

Devices and servers write types of their own language (`int`, `list[str]`), lists without items, required arguments that
are not there, references and unions; strict services refuse a whole request for one such schema. What comes out is a
closed subset: `type` (one of six), `description`, `enum`, `default`, `minimum` and `maximum`, `minLength` and
`maxLength`, `minItems` and `maxItems`, `items`, `properties` and `required`. There is no `pattern`, no reference and no
combination in it, so it can be checked in a time that its size bounds.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from xiaozhi.tools.wording import shortened

MAX_DEPTH: Final = 8
"""Objects and lists within each other; below it everything is an object without further words."""
MAX_ARGUMENTS: Final = 64
"""Of one object. A model that has to choose among more makes nothing of them."""
MAX_PARTS: Final = 200
"""Schemas within the schema, references followed: 7 ms of work at the most."""
MAX_BYTES: Final = 32_768
"""As it is given, and as it comes out."""
MAX_NAME_CHARS: Final = 64
"""Of an argument; Anthropic takes no longer ones."""
_MAX_TEXT_CHARS: Final = 1024
_MAX_CHOICES: Final = 200
_MAX_MERGES: Final = 8

_MAX_TOOL_NAME_CHARS: Final = 128
_MAX_DESCRIPTION_CHARS: Final = 4096
_MAX_SHOWN_CHARS: Final = 60
_SCHEMA_KEYS: Final = ("inputSchema", "input_schema", "parameters")

_TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("object", "dict", "dictionary", "map", "mapping", "json", "struct", "record", "hash"), "object"),
    **dict.fromkeys(("array", "list", "tuple", "set", "sequence", "vector", "slice", "iterable"), "array"),
    **dict.fromkeys(("string", "str", "text", "char", "varchar", "bytes", "date", "datetime", "time", "uri", "url",
                     "any", "file", "enum", "choice", "color", "uuid"), "string"),
    **dict.fromkeys(("integer", "int", "long", "short", "byte", "uint", "bigint", "int8", "int16", "int32", "int64",
                     "uint8", "uint16", "uint32", "uint64", "size_t", "count"), "integer"),
    **dict.fromkeys(("number", "float", "double", "decimal", "real", "num", "numeric", "float32", "float64", "percent",
                     "percentage"), "number"),
    **dict.fromkeys(("boolean", "bool", "flag", "bit"), "boolean"),
}  # fmt: skip
_NULL: Final = frozenset({"null", "none", "nil", "undefined", "void"})
_GENERIC: Final = re.compile(r"(?:\w+\.)*(\w+)\s*[\[<(]\s*([^\[\]<>(),]*)")
_WRAPPERS: Final = frozenset({"optional", "nullable", "annotated", "literal", "union", "final", "required"})
# The standard's words for the lowest and the highest, and what is written by those who do not know them.
_NUMBERS: Final = (("minimum", "min"), ("maximum", "max"))
_BOUNDS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "integer": _NUMBERS,
    "number": _NUMBERS,
    "string": (("minLength",), ("maxLength",)),
    "array": (("minItems",), ("maxItems",)),
}
_KEYWORDS: Final = frozenset(
    {"$schema", "$id", "$defs", "$ref", "definitions", "title", "description", "type", "properties", "required",
     "additionalProperties", "allOf", "anyOf", "oneOf", "items", "enum", "default", "examples"}
)  # fmt: skip


class SchemaRefused(Exception):
    """Nothing that a model could be offered; one phrase saying why, to follow the tool's name."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its owner describes it, its schema made plain."""

    name: str
    description: str
    schema: Mapping[str, Any]
    user_only: bool = False


def listed_tool(entry: object) -> ListedTool:
    """The tool of one entry of `tools/list`.

    Raises:
        SchemaRefused: it cannot be offered; says which and why.
    """
    if not isinstance(entry, dict):
        raise SchemaRefused("an entry that is no object")
    name, description = entry.get("name"), entry.get("description")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_TOOL_NAME_CHARS or not name.isprintable():
        raise SchemaRefused(f"{shortened(repr(name), _MAX_SHOWN_CHARS)} is no name")
    try:
        schema = plain_schema(next((entry[word] for word in _SCHEMA_KEYS if word in entry), None))
    except SchemaRefused as error:
        raise SchemaRefused(f"{shortened(name, _MAX_SHOWN_CHARS)}: {error}") from None
    annotations = entry.get("annotations")
    audience = annotations.get("audience") if isinstance(annotations, dict) else None
    return ListedTool(
        name,
        shortened(description, _MAX_DESCRIPTION_CHARS) if isinstance(description, str) else "",
        schema,
        user_only=isinstance(audience, list) and "user" in audience and "assistant" not in audience,
    )


def plain_schema(raw: object) -> dict[str, Any]:
    """The arguments of a tool as a plain schema of an object.

    Args:
        raw: as it was given: a JSON object or the text of one; None or an empty list for a tool without arguments.

    Returns:
        A schema that is nobody's to change: a hundred boards of one kind share it.

    Raises:
        SchemaRefused: it is no schema of an object, or too large.
    """
    try:
        return _plain(raw if isinstance(raw, str) else orjson.dumps(raw or {}))
    except (orjson.JSONEncodeError, orjson.JSONDecodeError):
        raise SchemaRefused("its arguments are no schema") from None


@lru_cache(maxsize=512)
def _plain(written: bytes | str) -> dict[str, Any]:
    if len(written) > MAX_BYTES:
        raise SchemaRefused(f"its schema has more than {MAX_BYTES} bytes")
    raw = orjson.loads(written)
    if not isinstance(raw, dict):
        raise SchemaRefused("its arguments are no schema")
    plain = _Mender(raw).top()
    if len(orjson.dumps(plain)) > MAX_BYTES:
        raise SchemaRefused(f"its schema has more than {MAX_BYTES} bytes")
    return plain


class _Mender:
    """Goes through one schema once."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts = 0

    def top(self) -> dict[str, Any]:
        flat = self._flat(self._root, ())
        if not _KEYWORDS & set(self._root) and all(isinstance(one, dict) for one in self._root.values()):
            flat = {"properties": self._root}  # the arguments without the level around them
        kind, _ = _type_of(flat.get("type"))
        if kind not in ("", "object") and "properties" not in flat:
            raise SchemaRefused("its arguments are no object")
        return self._object(flat, 0, ())

    def _part(self, raw: object, depth: int, followed: tuple[str, ...]) -> dict[str, Any]:
        """One argument, item or inner object."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise SchemaRefused(f"its schema has more than {MAX_PARTS} parts")
        flat = self._flat(raw, followed)
        reference = flat.get("$ref")
        if isinstance(reference, str) and "type" not in flat:  # into itself, or to nowhere
            return {"type": "object", "properties": {}}
        followed = flat.pop(_FOLLOWED, followed)
        kind, inner = _type_of(flat.get("type"))
        kind = kind or _guessed(flat)
        if kind == "object":
            plain = self._object(flat, depth + 1, followed) if depth < MAX_DEPTH else {"type": kind, "properties": {}}
        elif kind == "array":
            items = flat.get("items", inner or {})
            items = items[0] if isinstance(items, list) and items else items
            within = self._part(items, depth + 1, followed) if depth < MAX_DEPTH else {"type": "string"}
            plain = {"type": kind, "items": within}
        else:
            plain = {"type": kind}
        plain |= _bounds(flat, kind) | _choices(flat, kind)
        if description := _description(flat):
            plain["description"] = description
        if (default := _as_kind(flat.get("default"), kind)) is not None:
            plain["default"] = default
        return plain

    def _object(self, flat: Mapping[str, Any], depth: int, followed: tuple[str, ...]) -> dict[str, Any]:
        given = _arguments(flat.get("properties"))
        if len(given) > MAX_ARGUMENTS:
            raise SchemaRefused(f"it takes {len(given)} arguments, more than {MAX_ARGUMENTS}")
        wanted = flat.get("required")
        wanted = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
        required = {each for each in wanted if isinstance(each, str)}
        required |= {name for name, one in given.items() if isinstance(one, Mapping) and one.get("required") is True}
        properties: dict[str, Any] = {}
        for name, one in given.items():
            if 0 < len(name) <= MAX_NAME_CHARS and name.isprintable():
                properties[name] = self._part(one, depth, followed)
            elif name in required:
                raise SchemaRefused(f"it needs an argument with the name {name[:MAX_NAME_CHARS]!r}")
        plain: dict[str, Any] = {"type": "object", "properties": properties}
        if needed := [name for name in properties if name in required]:
            plain["required"] = needed
        return plain

    def _flat(self, raw: object, followed: tuple[str, ...]) -> dict[str, Any]:
        """Without references and combinations: those that must all hold are made one, of several the first is taken."""
        if isinstance(raw, str | list):
            raw = {"type": raw}
        flat = dict(raw) if isinstance(raw, Mapping) else {}
        for _ in range(_MAX_MERGES):
            reference = flat.get("$ref")
            if isinstance(reference, str):
                target = self._target(reference)
                if target is None or reference in followed:
                    break
                followed = (*followed, reference)
                del flat["$ref"]
                flat = _merged(target, flat)
            elif isinstance(flat.get("allOf"), list):
                for part in reversed(flat.pop("allOf")):
                    flat = _merged(part, flat) if isinstance(part, Mapping) else flat
            elif (name := next((name for name in ("anyOf", "oneOf") if isinstance(flat.get(name), list)), "")) != "":
                flat = _merged(_chosen(flat.pop(name)), flat)
            else:
                break
        return flat | {_FOLLOWED: followed}

    def _target(self, reference: str) -> Mapping[str, Any] | None:
        """What `#/$defs/name` means within this schema; nothing is fetched."""
        found: Any = self._root
        for part in reference.removeprefix("#").strip("/").split("/") if reference.startswith("#") else [""]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else None


_FOLLOWED: Final = "\0followed"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, and what `above` says where both say something; arguments of both."""
    merged = {**below, **above}
    if isinstance(below.get("properties"), Mapping) and isinstance(above.get("properties"), Mapping):
        merged["properties"] = {**below["properties"], **above["properties"]}
    if isinstance(below.get("required"), list) and isinstance(above.get("required"), list):
        merged["required"] = [*below["required"], *above["required"]]
    return merged


def _chosen(alternatives: list[Any]) -> Mapping[str, Any]:
    """The first that is not null; all values together where each alternative is one (an enumeration with titles)."""
    schemas = [each for each in alternatives if isinstance(each, Mapping) and not _is_null(each.get("type"))]
    constants = [each["const"] for each in schemas if "const" in each]
    if constants and len(constants) == len(schemas):
        return {"enum": constants}
    return schemas[0] if schemas else {}


def _is_null(kind: object) -> bool:
    return isinstance(kind, str) and kind.strip().lower() in _NULL


def _type_of(written: object) -> tuple[str, str]:
    """One of the six types, empty where it cannot be told, and of a list the word for its items."""
    if isinstance(written, list):
        kinds = [each for each in written if not _is_null(each)]
        return _type_of(kinds[0]) if kinds and not isinstance(kinds[0], list) else ("", "")
    if not isinstance(written, str):
        return "", ""
    word = next((each for each in written[:100].split("|") if not _is_null(each)), "").strip().rstrip("?").lower()
    if word.endswith("[]"):
        return "array", word.removesuffix("[]")
    generic = _GENERIC.match(word)
    if generic is None:
        return _TYPES.get(word.rpartition(".")[2].removesuffix("_t"), ""), ""
    outer, inner = generic[1], generic[2].strip()
    if outer in _WRAPPERS:
        return _TYPES.get(inner, ""), ""
    kind = _TYPES.get(outer, "")
    return kind, inner if kind == "array" else ""


def _guessed(flat: Mapping[str, Any]) -> str:
    """The type of what has none that is known, by what else is said of it."""
    if flat.get("properties"):
        return "object"
    if "items" in flat or "minItems" in flat or "maxItems" in flat:
        return "array"
    choices = flat.get("enum")
    examples = [flat.get("const"), flat.get("default"), *(choices if isinstance(choices, list) else ())]
    examples += [flat.get(name) for names in _NUMBERS for name in names]
    if any(isinstance(each, str) for each in examples):
        return "string"
    if any(isinstance(each, bool) for each in examples):
        return "boolean"
    numbers = [each for each in examples if isinstance(each, int | float)]
    return "string" if not numbers else "integer" if all(float(each).is_integer() for each in numbers) else "number"


def _arguments(given: object) -> dict[str, Any]:
    """The arguments by name; some list them, with their names inside."""
    if isinstance(given, Mapping):
        return {name: one for name, one in given.items() if isinstance(name, str)}
    if isinstance(given, list):
        return {one["name"]: one for one in given if isinstance(one, Mapping) and isinstance(one.get("name"), str)}
    return {}


def _bounds(flat: Mapping[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step, words in zip((1, -1), _BOUNDS.get(kind, ()), strict=False):
        bound = next((number for word in words if (number := _number(flat.get(word))) is not None), None)
        beyond = _number(flat.get(f"exclusive{words[0].capitalize()}"))
        if bound is None and beyond is not None:
            bound = beyond + step if kind == "integer" else beyond
        if bound is not None and kind != "number":
            bound = math.ceil(bound) if step > 0 else math.floor(bound)
        if bound is not None and (bound >= 0 or kind in ("integer", "number")):
            found[words[0]] = bound
    bounds = list(found.values())
    return found if bounds == sorted(bounds) else {}  # the lowest above the highest


def _number(value: object) -> int | float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1 << 63:  # not a number, too
        return None
    return int(value) if float(value).is_integer() else value


def _choices(flat: Mapping[str, Any], kind: str) -> dict[str, Any]:
    given = flat.get("enum", [flat["const"]] if "const" in flat else None)
    if isinstance(given, Mapping):
        given = list(given)
    if not isinstance(given, list) or kind in ("object", "array") or len(given) > _MAX_CHOICES:
        return {}
    values: list[Any] = []
    for each in given:
        value = _as_kind(each, kind)
        if value is not None and value not in values:
            values.append(value)
    return {"enum": values} if values else {}


def _as_kind(value: object, kind: str) -> Any:
    """A single value of this type; None where it is of another one."""
    match kind, value:
        case "string", str():
            return value[:_MAX_TEXT_CHARS]
        case "string", int() | float() if not isinstance(value, bool):
            return str(value)
        case "boolean", bool():
            return value
        case (("integer" | "number"), _) if not isinstance(value, bool):
            number = _number(value)
            return number if kind == "number" or isinstance(number, int) else None
    return None


def _description(flat: Mapping[str, Any]) -> str:
    texts = [flat.get(name) for name in ("description", "desc", "title")]
    written = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    return " ".join(written.split())[:_MAX_TEXT_CHARS]
