"""Engines by name: each has a table of settings that names the class doing the work. Packages may bring others.

A table of an engine is a field of `RecognizerTables` or `VoiceTables`, of the engine's name, or an entry point of the
group `xiaozhi.recognisers` or `xiaozhi.voices` of an installed package. All else (the choices of `asr.engine` and
`tts.engines`, the form on the console, the check, the banner, what credentials are missing) follows from the class.
"""

import importlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, SecretStr, create_model

from xiaozhi.settings.pasted import key_of
from xiaozhi.settings.section import Section

_log = logging.getLogger(__name__)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class KnownVoice:
    """A voice of an engine, what it speaks (`zh`, `en` …, `*` for everything) and whose it sounds like."""

    name: str
    language: str
    gender: Literal["female", "male"]


class EngineSettings(Section):
    """The settings of one engine. A field `x` beside a field `x_env` is a credential, which a variable may hold.

    Attributes:
        implementation: `package.module:Class`, imported when the engine is chosen.
        needs_network: it works on another machine.
        known_voices: for a voice: which it has, the most liked of each kind first; empty where they are numbered.
        optional: credentials that only some accounts have.
    """

    implementation: ClassVar[str] = ""
    needs_network: ClassVar[bool] = True
    known_voices: ClassVar[tuple[KnownVoice, ...]] = ()
    optional: ClassVar[frozenset[str]] = frozenset()

    def credential(self, name: str) -> str:
        """A credential from the file or from the environment; empty when it is in neither."""
        given, variable = getattr(self, name), getattr(self, f"{name}_env")
        if isinstance(given, SecretStr):
            return key_of(given, variable)
        return str(given or (os.environ.get(variable, "") if variable else ""))

    @property
    def needs_credentials(self) -> bool:
        """Whether the service asks for them."""
        return True

    def missing(self, table: str) -> str:
        """Which credentials are missing and where to put them, such as "no key: set tts.azure.api_key"; or nothing."""
        names = [name for name in type(self).model_fields if f"{name}_env" in type(self).model_fields]
        names = [name for name in names if name not in self.optional and not self.credential(name)]
        names = names if self.needs_credentials else []
        if not names:
            return ""
        ways = [f"{table}.{name}" + (f" or {env}" if (env := getattr(self, f"{name}_env")) else "") for name in names]
        return f"no {' and no '.join(name.removeprefix('api_') for name in names)}: set {', '.join(ways)}"


def tables_of(model: type[BaseModel]) -> dict[str, type[EngineSettings]]:
    """The engines that have a table in a model, by name."""
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, EngineSettings)}


def with_plugins(group: str, built_in: type[Section]) -> type[Section]:
    """A model with the tables of installed packages beside its own; one that cannot be used is logged and left out.

    Args:
        group: of entry points, each naming a class of settings.
        built_in: has the tables of this program, which no package replaces.
    """
    fields: dict[str, Any] = {}
    for entry in sorted(entry_points(group=group), key=lambda one: one.name):
        try:
            kind = entry.load()
            if not (isinstance(kind, type) and issubclass(kind, EngineSettings) and kind.implementation):
                raise TypeError("is not a class of EngineSettings with an implementation")
            if not _NAME.fullmatch(entry.name) or entry.name in built_in.model_fields or entry.name in fields:
                raise ValueError("has a name that is taken or none")
            fields[entry.name] = (kind, kind())
        except Exception as error:  # noqa: BLE001 - whatever a package does, the server goes on without its engine
            _log.warning("%s: the engine %s (%s) is left out: %s", group, entry.name, entry.value, error)
    return create_model(built_in.__name__, __base__=built_in, **fields) if fields else built_in


def load_engine(implementations: Mapping[str, str], name: str) -> Any:
    """The class of an engine, imported now.

    Raises:
        ImportError, AttributeError: its module or a library that it needs is not there.
    """
    module, _, attribute = implementations[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
