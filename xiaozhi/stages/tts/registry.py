"""Builds the voices that the settings name; an engine's module is imported only when it is chosen."""

import time
from dataclasses import dataclass
from pathlib import Path

from xiaozhi.program import program
from xiaozhi.settings import TtsSettings
from xiaozhi.settings.engines import load_engine
from xiaozhi.settings.tts import VOICES
from xiaozhi.stages.tts.engine import Voice, VoiceContext, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.text.one_line import one_line


@dataclass(frozen=True, slots=True)
class BuiltVoices:
    """The voices of a process.

    Attributes:
        chain: speaks with the best that works.
        why: one line for each engine, best first: which, and what it needs.
        hint: what to do for a better voice; empty when nothing obvious is missing.
    """

    chain: VoiceChain
    why: tuple[str, ...]
    hint: str


def build_voices(settings: TtsSettings, models_dir: Path) -> BuiltVoices:
    """Build every engine in `settings.engines`. Blocking: a local model is loaded.

    Raises:
        VoiceError: an engine that was asked for cannot be used; says what to do.
    """
    built = [build_voice(name, settings, models_dir) for name in settings.engines]
    chain = VoiceChain(
        [voice for voice, _ in built],
        settings.first_audio_timeout_s,
        settings.idle_timeout_s,
        settings.retry_after_s,
        time.monotonic,
        settings.max_concurrent,
    )
    return BuiltVoices(chain, tuple(why for _, why in built), _hint(settings))


def build_voice(name: str, settings: TtsSettings, models_dir: Path) -> tuple[Voice, str]:
    """One engine, and one line about it. Blocking.

    Raises:
        VoiceError: it cannot be used; says what to do.
    """
    own = getattr(settings, name)
    try:
        kind = load_engine({name: VOICES[name].implementation}, name)
        voice: Voice = kind.build(VoiceContext(own, settings, models_dir))
    except VoiceError:
        raise
    except Exception as error:  # whatever a package does, one line says which one it is
        raise VoiceError(f"{name}: {type(error).__name__}: {one_line(error)}") from error
    return voice, "; ".join(filter(None, (f"{name} {voice.about}", own.missing(f"tts.{name}"))))


def _hint(settings: TtsSettings) -> str:
    if all(VOICES[name].needs_network for name in settings.engines):
        return 'for a voice that never fails put "espeak" at the end of tts.engines'
    if settings.engines == ("espeak",):
        return f'for a natural voice put "edge" in front of tts.engines, or: {program()} models pull matcha-zh'
    return ""
