"""The tools of one conversation: what is offered to the model, and how its calls are carried out.

Nothing here runs before a turn is committed: the caller sees to that.

Prompt caches of model servers work on a common beginning, so built-in tools come first, those of external servers
next, and those of the device, which differ between conversations, last; each sorted by name.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol

from xiaozhi.events import Message, ToolCall, ToolSpec
from xiaozhi.settings import ToolsSettings
from xiaozhi.tools.arguments import BadArguments, parse_arguments, unwrapped
from xiaozhi.tools.confirmation import Confirmations
from xiaozhi.tools.naming import Names
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult
from xiaozhi.tools.wording import pick, shortened

_log = logging.getLogger(__name__)

_MAX_DESCRIPTION_CHARS: Final = 1024  # OpenAI's limit for the description of a function
_MAX_REPEATS: Final = 2
"""The same call with the same arguments in one turn; above, a model goes round in circles."""


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


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """One call and what came of it; `duration_ms` is how long it took."""

    call: ToolCall
    result: ToolResult
    duration_ms: float

    def message(self) -> Message:
        """As the model gets it."""
        return Message("tool", self.result.text, tool_call_id=self.call.id)


@dataclass(slots=True)
class ToolCounters:
    """What became of the calls of all conversations that share it."""

    calls: int = 0
    failed: int = 0
    timed_out: int = 0
    refused: int = 0
    """Unknown names, bad arguments, circles, and dangerous calls that wait for a yes."""


class Toolbox:
    """One per conversation.

    Args:
        registry: the tools that all conversations share.
        context: who calls.
        settings: limits and permissions.
        device: the device's own tools; None when it has none.
        allow: globs of this agent, on top of those of the settings.
        deny: likewise.
        counters: where the calls are counted.
    """

    def __init__(
        self,
        registry: Registry,
        context: ToolContext,
        settings: ToolsSettings,
        *,
        device: ToolSource | None = None,
        allow: Sequence[str] = ("*",),
        deny: Sequence[str] = (),
        counters: ToolCounters | None = None,
    ) -> None:
        self.context = context
        self.counters = counters or ToolCounters()
        self._registry = registry
        self._settings = settings
        self._device = device
        self._allow = tuple(allow)
        self._deny = tuple(deny)
        self._confirmations = Confirmations()
        self._rounds = 0
        self._done: dict[tuple[str, str], int] = {}
        self._seen: tuple[int, int] | None = None
        self._tools: dict[str, Tool] = {}
        self._names = Names(())
        self._specs: tuple[ToolSpec, ...] = ()

    def attach(self, device: ToolSource | None) -> None:
        """The device has tools of its own, or none any more."""
        self._device = device
        self._seen = None

    def allow(self, globs: Sequence[str]) -> None:
        """What this agent may use, from the next refresh on; on top of what the settings allow."""
        if tuple(globs) != self._allow:
            self._allow = tuple(globs)
            self._seen = None

    def prepare(self) -> None:
        """A reply is prepared, its turn is not committed yet: limits start anew, and nothing may be called."""
        self._rounds = 0
        self._done.clear()
        self._refresh()

    async def wait_for_device(self) -> None:
        """A device that has just connected is still listing its tools: the model is to be offered them, too."""
        if self.context.device is not None and self.context.device.listing:
            await self.context.device.listed()
            self._refresh()

    def permits(self, name: str, source: str) -> bool:
        """Whether settings and agent let a tool of this own name and source be used, if there is one."""
        permitted = all(fits(name, source, globs) for globs in (self._settings.allow, self._allow))
        denied = any(fits(name, source, globs) for globs in (self._settings.deny, self._deny))
        return self._settings.enabled and permitted and not denied

    def begin_turn(self, heard: str) -> None:
        """A committed turn begins: limits start anew, and a yes grants what was asked about before."""
        self.prepare()
        self._confirmations.begin_turn(heard)

    def offers(self, name: str) -> bool:
        """Whether the tool of this own name may be called here."""
        if self._seen is None:
            self._refresh()
        return name in self._tools

    @property
    def exhausted(self) -> bool:
        """This turn has had all its rounds of calls: ask the model once more, without tools."""
        return self._rounds >= self._settings.max_rounds

    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is offered, in a stable order; nothing when tools are off.

        Changes only between turns, and only when tools came or went, so that prompt caches hold.
        """
        if self._seen is None:
            self._refresh()
        return self._specs

    def offered(self) -> list[tuple[str, ToolSpec]]:
        """Every tool's own name with its spec, for people who want to see them."""
        specs = self.specs()
        return list(zip(self._tools, specs, strict=True))

    async def run(
        self, calls: Sequence[ToolCall], on_slow: Callable[[str], None] | None = None
    ) -> tuple[ToolAnswer, ...]:
        """Carry out the calls of one answer of the model: all at once, begun and answered in their order.

        Every call gets an answer, whatever happens to it. Cancelling cancels every call that still runs.

        Args:
            calls: as the model gave them.
            on_slow: called once with a short sentence to speak, when something has not ended after
                `tools.filler_after_s`.
        """
        over = self.exhausted
        self._rounds += 1
        most = self._settings.max_calls
        tasks: list[asyncio.Task[ToolAnswer]] = []
        async with asyncio.TaskGroup() as group:
            for index, call in enumerate(calls):
                refused = self._circles() if over else self._too_many(most) if index >= most else None
                tasks.append(group.create_task(self._answer(call, refused), name=f"tool-{shortened(call.name, 40)}"))
            if on_slow is not None and tasks:
                _, pending = await asyncio.wait(tasks, timeout=self._settings.filler_after_s)
                if pending:
                    on_slow(pick(self.context.language, "稍等，我看一下。", "One moment, let me see."))
        return tuple(task.result() for task in tasks)

    def _refresh(self) -> None:
        """Take in tools that came or went since the last turn."""
        device = self._device
        seen = (self._registry.version, -1 if device is None else device.version)
        if seen == self._seen:
            return
        self._seen = seen
        self._tools, self._names, self._specs = {}, Names(()), ()
        if not self._settings.enabled:
            return
        offered = (*self._registry.tools(), *(sorted(device.tools(), key=lambda each: each.name) if device else ()))
        chosen = allowed(offered, self._settings.allow, self._settings.deny)
        chosen = allowed(chosen, self._allow, self._deny)
        chosen = [each for each in chosen if each.usable is None or each.usable(self.context)]
        for each in chosen:
            if len(self._tools) == self._settings.max_tools:
                _log.warning(
                    "%d tools are left out: tools.max_tools is %d", len(chosen) - len(self._tools), len(self._tools)
                )
                break
            self._tools.setdefault(each.name, each)
        self._names = Names(self._tools)
        self._specs = tuple(
            ToolSpec(
                self._names.to_api(each.name),
                shortened(self._names.in_text(each.description), _MAX_DESCRIPTION_CHARS),
                each.parameters,
            )
            for each in self._tools.values()
        )

    def _find(self, name: str) -> Tool | None:
        if self._seen is None:
            self._refresh()
        own = self._names.to_own(name)
        return None if own is None else self._tools.get(own)

    async def _answer(self, call: ToolCall, refused: ToolResult | None) -> ToolAnswer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = refused or await self._carry_out(call)
        if refused is not None:
            self.counters.refused += 1
        text = shortened(result.text, self._settings.result_max_chars)
        return ToolAnswer(call, replace(result, text=text), (loop.time() - began) * 1000.0)

    async def _carry_out(self, call: ToolCall) -> ToolResult:
        found = self._find(call.name)
        if found is None:
            self.counters.refused += 1
            return _refusal(f"There is no tool {shortened(call.name, 80)!r}; use one of those offered.")
        try:
            arguments = found.check(unwrapped(found.parameters, parse_arguments(call.arguments)))
        except BadArguments as wrong:
            self.counters.refused += 1
            return _refusal(f"Not called. {wrong}")
        key = (found.name, _canonical(arguments))
        times = self._done.get(key, 0)
        if times >= _MAX_REPEATS and not found.repeats:
            self.counters.refused += 1
            return _refusal("Not called again: this very call has been made already. Answer with what is known.")
        if self._is_dangerous(found) and not self._confirmations.granted(*key):
            self.counters.refused += 1
            return _refusal(
                "Not done yet: this needs the user's consent. Ask in one short sentence whether to do it, and make "
                "the same call again only after a clear yes."
            )
        self._done[key] = times + 1
        return await self._run(found, arguments)

    def _is_dangerous(self, found: Tool) -> bool:
        named = fits(found.name, found.source, self._settings.dangerous)
        return self._settings.confirm and (found.dangerous or named)

    async def _run(self, found: Tool, arguments: dict[str, Any]) -> ToolResult:
        """Call it within its time; whatever goes wrong is a short result."""
        self.counters.calls += 1
        limit_s = found.timeout_s or self._settings.timeout_s
        language = self.context.language
        try:
            async with asyncio.timeout(limit_s) as limit:
                result = await found.run(arguments, self.context)
        except ToolError as error:
            result = ToolResult(str(error), failed=True)
        except TimeoutError:
            if limit.expired():
                self.counters.timed_out += 1
            result = ToolResult(
                pick(language, "这个操作太久没有回应，没有完成。", "That took too long and was given up."), failed=True
            )
        except Exception as error:  # noqa: BLE001 - a tool may fail in any way, the conversation goes on
            _log.warning("tool %s failed: %s: %s", found.name, type(error).__name__, error)
            result = ToolResult(
                pick(language, "这个操作出错了，没有完成。", "Something went wrong with that, it was not done."),
                failed=True,
            )
        if result.failed:
            self.counters.failed += 1
        return result

    def _circles(self) -> ToolResult:
        return _refusal("Not called: no more calls in this turn. Answer the user now with what is known.")

    def _too_many(self, most: int) -> ToolResult:
        return _refusal(f"Not called: at most {most} calls at once. Call it again if it is still needed.")


def _refusal(text: str) -> ToolResult:
    return ToolResult(text, failed=True)


def _canonical(arguments: dict[str, Any]) -> str:
    """The same text for the same arguments, whatever their order; unlike `orjson` of integers of any size, too."""
    return json.dumps(arguments, sort_keys=True, default=str)
