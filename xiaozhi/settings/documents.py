"""What is written from the model of the settings: `settings.toml` with its explanations, and the table of the READMEs.

`python -m xiaozhi.settings.documents` (`make settings`) writes them into the repository that it is run in.
"""

import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import tomlkit

from xiaozhi.settings import Settings
from xiaozhi.settings.schema import Key, dotted, keys, value_of
from xiaozhi.settings.section import Applies, Section
from xiaozhi.settings.texts import all_texts, text_of

_WIDTH: Final = 120
_COMMENT_COLUMN: Final = 32
_APPLIES: Final[Mapping[Applies, str]] = {
    "at once": "at once", "next turn": "from the next turn", "next connection": "when a device connects",
    "restart": "after a restart",
}  # fmt: skip
READMES: Final[Mapping[Literal["en", "zh"], tuple[str, Sequence[str], str, str]]] = {
    "en": ("README.md", ("table", *_APPLIES.values()), "everything", "all others"),
    "zh": ("README.zh-CN.md", ("表", "立即生效", "下一轮起生效", "设备连接时生效", "重启后生效"), "全部", "其余全部"),
}
"""Of each README: its file, the head of its table, and the words for all settings of a table and for the others."""


def settings_toml() -> str:
    """The settings file that says the defaults, every setting with what is said about it in English. Blocking."""
    lines = _comment(text_of(Settings).english)
    explained = set[type[Section] | None]()
    for table, about, texts in all_texts():
        header = f"[{dotted(table.path)}]"
        if table.path[1:]:
            lines += ["", header]
        else:
            lines += ["", "", _with_remark(header, f"changes hold {_APPLIES[table.applies]}")]
        lines += _comment(about.english)
        defaults, shared = value_of(Settings(), dotted(table.path)).model_dump(mode="json"), ""
        for name, text in texts.items():
            key, shared = keys()[*table.path, name], text.english or shared
            if text.english and table.section not in explained:
                lines += ["", *_comment(text.english)]
            lines += _rows(key) if key.kind == "sections" else _setting(key, defaults[name], table, shared)
        explained.add(table.section)
    return "\n".join(lines) + "\n"


def _setting(key: Key, default: Any, table: Key, said: str) -> list[str]:
    """The lines of a setting; behind a hash where it has no default, or one that depends on others."""
    depends = key.field.default_factory is not None and key.field.default_factory_takes_validated_data
    value = key.field.examples[0] if default is None and key.field.examples else default
    value = float(value) if key.kind == "float" else value
    line = f"{'# ' if default is None or depends else ''}{key.path[-1]} = "
    return _with_remark(line + _toml(value, _width(line)), _remark(key, table, said)).splitlines()


def _toml(value: Any, column: int) -> str:
    """A value in TOML, over several lines where it has no room behind so many columns."""
    if isinstance(value, list):
        words = [_toml(item, 0) for item in value]
        if column + _width(line := f"[{', '.join(words)}]") <= _WIDTH:
            return line
        lines = [""]
        for word in words:
            if lines[-1] and _width(f"{lines[-1]} {word},") > _WIDTH - 4:
                lines.append("")
            lines[-1] += f"{' ' if lines[-1] else ''}{word},"
        return "[\n" + textwrap.indent("\n".join(lines), "    ") + "\n]"
    if isinstance(value, dict):
        return "{}"
    text: str = tomlkit.item(value).as_string()
    if isinstance(value, str) and column + _width(text) > _WIDTH:  # a backslash ends a line that goes on
        return '"""\\\n' + textwrap.indent(re.sub(r"(?<=[。.])(?=\S)", "\\\\\n", text[1:-1]), "    ") + '\\\n    """'
    return text


def _width(text: str) -> int:
    """Columns on a screen: characters of Chinese take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _remark(key: Key, table: Key, said: str) -> str:
    """What is allowed, as far as it is not said already, and when a change holds where it is not as for the table."""
    limits = [key.limits.strip().removeprefix("from ")]
    if key.max_length is not None:
        limits.append(f"at most {key.max_length}" + (" characters" if key.kind == "str" else ""))
    quoted = [f'"{choice}"' for choice in key.choices]
    if key.kind == "choice" and any(choice not in said for choice in quoted):
        limits.append(", ".join(quoted[:-1]) + f" or {quoted[-1]}")
    limits += [_APPLIES[key.applies]] if key.applies != table.applies else []
    return "; ".join(limit for limit in limits if limit)


def _with_remark(line: str, remark: str) -> str:
    if not remark:
        return line
    head, gap, rest = line.partition("\n")
    beside = f"{head:{_COMMENT_COLUMN - 2}}  # {remark}"
    return f"# ({remark})\n{line}" if head.endswith("\\") or _width(beside) > _WIDTH else beside + gap + rest


def _rows(key: Key) -> list[str]:
    """Rows of a list of tables: what they are, and examples, whose first line says of what."""
    section = key.section
    lines = ["", *_comment(text_of(section).english)] if section is not None else []
    for example in key.field.examples or ():
        first, _, rest = example.partition("\n") if example.startswith("# ") else ("", "", example)
        header = _with_remark(f"# [[{dotted(key.path)}]]", first.removeprefix("# "))
        lines += ["", header, *_comment(rest)]
    return lines


def _comment(text: str) -> list[str]:
    return [f"# {line}".rstrip() for line in text.splitlines()]


def readme_table(language: Literal["en", "zh"] = "en") -> str:
    """When changes apply, in Markdown: a row for each table of `settings.toml`."""
    _, head, everything, others = READMES[language]
    rows = [head, ["---"] * len(head)]
    for table in Settings.model_fields:
        inner = [
            key for key in keys().values() if key.path[0] == table and "*" not in key.path and key.kind != "section"
        ]
        rule = keys()[table,].applies
        cells = []
        for applies in get_args(Applies):
            names = sorted(f"`{dotted(key.path[1:])}`" for key in inner if key.applies == applies)
            whole = everything if len(names) == len(inner) else others
            cells.append(whole if applies == rule and names else ", ".join(names))
        rows.append((f"`[{table}]`", *cells))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(readme: str, language: Literal["en", "zh"]) -> str:
    """A README with its table of settings written anew; it is known by its head."""
    head = re.escape(readme_table(language).partition("\n")[0].split(" | ")[0])
    return re.sub(rf"(?m)^{head} \|.*\n(?:\|.*\n)+", lambda _: readme_table(language), readme, count=1)


def main() -> None:
    """Write all of them."""
    Path("settings.toml").write_text(settings_toml(), encoding="utf-8")
    for language, (name, *_) in READMES.items():
        readme = Path(name)
        readme.write_text(with_table(readme.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    main()
