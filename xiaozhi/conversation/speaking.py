"""What the server says of its own accord: sentences, a goodbye, a notice; never over the user."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from xiaozhi.conversation.answering import CachedRecognizer
from xiaozhi.events import Clause
from xiaozhi.text.script import script_of
from xiaozhi.turn.decisions import Decision
from xiaozhi.turn.machine import ListeningMode, State, TurnMachine
from xiaozhi.turn.unprompted import Manners

# A sentence of the server's own is meant for this moment; a goodbye may take longer, since nobody waits for it.
PATIENCE_S: Final = 2.0
_GOODBYE_PATIENCE_S: Final = 8.0


class Told(Enum):
    """What became of a sentence."""

    SPOKEN = "spoken"  # to its end
    INTERRUPTED = "interrupted"  # while it sounded
    DROPPED = "dropped"  # before its first sound: the user spoke first, or it took too long, or no voice worked
    REFUSED = "refused"  # never begun: somebody was speaking or being answered
    SHOWN = "shown"  # on the screen of a device that sleeps and plays nothing


@dataclass(frozen=True, slots=True)
class Saying:
    """What is being said or about to be.

    Attributes:
        script: the clauses.
        told: resolved with what became of it.
        remembered: whether it goes into the history.
        timer: gives it up while it has no sound.
    """

    script: Sequence[Clause]
    told: asyncio.Future[Told]
    remembered: CachedRecognizer
    timer: asyncio.TimerHandle


class Speaker:
    """Says one conversation's own sentences, one at a time.

    Args:
        machine: decides whether one may be said now.
        manners: the words of a goodbye.
        apply: carries the machine's decisions out.
        hang_up: closes the connection, with the reason for the log.
        language: of the user.
        notice: where this is not empty, the device hears it instead of a conversation, and is hung up.
    """

    def __init__(
        self,
        machine: TurnMachine,
        manners: Manners,
        apply: Callable[[list[Decision]], None],
        hang_up: Callable[[str], None],
        language: Callable[[], str],
        notice: str = "",
    ) -> None:
        self._machine = machine
        self._manners = manners
        self._apply = apply
        self._hang_up = hang_up
        self._language = language
        self._loop = asyncio.get_running_loop()
        self._leaving = False  # a goodbye is being said
        self.notice = notice
        """What this device hears instead of a conversation; empty for none."""
        self.saying: Saying | None = None
        """What is being said or about to be."""

    def say(
        self,
        text: str,
        *,
        language: str = "",
        emotion: str = "",
        interruptible: bool = True,
        patience_s: float = PATIENCE_S,
        remembered: CachedRecognizer = CachedRecognizer.ALWAYS,
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, if nobody speaks or is answered just now.

        It goes the way of every reply: prepared behind a gate, dropped when the user speaks first, paced, between
        `tts/start` and `tts/stop`. The call returns at once.

        Args:
            text: what to say.
            language: of a text that does not show its own; the user's when empty.
            emotion: one of the 21 names; empty takes that of an emoji in the text, or `neutral`.
            interruptible: speech over it may stop it (realtime mode); a key or an `abort` always does.
            patience_s: given up when its first sound is not there by then, in seconds.
            remembered: whether it goes into the history, as far as it is heard.

        Returns:
            What became of it, when that is known. It need not be awaited.
        """
        told: asyncio.Future[Told] = self._loop.create_future()
        script = script_of(text, language=language or self._language(), emotion=emotion)
        decisions = self._machine.say(interruptible=interruptible) if script else []
        if not decisions:
            told.set_result(Told.REFUSED)
            return told
        generation = self._machine.generation
        timer = self._loop.call_later(patience_s, lambda: self._apply(self._machine.give_up_saying(generation)))
        self.saying = Saying(script, told, remembered, timer)
        self._apply(decisions)
        return told

    def committed(self) -> None:
        """Its sound is there: it is given up no more."""
        if self.saying is not None:
            self.saying.timer.cancel()

    def settle(self, told: Told) -> None:
        """What became of the sentence that is said or was to be said, if there is one."""
        saying, self.saying = self.saying, None
        if saying is not None:
            saying.timer.cancel()
            if not saying.told.done():
                saying.told.set_result(told)

    def farewell(self, came_back: Callable[[], None]) -> bool:
        """Say goodbye and hang up after it; False where nothing is to be said: the caller hangs up at once.

        Args:
            came_back: called when the user has spoken meanwhile and the conversation goes on.
        """
        if self._leaving:
            return True
        text = self._manners.farewell(self._language())
        if not text or self._machine.mode is ListeningMode.MANUAL:
            return False

        def said(told: asyncio.Future[Told]) -> None:
            self._leaving = False
            goes_on = self._machine.state not in (State.IDLE, State.WAITING)
            if told.result() is Told.INTERRUPTED or goes_on:
                came_back()
            else:
                self._hang_up("nothing has been said for a while")

        self._leaving = True
        told = self.say(text, patience_s=_GOODBYE_PATIENCE_S, remembered=CachedRecognizer.BROKEN_OFF)
        told.add_done_callback(said)
        return True

    def give_notice(self) -> None:
        """Say the notice and hang up after it, unless it is being said already."""
        told = self.say(
            self.notice, interruptible=False, patience_s=_GOODBYE_PATIENCE_S, remembered=CachedRecognizer.NEVER
        )
        if not told.done():
            told.add_done_callback(lambda _told: self._hang_up("only a notice is for this device"))
