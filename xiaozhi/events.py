"""What the stages hand to each other through channels. Plain data; the bottom of the import order."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from xiaozhi.audio.pcm import PcmFloat, PcmInt


@dataclass(frozen=True, slots=True)
class MicPacket:
    """One Opus packet from the device's microphone, 20 to 120 ms; `timestamp_ms` is 0 where the framing has none.

    `bare`: no Opus, but the samples themselves, int16 in little-endian order at 16 kHz. `lost` packets of its length
    were sent before it and have not come.
    """

    opus: bytes
    timestamp_ms: int = 0
    bare: bool = False
    lost: int = 0


@dataclass(frozen=True, slots=True)
class KeyReleased:
    """The user released the key (push to talk); travels behind the audio that came before it.

    `utterance` is the number of the utterance that was expected or open by then.
    """

    utterance: int


MicInput: TypeAlias = MicPacket | KeyReleased


@dataclass(frozen=True, slots=True)
class SpeechLikely:
    """The newest sound is likely speech, of too little to be sure; `utterance` is the one that it would begin."""

    utterance: int


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech has been found; `pcm` is float32[n] at 16 kHz from the pre-roll to now.

    `utterance` is the number of the utterance that it begins. Times are audio time: milliseconds of microphone audio
    since the connection began. `start_ms` belongs to `pcm[0]`, `end_ms` to its last sample; the voice begins
    behind the pre-roll, of `pre_roll_ms`. `before` is sound in front of `pcm` that does not belong to the utterance.
    """

    utterance: int
    start_ms: float
    end_ms: float
    pcm: PcmFloat
    pre_roll_ms: float = 0.0
    before: PcmFloat = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class SpeechAudio:
    """What followed, speech or silence, until the utterance is closed.

    `silence_ms` is the time since the last voiced sample, 0 while voiced; `last_voiced_ms` is the audio time of that
    sample. `unsent_ms` of that silence were not sent but taken from the clock; where nothing at all has come, `pcm` is
    empty. `doubtful`: the newest silence may be speech that begins again, or that comes late.
    `certain`: a voice in full has been heard in the utterance; else it may be noise.
    """

    utterance: int
    end_ms: float
    pcm: PcmFloat
    silence_ms: float
    last_voiced_ms: float
    doubtful: bool = False
    unsent_ms: float = 0.0
    certain: bool = True


SpeechEvent: TypeAlias = SpeechBegan | SpeechAudio


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model may call.

    Attributes:
        name: as chat APIs accept it: `[a-zA-Z0-9_-]{1,64}`.
        description: for the model.
        parameters: JSON schema of the arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model wants a tool called; `arguments` is the JSON text as it came, which need not be valid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ProviderFields:
    """What a provider sent beside a reply with tool calls and wants back with it, as it came: thoughts, signatures.

    Attributes:
        endpoint: who sent it; nobody else gets it.
        message: beside the text of the reply.
        calls: beside each of its calls, in their order.
    """

    endpoint: str
    message: Mapping[str, Any]
    calls: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation as chat APIs understand it.

    `tool_calls` belong to the role `assistant`, and so does `provider`; a message of the role `tool` answers the one
    named by `tool_call_id`; `image` belongs to the role `user`: a picture as a data URL or an address, empty for none.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    image: str = ""
    provider: ProviderFields | None = None


SoundSource: TypeAlias = Callable[[], AsyncGenerator[PcmInt, None]]
"""Opens sound: int16[n] mono at 24 kHz, piece by piece; closing the generator frees what it holds."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of the reply that is synthesised as one.

    Attributes:
        text: what the device shows; emoji and markup removed.
        speech: what the voice says; URLs and symbols removed as well. Empty for a reply that is a face alone.
        language: `zh` or `en` (or another code), for choosing the voice.
        emotion: one of the 21 names of the device protocol; set on the first clause of a reply.
        sound: what is heard instead of a voice, such as music; None for speech.
    """

    text: str
    speech: str
    language: str
    emotion: str = ""
    sound: SoundSource | None = None


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
