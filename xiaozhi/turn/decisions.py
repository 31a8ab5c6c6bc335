"""What the turn machine decides. Plain data."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Mic(Enum):
    """What the microphone counts for."""

    SHUT = "shut"  # sound is decoded, which keeps the decoder in step, and then forgotten
    OPEN = "open"  # speech that is found begins an utterance
    HELD = "held"  # a key is held: everything from the next packet on is one utterance, speech or not


@dataclass(frozen=True, slots=True)
class NextUtterance:
    """What was heard is over: what the microphone brings from now on belongs to another utterance.

    Attributes:
        number: of that utterance. Whatever carries another number is out of date.
        mic: whether there can be one.
        afresh: sound that has come already and was not judged yet is forgotten as well; a microphone that is shut or
            opened begins afresh in any case.
    """

    number: int
    mic: Mic
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Recognise:
    """Recognise the open utterance up to here and answer with `ticket`; `probe` asks about speech over a reply."""

    ticket: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class StartReply:
    """Prepare a reply to `text` behind a shut gate, without any side effect.

    `excuse`: one before it has failed. `early`: begun before the soft end, on words that may go on.
    """

    turn: int
    revision: int
    generation: int
    text: str
    excuse: bool = False
    early: bool = False


@dataclass(frozen=True, slots=True)
class DropReply:
    """Forget the prepared reply of this generation; nothing of it was heard."""

    generation: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The turn is over: open the gate of the reply of this generation."""

    turn: int
    revision: int
    generation: int
    text: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Silence the reply of this generation at once; history keeps what was heard of it.

    `taken_back`: the user had not finished, and what it answers is a part of what is being said. Then history keeps
    nothing of it. `undecided`: whether it is so shows when he speaks next, or does not.
    """

    generation: int
    taken_back: bool = False
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class ShortenLead:
    """Send no further ahead than needed for a moment: the reply may have to be paused, and then nothing else waits."""


@dataclass(frozen=True, slots=True)
class PauseReply:
    """Send no more audio for now."""


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """Go on where the reply was held."""


@dataclass(frozen=True, slots=True)
class StartSaying:
    """Prepare a sentence of the server's own behind a shut gate; the user may still speak first."""

    generation: int


@dataclass(frozen=True, slots=True)
class CommitSaying:
    """Its first sound is there and nobody speaks: open the gate."""

    generation: int


Decision: TypeAlias = (
    NextUtterance
    | Recognise
    | StartReply
    | DropReply
    | Commit
    | Interrupt
    | ShortenLead
    | PauseReply
    | ResumeReply
    | StartSaying
    | CommitSaying
)
