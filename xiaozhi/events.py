"""What the stages hand to each other through channels. Plain data; the bottom of the import order."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from xiaozhi.audio.pcm import PcmFloat


@dataclass(frozen=True, slots=True)
class MicPacket:
    """One Opus packet from the device's microphone, 20 to 120 ms; `timestamp_ms` is 0 where the framing has none."""

    opus: bytes
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class KeyReleased:
    """The talker released the key (push to talk); travels behind the audio that came before it."""


MicInput: TypeAlias = MicPacket | KeyReleased


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech has been found; `pcm` is float32[n] at 16 kHz from the pre-roll to now.

    Times are audio time: milliseconds of microphone audio since the connection began. `start_ms` belongs to `pcm[0]`,
    `end_ms` to its last sample.
    """

    start_ms: float
    end_ms: float
    pcm: PcmFloat


@dataclass(frozen=True, slots=True)
class SpeechAudio:
    """What followed, speech or silence, until the utterance is closed.

    `silence_ms` is audio time since the last voiced sample, 0 while voiced; `last_voiced_ms` is the audio time of that
    sample. `doubtful`: the newest silence may be speech that begins again.
    """

    end_ms: float
    pcm: PcmFloat
    silence_ms: float
    last_voiced_ms: float
    doubtful: bool = False


SpeechEvent: TypeAlias = SpeechBegan | SpeechAudio


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation as chat APIs understand it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of the reply that is synthesised as one.

    Attributes:
        text: what the device shows; emoji and markup removed.
        speech: what the voice says; URLs and symbols removed as well. Never empty.
        language: `zh` or `en` (or another code), for choosing the voice.
        emotion: one of the 21 names of the device protocol; set on the first clause of a reply.
    """

    text: str
    speech: str
    language: str
    emotion: str = ""


@dataclass(frozen=True, slots=True)
class ClauseStart:
    """The packets that follow speak this clause."""

    clause: Clause


@dataclass(frozen=True, slots=True)
class SpeechPacket:
    """One Opus packet of the reply and how long it sounds, in milliseconds."""

    opus: bytes
    duration_ms: int


SpokenItem: TypeAlias = ClauseStart | SpeechPacket
