"""Every setting as the pages show it: value, default, limits, what it means, where it comes from, when it applies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from xiaozhi.program import as_called
from xiaozhi.settings import Settings
from xiaozhi.settings.schema import Key, bounds, dotted, keys, value_of
from xiaozhi.settings.sources import Origin
from xiaozhi.settings.texts import all_texts, flowing

READ_ONLY: Final = frozenset(
    {"server.data_dir", "models.dir", "tools.servers", "tools.mcp_config", "console.password_file", "llm.endpoints"}
)
"""Not changed one by one: they start programs, say what other paths are measured by, or have an editor of their own."""


def can_be_changed(name: str, key: Key) -> bool:
    """Whether the pages may give a setting another value; if not it is changed in its file, or elsewhere."""
    return not (name in READ_ONLY or key.kind == "sections" or key.item == "secret")


def tables(settings: Settings, from_where: Mapping[str, Origin], overridden: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All tables with their fields, in the order of the model; lists of tables are named, their contents are not shown.

    Each carries what is said about it in English, `doc`, and in Chinese, `doc_zh`. Blocking at the first call.

    Args:
        settings: the values that hold.
        from_where: where those come from that are not at their default.
        overridden: what the owner's file says of those for which the console's says something else.
    """
    found = []
    for table, about, texts in all_texts():
        section, default = value_of(settings, dotted(table.path)), value_of(_DEFAULTS, dotted(table.path))
        fields, shared = [], ""
        for name, text in texts.items():
            shared = text.english or shared
            key = keys()[*table.path, name]
            docs = {"doc": as_called(flowing(shared)), "doc_zh": as_called(flowing(text.chinese))}
            fields.append(_field(key, getattr(section, name), getattr(default, name), from_where, overridden) | docs)
        (title_en, title_zh), about = about.titles, about.without_titles()
        found.append(
            {
                "name": dotted(table.path),
                "title_zh": title_zh,
                "title_en": title_en,
                "doc": as_called(flowing(about.english)),
                "doc_zh": as_called(flowing(about.chinese)),
                "fields": fields,
            }
        )
    return found


def _field(
    key: Key, value: Any, default: Any, from_where: Mapping[str, Origin], overridden: Mapping[str, Any]
) -> dict[str, Any]:
    name = dotted(key.path)
    low, high, open_low, open_high = bounds(key.field)
    rows = key.kind == "sections"
    return {
        "key": name,
        "value": len(value) if rows else shown(value),
        "default": 0 if rows else shown(default),
        "type": "tables" if rows else key.kind,
        "min": low,
        "max": high,
        "min_exclusive": open_low,
        "max_exclusive": open_high,
        "max_length": key.max_length,
        "choices": list(key.choices),
        "item": key.item,
        "optional": key.optional,
        "set_by": from_where.get(name, "default"),
        "overrides": name in overridden,
        "file_value": _told(key, overridden.get(name)),
        "applies": key.applies,
        "editable": can_be_changed(name, key),
    }


def shown(value: Any) -> Any:
    """A value as JSON; of a secret only whether there is one."""
    match value:
        case SecretStr():
            return "set" if value.get_secret_value() else None
        case Path():
            return str(value)
        case BaseModel():
            return {name: shown(getattr(value, name)) for name in type(value).model_fields}
        case tuple() | list():
            return [shown(item) for item in value]
        case dict():
            return {str(name): shown(item) for name, item in value.items()}
        case _:
            return value


def _told(key: Key, value: Any) -> Any:
    """What the owner's file says, as far as it may be shown."""
    if key.kind == "sections":
        return len(value) if isinstance(value, list) else 0
    return None if key.kind == "secret" or key.item == "secret" else value


_DEFAULTS: Final = Settings()
