"""What the turn machine decides. Plain data."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StartListening:
    """Forget what was heard and listen; with `hold`, everything from now on is one utterance (push to talk)."""

    hold: bool


@dataclass(frozen=True, slots=True)
class StopListening:
    """The microphone is shut; what was heard stays."""


@dataclass(frozen=True, slots=True)
class CloseUtterance:
    """The utterance is over or worth nothing: the VAD may look for the next."""


@dataclass(frozen=True, slots=True)
class Recognise:
    """Recognise the open utterance up to here and answer with `ticket`; `probe` asks about speech over a reply."""

    ticket: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class StartReply:
    """Prepare a reply to `text` behind a shut gate, without any side effect."""

    turn: int
    revision: int
    generation: int
    text: str


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
    """Silence the reply of this generation at once; history keeps what was heard of it."""

    generation: int


@dataclass(frozen=True, slots=True)
class PauseReply:
    """Send no more audio for now."""


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """Go on where the reply was held."""


@dataclass(frozen=True, slots=True)
class StartSaying:
    """Prepare a sentence of the server's own behind a shut gate; the talker may still speak first."""

    generation: int


@dataclass(frozen=True, slots=True)
class CommitSaying:
    """Its first sound is there and nobody speaks: open the gate."""

    generation: int


Decision: TypeAlias = (
    StartListening
    | StopListening
    | CloseUtterance
    | Recognise
    | StartReply
    | DropReply
    | Commit
    | Interrupt
    | PauseReply
    | ResumeReply
    | StartSaying
    | CommitSaying
)
