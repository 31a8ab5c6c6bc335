"""Command line over environment over local file over file over defaults; every mistake is one line naming its place."""

import copy
import datetime
import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import ValidationError

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


@dataclass(slots=True)
class _Layer:
    """Values from one place. `names` says what the user typed to set a path; `file` is set for the settings file."""

    file: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    names: dict[KeyPath, str] = field(default_factory=dict)
    remark: str = ""

    def put(self, path: tuple[str, ...], value: Any, name: str) -> None:
        """Set the value at `path`, which came from `name`."""
        table = self.values
        for part in path[:-1]:
            below = table.get(part)
            if not isinstance(below, dict):
                below = table[part] = {}
            table = below
        old = table.get(path[-1])
        table[path[-1]] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        self.names[path] = name

    def place(self, path: KeyPath) -> str:
        """How a message names `path` here: the variable or option, or the file and the key."""
        for length in range(len(path), 0, -1):
            if name := self.names.get(path[:length]):
                return name if length == len(path) else f"{name}: {dotted(path)}"
        return f"{self.file}: {dotted(path)}"


def local_of(path: Path | None) -> Path:
    """The file that the console writes instead of the owner's: `settings.local.toml` beside `settings.toml`."""
    path = path if path is not None else DEFAULT_FILE
    return path.with_name(f"{path.stem}.local{path.suffix}")


def load_settings(
    path: Path | None,
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    local: Path | None = None,
    local_text: str | None = None,
) -> Loaded:
    """Read the settings: command line before environment before local file before file before default.

    Args:
        path: the settings file; `None` takes `settings.toml` of the current folder where there is one.
        overrides: from the command line, `{"asr.workers": "3"}`.
        environ: the environment; `XIAOZHI_ASR__WORKERS` and the names of `PLAIN_NAMES` count.
        local: the local file, where it is not beside the settings file.
        local_text: what that is taken to hold instead of what it holds; empty for nothing.

    Raises:
        SettingsError: with every mistake that was found.
    """
    source, file, console = _files(path, local, local_text)
    environment, warnings, errors = _read_environment(environ)
    command_line, more_errors = _read_overrides(overrides)
    if errors or more_errors:
        raise SettingsError([*more_errors, *errors])
    layers = (command_line, environment, console, file)
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merged(merged, layer.values)
    try:
        # As JSON and strict: TOML's types count ("3" is no number), and text still becomes a path or a secret.
        settings = Settings.model_validate_json(json.dumps(merged), strict=True)
    except ValidationError as error:
        raise SettingsError(_lines(error, layers)) from None
    except RecursionError:
        raise SettingsError([f"{source or 'settings'}: nested too deeply"]) from None
    if hidden := _hidden(file, console):
        warnings.append(hidden)
    said = [f"{layer.file}: {layer.remark}" for layer in (file, console) if layer.remark]
    for where, raw, what in mended_settings(settings, merged):
        said.append(one_line(f"{_layer_of(where, layers).place(where)}{show(where, raw)}: {what}"))
    return Loaded(settings, source, (*said, *warnings), Path(console.file) if console.values else None)


def _files(path: Path | None, local: Path | None, local_text: str | None = None) -> tuple[Path | None, _Layer, _Layer]:
    """The settings file and what the two files hold. Raises `SettingsError`."""
    source = path if path is not None else DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    beside = local or local_of(source)
    file = _read_file(source) if source is not None else _Layer()
    if local_text is None and not beside.exists():
        return source, file, _Layer()
    return source, file, _read_file(beside, local_text)


def overridden(path: Path | None, local: Path) -> dict[str, Any]:
    """What the settings file says of the settings for which the local file says something else, by their names.

    Raises:
        SettingsError: one of the files cannot be read.
    """
    _, file, console = _files(path, local)
    return {name: below for name, below, _ in _overridden(file, console)}


def _overridden(file: _Layer, local: _Layer) -> Iterator[tuple[str, Any, Any]]:
    """Name, value in the file and value in the local file, where both give one and they differ."""
    for key in keys().values():
        if key.kind == "section" or "*" in key.path:
            continue
        (given, below), (wins, above) = _value(key.path, file.values), _value(key.path, local.values)
        if given and wins and below != above:
            yield dotted(key.path), below, above


def _hidden(file: _Layer, local: _Layer) -> str:
    """One line for whoever edits the file where it has no effect; empty where all of it has."""
    lines = []
    for name, below, above in _overridden(file, local):
        path = tuple(name.split("."))
        before, now = show(path, below).removeprefix(" = "), show(path, above).removeprefix(" = ")
        lines.append(f"{name} ({before} there, {now} holds)" if before != now and before and now else name)
    if not lines:
        return ""
    more = f" and {len(lines) - MAX_TOLD} more" if len(lines) > MAX_TOLD else ""
    return (
        f"{file.file}: has no effect where {local.file}, which the console writes, says something else: "
        f"{', '.join(lines[:MAX_TOLD])}{more}; take the override away in the console, or its line out of {local.file}"
    )


def origins(
    path: Path | None, overrides: Mapping[str, str], environ: Mapping[str, str], local: Path
) -> dict[str, Origin]:
    """Where each setting that is not left at its default comes from, by its name (`asr.workers`).

    The arguments are those of `load_settings`, which must have accepted them. Items of lists are not told apart.

    Raises:
        SettingsError: a file cannot be read any more.
    """
    _, file, console = _files(path, local)
    layers: tuple[tuple[Origin, _Layer], ...] = (
        ("file", file),
        ("local", console),
        ("environment", _read_environment(environ)[0]),
        ("command line", _read_overrides(overrides)[0]),
    )
    found: dict[str, Origin] = {}
    for origin, layer in layers:
        for key in keys().values():
            if key.kind != "section" and "*" not in key.path and _value(key.path, layer.values)[0]:
                found[dotted(key.path)] = origin
    return found


def _lines(error: ValidationError, layers: tuple[_Layer, ...]) -> list[str]:
    """One line for every mistake, in the order of the model, without repetition."""
    lines = []
    entries = error.errors(include_url=False)
    for entry in entries:
        path: KeyPath = tuple(entry["loc"])
        if entry["type"] == "too_short" and any(
            path == other["loc"][: len(path)] for other in entries if other != entry
        ):
            continue  # the list is only short because items of it were refused
        if not path:
            path, message = (), one_line(entry["msg"])
        else:
            path, message = explain(entry, path)
        layer = _layer_of(path, layers)
        found, value = _value(path, layer.values)
        lines.append(one_line(f"{layer.place(path)}{show(path, value) if found else ''}: {message}"))
    return list(dict.fromkeys(lines))


def _layer_of(path: KeyPath, layers: tuple[_Layer, ...]) -> _Layer:
    """The layer that set `path`, or else the table around it; the file where nothing is known."""
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


def _merged(low: dict[str, Any], high: dict[str, Any], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """`high` over `low`, table by table; lists, and tables that are one setting (`hotwords`), are replaced whole."""
    result = copy.copy(low)
    for name, value in high.items():
        below, path = result.get(name), (*above, name)
        if isinstance(below, dict) and isinstance(value, dict) and not ((key := find(path)) and key.kind == "table"):
            value = _merged(below, value, path)
        result[name] = value
    return result


def _read_file(path: Path, text: str | None = None) -> _Layer:
    """The tables of a settings file, or of a text that it is to hold; its paths made relative to its folder."""
    name = one_line(str(path))
    if text is None and not path.exists():
        raise SettingsError([f"{name}: no such file"])
    if text is None and not path.is_file():
        raise SettingsError([f"{name}: not a file"])
    remark = ""
    try:
        if text is None:
            text, remark = read_text(path.read_bytes())
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{name}: not valid TOML: {one_line(str(error))}{_typed(text or '')}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{name}: not valid TOML: the file is not UTF-8 text: save it as UTF-8"]) from None
    except RecursionError:
        raise SettingsError([f"{name}: not valid TOML: nested too deeply"]) from None
    except ValueError as error:  # a number of more digits than Python reads
        raise SettingsError([f"{name}: not valid TOML: {one_line(str(error))}"]) from None
    except OSError as error:
        raise SettingsError([f"{name}: cannot be read: {error.strerror or error}"]) from None
    dates = [
        one_line(f"{name}: {dotted(where)}{show(where, value)}: {_expected(where)}")
        for where, value in _dates(values, ())
    ]
    if dates:
        raise SettingsError(dates)
    layer = _Layer(name, values, remark=remark)
    _anchor_paths(layer.values, path.parent)
    return layer


def _typed(text: str) -> str:
    """What a TOML error may come from: marks of another keyboard where the file's own are meant."""
    for number, line in enumerate(text.splitlines(), 1):
        bare = _TEXT_OR_COMMENT.sub("", line)
        if found := next((mark for mark in bare if mark in "“”‘’＝［］，：＂＇\u00a0\u3000"), ""):
            return f"; line {number} has {one_line(found)} where TOML takes only ASCII marks and blanks"
    return ""


_TEXT_OR_COMMENT: Final = re.compile(r"""\"[^"]*\"|'[^']*'|#.*""")


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


def _read_environment(environ: Mapping[str, str]) -> tuple[_Layer, list[str], list[str]]:
    """Values, warnings and errors from the environment."""
    layer, warnings, errors = _Layer(), list[str](), list[str]()
    found: list[tuple[int, str, tuple[str, ...]]] = []
    names = {_variable(path): path for path in keys() if "*" not in path}
    for variable in environ:
        if path := PLAIN_NAMES.get(variable):
            found.append((0, variable, path))
        elif variable.upper().startswith(Settings.ENV_PREFIX):
            if path := names.get(variable.upper()):
                found.append((len(path), variable, path))
            else:
                warnings.append(f"{one_line(variable)}: no such setting{_near_variable(variable, names)}; ignored")
    for _, variable, path in sorted(found):  # the plain names first, then tables, then single settings
        _put_text(layer, path, environ[variable], variable, errors)
    return layer, sorted(warnings), errors


def _variable(path: tuple[str, ...]) -> str:
    return Settings.ENV_PREFIX + "__".join(path).upper()


def _near_variable(variable: str, names: Mapping[str, tuple[str, ...]]) -> str:
    name = variable.upper().removeprefix(Settings.ENV_PREFIX)
    tails = {known.removeprefix(Settings.ENV_PREFIX): known for known in names}
    if close := difflib.get_close_matches(name, tails, 1, cutoff=0.7):
        return f" (did you mean {tails[close[0]]}?)"
    guess = nearest(name.lower().split("__"))
    return f" (did you mean {_variable(tuple(guess.split('.')))}?)" if guess else ""


def _read_overrides(overrides: Mapping[str, str]) -> tuple[_Layer, list[str]]:
    """Values and errors from the command line."""
    layer, errors = _Layer(), list[str]()
    for name, text in overrides.items():
        path = tuple(name.strip().split("."))
        label = SHORT_OPTIONS.get(name, f"--set {one_line(name)}")
        if find(path) is None or "*" in path:
            errors.append(f"{label}{show(path, text)}: {unknown_key(path)}")
        else:
            _put_text(layer, path, text, label, errors)
    return layer, errors


def _put_text(layer: _Layer, path: tuple[str, ...], text: str, name: str, errors: list[str]) -> None:
    key = find(path)
    if key is None:
        raise KeyError(path)
    try:
        text.encode()
        layer.put(path, parse_text(key, text), name)
    except UnicodeEncodeError:
        errors.append(f"{one_line(name)}: is not UTF-8 text")
    except ValueError as error:
        errors.append(f"{name}{show(path, text)}: {error}")
