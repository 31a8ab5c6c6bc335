"""A sentence that the server says of its own accord, and what became of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from xiaozhi.conversation.planning import InHistory
from xiaozhi.events import Clause


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
        in_history: whether it goes into the history.
        timer: gives it up while it has no sound.
    """

    script: Sequence[Clause]
    told: asyncio.Future[Told]
    in_history: InHistory
    timer: asyncio.TimerHandle

    def settle(self, told: Told) -> None:
        """This became of it."""
        self.timer.cancel()
        if not self.told.done():
            self.told.set_result(told)
