"""What every server of a process would make alike, made once for all of them.

A process has one server and a run of tests has a thousand. Of the 130 ms of CPU that its start takes, these are 100:
the system's certificates, the two models, and the schemas of the tools.
"""

import functools
import hashlib
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final

import httpx2._transports.default as transport
import pytest
from httpx2._config import create_ssl_context

from xiaozhi.settings import VadSettings
from xiaozhi.stages.asr.model_files import SenseVoiceFiles
from xiaozhi.stages.asr.sense_voice import SenseVoice
from xiaozhi.stages.vad.silero import SileroModel
from xiaozhi.tools import declare

_MAX_MODELS: Final = 8


def share(patch: pytest.MonkeyPatch) -> None:
    """Let whoever makes one of them take what was made before."""
    patch.setattr(transport, "create_ssl_context", functools.cache(create_ssl_context))
    patch.setattr(declare, "_model", _once(declare._model))
    patch.setattr(declare, "_schema", functools.cache(declare._schema))
    patch.setattr(SileroModel, "__init__", _silero_once(SileroModel.__init__))
    patch.setattr(SenseVoice, "__init__", _sense_voice_once(SenseVoice.__init__))


def _once(make: Callable[..., Any]) -> Callable[..., Any]:
    """The model of a tool's arguments: each server declares its tools anew, in closures of the same code."""
    made: dict[Hashable, Any] = {}

    def once(name: str, function: Any, words: dict[str, str]) -> Any:
        code = getattr(function, "__code__", function)
        hints, defaults = getattr(function, "__annotations__", None), getattr(function, "__defaults__", None)
        key = (name, code, repr(hints), repr(defaults), *words.items())
        if key not in made:
            made[key] = make(name, function, words)
        return made[key]

    return once


def _silero_once(load: Callable[..., None]) -> Callable[..., None]:
    loaded = _Loaded(load)

    def once(self: SileroModel, path: Path, settings: VadSettings, name: str = "silero") -> None:
        loaded.into(self, (path, _content(path), settings.model_dump_json(), name), path, settings, name)

    return once


def _sense_voice_once(load: Callable[..., None]) -> Callable[..., None]:
    loaded = _Loaded(load)

    def once(self: SenseVoice, files: SenseVoiceFiles, **options: Any) -> None:
        key = (_content(files.model), _content(files.tokens), *sorted(options.items()))
        loaded.into(self, key, files, **options)
        self.model = files.model  # each test makes it in a folder of its own

    return once


class _Loaded:
    """What constructors have loaded; to run a model changes nothing of it."""

    def __init__(self, load: Callable[..., None]) -> None:
        self._load = load
        self._kept: dict[Hashable, dict[str, Any]] = {}

    def into(self, model: Any, key: Hashable, *args: Any, **options: Any) -> None:
        if key not in self._kept:
            self._load(model, *args, **options)
            if len(self._kept) == _MAX_MODELS:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = dict(vars(model))
        vars(model).update(self._kept[key])


def _content(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
