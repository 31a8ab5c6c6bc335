"""A tool as a device or a server lists it, made one that a model can be offered. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from xiaozhi.tools.plain_schema import SchemaRefused, plain_schema
from xiaozhi.tools.wording import shortened

MAX_NAME_CHARS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 4096
_MAX_SHOWN_CHARS: Final = 60
_SCHEMA: Final = ("inputSchema", "input_schema", "parameters")


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
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise SchemaRefused(f"{shortened(repr(name), _MAX_SHOWN_CHARS)} is no name")
    try:
        schema = plain_schema(next((entry[word] for word in _SCHEMA if word in entry), None))
    except SchemaRefused as error:
        raise SchemaRefused(f"{shortened(name, _MAX_SHOWN_CHARS)}: {error}") from None
    annotations = entry.get("annotations")
    audience = annotations.get("audience") if isinstance(annotations, dict) else None
    return ListedTool(
        name,
        shortened(description, MAX_DESCRIPTION_CHARS) if isinstance(description, str) else "",
        schema,
        user_only=isinstance(audience, list) and "user" in audience and "assistant" not in audience,
    )
