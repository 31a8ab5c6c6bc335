"""What is said about settings and tables, in English and Chinese: the texts below the fields of the model.

They are read from the source when somebody asks. Pydantic's `use_attribute_docstrings` would read them whenever the
model is imported, which takes 50 ms of every start, and finds none in the single executable.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from xiaozhi.settings import Settings
from xiaozhi.settings.schema import Key, keys
from xiaozhi.settings.section import Section

_CHINESE: Final = re.compile(r"(?:^|\s)zh:\s*")
# Set in by so much, a line begins a row of a list; by more, it goes on with the row above.
_ROW_INDENT: Final = range(1, 4)
_NAMED_ROW: Final = re.compile(r"""^("[^"]+"(?=\s)|\S+(?=\s{2}))\s+""")
_MARKS: Final = frozenset("，。；：、？！（）《》“”‘’")


class Text(NamedTuple):
    """What is said about one setting or table, its lines as they stand in the source.

    Attributes:
        english: empty where it shares that of the setting above it.
        chinese: the same in Chinese.
    """

    english: str = ""
    chinese: str = ""

    @property
    def titles(self) -> tuple[str, str]:
        """What a table is called in English and Chinese: what stands before the first colon."""
        return self.english.partition(": ")[0], self.chinese.partition("：")[0]

    def without_titles(self) -> "Text":
        """What is said about a table besides."""
        english = self.english.partition(": ")[2]
        return Text(english[:1].upper() + english[1:], self.chinese.partition("：")[2])


@cache
def all_texts() -> Sequence[tuple[Key, Text, Mapping[str, Text]]]:
    """Every table in the order of the model, what is said about it, and about each of its settings. Blocking."""
    return [
        (
            table,
            _texts_of(around).get(table.path[-1]) or text_of(section),
            {name: _texts_of(section).get(name, Text()) for name in _settings_of(table, section)},
        )
        for table in keys().values()
        if table.kind == "section" and "*" not in table.path and (section := table.section) is not None
        if (around := keys()[table.path[:-1]].section if table.path[1:] else Settings) is not None
    ]


def _settings_of(table: Key, section: type[Section]) -> Iterator[str]:
    return (name for name in section.model_fields if keys()[*table.path, name].kind != "section")


def text_of(model: type[Section]) -> Text:
    """What is said about a table itself."""
    return _split(model.__doc__ or "")


def _texts_of(model: type[Section]) -> Mapping[str, Text]:
    """What stands below the fields of a table, or of those that it is a kind of."""
    found: dict[str, Text] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, Section):
            found |= _texts_in(kind.__module__).get(kind.__name__, {})
    return found


@cache
def _texts_in(module: str) -> Mapping[str, Mapping[str, Text]]:
    """By the names of classes and fields. Blocking."""
    package, _, name = (f"{module}.__init__" if hasattr(sys.modules[module], "__path__") else module).rpartition(".")
    if package:
        source = resources.files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")
    else:  # a package from outside, that is one file
        source = inspect.getsource(sys.modules[module])
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {one.name: dict(_below_fields(one.body)) for one in classes}


def _below_fields(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Text]]:
    for field, below in zip(body, [*body[1:], None], strict=True):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                yield name, _split(text)
            case ast.If(body=inner), _:  # for the type checker only
                yield from _below_fields(inner)


def _split(docstring: str) -> Text:
    english, chinese = [*_CHINESE.split(inspect.cleandoc(docstring), maxsplit=1), ""][:2]
    return Text(english.strip(), chinese.strip())


def flowing(text: str) -> str:
    """A text as one line for each paragraph and each row of a list."""
    flow, in_list = "", False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        is_row = indent in _ROW_INDENT
        words = " ".join((_NAMED_ROW.sub(r"\1: ", line.strip()) if is_row else line).split())
        starts = not words or is_row or (in_list and not indent)
        in_list = bool(indent) and (in_list or starts)
        flow += "\n" + words if starts else _gap(flow, words) + words
    return re.sub(r"\s*\n\s*", "\n", flow).strip()


def _gap(before: str, after: str) -> str:
    """What stands between two lines that are one: a blank, but nothing at a mark and between characters of Chinese."""
    one, other = before[-1:], after[:1]
    marked = one in _MARKS or other in _MARKS
    return "" if not one or one == "\n" or marked or min(one, other) >= "\u3000" else " "
