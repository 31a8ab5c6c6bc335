"""SenseVoice through sherpa-onnx: Chinese, English, Japanese, Korean and Cantonese, whole utterances at once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import sherpa_onnx

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.settings.section import Language, Provider
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.model_files import (
    SENSE_VOICE_ADVICE,
    SenseVoiceFiles,
    find_sense_voice,
    precisions,
    require_provider,
)
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.tagged_text import LANGUAGES, to_transcript
from xiaozhi.text.one_line import one_line

_log = logging.getLogger(__name__)

# Seven FBANK frames of 25 ms every 10 ms make the first frame of the model, that is 85 ms. With fewer, sherpa-onnx
# reads beyond its buffer (from its source: the frame count is rounded towards zero, so 2 to 6 frames count as one).
_MIN_SAMPLES: Final = UPLINK_RATE_HZ // 10
_WARM_S: Final = 5  # longer than most of what is said


class SenseVoice(OfflineRecognizer):
    """One recogniser for all conversations. `decode` may run in several threads at once and releases the GIL.

    Args:
        files: validated files.
        language: what is spoken; a fixed one keeps short Chinese from being heard as Korean or Japanese.
        itn: numbers as digits, punctuation set.
        threads: threads of one decode. Two cost 20-90 % more CPU than one (measured), so more decodes at once are
            better than more threads.
        provider: `cpu` or `cuda`.

    Raises:
        EngineError: sherpa-onnx cannot load or run the model, or was built without CUDA.
    """

    name = "sense-voice"
    languages = LANGUAGES
    batches = True

    def __init__(
        self,
        files: SenseVoiceFiles,
        *,
        language: Language = "auto",
        itn: bool = True,
        threads: int = 1,
        provider: Provider = "cpu",
    ) -> None:
        require_provider(provider)
        self.model: Path = files.model
        try:
            self._recognizer: Any = sherpa_onnx.OfflineRecognizer.from_sense_voice(
                model=str(files.model),
                tokens=str(files.tokens),
                num_threads=threads,
                use_itn=itn,
                language=language,
                provider=provider,
            )
            # The first decode of a length is slow, as memory is claimed (286 ms instead of 96 where only one second had
            # been decoded before); and sherpa-onnx answers with nothing, not even tags, where a graph loads but does
            # not run.
            first = self._run(np.zeros(_WARM_S * UPLINK_RATE_HZ, np.float32))[0]
        except (RuntimeError, IndexError) as error:
            raise EngineError(
                f"{files.model}: sherpa-onnx cannot use it ({one_line(error)}); {SENSE_VOICE_ADVICE}"
            ) from error
        if not first.lang:
            raise EngineError(f"{files.model}: loads but recognises nothing; {SENSE_VOICE_ADVICE}")

    @classmethod
    def build(cls, context: RecognizerContext) -> "SenseVoice":
        """The model of the settings, or its copy that is the quickest on this CPU."""
        settings, quickest, variants = context.settings, context.quickest, cls.variants(context)
        name = quickest.variant if quickest.variant in variants else list(variants)[-1]
        try:
            engine = variants[name](settings.threads)
        except EngineError as error:  # the copy has been damaged since it was made; the original is good
            if name == "published":
                raise
            name = "published"
            engine = variants[name](settings.threads)
            _log.warning("%s; going on with %s", error, engine.model)
        lone_threads = settings.lone_threads or quickest.lone_threads
        if lone_threads > settings.threads and settings.provider == "cpu":
            engine.lone = variants[name](lone_threads)
            engine.about += f", {lone_threads} threads for a lone talker"
        return engine

    @classmethod
    def variants(cls, context: RecognizerContext) -> dict[str, Callable[[int], "SenseVoice"]]:
        """`published`; `fp32` where its file is there beside int8; `rewritten` where this CPU has a copy of its own."""
        settings, folder = context.settings, context.folder(cls.name)
        files = find_sense_voice(folder, precisions(settings.precision, settings.provider))

        def load(files: SenseVoiceFiles, threads: int) -> SenseVoice:
            engine = cls(
                files, language=settings.language, itn=settings.itn, threads=threads, provider=settings.provider
            )
            engine.about = about(files.model)
            return engine

        def about(model: Path) -> str:
            return f"{cls.name} ({model}), language {settings.language}, on {settings.provider}"

        def rewritten(threads: int) -> SenseVoice:
            try:
                engine = load(replace(files, model=copy), threads)
            except EngineError:
                copy.unlink(missing_ok=True)
                raise
            engine.about = f"{about(files.model)} rewritten for this CPU"
            return engine

        found: dict[str, Callable[[int], SenseVoice]] = {"published": lambda threads: load(files, threads)}
        if settings.provider == "cpu" and ".int8." in files.model.name:
            if settings.precision == "auto" and (folder / "model.onnx").is_file():
                found = {"fp32": lambda threads: load(find_sense_voice(folder, ("fp32",)), threads)} | found
            if settings.rewrite:
                from xiaozhi.stages.asr.rewritten import fastest

                copy = fastest(files.model)
                if copy != files.model:
                    found["rewritten"] = rewritten
        return found

    def _run(self, *pcms: PcmFloat) -> list[Any]:
        streams = [self._recognizer.create_stream() for _ in pcms]
        for stream, pcm in zip(streams, pcms, strict=True):
            stream.accept_waveform(UPLINK_RATE_HZ, pcm)
        self._recognizer.decode_streams(streams)
        return [stream.result for stream in streams]

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Blocking: 70 to 120 ms of one core for a second of speech.

        Raises:
            EngineError: sherpa-onnx failed on this audio.
        """
        return self.decode_many([pcm])[0]

    def decode_many(self, pcms: Sequence[PcmFloat]) -> list[Transcript]:
        """Recognise utterances, each float32[n] at 16 kHz, in one run of the network, padded to the longest. Blocking.

        On a CPU that pays only where lengths are alike. Measured with a full-size int8 model with signed weights, one
        thread, CPU milliseconds an utterance one by one, 4 and 8 together: 99, 76, 77 for 3 s each; 98, 115, 133 for
        1 to 5 s. Each has to wait for all. A GPU has room for more than one at a time.

        Raises:
            EngineError: sherpa-onnx failed on one of them; which one is not known.
        """
        transcripts = [Transcript("")] * len(pcms)
        heard = [index for index, pcm in enumerate(pcms) if len(pcm)]
        if not heard:
            return transcripts
        try:
            results = self._run(*(_long_enough(pcms[index]) for index in heard))
        except (RuntimeError, IndexError) as error:
            raise EngineError(f"sense-voice failed to decode: {one_line(error)}") from error
        for index, result in zip(heard, results, strict=True):
            transcripts[index] = to_transcript(result.text, result.lang, result.emotion, result.event)
        return transcripts

    def close(self) -> None:
        """Let go of the model; a decode that runs keeps it until it is done."""
        self._recognizer = None
        if self.lone is not None:
            self.lone.close()


def _long_enough(pcm: PcmFloat) -> PcmFloat:
    if len(pcm) < _MIN_SAMPLES:
        pcm = np.pad(pcm, (0, _MIN_SAMPLES - len(pcm)))
    return np.ascontiguousarray(pcm, np.float32)
