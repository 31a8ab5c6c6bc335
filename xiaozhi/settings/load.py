"""Command line over environment over local file over file over defaults; every mistake is one line naming its place."""

import datetime
import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from xiaozhi.settings.errors import SettingsError, explain, one_line, show, unknown_key
from xiaozhi.settings.model import Settings
from xiaozhi.settings.pasted import mended_settings
from xiaozhi.settings.schema import PATHS_AS_TEXT, KeyPath, dotted, find, keys, nearest, parse_text
from xiaozhi.settings.text_file import read_text

DEFAULT_FILE = Path("settings.toml")

PLAIN_NAMES: dict[str, tuple[str, ...]] = {
    "VAD_MAX_CONCURRENT": ("vad", "max_concurrent"),
    "SENSEVOICE_MAX_CONCURRENT": ("asr", "max_concurrent"),
    "SENSEVOICE_BATCH_SIZE": ("asr", "batch_size"),
    "TTS_MAX_CONCURRENT": ("tts", "max_concurrent"),
    "LLM_MAX_CONCURRENT": ("llm", "max_concurrent"),
}
"""Environment names that deployments of the older micro-services already set; the `XIAOZHI_` name of a setting wins."""

Origin: TypeAlias = Literal["default", "file", "local", "environment", "command line"]
"""Where a setting comes from; `local` is the file that the console writes, see `local_of`."""

MAX_TOLD = 12
"""Settings that are named in one warning; of the others there is only their number."""

SHORT_OPTIONS = {"server.host": "--host", "server.port": "--port"}
"""Settings with an option of their own."""

_FOREIGN_MARKS: Final = "“”‘’＝［］，：＂＇\u00a0\u3000"
_TEXT_OR_COMMENT: Final = re.compile(r"""\"[^"]*\"|'[^']*'|#.*""")


class _Layers(BaseSettings):
    """The tables of several sources put together, the first of them on top; `Settings` says whether they hold."""

    model_config = SettingsConfigDict(extra="allow")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources that `_Layers(sources=…)` is given, and no others."""
        return tuple(init_settings()["sources"])


class Source(PydanticBaseSettingsSource):
    """Settings from one place.

    Args:
        origin: the kind of place.
        label: how a message names it: the file, the variable or the option.
        values: its tables.
        at: the setting that a variable or an option gives; nothing for a file.
    """

    def __init__(self, origin: Origin, label: str, values: dict[str, Any], at: KeyPath = ()) -> None:
        super().__init__(_Layers)
        self.origin = origin
        self.values = values
        self._label = label
        self._at = at

    def place(self, path: KeyPath) -> str:
        """How a message names a setting that was given here."""
        return self._label if path == self._at else f"{self._label}: {dotted(path)}"

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See the base class, whose other ways to be asked are not used."""
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The tables, without those that are one setting (`hotwords`) and that a source above gives already."""
        return _beneath(self.values, self.current_state, ())


def _beneath(low: dict[str, Any], high: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in low.items():
        over, path = high.get(name), (*above, name)
        if isinstance(over, dict) and isinstance(value, dict):
            value = {} if (key := find(path)) and key.kind == "table" else _beneath(value, over, path)
        kept[name] = value
    return kept


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that hold.

    Attributes:
        settings: the checked values.
        source: the file they came from, `None` when the built-in defaults were used.
        warnings: one line each, for the log and `xiaozhi check`.
        local: the file of the console that was read as well, `None` where there is none.
        layers: what they were put together from, what wins first.
    """

    settings: Settings
    source: Path | None
    warnings: tuple[str, ...] = ()
    local: Path | None = None
    layers: tuple[Source, ...] = field(default=(), repr=False, compare=False)

    @property
    def sources(self) -> str:
        """The files, for a line that people read."""
        return ", ".join(str(file) for file in (self.source, self.local) if file is not None) or "built-in defaults"

    def origins(self) -> dict[str, Origin]:
        """Where each setting comes from that is not left at its default, by its name; lists count as one."""
        return {name: layer.origin for layer in reversed(self.layers) for name, _ in _settings_in(layer)}

    def overridden(self) -> dict[str, Any]:
        """What the settings file says of the settings for which the local file says something else, by their names."""
        return {name: below for name, below, _ in _overridden(self.layers)}


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
        given, warnings, errors = _given(self.overrides, self.environ)
        if errors:
            raise SettingsError(errors)
        remarks: list[str] = []
        local = _read_file("local", self.local, remarks, local_text)
        file = _read_file("file", self.path, remarks) if self.file is not None or self.path.is_file() else None
        layers = (*given, *(layer for layer in (local, file) if layer is not None))
        settings, merged = _checked(layers)
        if hidden := _hidden(layers, self.path, self.local):
            warnings.append(hidden)
        for where, raw, what in mended_settings(settings, merged):
            remarks.append(one_line(f"{_layer_of(where, layers).place(where)}{show(where, raw)}: {what}"))
        return Loaded(
            settings,
            self.path if file is not None else None,
            (*remarks, *warnings),
            self.local if local is not None and local.values else None,
            layers,
        )


def load_settings(path: Path | None, overrides: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    """Read the settings of one call of the command line, see `SettingsSource`.

    Raises:
        SettingsError: with every mistake that was found; a file that was named and is not there is one.
    """
    if path is not None and not path.exists():
        raise SettingsError([f"{one_line(str(path))}: no such file"])
    return SettingsSource(path, overrides, environ).load()


def local_of(path: Path) -> Path:
    """The file that the console writes instead of the owner's: `settings.local.toml` beside `settings.toml`."""
    return path.with_name(f"{path.stem}.local{path.suffix}")


def _checked(layers: Sequence[Source]) -> tuple[Settings, dict[str, Any]]:
    """The settings, and the tables that they were made of. Raises `SettingsError`."""
    try:
        merged = _Layers(sources=layers).model_extra or {}
        # As JSON and strict: TOML's types count ("3" is no number), and text still becomes a path or a secret.
        return Settings.model_validate_json(json.dumps(merged), strict=True), merged
    except ValidationError as error:
        raise SettingsError(_lines(error, layers)) from None
    except RecursionError:
        raise SettingsError(["settings: nested too deeply"]) from None


def _overridden(layers: Sequence[Source]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value in the file and value in the local file, where both give one and they differ."""
    local, file = (
        {name: value for layer in layers if layer.origin == origin for name, value in _settings_in(layer)}
        for origin in ("local", "file")
    )
    for name, above in local.items():
        if name in file and file[name] != above:
            yield name, file[name], above


def _hidden(layers: Sequence[Source], owners: Path, local: Path) -> str:
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


def _lines(error: ValidationError, layers: Sequence[Source]) -> list[str]:
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
        found, value = _value(path, layer.values)
        lines.append(one_line(f"{layer.place(path)}{show(path, value) if found else ''}: {message}"))
    return list(dict.fromkeys(lines))


def _layer_of(path: KeyPath, layers: Sequence[Source]) -> Source:
    """The layer that set `path`, or else the table around it; the lowest where nothing is known."""
    for length in range(len(path), 0, -1):
        for layer in layers:
            if _value(path[:length], layer.values)[0]:
                return layer
    return layers[-1]


def _value(path: KeyPath, tree: Any) -> tuple[bool, Any]:
    """Whether something stands at `path`, and what."""
    for part in path:
        is_there = part in tree if isinstance(tree, dict) else isinstance(tree, list) and part in range(len(tree))
        if not is_there:
            return False, None
        tree = tree[part]
    return True, tree


def _settings_in(layer: Source) -> Iterator[tuple[str, Any]]:
    """The settings that a layer gives, by their names, in the order of the model; lists count as one."""
    for key in keys().values():
        if key.kind != "section" and "*" not in key.path and (found := _value(key.path, layer.values))[0]:
            yield dotted(key.path), found[1]


# Files ----------------------------------------------------------------------------------------------------------------


def _read_file(origin: Origin, path: Path, remarks: list[str], text: str | None = None) -> Source | None:
    """The tables of a settings file, or of a text that it is to hold; None where there is none.

    Its paths are made relative to its folder; what is to be said of its form goes to `remarks`. Raises `SettingsError`.
    """
    name = one_line(str(path))
    if text is None and not path.exists():
        return None
    if text is None and not path.is_file():
        raise SettingsError([f"{name}: not a file"])
    try:
        if text is None:
            text, remark = read_text(path.read_bytes())
            remarks += [f"{name}: {remark}"] if remark else []
        values = tomllib.loads(text)
    except UnicodeDecodeError:
        raise SettingsError([f"{name}: not valid TOML: the file is not UTF-8 text: save it as UTF-8"]) from None
    except RecursionError:
        raise SettingsError([f"{name}: not valid TOML: nested too deeply"]) from None
    except ValueError as error:  # of TOML, or a number of more digits than Python reads
        raise SettingsError([f"{name}: not valid TOML: {one_line(str(error))}{_typed(text or '')}"]) from None
    except OSError as error:
        raise SettingsError([f"{name}: cannot be read: {error.strerror or error}"]) from None
    dates = [
        one_line(f"{name}: {dotted(where)}{show(where, value)}: {_expected(where)}")
        for where, value in _dates(values, ())
    ]
    if dates:
        raise SettingsError(dates)
    _anchor_paths(values, path.parent)
    return Source(origin, name, values)


def _typed(text: str) -> str:
    """What a TOML error may come from: marks of another keyboard where the file's own are meant."""
    for number, line in enumerate(text.splitlines(), 1):
        bare = _TEXT_OR_COMMENT.sub("", line)
        if found := next((mark for mark in bare if mark in _FOREIGN_MARKS), ""):
            return f"; line {number} has {one_line(found)} where TOML takes only ASCII marks and blanks"
    return ""


def _dates(tree: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """TOML's dates and times, which no setting takes and JSON does not know."""
    if isinstance(tree, (datetime.date, datetime.time)):
        yield path, tree
    elif isinstance(tree, (dict, list)):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _dates(value, (*path, name))


def _expected(path: KeyPath) -> str:
    key = find(path)
    return f"must be {key.allowed()}" if key is not None else unknown_key(path)


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of a file relative to its folder; left as they are when that is the current folder."""
    if folder.resolve() == Path.cwd():
        return
    for key in keys().values():
        if key.kind != "path" and key.path not in PATHS_AS_TEXT:
            continue
        found, value = _value(key.path, values)
        if not found or not isinstance(value, str) or not value or value.startswith("~"):
            continue
        if key.kind == "path" or "/" in value or value.endswith(".onnx"):
            _value(key.path[:-1], values)[1][key.path[-1]] = str(folder / value)


# Command line and environment -----------------------------------------------------------------------------------------


def _given(overrides: Mapping[str, str], environ: Mapping[str, str]) -> tuple[list[Source], list[str], list[str]]:
    """A source for each option and variable, what wins first; warnings; errors."""
    sources, warnings, errors = list[Source](), list[str](), list[str]()

    def take(origin: Origin, label: str, path: tuple[str, ...], text: str) -> None:
        key = find(path)
        if key is None or "*" in path:
            errors.append(f"{label}{show(path, text)}: {unknown_key(path)}")
            return
        try:
            text.encode()
            value = parse_text(key, text)
        except UnicodeEncodeError:
            errors.append(f"{one_line(label)}: is not UTF-8 text")
        except ValueError as error:
            errors.append(f"{label}{show(path, text)}: {error}")
        else:
            for part in reversed(path):
                value = {part: value}
            sources.append(Source(origin, label, value, path))

    for name, text in reversed([*overrides.items()]):
        label = SHORT_OPTIONS.get(name, f"--set {one_line(name)}")
        take("command line", label, tuple(name.strip().split(".")), text)
    names = {_variable(path): path for path in keys() if "*" not in path}
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for variable in environ:
        if path := PLAIN_NAMES.get(variable):
            found.append((0, variable, path))
        elif path := names.get(variable.upper()):
            found.append((len(path), variable, path))
        elif variable.upper().startswith(Settings.ENV_PREFIX):
            warnings.append(f"{one_line(variable)}: no such setting{_near_variable(variable, names)}; ignored")
    for _, variable, path in sorted(found, reverse=True):  # single settings, then tables, then the plain names
        take("environment", variable, path, environ[variable])
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
