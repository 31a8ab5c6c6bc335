"""A YAML file of a stranger: read as plain text values, within limits. Pure.

PyYAML's `BaseLoader` makes texts, lists and tables and nothing else, so that no tag can run or make anything, and what
a number or a yes looks like is decided by the setting that takes it: `0012345` stays the application it names. What
aliases stand for is counted each time it is used, so a file cannot grow while it is read.
"""

from collections.abc import Hashable
from typing import Any, Final, TypeAlias

import yaml

from xiaozhi.program import PlainError
from xiaozhi.settings.errors import one_line
from xiaozhi.settings.sources import read_text

MAX_FILE_BYTES: Final = 262_144
"""The whole file of the most used server, with its comments, is 70 KB."""
MAX_VALUES: Final = 5_000
MAX_DEPTH: Final = 20
_KINDS: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map", "int", "float", "bool", "null"))

_TOO_MANY: Final = f"it holds more than {MAX_VALUES} values"

Value: TypeAlias = "str | list[Any] | dict[str, Any]"
"""What a file holds; numbers and the like are texts."""


class YamlError(PlainError):
    """The file cannot be used; one line says why."""


class Plain(str):
    """A text that stood there without quotes, which YAML would take for a number or the like where it looks so."""

    __slots__ = ()


class _Loader(yaml.BaseLoader):
    """Texts, lists and tables; any tag but those of plain values is an error."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.values += 1
        if self.values > MAX_VALUES:  # before the rest is read
            raise ValueError(_TOO_MANY)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Hashable:
        if node.tag not in _KINDS:
            raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not taken", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return Plain(node.value) if node.style is None else str(node.value)
        made: Hashable = super().construct_object(node, deep)
        return made


def read_yaml(content: bytes, source: str) -> dict[str, Any]:
    """The table that a file holds. Blocking for up to some seconds.

    Args:
        content: the file.
        source: how a message names it.

    Raises:
        YamlError: it is too large or nested too deeply, is no YAML, or no table.
    """
    if len(content) > MAX_FILE_BYTES:
        raise YamlError(f"{source}: is larger than {MAX_FILE_BYTES // 1024} KB: no settings file is")
    try:
        tree = yaml.load(read_text(content)[0], Loader=_Loader)
        found = _copied(tree)
    except UnicodeDecodeError:
        raise YamlError(f"{source}: is not UTF-8 text: save it as UTF-8") from None
    except RecursionError:
        raise YamlError(f"{source}: is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"{source}: {_told(error)}") from None
    if not isinstance(found, dict):
        raise YamlError(f"{source}: holds no table of settings, such as `selected_module:` in config.yaml")
    return found


def _told(error: Exception) -> str:
    """What is wrong, and in which line; without what stands there, which may be a key."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return one_line(f"is not valid YAML: {what[:200]}" + (f", line {mark.line + 1}" if mark is not None else ""))


def _copied(tree: Any) -> Value:
    """The tree without sharing, merge keys (`<<`) resolved. Raises `ValueError` above the limits."""
    left = MAX_VALUES

    def copy(value: Any, depth: int) -> Value:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(_TOO_MANY)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
        if isinstance(value, list):
            return [copy(each, depth + 1) for each in value]
        if not isinstance(value, dict):
            str(value).encode()  # half a character, which an escape can make, is a `ValueError`
            return value if isinstance(value, str) else ""
        inner = {str(copy(name, depth)): copy(each, depth + 1) for name, each in value.items()}
        below = inner.pop("<<", {})
        for table in reversed(below if isinstance(below, list) else [below]):
            inner = {**table, **inner} if isinstance(table, dict) else inner
        return inner

    return copy(tree, 0)
