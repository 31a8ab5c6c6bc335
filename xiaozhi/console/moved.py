"""Secrets that a change of address would send to somebody else. Pure."""

from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from xiaozhi.settings import Settings
from xiaozhi.settings.pasted import mended_address

_ADDRESSES: Final = frozenset({"base_url", "url", "endpoint", "geocoding_url"})


def same_place(one: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port."""
    try:
        return urlsplit(mended_address(one))[:2] == urlsplit(mended_address(other))[:2]
    except ValueError:
        return False


def moved_secrets(settings: Settings, changes: Mapping[str, Any], unset: Collection[str] = ()) -> list[str]:
    """Secrets that were given for an address that is being changed, and are not given again.

    Whoever has got into the console could otherwise have every key sent to a server of theirs.

    Args:
        settings: before the change.
        changes: new values by name.
        unset: names that go back to their defaults.

    Returns:
        Names of the secrets, in the order of the model.
    """
    found: list[str] = []
    for name in (*changes, *unset):
        table, _, field = name.rpartition(".")
        section = _section(settings, table)
        if section is None or field not in _ADDRESSES:
            continue
        new = changes[name] if name in changes else type(section).model_fields[field].default
        if isinstance(new, str) and same_place(new, str(getattr(section, field, ""))):
            continue
        for other in type(section).model_fields:
            value = getattr(section, other)
            kept = isinstance(value, SecretStr) and value.get_secret_value()
            secret = f"{table}.{other}"
            if kept and secret not in changes and secret not in unset and secret not in found:
                found.append(secret)
    return found


def _section(settings: Settings, table: str) -> BaseModel | None:
    section: object = settings
    for part in table.split("."):
        section = getattr(section, part, None)
    return section if isinstance(section, BaseModel) else None
