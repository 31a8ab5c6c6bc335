"""Recognition that nobody has asked for yet: what is allowed, and what became of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]
"""Called on the loop with the whole text of an utterance so far, while it goes on."""


@dataclass(slots=True)
class EarlyDecodes:
    """Decodes of utterances that were perhaps over, begun by idle workers before anybody asked.

    Attributes:
        allowed: set to False under load: nothing is decoded before it is asked for.
        wanted: by the settings.
        begun: how many there were.
        used: how many were the answer to a question; the others were wasted.
    """

    allowed: bool = True
    wanted: bool = True
    begun: int = 0
    used: int = 0

    @property
    def on(self) -> bool:
        """They are wanted and allowed."""
        return self.wanted and self.allowed


@dataclass(slots=True)
class Partials:
    """Texts of utterances that go on, for the device to show.

    Attributes:
        allowed: set to False under load: nothing is decoded for them and nothing is shown.
        wanted: by the settings.
        begun: decodes made for them; a streaming recogniser needs none.
        used: how many of these decodes were the answer to a question as well.
        shown: how many texts were handed over.
        dropped: how many came when a newer one was known, or the utterance was over.
    """

    allowed: bool = True
    wanted: bool = False
    begun: int = 0
    used: int = 0
    shown: int = 0
    dropped: int = 0

    @property
    def on(self) -> bool:
        """They are wanted and allowed."""
        return self.wanted and self.allowed
