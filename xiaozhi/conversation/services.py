"""What all conversations of a process share. Built in `xiaozhi.app.services`."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from xiaozhi.audio.echo_likeness import Echoes
from xiaozhi.cluster.shared import Shared
from xiaozhi.conversation.engines import Engines
from xiaozhi.memory import MemoryKeeper
from xiaozhi.memory.summaries import Summariser
from xiaozhi.store import Store
from xiaozhi.store.notes import Reminder
from xiaozhi.tools.host import Announce, Call
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.turn.trace import TurnTrace

# Replies begun before a soft end in vain: one for so many turns, and some at a stretch.
_EARLY_WASTE_SHARE: Final = 0.25
_MAX_EARLY_WASTE: Final = 10.0


@dataclass(slots=True)
class Speculation:
    """What became of replies prepared before their turn was over."""

    started: int = 0
    committed: int = 0
    wasted: int = 0
    """Dropped unheard: the user went on, or said something else after all."""
    early: int = 0
    """Begun before the soft end."""
    _early_left: float = _MAX_EARLY_WASTE

    @property
    def may_start_early(self) -> bool:
        """Not too many of those have been wasted lately, by all conversations together."""
        return self._early_left >= 1.0

    def start(self, *, early: bool) -> None:
        """A reply is begun."""
        self.started += 1
        self.early += early
        self._early_left -= early

    def commit(self, *, early: bool) -> None:
        """It is spoken, and an early one was no waste."""
        self.committed += 1
        self._early_left = min(_MAX_EARLY_WASTE, self._early_left + _EARLY_WASTE_SHARE + early)


@dataclass(slots=True)
class UnknownLanguage:
    """Speech that the recogniser in use could not make sense of, because it does not know the language."""

    utterances: int = 0
    last_at: float = 0.0
    """Seconds since 1970."""

    def note(self, _device_id: str, trace: TurnTrace) -> None:
        """A turn is over."""
        if trace.unknown_language:
            self.utterances += 1
            self.last_at = time.time()


async def _nobody_there(_reminder: Reminder) -> bool:
    return False


async def _nobody_else(_text: str, _devices: Sequence[str], _without: str) -> Mapping[str, str]:
    return {}


async def _nobody_called(_caller_id: str, _name: str, _language: str) -> str:
    return ""


@dataclass(slots=True, kw_only=True)
class Services(Engines):
    """The engines, and what stays as it is as long as the process runs: what is kept, what may be done, who is told."""

    store: Store
    summaries: Summariser
    shared: Shared | None = None
    """What the nodes of a cluster share; None for a node that is alone."""
    memory: MemoryKeeper = field(init=False)
    """What is kept in mind about users."""
    tools: SharedTools = field(init=False)
    """What models may call."""
    ring: Callable[[Reminder], Awaitable[bool]] = field(default=_nobody_there)
    """Says a reminder on its device; False when it is not connected."""
    announce: Announce = field(default=_nobody_else)
    """Says something on other devices, for the tool."""
    call: Call = field(default=_nobody_called)
    """Rings on another device, for the tool."""
    on_turn: list[Callable[[str, TurnTrace], None]] = field(default_factory=list)
    """Told of every finished turn: whose it was and its record."""
    speculation: Speculation = field(default_factory=Speculation)
    echoes: Echoes = field(default_factory=Echoes)
    unknown_language: UnknownLanguage = field(default_factory=UnknownLanguage)

    def __post_init__(self) -> None:
        Engines.__post_init__(self)  # `super()` does not know a class with slots
        self.tools = SharedTools(
            self.settings.tools,
            book=self.store.reminders,
            ring=lambda due: self.ring(due),
            push=self.settings.push,
            announce=lambda *said: self.announce(*said),
            call=lambda *called: self.call(*called),
        )
        self.memory = MemoryKeeper(self)
        self.on_turn += [self.memory.turn, lambda device, trace: self.unknown_language.note(device, trace)]
