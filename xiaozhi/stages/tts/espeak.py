"""The embedded voice: espeak-ng from the wheel `espeakng-loader`, library and data inside. Plain, but always there.

The C library keeps one global state, so the process has one instance of it, used by one thread only. Measured: 1 ms of
work for a second of sound, 2-3 ms for a sentence, up to 30 ms once when a voice is first chosen.
"""

import asyncio
import ctypes
import functools
import re
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import espeakng_loader
import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.settings import EspeakVoiceSettings
from xiaozhi.stages.tts.engine import ClauseVoice, VoiceContext, VoiceError
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, closest

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
_INITIALIZE_DONT_EXIT: Final = 0x8000
_CHARS_UTF8: Final = 1  # and neither espeakSSML (0x10) nor espeakPHONEMES (0x100): text is text
_POS_CHARACTER: Final = 1
_PARAMETER_RATE: Final = 1
_PARAMETER_PITCH: Final = 3

_BUFFER_MS: Final = 500  # fewer, longer calls back into Python than the default 60 ms
_PAUSE_MS: Final = 120  # espeak ends abruptly; the next clause would follow without a breath

_HAN: Final = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ebef"
_LATIN: Final = r"A-Za-z\u00c0-\u024f"
_TOKENS: Final = re.compile(rf"[{_HAN}]+|[{_LATIN}][{_LATIN}0-9'’.+-]*|[^{_HAN}{_LATIN}]+")
_IS_HAN: Final = re.compile(f"[{_HAN}]")
_IS_LATIN: Final = re.compile(f"[{_LATIN}]")
_DIGIT: Final = re.compile(r"\d")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Library:
    """The C library. Every method must be called on the one thread."""

    def __init__(self) -> None:
        try:
            lib = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path()
        except (OSError, RuntimeError) as error:
            raise VoiceError(f"espeak: cannot load the library of the package espeakng-loader: {error}") from error
        lib.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
            *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
        ]
        rate = lib.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, data.encode(), _INITIALIZE_DONT_EXIT)
        if rate <= 0:
            raise VoiceError(f"espeak: the library does not start with its data in {data}")
        self.rate_hz: int = rate
        self._lib = lib
        self._samples: list[bytes] = []
        self._callback = _Callback(self._take)  # kept: C holds only a pointer
        lib.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._samples.append(ctypes.string_at(samples, count * 2))
        return 0

    def choose(self, voice: str, rate_wpm: int, pitch: int) -> None:
        """Use a voice for what follows."""
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise VoiceError(f"espeak: has no voice {voice!r}")
        self._lib.espeak_SetParameter(_PARAMETER_RATE, rate_wpm, 0)
        self._lib.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)

    def synthesise(self, text: str) -> PcmInt:
        """Speak; int16[n] at `rate_hz`."""
        self._samples.clear()
        data = text.encode("utf-8", "ignore")
        code = self._lib.espeak_Synth(data, len(data) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        if code != 0:
            raise VoiceError(f"espeak: error {code}")
        return np.frombuffer(b"".join(self._samples), np.int16)


_library = functools.cache(_Library)


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="espeak")


def voice_runs(text: str, language: str) -> list[tuple[str, str]]:
    """Cut mixed text into runs of one language, `zh` or `en`.

    Chinese characters are `zh` and Latin words `en`. Digits go with Chinese where it touches them, else with what came
    before, as marks and blanks do; text of nothing else follows `language`.
    """
    tokens = _TOKENS.findall(_CONTROL.sub(" ", text))
    kinds = ["zh" if _IS_HAN.match(token) else "en" if _IS_LATIN.match(token) else "" for token in tokens]
    runs: list[tuple[str, str]] = []
    last = next(filter(None, kinds), "en" if language == "en" else "zh")
    for index, (kind, token) in enumerate(zip(kinds, tokens, strict=True)):
        if not kind and _DIGIT.search(token) and kinds[index + 1 : index + 2] == ["zh"]:
            kind = "zh"
        last = kind or last
        if runs and runs[-1][0] == last:
            runs[-1] = (last, runs[-1][1] + token)
        else:
            runs.append((last, token))
    return runs


def _choose(voice: str, rate_wpm: int, pitch: int = 50) -> _Library:
    library = _library()
    library.choose(voice, rate_wpm, pitch)
    return library


def _speak_run(kind: str, text: str, settings: EspeakVoiceSettings, request: VoiceRequest = ANY_VOICE) -> PcmInt:
    voice = closest("espeak", request, kind, settings.voice_en if kind == "en" else settings.voice)
    rate_wpm = min(450, max(80, round(settings.rate_wpm * (1.0 + request.rate_percent / 100.0))))
    library = _choose(voice, rate_wpm, 50 + request.pitch_semitones * 50 // 12)  # 0 to 100
    pcm = library.synthesise(text)
    resampler = StreamResampler(library.rate_hz)
    return np.concatenate([resampler.feed(pcm), resampler.flush()])


def say(text: str, language: str, settings: EspeakVoiceSettings) -> PcmInt:
    """Speak a whole text at once; int16[n] at 24 kHz, without a pause at its end. Blocking, a few milliseconds.

    Raises:
        VoiceError: no such voice, or the library cannot be loaded.
    """
    pieces = [_thread().submit(_speak_run, kind, run, settings).result() for kind, run in voice_runs(text, language)]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int16)


class EspeakVoice(ClauseVoice):
    """Speaks with espeak-ng.

    Args:
        settings: voices and rate.

    Raises:
        VoiceError: no such voice, or the library cannot be loaded.
    """

    name = "espeak"

    def __init__(self, settings: EspeakVoiceSettings) -> None:
        self._settings = settings
        self.about = f"{settings.voice}, English {settings.voice_en} (embedded, always there)"
        for voice in (settings.voice, settings.voice_en):  # loads the library and both voices
            _thread().submit(_choose, voice, settings.rate_wpm).result()

    @classmethod
    def build(cls, context: VoiceContext) -> "EspeakVoice":
        """The one of the wheel."""
        return cls(context.own)

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield each run of one language, then a short pause.

        Raises:
            VoiceError: the library failed.
        """
        loop = asyncio.get_running_loop()
        spoken = False
        for kind, run in voice_runs(text, language):
            pcm = await loop.run_in_executor(_thread(), _speak_run, kind, run, self._settings, request)
            if len(pcm):
                spoken = True
                yield pcm
        if spoken:
            yield np.zeros(DOWNLINK_RATE_HZ * _PAUSE_MS // 1000, np.int16)
