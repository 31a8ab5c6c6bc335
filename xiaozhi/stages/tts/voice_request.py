"""Which of an engine's voices comes closest to what an agent asks for. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from xiaozhi.settings.engines import KnownVoice
from xiaozhi.settings.tts import MICROSOFT, VOICES


@dataclass(frozen=True, slots=True)
class VoiceRequest:
    """How a reply should sound; each engine honours what it can.

    Attributes:
        voice: a voice by an engine's own name, or `engine:name`; empty for the settings' own.
        gender: taken where the voice is not named, or is another engine's.
        rate_percent: slower or faster than the settings say, -50 to 100.
        pitch_semitones: lower or higher than the voice is, -12 to 12; engines without it leave it.
    """

    voice: str = ""
    gender: Literal["", "female", "male"] = ""
    rate_percent: int = 0
    pitch_semitones: int = 0

    def __post_init__(self) -> None:
        if not -50 <= self.rate_percent <= 100:
            raise ValueError("rate_percent must be -50 to 100")
        if not -12 <= self.pitch_semitones <= 12:
            raise ValueError("pitch_semitones must be -12 to 12")

    @property
    def pitch_ratio(self) -> float:
        """By which every frequency is multiplied: 0.5 to 2."""
        return float(round(2.0 ** (self.pitch_semitones / 12.0), 3))


ANY_VOICE: Final = VoiceRequest()


KNOWN: Final[Mapping[str, tuple[KnownVoice, ...]]] = {
    name: kind.known_voices for name, kind in VOICES.items() if kind.known_voices
}
"""The voices that are known of each engine. Engines that are not named here number their voices."""

_HAN: Final = re.compile(r"[\u3400-\u9fff]")
# What reads English too: a Chinese voice does, an English one makes nothing of Chinese characters.
_BILINGUAL: Final = frozenset({"zh", "yue", "*"})


def closest(engine: str, request: VoiceRequest, language: str, configured: str) -> str:
    """The voice of `engine` for a text.

    A voice that is named is taken as it is where it is this engine's and can speak the language. Otherwise the first
    voice of the language with the wished gender, or with that of the voice that was named, and in the end the one that
    is configured.

    Args:
        engine: the engine's name.
        request: what the agent asks for.
        language: of the text, `zh`, `en` …
        configured: the engine's voice for this text where nothing is wished.
    """
    known = KNOWN.get(engine, ())
    owner, name = _split(request.voice)
    if name and _is_of(engine, owner, name) and _speaks(engine, name, language):
        return name
    gender = request.gender or gender_of(name)
    if not gender or _known(known, configured, gender):
        return configured
    for voice in known:
        if voice.gender == gender and voice.language in (language, "*"):
            return voice.name
    # No voice of that language: one that is known to manage it.
    spoken = [voice for voice in known if voice.gender == gender and language == "en" and voice.language in _BILINGUAL]
    return spoken[0].name if spoken else configured


def bilingual(engine: str, request: VoiceRequest, text: str, language: str, voice: str, voice_en: str) -> str:
    """The voice of an engine that is configured with two, the second for English texts.

    Args:
        engine: the engine's name.
        request: what the agent asks for.
        text: with a Chinese character in it, it is no English text whatever its language.
        language: of the text, `zh`, `en` …
        voice: the configured voice.
        voice_en: that for English; empty where there is none.
    """
    english = language.startswith("en") and not _HAN.search(text)
    return closest(engine, request, "en" if english else language, (voice_en if english else "") or voice)


def gender_of(name: str) -> Literal["", "female", "male"]:
    """Of a voice that some engine is known to have; empty when it is not known."""
    return next((voice.gender for voices in KNOWN.values() for voice in voices if voice.name == name), "")


def numbered(engine: str, request: VoiceRequest) -> int | None:
    """The voice of an engine that numbers its voices, such as `sherpa:3`; None where none is wished."""
    owner, name = _split(request.voice)
    return int(name) if owner == engine and name.isascii() and name.isdigit() and len(name) < 6 else None


def _split(voice: str) -> tuple[str, str]:
    """The engine (empty when not said) and the name."""
    owner, colon, name = voice.partition(":")
    return (owner, name) if colon else ("", voice)


def _is_of(engine: str, owner: str, name: str) -> bool:
    if owner:  # the read-aloud service and Azure have the same voices
        return owner == engine or ({owner, engine} == {"edge", "azure"} and name in {v.name for v in MICROSOFT})
    return any(voice.name == name for voice in KNOWN.get(engine, ())) or (
        engine in ("edge", "azure") and name.endswith("Neural") and name.count("-") >= 2
    )


def _speaks(engine: str, name: str, language: str) -> bool:
    if not language or "Multilingual" in name:
        return True
    spoken = next((voice.language for voice in KNOWN.get(engine, ()) if voice.name == name), "")
    if not spoken and engine in ("edge", "azure"):
        spoken = "yue" if name.startswith("zh-HK") else name.partition("-")[0]
    return spoken in ("", "*", language) or (spoken in _BILINGUAL and language in ("en", "zh", "yue"))


def _known(known: tuple[KnownVoice, ...], name: str, gender: str) -> bool:
    return any(voice.name == name and voice.gender == gender for voice in known)
