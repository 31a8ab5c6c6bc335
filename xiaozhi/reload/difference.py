"""What differs between two settings. Pure."""

from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import BaseModel

from xiaozhi.settings import Settings

M = TypeVar("M", bound=BaseModel)


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Names of the settings that differ, such as `asr.workers`, in the order of the model; lists count as one."""
    return _changed(old, new, "")


def _changed(old: BaseModel, new: BaseModel, prefix: str) -> list[str]:
    keys: list[str] = []
    for name in type(new).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if isinstance(after, BaseModel) and type(before) is type(after):
            keys += _changed(before, after, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def held_back(old: Settings, new: Settings, keys: Collection[str]) -> Settings:
    """The new settings, but with the old values of `keys`."""
    return _held_back(old, new, frozenset(keys), "")


def _held_back(old: M, new: M, keys: frozenset[str], prefix: str) -> M:
    update: dict[str, Any] = {}
    for name in type(new).model_fields:
        key = prefix + name
        before, after = getattr(old, name), getattr(new, name)
        if key in keys:
            update[name] = before
        elif isinstance(after, BaseModel) and type(before) is type(after):
            inner = _held_back(before, after, keys, f"{key}.")
            if inner is not after:
                update[name] = inner
    return new.model_copy(update=update) if update else new
