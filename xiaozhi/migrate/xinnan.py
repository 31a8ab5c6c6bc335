"""From a file of xiaozhi-esp32-server to settings of ours, and what is to be said of each value. Pure but for paths.

Which engines there are is looked up in the model of the settings, so the tables name more than a version has.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from xiaozhi.migrate.report import NO_WORDS, ReportLine, Words, shown_name
from xiaozhi.migrate.rules import Leave, NotTaken, Provider, Rule, Rules, Way
from xiaozhi.migrate.xinnan_table import COMMON, ENTRIES, PROVIDERS, SELECTED, THINKING_OFF, TOP
from xiaozhi.migrate.yaml_file import Plain
from xiaozhi.settings import Settings
from xiaozhi.settings.engines import EngineSettings
from xiaozhi.settings.errors import explain
from xiaozhi.settings.pasted import is_near, mended_address
from xiaozhi.settings.schema import Key, KeyPath, bounds, dotted, find, keys, number_text, parse_text, value_of

MAX_LINES: Final = 500
_ENDPOINTS: Final = ("llm", "endpoints")
_KINDS: Final = ("kind", "platform", "protocol", "api")
"""What the kind of an endpoint may be called in the model."""
_TABLES: Final = frozenset({"vad", "memory", "tools"})
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,2})?")
_UNSET: Final = frozenset({"", "~", "null", "none"})
_PLACEHOLDER: Final = re.compile(r"你的|（选填）|^your[-_ ]", re.IGNORECASE)
_MAX_PLACEHOLDER_CHARS: Final = 80
_NOT_SELECTED: Final = Words("没有选用", "not selected")
_WRONG_TYPE: Final = Words("类型不对", "is of the wrong type")
_TWICE: Final = Words("已由另一个值决定", "another value counts already")


@dataclass
class Migration:
    """What a file is with us.

    Attributes:
        values: tables of our settings, which hold.
        lines: what became of each value.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: list[ReportLine] = field(default_factory=list)

    def changes(self) -> dict[str, Any]:
        """The settings by their names; lists and tables of free names count as one."""
        return dict(_flat(self.values, ()))

    def without(self, names: Collection[str], words: Words) -> "Migration":
        """The same without some settings, whose lines say why."""
        lines = [
            replace(line, fate="left", ours="", words=words) if line.ours and line.ours in names else line
            for line in self.lines
        ]
        return Migration(_nested(each for each in self.changes().items() if each[0] not in names), lines)


def _nested(changes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Settings by their names as tables."""
    tables: dict[str, Any] = {}
    for name, value in changes:
        *above, last = name.split(".")
        inner = tables
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tables


def migrate_xinnan(config: Mapping[str, Any], root: Path | None = None) -> Migration:
    """Turn a file of theirs into settings of ours.

    Args:
        config: the file, as `read_yaml` gives it.
        root: the folder that relative paths in it start from; None where their files are out of reach.
    """
    return _Mover(root).moved(config)


class _Mover:
    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._lines: list[ReportLine] = []
        self._values: dict[KeyPath, Any] = {}
        self._of: dict[KeyPath, ReportLine] = {}
        """The line of each value; refusing the value turns it round."""
        self._rows = 0

    def moved(self, config: Mapping[str, Any]) -> Migration:
        chosen = config.get("selected_module")
        chosen = chosen if isinstance(chosen, dict) else {}
        for section in ("selected_module", *SELECTED):
            if config.get(section) and not isinstance(config[section], dict):
                self._lines.append(ReportLine("left", section, words=_WRONG_TYPE))
        for section in SELECTED:
            entries = config.get(section)
            self._section(section, chosen.get(section), entries if isinstance(entries, dict) else {})
        self._apply({name: value for name, value in config.items() if name not in SELECTED}, TOP, "", ())
        settings = self._valid()
        self._tell_missing(settings)
        if len(self._lines) > MAX_LINES:
            more = len(self._lines) - MAX_LINES
            del self._lines[MAX_LINES:]
            self._lines.append(ReportLine("left", "…", words=Words(f"还有 {more} 项", f"{more} more")))
        return Migration(_as_tables(self._values)[0], self._lines)

    # Providers ------------------------------------------------------------------------------------------------------

    def _section(self, section: str, chosen: Any, entries: Mapping[str, Any]) -> None:
        usual = SELECTED[section]
        name = chosen if isinstance(chosen, str) and chosen else usual if usual in entries else ""
        label = f"selected_module.{section}"
        if chosen and not isinstance(chosen, str):
            self._lines.append(ReportLine("todo", label, words=_WRONG_TYPE))
        if name:
            known = ENTRIES.get(section, {}).get(name, {})
            given = entries.get(name, {})
            if isinstance(given, dict) and (known or given or (section, name) in PROVIDERS):
                filled = {key: value for key, value in given.items() if not _is_unset(value)}
                self._provider(section, name, label, {**known, **filled})
            else:
                there_is_none = Words(
                    f"没有 {section}.{shown_name(name)} 这一项", f"there is no {section}.{shown_name(name)}"
                )
                self._lines.append(ReportLine("todo", label, words=there_is_none))
        if others := [other for other in entries if other != name]:
            self._lines.append(ReportLine("left", f"{section}: {', '.join(others)}", words=_NOT_SELECTED))

    def _provider(self, section: str, name: str, label: str, entry: dict[str, Any]) -> None:
        kind = str(entry.get("type") or name)
        provider = PROVIDERS.get((section, kind))
        if provider is None:
            unknown = Words(f"不认识类型 {shown_name(kind)}", f"the type {shown_name(kind)} is not known")
            self._lines.append(ReportLine("left", f"{section}.{name}", words=unknown))
            return
        found = self._possible(section, provider)
        if found is None:
            ways, words = provider.ways, provider.words
            if ways and not words.zh:
                engine = ways[0].preset or ways[0].engine
                words = Words(f"引擎 {engine}，升级后再转换一次", f"the engine {engine}; migrate again after an update")
            self._lines.append(
                ReportLine("unavailable" if ways else "left", f"{section}.{name} ({shown_name(kind)})", words=words)
            )
            return
        way, table = found
        try:
            entry = provider.reshape(entry)
        except NotTaken as refused:
            self._lines.append(ReportLine("left", f"{section}.{name}", words=refused.words))
            return
        line = ReportLine("taken", label, words=way.words)
        self._lines.append(line)
        if table[:2] == _ENDPOINTS:
            self._endpoint(section, name, way, table, entry, line)
            return
        for key, value in (*way.fixed.items(), *([("preset", self._preset(table, way))] if way.preset else [])):
            self._put((*table, key), value, line)
        line.ours = dotted((*table, *list(way.fixed)[:1]) if way.engine in _TABLES else table)
        if section == "ASR":
            self._put(("asr", "engine"), way.engine, line)
            line.ours = "asr.engine"
        elif section == "TTS":
            self._put(("tts", "engines"), [table[1], "espeak"], line)
            line.ours = "tts.engines"
        self._apply(entry, {**COMMON, **way.rules}, f"{section}.{name}", table)
        self._forget_variables(table, line)

    def _forget_variables(self, table: KeyPath, line: ReportLine) -> None:
        """A key of the environment, which belongs to the usual address, is not sent to another one."""
        usual = value_of(Settings(), dotted(table)) if len(table) > 1 else None
        addresses = [name for name in ("base_url", "url", "endpoint") if (*table, name) in self._values]
        if all(_host(getattr(usual, name)) == _host(self._values[(*table, name)]) for name in addresses):
            return
        for key in keys().values():
            if key.path[:-1] == table and key.path[-1].endswith("_env") and key.kind == "str":
                self._put(key.path, "", line)

    def _possible(self, section: str, provider: Provider) -> tuple[Way, KeyPath] | None:
        """The first way that this version has, and its table."""
        for way in provider.ways:
            if section in ("LLM", "VLLM"):
                if not way.engine or self._kind(way.engine) is not None:
                    return way, (*_ENDPOINTS, self._rows)
            elif way.engine in _TABLES:
                return way, (way.engine,)
            elif section == "ASR" and way.engine == "auto":
                return way, ("asr",)
            else:
                table = (section.lower(), way.engine)
                if find(table) is not None and (not way.preset or self._preset(table, way)):
                    return way, table
        return None

    def _preset(self, table: KeyPath, way: Way) -> str:
        key = find((*table, "preset"))
        return _match(way.preset, key.choices if key is not None else ())

    def _kind(self, engine: str) -> tuple[str, str] | None:
        """The field that holds the kind of an endpoint, and how this kind is spelled there."""
        for name in _KINDS:
            key = find((*_ENDPOINTS, 0, name))
            if key is not None and (spelled := _match(engine, key.choices)):
                return name, spelled
        return None

    def _endpoint(
        self, section: str, name: str, way: Way, table: KeyPath, entry: dict[str, Any], line: ReportLine
    ) -> None:
        """A row of `[[llm.endpoints]]`; one that nobody could use is taken back."""
        lines = len(self._lines)
        self._rows += 1
        line.ours = dotted(table)
        taken = name in (self._values.get((*_ENDPOINTS, row, "name")) for row in range(self._rows))
        self._put((*table, "name"), f"{name}-{section}" if taken else name, line)
        for key, value in way.fixed.items():
            self._put((*table, key), value, line)
        if way.engine and (kind := self._kind(way.engine)) is not None:
            self._put((*table, kind[0]), kind[1], line)
        self._apply(entry, {**COMMON, **way.rules}, f"{section}.{name}", table)
        row = {path[3]: value for path, value in self._values.items() if path[:3] == table}
        host = _host(row.get("base_url", ""))
        why = NO_WORDS
        if not row.get("base_url") and "preset" not in row:
            why = Words("没有地址", "has no address")
        elif not row.get("api_key") and ("preset" in row or not is_near(host)):
            why = Words("没有密钥：补上 api_key 再转换", "has no key: fill in api_key and migrate again")
        elif section == "VLLM" and (twin := self._twin(table)) is not None:
            del self._lines[lines:]
            self._drop(table)
            self._put((*twin, "vision"), True, line)
            line.ours = dotted((*twin, "vision"))
            return
        if why.zh:
            self._drop(table)
            del self._lines[lines:]
            line.fate, line.ours, line.words = (
                "todo",
                "",
                Words(f"{section}.{shown_name(name)} {why.zh}", f"{section}.{shown_name(name)} {why.en}"),
            )
            return
        off = next((body for end, body in THINKING_OFF.items() if host == end or host.endswith(f".{end}")), {})
        if off and not way.engine:
            self._put((*table, "extra_body"), {**off, **row.get("extra_body", {})}, line)
        if (
            (model := find((*table, "model"))) is not None
            and model.field.is_required()
            and "preset" not in row
            and not row.get("model")
        ):
            self._put((*table, "model"), way.engine or "default", line)

    def _twin(self, table: KeyPath) -> KeyPath | None:
        """Another endpoint with the same address and model."""
        for index in range(self._rows - 1):
            row = (*_ENDPOINTS, index)
            if all(
                self._values.get((*row, name)) == self._values.get((*table, name)) for name in ("base_url", "model")
            ):
                return row
        return None

    # Values ---------------------------------------------------------------------------------------------------------

    def _apply(self, entry: Mapping[str, Any], rules: Rules, prefix: str, table: KeyPath, above: str = "") -> None:
        for name, value in sorted(entry.items(), key=lambda item: item[0] != "private_voice"):
            path = f"{above}.{name}" if above else name
            theirs = f"{prefix}.{path}" if prefix else path
            if isinstance(value, dict) and any(rule.startswith(f"{path}.") for rule in rules):
                self._apply(value, rules, prefix, table, path)
            elif not _is_unset(value) or path == "prompt":
                around = rules.get(above)
                self._value(theirs, value, rules.get(path, around if isinstance(around, Leave) else Leave()), table)

    def _value(self, theirs: str, value: Any, rule: Rule, table: KeyPath) -> None:
        if isinstance(rule, Leave):
            if not rule.quiet:
                self._lines.append(ReportLine("left", theirs, words=rule.words))
            return
        line = ReportLine("taken", theirs, words=rule.words)
        self._lines.append(line)
        for name in rule.names:
            path = (*table, *name.split("."))
            key, around = find(path), find(path[:-1])
            inside = key is None and len(path) > len(table) + 1 and around is not None and around.kind == "table"
            if key is None and not inside:
                continue
            try:
                made = rule.convert(value)
                fitted = self._fitted(key, made)
            except NotTaken as refused:
                line.fate, line.words = "left", refused.words
                return
            if isinstance(fitted, dict) and key is not None and key.kind == "section":
                for part, inner in fitted.items():
                    self._put((*path, part), inner, line)
            elif inside:
                self._put(path[:-1], {**self._values.get(path[:-1], {}), path[-1]: fitted}, line)
            elif path in self._values:
                line.fate, line.words = "left", _TWICE
                return
            else:
                self._put(path, fitted, line)
            line.ours = dotted(path)
            return
        line.fate, line.words = "left", NO_WORDS

    def _fitted(self, key: Key | None, value: Any) -> Any:
        """A value in the type of our setting, or as one of a table of free names. Raises `NotTaken`."""
        if key is None or key.kind == "section":
            return _typed(value)
        if key.kind == "table":
            if not isinstance(value, dict):
                raise NotTaken(_WRONG_TYPE)
            return {name: str(each) for name, each in value.items()} if key.item == "secret" else _typed(value)
        if isinstance(value, (bool, int, float)):
            return value
        if key.kind == "list":
            rows = value if isinstance(value, list) else [value]
            if not all(isinstance(row, str) for row in rows):
                raise NotTaken(_WRONG_TYPE)
            return [str(row) for row in rows if not _is_unset(row)]
        if not isinstance(value, str):
            raise NotTaken(_WRONG_TYPE)
        if key.kind == "path":
            return self._path(value)
        made = parse_text(key, mended_address(value) if key.path[-1] == "base_url" else str(value))
        if isinstance(made, float) and not math.isfinite(made):
            raise NotTaken(_WRONG_TYPE)
        return made

    def _path(self, value: str) -> str:
        place = self._root / value if self._root is not None else None
        if place is None or not place.exists():
            raise NotTaken(
                Words("这个路径不在这里，请在 settings.toml 里写", "that path is not here: write it in settings.toml")
            )
        return str(place.resolve())

    def _put(self, path: KeyPath, value: Any, line: ReportLine) -> None:
        self._values[path] = value
        self._of[path] = line

    def _drop(self, path: KeyPath) -> list[ReportLine]:
        """Take back all values below a path; returns their lines."""
        gone = [each for each in self._values if each[: len(path)] == path]
        for each in gone:
            del self._values[each]
        return [self._of.pop(each) for each in gone]

    # The whole ------------------------------------------------------------------------------------------------------

    def _valid(self) -> Settings:
        """The settings with all that holds; what does not is taken back, and its line says why."""
        while True:
            tables, rows = _as_tables(self._values)
            try:
                return Settings.model_validate_json(json.dumps(tables), strict=True)
            except ValidationError as error:
                for entry in error.errors(include_url=False):
                    where: KeyPath = tuple(entry["loc"])
                    if where[:2] == _ENDPOINTS and len(where) > 2:
                        where = (*_ENDPOINTS, rows[int(where[2])], *where[3:])
                    self._refuse(where, explain(entry, where)[1] if where else "")

    def _refuse(self, where: KeyPath, why: str) -> None:
        while where and not any(path[: len(where)] == where for path in self._values):
            where = where[:-1]
        words = Words(_allowed_zh(find(where)), why)
        for line in self._drop(where):
            line.fate, line.ours, line.words = "left", "", words

    def _tell_missing(self, settings: Settings) -> None:
        """An engine without its credentials is not chosen: the lines say what to give."""
        for stage, selected in (("asr", "engine"), ("tts", "engines")):
            value = self._values.get((stage, selected))
            engine = value[0] if isinstance(value, list) else value
            section = value_of(settings, f"{stage}.{engine}") if find((stage, engine or "")) is not None else None
            if not isinstance(section, EngineSettings) or not section.missing(f"{stage}.{engine}"):
                continue
            said = section.missing(f"{stage}.{engine}")
            names = [f"{stage}.{engine}.{name}" for name in type(section).model_fields]
            given = ", ".join(name for name in names if re.search(rf"{re.escape(name)}\b", said))
            for line in self._drop((stage, selected)):
                line.fate, line.ours = "todo", f"{stage}.{selected}"
                line.words = Words(
                    f"缺少密钥：填好 {given}，再选 {engine}", f"keys are missing: give {given}, then choose {engine}"
                )


def _allowed_zh(key: Key | None) -> str:
    """What a setting takes, in Chinese."""
    low, high, _, _ = bounds(key.field) if key is not None else (None, None, False, False)
    if low is not None and high is not None:
        return f"应在 {number_text(low)} 到 {number_text(high)} 之间"
    if key is not None and key.choices:
        return f"只能是 {'、'.join(key.choices)}"
    return "值不合要求"


def _as_tables(values: Mapping[KeyPath, Any]) -> tuple[dict[str, Any], list[int]]:
    """Values by their paths as tables, and which row each of the endpoints is."""
    tables: dict[str, Any] = {}
    rows = sorted({path[2] for path in values if path[:2] == _ENDPOINTS})
    for path, value in values.items():
        inner: Any = tables
        if path[:2] == _ENDPOINTS:
            endpoints = inner.setdefault("llm", {}).setdefault("endpoints", [{} for _ in rows])
            inner, path = endpoints[rows.index(path[2])], path[3:]
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return tables, [int(row) for row in rows]


def _flat(tables: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        key = find((*path, name))
        if isinstance(value, dict) and key is not None and key.kind == "section":
            yield from _flat(value, (*path, name))
        else:
            yield dotted((*path, name)), value


def _host(address: object) -> str:
    """The host of an address; empty for none."""
    try:
        return urlsplit(str(address)).hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""


def _match(name: str, choices: Sequence[str]) -> str:
    """The choice of this name, however its words are joined; empty for none."""
    plain = re.sub(r"[-_]", "", name)
    return next((choice for choice in choices if re.sub(r"[-_]", "", choice) == plain), "")


def _is_unset(value: Any) -> bool:
    """Whether nothing was filled in: empty, or the words that their file has for "put your key here"."""
    if not isinstance(value, str):
        return not value
    text = value.strip()
    return text.lower() in _UNSET or (len(text) <= _MAX_PLACEHOLDER_CHARS and _PLACEHOLDER.search(text) is not None)


def _typed(value: Any) -> Any:
    """A value for a table of free names: what stood there without quotes is a number or a yes where it looks so."""
    if isinstance(value, dict):
        return {name: _typed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    if not isinstance(value, Plain):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if _NUMBER.fullmatch(value):
        number = float(value) if set(value) & set(".eE") else int(value)
        return number if math.isfinite(number) else str(value)
    return str(value)
