"""All tools of the process, and which of them one agent may use, in an order that never changes without need.

Prompt caches of model servers work on a common beginning, so built-in tools come first, those of external servers
next, and those of the device, which differ between conversations, last; each sorted by name.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from xiaozhi.tools.tool import Tool, ToolContext


class ToolSource(Protocol):
    """Tools that may come and go while the process runs."""

    @property
    def version(self) -> int:
        """Rises whenever the tools change."""
        ...

    def tools(self) -> Sequence[Tool]:
        """What there is now."""
        ...


class Registry:
    """The tools that all conversations share.

    Args:
        builtin: tools of this process.
        sources: further ones, such as the external MCP servers.
    """

    def __init__(self, builtin: Iterable[Tool] = (), sources: Iterable[ToolSource] = ()) -> None:
        self._builtin = tuple(sorted(builtin, key=lambda each: each.name))
        self._sources = tuple(sources)

    @property
    def version(self) -> int:
        """Rises whenever the tools change."""
        return sum(source.version for source in self._sources)

    def tools(self) -> tuple[Tool, ...]:
        """What there is now, in the stable order."""
        return self._builtin + tuple(each for source in self._sources for each in source.tools())


def allowed(tools: Iterable[Tool], allow: Sequence[str], deny: Sequence[str]) -> list[Tool]:
    """The tools an agent may use.

    Globs are compared with the tool's own name and with `source/name`, so `weather*`, `home-assistant/*` and
    `device/*` all work. Tools for people only never pass.
    """
    return [
        each
        for each in tools
        if not each.user_only and fits(each.name, each.source, allow) and not fits(each.name, each.source, deny)
    ]


def fits(name: str, source: str, globs: Sequence[str]) -> bool:
    """Whether a tool of this own name and source is meant by one of the globs."""
    return any(fnmatchcase(each, glob) for glob in globs for each in (name, f"{source}/{name}"))


def usable(tools: Iterable[Tool], context: ToolContext) -> list[Tool]:
    """The tools that make sense in this conversation."""

    def fits(condition: Callable[[ToolContext], bool] | None) -> bool:
        return condition is None or condition(context)

    return [each for each in tools if fits(each.usable)]
