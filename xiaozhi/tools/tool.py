"""What a tool is: a name, a schema, a coroutine, and what the conversation must know before it calls it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from xiaozhi.events import SoundSource
from xiaozhi.tools.arguments import ArgumentCheck, schema_check

AudioSource: TypeAlias = SoundSource
"""What a tool lets be heard."""


class ToolError(Exception):
    """A tool could not do it; the text is one sentence that the user may hear."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a call.

    Attributes:
        text: for the model, or to be spoken where there is none.
        failed: it was not done; `text` says why in one sentence.
        audio: sound to play instead of, or behind, what the model says; opened only when it is really played.
        ends_conversation: after the reply the conversation is over.
    """

    text: str
    failed: bool = False
    audio: AudioSource | None = None
    ends_conversation: bool = False


class CallingConversation(Protocol):
    """What built-in tools may ask of the conversation they are called in."""

    def agents(self) -> Sequence[str]:
        """Names of the characters this device may take."""
        ...

    async def change_agent(self, name: str) -> None:
        """Take another character from the next reply on."""
        ...

    async def remember(self, fact: str) -> None:
        """Keep a fact about this user for good."""
        ...

    async def known(self, about: str = "") -> Sequence[str]:
        """What is remembered of this user; with `about` only what has to do with it, the best first."""
        ...

    async def forget(self, about: str) -> int:
        """Erase what is known about a subject, everything when it is empty; returns how many facts went."""
        ...


class DeviceCalls(Protocol):
    """The tools of the connected device, by their own names."""

    def offers(self, name: str) -> bool:
        """Whether the device has this tool."""
        ...

    @property
    def listing(self) -> bool:
        """It has just connected, and what it offers is not known yet."""
        ...

    async def listed(self) -> None:
        """Wait until it is known, or has had its time."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call it; failures are results, too."""
        ...


def _local_now() -> datetime:
    return datetime.now().astimezone()


@dataclass(slots=True)
class ToolContext:
    """Who calls: one per conversation, `language` kept up to date by it.

    Attributes:
        device_id: whose conversation it is.
        language: of the user, `zh` or `en`.
        now: the user's local time, with its zone.
        device: the device's own tools; None when it has none or is not connected.
        conversation: hooks into the conversation; None where there is none (command line, tests).
    """

    device_id: str = ""
    language: str = "zh"
    now: Callable[[], datetime] = _local_now
    device: DeviceCalls | None = None
    conversation: CallingConversation | None = None


ToolRun: TypeAlias = Callable[[dict[str, Any], ToolContext], Awaitable[ToolResult]]


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the model may call.

    Attributes:
        name: its own name, unique in its source; chat APIs see it through `xiaozhi.tools.naming`.
        description: for the model.
        parameters: JSON schema of the arguments, an object.
        run: does it with checked arguments. Raises `ToolError`, or anything: that becomes a short result.
        check: turns the arguments as the model gave them into what `run` takes, or raises `BadArguments`.
        source: where it comes from: `built-in`, `device`, or the name of an external server.
        dangerous: done only after the user has said yes.
        user_only: for people, never offered to a model.
        repeats: the same call with the same arguments is sensible within one turn (it reads what changes).
        timeout_s: the most it may take, in seconds; None for the usual.
        usable: whether it makes sense in this conversation; None for always.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: ToolRun
    check: ArgumentCheck
    source: str = "built-in"
    dangerous: bool = False
    user_only: bool = False
    repeats: bool = False
    timeout_s: float | None = None
    usable: Callable[[ToolContext], bool] | None = field(default=None)


def remote_tool(
    name: str,
    description: str,
    parameters: Mapping[str, Any],
    run: ToolRun,
    **flags: Any,
) -> Tool:
    """A tool whose schema came from elsewhere; its arguments are checked by that schema.

    Args:
        name: its own name there.
        description: as given there.
        parameters: its JSON schema.
        run: carries it out.
        flags: further attributes of `Tool`.
    """
    return Tool(name, description, parameters, run, schema_check(parameters), **flags)
