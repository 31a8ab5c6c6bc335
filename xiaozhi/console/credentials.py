"""Whether every key goes where its owner sent it. Pure but for the environment, of which only names are looked at.

Whoever has got into the console could otherwise have every key, and every variable of the process, sent to a server of
theirs: a key goes on to the address it was given for and to no other, and the console names no variables but those that
are known to belong to an address. In the settings file, which belongs to the owner of the machine, both are free.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.pasted import mended_address
from xiaozhi.settings.presets import PRESETS
from xiaozhi.settings.tts import HttpVoiceSettings

# Fields that decide where a table's keys are sent.
_PLACES: Final = ("base_url", "url", "endpoint", "geocoding_url", "region", "provider")
_ENV: Final = "_env"

Place: TypeAlias = tuple[str, ...]
"""Addresses, and what else decides."""
Credential: TypeAlias = tuple[str, object]
"""`text` and what was typed, or `variable` and its name."""


def same_place(one: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(mended_address(url))
    except ValueError:  # no address at all: no other is like it
        return url
    return f"{parts.scheme}://{parts.netloc.lower()}"


@dataclass(frozen=True, slots=True)
class Strayed:
    """What a change would send to places for which nobody gave it.

    Attributes:
        errors: one line for each key, in the order of the model.
        unread: settings that name a variable which is not set now; it must not be read once it is.
    """

    errors: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def strayed(before: Settings, owners: Settings, after: Settings, typed: Collection[str]) -> Strayed:
    """Look at every table that has an address; endpoints have `unknown_variable` and their editor.

    Args:
        before: the settings before the change.
        owners: those without what the console wrote.
        after: those after the change.
        typed: names of settings that are given in this change.
    """
    errors, unread = list[str](), list[str]()
    known = [dict(_sections(settings)) for settings in (before, owners, _DEFAULTS)]
    for table, section in _sections(after):
        if not (place := _place(section)):
            continue
        given = {sent for one in known if _place(one[table]) == place for _, sent in _sent(one[table])}
        for name, sent in _sent(section):
            key, (kind, what) = f"{table}.{name}", sent
            if sent in given or (kind == "text" and key in typed):
                continue
            if kind == "text":
                errors.append(f"{key}: give it again, it was given for another address")
            elif place != (_presets_place(str(what)),):
                if os.environ.get(str(what)):
                    errors.append(_not_sent(key, str(what)))
                else:
                    unread.append(key)
    return Strayed(tuple(errors), tuple(unread))


def unknown_variable(endpoint: LlmEndpoint, known: Iterable[LlmEndpoint], label: str) -> str:
    """Why the variable of an endpoint that the console has edited is not read; empty where it may be.

    Args:
        endpoint: as it was edited.
        known: endpoints of the owner's file, and those that were there before.
        label: how the endpoint is called in the line.
    """
    name, address = endpoint.api_key_env, endpoint.base_url
    if not name or endpoint.api_key.get_secret_value() or _origin(address) == _presets_place(name):
        return ""
    if any(one.api_key_env == name and same_place(one.base_url, address) for one in known if not _key_of(one)):
        return ""
    return _not_sent(f"{label}.api_key_env", name)


def _key_of(endpoint: LlmEndpoint) -> str:
    return endpoint.api_key.get_secret_value()


def _not_sent(key: str, variable: str) -> str:
    return (
        f"{key}: the variable {variable} is not known to belong to this address; leave it empty, give the key "
        "itself, or name the variable in settings.toml"
    )


def _presets_place(variable: str) -> str:
    """Where a variable goes by the presets; empty for one they do not know."""
    return next((_origin(one.base_url) for one in PRESETS.values() if variable and one.api_key_env == variable), "")


def _sections(section: BaseModel, table: str = "") -> Iterator[tuple[str, BaseModel]]:
    """Every table by its name."""
    for name in type(section).model_fields:
        inner = getattr(section, name)
        if isinstance(inner, BaseModel):
            yield f"{table}{name}", inner
            yield from _sections(inner, f"{table}{name}.")


def _place(section: BaseModel) -> Place:
    """Where a table's keys are sent: its addresses first; empty where it has none."""
    if isinstance(section, HttpVoiceSettings):  # by its preset, where it says nothing
        return (_origin(section.request.url),)
    found = []
    for name in _PLACES:
        value = getattr(section, name, None)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str):
            found.append(_origin(text) if "://" in text else text)
    return tuple(found)


def _sent(section: BaseModel) -> Iterator[tuple[str, Credential]]:
    """The keys that a table sends, by the names of their settings; a variable only where nothing is written down."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SecretStr) and value.get_secret_value() and name not in _PLACES:
            yield name, ("text", value.get_secret_value())
        elif isinstance(value, dict) and any(isinstance(one, SecretStr) for one in value.values()):
            yield name, ("text", tuple((key, one.get_secret_value()) for key, one in value.items()))
        elif name.endswith(_ENV) and isinstance(value, str) and value:
            written = getattr(section, name.removesuffix(_ENV), "")
            if not (written.get_secret_value() if isinstance(written, SecretStr) else written):
                yield name, ("variable", value)


_DEFAULTS: Final = Settings()
