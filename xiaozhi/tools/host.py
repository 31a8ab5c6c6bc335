"""What built-in tools are made of: settings, ways out, and what they must tell the process."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xiaozhi.settings import PushSettings, ToolsSettings
from xiaozhi.tools.reminder_clock import ReminderClock
from xiaozhi.tools.web import WebClient

Announce: TypeAlias = Callable[[str, Sequence[str], str], Awaitable[Mapping[str, str]]]
"""Says a text on devices called so (none: on all others but the one that is given last); what became of it on each."""

Call: TypeAlias = Callable[[str, str, str], Awaitable[str]]
"""Rings, from a device, on another one that is called so; why not, in the language given last, empty when it rings."""


@dataclass(frozen=True, slots=True)
class ToolHost:
    """Given to the function `tools` of every file of `xiaozhi.tools.built_in`.

    Attributes:
        settings: the table `tools`.
        web: the way to the internet.
        push: the table `push`; None where nothing is announced.
        announce: says something on other devices; None where there are none.
        call: rings on another device; None where there are none.
        reminders: rings them; None where nothing could ring.
        on_close: called when the process ends, for tools that hold something open.
    """

    settings: ToolsSettings
    web: WebClient
    push: PushSettings | None = None
    announce: Announce | None = None
    call: Call | None = None
    reminders: ReminderClock | None = None
    on_close: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
