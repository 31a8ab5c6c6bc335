"""Command line over environment over local file over file over defaults; every mistake is one line naming its place."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xiaozhi.settings import Settings
from xiaozhi.settings.errors import SettingsError, explain, one_line, show
from xiaozhi.settings.pasted import mended_settings
from xiaozhi.settings.schema import KeyPath, dotted, keys, nearest
from xiaozhi.settings.sources import FileSource, Layers, Origin, SettingsLayer, TextSource, value_at

DEFAULT_FILE = Path("settings.toml")

PLAIN_NAMES: dict[str, tuple[str, ...]] = {
    "VAD_MAX_CONCURRENT": ("vad", "max_concurrent"),
    "SENSEVOICE_MAX_CONCURRENT": ("asr", "max_concurrent"),
    "SENSEVOICE_BATCH_SIZE": ("asr", "batch_size"),
    "TTS_MAX_CONCURRENT": ("tts", "max_concurrent"),
    "LLM_MAX_CONCURRENT": ("llm", "max_concurrent"),
}
"""Environment names that deployments of the older micro-services already set; the `XIAOZHI_` name of a setting wins."""

MAX_TOLD = 12
"""Settings that are named in one warning; of the others there is only their number."""

SHORT_OPTIONS = {"server.host": "--host", "server.port": "--port"}
"""Settings with an option of their own."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that hold.

    Attributes:
        settings: the checked values.
        source: the file they came from, `None` when the built-in defaults were used.
        warnings: one line each, for the log and `xiaozhi check`.
        local: the file of the console that was read as well, `None` where there is none.
    """

    settings: Settings
    source: Path | None
    warnings: tuple[str, ...] = ()
    local: Path | None = None

    @property
    def sources(self) -> str:
        """The files, for a line that people read."""
        return ", ".join(str(file) for file in (self.source, self.local) if file is not None) or "built-in defaults"


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """Where the settings of a process come from, so that they can be read again and changed.

    Attributes:
        file: the owner's settings file, which need not be there; None for `settings.toml` of the current folder.
        overrides: of the command line, `{"asr.workers": "3"}`; a short option such as `--port` is one of them.
        environ: the environment; `XIAOZHI_ASR__WORKERS` and the names of `PLAIN_NAMES` count.
    """

    file: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path:
        """The owner's file: the one that was read, or the one that would be found at the next start."""
        return self.file if self.file is not None else DEFAULT_FILE

    @property
    def local(self) -> Path:
        """The file that changes are written to; it wins over the owner's, and need not be there."""
        return local_of(self.path)

    def load(self, local_text: str | None = None) -> Loaded:
        """Read the settings: command line before environment before local file before file before default. Blocking.

        Args:
            local_text: what the local file is taken to hold instead of what it holds; empty for nothing.

        Raises:
            SettingsError: with every mistake that was found.
        """
        layers, warnings = self._read(local_text)
        settings, merged = _checked(layers)
        if hidden := _hidden(layers, self.path, self.local):
            warnings.append(hidden)
        remarks = [remark for layer in layers for remark in layer.remarks]
        for where, raw, what in mended_settings(settings, merged):
            remarks.append(one_line(f"{_layer_of(where, layers).place(where)}{show(where, raw)}: {what}"))
        given = {layer.origin for layer in layers if layer.values or layer.origin == "file"}
        return Loaded(
            settings,
            self.path if "file" in given else None,
            (*remarks, *warnings),
            self.local if "local" in given else None,
        )

    def origins(self) -> dict[str, Origin]:
        """Where each setting comes from that is not left at its default, by its name; lists count as one. Blocking.

        Raises:
            SettingsError: a file cannot be read any more. What holds in it is not looked at.
        """
        return {name: layer.origin for layer in reversed(self._read()[0]) for name, _ in _settings_in(layer)}

    def overridden(self) -> dict[str, Any]:
        """What the settings file says of the settings for which the local file says something else, by their names.

        Blocking. Raises `SettingsError` as `origins` does.
        """
        return {name: below for name, below, _ in _overridden(self._read()[0])}

    def _read(self, local_text: str | None = None) -> tuple[list[SettingsLayer], list[str]]:
        """The sources, what wins first, and warnings. Raises `SettingsError`."""
        layers, warnings, errors = _given(self.overrides, self.environ)
        if errors:
            raise SettingsError(errors)
        if local_text is not None or self.local.exists():
            layers.append(FileSource("local", self.local, local_text))
        if self.path.is_file():
            layers.append(FileSource("file", self.path))
        return layers, warnings


def load_settings(path: Path | None, overrides: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    """Read the settings of one call of the command line, see `SettingsSource`.

    Raises:
        SettingsError: with every mistake that was found; a file that was named and is not there is one.
    """
    if path is not None and not path.is_file():
        FileSource("file", path)
    return SettingsSource(path, overrides, environ).load()


def local_of(path: Path) -> Path:
    """The file that the console writes instead of the owner's: `settings.local.toml` beside `settings.toml`."""
    return path.with_name(f"{path.stem}.local{path.suffix}")


def _checked(layers: Sequence[SettingsLayer]) -> tuple[Settings, dict[str, Any]]:
    """The settings, and the tables that they were made of. Raises `SettingsError`."""
    try:
        merged = Layers(sources=layers).model_extra or {}
        # As JSON and strict: TOML's types count ("3" is no number), and text still becomes a path or a secret.
        return Settings.model_validate_json(json.dumps(merged), strict=True), merged
    except ValidationError as error:
        raise SettingsError(_lines(error, layers)) from None
    except RecursionError:
        raise SettingsError(["settings: nested too deeply"]) from None


def _overridden(layers: Sequence[SettingsLayer]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value in the file and value in the local file, where both give one and they differ."""
    local, file = (
        {name: value for layer in layers if layer.origin == origin for name, value in _settings_in(layer)}
        for origin in ("local", "file")
    )
    for name, above in local.items():
        if name in file and file[name] != above:
            yield name, file[name], above


def _hidden(layers: Sequence[SettingsLayer], owners: Path, local: Path) -> str:
    """One line for whoever edits the file where it has no effect; empty where all of it has."""
    lines = []
    for name, below, above in _overridden(layers):
        path = tuple(name.split("."))
        before, now = show(path, below).removeprefix(" = "), show(path, above).removeprefix(" = ")
        lines.append(f"{name} ({before} there, {now} holds)" if before != now and before and now else name)
    if not lines:
        return ""
    more = f" and {len(lines) - MAX_TOLD} more" if len(lines) > MAX_TOLD else ""
    return one_line(
        f"{owners}: has no effect where {local}, which the console writes, says something else: "
        f"{', '.join(lines[:MAX_TOLD])}{more}; take the override away in the console, or its line out of {local}"
    )


def _lines(error: ValidationError, layers: Sequence[SettingsLayer]) -> list[str]:
    """One line for every mistake, in the order of the model, without repetition."""
    lines = []
    entries = error.errors(include_url=False)
    for entry in entries:
        path: KeyPath = tuple(entry["loc"])
        if entry["type"] == "too_short" and any(
            path == other["loc"][: len(path)] for other in entries if other != entry
        ):
            continue  # the list is only short because items of it were refused
        path, message = explain(entry, path) if path else (path, one_line(entry["msg"]))
        layer = _layer_of(path, layers)
        found, value = value_at(path, layer.values)
        lines.append(one_line(f"{layer.place(path)}{show(path, value) if found else ''}: {message}"))
    return list(dict.fromkeys(lines))


def _layer_of(path: KeyPath, layers: Sequence[SettingsLayer]) -> SettingsLayer:
    """The layer that set `path`, or else the table around it; the lowest where nothing is known."""
    for length in range(len(path), 0, -1):
        for layer in layers:
            if value_at(path[:length], layer.values)[0]:
                return layer
    return layers[-1]


def _settings_in(layer: SettingsLayer) -> Iterator[tuple[str, Any]]:
    """The settings that a layer gives, by their names, in the order of the model; lists count as one."""
    for key in keys().values():
        if key.kind != "section" and "*" not in key.path and (found := value_at(key.path, layer.values))[0]:
            yield dotted(key.path), found[1]


def _given(
    overrides: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[list[SettingsLayer], list[str], list[str]]:
    """A source for each option and variable, what wins first; warnings; errors."""
    warnings = list[str]()
    found: list[tuple[Origin, str, tuple[str, ...], str]] = [
        ("command line", SHORT_OPTIONS.get(name, f"--set {one_line(name)}"), tuple(name.strip().split(".")), text)
        for name, text in reversed([*overrides.items()])
    ]
    names = {_variable(path): path for path in keys() if "*" not in path}
    variables: list[tuple[int, str, tuple[str, ...]]] = []
    for variable in environ:
        if path := PLAIN_NAMES.get(variable):
            variables.append((0, variable, path))
        elif path := names.get(variable.upper()):
            variables.append((len(path), variable, path))
        elif variable.upper().startswith(Settings.ENV_PREFIX):
            warnings.append(f"{one_line(variable)}: no such setting{_near_variable(variable, names)}; ignored")
    # Single settings first, then tables, then the plain names.
    found += [("environment", name, path, environ[name]) for _, name, path in sorted(variables, reverse=True)]
    sources, errors = list[SettingsLayer](), list[str]()
    for origin, label, path, text in found:
        try:
            sources.append(TextSource(origin, label, path, text))
        except SettingsError as error:
            errors += error.errors
    return sources, sorted(warnings), errors


def _variable(path: tuple[str, ...]) -> str:
    return Settings.ENV_PREFIX + "__".join(path).upper()


def _near_variable(variable: str, names: Mapping[str, tuple[str, ...]]) -> str:
    name = variable.upper().removeprefix(Settings.ENV_PREFIX)
    tails = {known.removeprefix(Settings.ENV_PREFIX): known for known in names}
    if close := difflib.get_close_matches(name, tails, 1, cutoff=0.7):
        return f" (did you mean {tails[close[0]]}?)"
    guess = nearest(name.lower().split("__"))
    return f" (did you mean {_variable(tuple(guess.split('.')))}?)" if guess else ""
