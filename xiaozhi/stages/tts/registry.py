"""Builds the voices that the settings name; an engine's module is imported only when it is chosen."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xiaozhi.program import program
from xiaozhi.settings import TtsSettings
from xiaozhi.stages.tts.engine import Voice
from xiaozhi.stages.tts.fallback import VoiceChain


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
    built = [_BUILDERS[name](settings, models_dir) for name in settings.engines]
    chain = VoiceChain(
        [voice for voice, _ in built],
        settings.first_audio_timeout_s,
        settings.idle_timeout_s,
        settings.retry_after_s,
        time.monotonic,
        settings.max_concurrent,
    )
    return BuiltVoices(chain, tuple(why for _, why in built), _hint(settings))


def _hint(settings: TtsSettings) -> str:
    if not {"sherpa", "espeak"} & set(settings.engines):
        return 'for a voice that never fails put "espeak" at the end of tts.engines'
    if settings.engines == ("espeak",):
        return f'for a natural voice put "edge" in front of tts.engines, or: {program()} models pull matcha-zh'
    return ""


def _edge(settings: TtsSettings, _models_dir: Path) -> tuple[Voice, str]:
    from xiaozhi.stages.tts.edge import EdgeVoice

    edge = settings.edge
    where = edge.url or "Microsoft's read-aloud service, needs internet"
    return EdgeVoice(edge, settings.idle_timeout_s), f"edge {edge.voice}, English {edge.voice_en} ({where})"


def _openai(settings: TtsSettings, _models_dir: Path) -> tuple[Voice, str]:
    from xiaozhi.stages.tts.openai_speech import OpenAIVoice

    speech = settings.openai
    why = f"openai {speech.model} {speech.voice}, {speech.format} from {speech.base_url}"
    if not speech.key() and speech.base_url.startswith("https://"):
        why += "; no key: set tts.openai.api_key" + (f" or {speech.api_key_env}" if speech.api_key_env else "")
    return OpenAIVoice(speech, settings.idle_timeout_s), why


def _azure(settings: TtsSettings, _models_dir: Path) -> tuple[Voice, str]:
    from xiaozhi.stages.tts.azure import AzureVoice

    azure = settings.azure
    why = f"azure {azure.voice}, English {azure.voice_en} ({azure.endpoint or azure.region})"
    if not azure.key():
        why += "; no key: set tts.azure.api_key" + (f" or {azure.api_key_env}" if azure.api_key_env else "")
    return AzureVoice(azure, settings.idle_timeout_s), why


def _iflytek(settings: TtsSettings, _models_dir: Path) -> tuple[Voice, str]:
    from xiaozhi.stages.tts.iflytek import IflytekVoice

    iflytek = settings.iflytek
    why = f"iflytek {iflytek.voice} ({iflytek.url})"
    if not (iflytek.app() and iflytek.key() and iflytek.secret()):
        why += "; not all of app_id, api_key and api_secret are set in [tts.iflytek]"
    return IflytekVoice(iflytek, settings.idle_timeout_s), why


def _sherpa(settings: TtsSettings, models_dir: Path) -> tuple[Voice, str]:
    from xiaozhi.stages.tts.sherpa import SherpaVoice

    voice = SherpaVoice(settings.sherpa, models_dir)
    return voice, f"sherpa {voice.about}, local"


def _espeak(settings: TtsSettings, _models_dir: Path) -> tuple[Voice, str]:
    from xiaozhi.stages.tts.espeak import EspeakVoice

    espeak = settings.espeak
    return EspeakVoice(espeak), f"espeak {espeak.voice}, English {espeak.voice_en} (embedded, always there)"


_BUILDERS: Mapping[str, Callable[[TtsSettings, Path], tuple[Voice, str]]] = {
    "edge": _edge,
    "openai": _openai,
    "azure": _azure,
    "iflytek": _iflytek,
    "sherpa": _sherpa,
    "espeak": _espeak,
}
