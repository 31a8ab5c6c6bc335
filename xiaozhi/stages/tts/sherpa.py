"""A local voice through sherpa-onnx: Matcha, VITS or Kokoro, no internet, no key."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import sherpa_onnx

from xiaozhi.audio.pcm import PcmFloat, PcmInt
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.concurrency.channel import Channel
from xiaozhi.models.sherpa_build import without_cuda
from xiaozhi.settings import SherpaVoiceSettings
from xiaozhi.settings.section import Provider
from xiaozhi.stages.tts.engine import ClauseVoice, VoiceContext, VoiceError
from xiaozhi.stages.tts.sherpa_files import VoiceFiles, default_voice_dir, voice_files
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, numbered

_STOP: Final = 0
_GO_ON: Final = 1
_AHEAD_SAMPLES: Final = 3 * 24_000


class SherpaVoice(ClauseVoice):
    """Speaks with a local model, one sentence after the other in a thread of its own.

    sherpa-onnx hands out each sentence of a text when it is complete; a text that is no longer wanted ends there.

    Args:
        settings: which model, speaker, speed and how many threads it may use.
        models_dir: where a model is looked for when the settings name none.

    Raises:
        VoiceError: the model is missing or damaged, or the provider is not there; says what to do.
    """

    name = "sherpa"

    def __init__(self, settings: SherpaVoiceSettings, models_dir: Path) -> None:
        self._settings = settings
        folder = settings.model_dir if settings.model_dir is not None else default_voice_dir(models_dir)
        if settings.provider == "cuda" and (why := without_cuda("tts.sherpa.provider")):
            raise VoiceError(f"sherpa: {why}")
        files = voice_files(folder)
        if settings.speaker and settings.speaker >= files.speakers:
            raise VoiceError(f"sherpa: {folder} has {max(1, files.speakers)} speakers, so none is {settings.speaker}")
        config = _config(files, settings.threads, settings.provider)
        if not config.validate():
            raise VoiceError(f"sherpa: {folder}: refused by sherpa-onnx; it has written why to standard error")
        self.about = f"{files.kind} {folder.name}, local"
        self._speakers = files.speakers
        self._tts = sherpa_onnx.OfflineTts(config)
        self._rate_hz: int = self._tts.sample_rate  # of what it gives, whatever the file says
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sherpa-tts")

    @classmethod
    def build(cls, context: VoiceContext) -> "SherpaVoice":
        """The model of the settings, or the best known one that is there."""
        return cls(context.own, context.models_dir)

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield each sentence when it is complete; the model knows its own languages.

        Raises:
            VoiceError: the model failed.
        """
        loop = asyncio.get_running_loop()
        speaker = numbered(self.name, request)
        if speaker is None or speaker >= max(1, self._speakers):  # whose they are is not written in the model
            speaker = self._settings.speaker
        speed = min(2.0, max(0.5, self._settings.speed * (1.0 + request.rate_percent / 100.0)))
        unwanted = threading.Event()
        pieces: Channel[PcmFloat] = Channel(_AHEAD_SAMPLES, len)

        def put(samples: PcmFloat) -> None:
            if not unwanted.is_set():
                pieces.put_nowait(samples)

        def take(samples: PcmFloat, _progress: float) -> int:
            if unwanted.is_set():
                return _STOP
            loop.call_soon_threadsafe(put, np.array(samples, np.float32))  # a copy: it is freed when this returns
            return _GO_ON

        def generate() -> None:
            if not unwanted.is_set():
                self._tts.generate(text, sid=speaker, speed=speed, callback=take)

        working = loop.run_in_executor(self._thread, generate)
        # Runs on the loop after the last `put`.
        working.add_done_callback(lambda _done: pieces.close())
        resampler = StreamResampler(self._rate_hz)
        try:
            async for samples in pieces:
                yield resampler.feed(samples)
            await working
        except (RuntimeError, ValueError) as error:
            raise VoiceError(f"{self.name}: {error}") from error
        finally:
            unwanted.set()
            working.cancel()  # one that has not begun never will
        yield resampler.flush()

    async def warm(self) -> None:
        """Speak a word to nobody, so that the first user does not pay for the first run."""
        async for _ in self.speak("好", language="zh"):
            pass

    async def close(self) -> None:
        """Let what runs finish in its thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _config(files: VoiceFiles, threads: int, provider: Provider) -> Any:
    """sherpa-onnx's own configuration; untyped there."""
    text = {"tokens": files.tokens, "lexicon": files.lexicon, "data_dir": files.data_dir, "dict_dir": files.dict_dir}
    networks: dict[str, Any] = {}
    match files.kind:
        case "vits":
            networks["vits"] = sherpa_onnx.OfflineTtsVitsModelConfig(model=files.model, **text)
        case "matcha":
            networks["matcha"] = sherpa_onnx.OfflineTtsMatchaModelConfig(
                acoustic_model=files.model, vocoder=files.vocoder, **text
            )
        case "kokoro":
            networks["kokoro"] = sherpa_onnx.OfflineTtsKokoroModelConfig(model=files.model, voices=files.voices, **text)
    model = sherpa_onnx.OfflineTtsModelConfig(num_threads=threads, provider=provider, debug=False, **networks)
    return sherpa_onnx.OfflineTtsConfig(model=model, rule_fsts=files.rules, max_num_sentences=1)
