"""Streaming zipformer transducers through sherpa-onnx: text while one speaks, final text at once."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import sherpa_onnx

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.settings.section import Language, Provider
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.model_files import (
    ZIPFORMER_ADVICE,
    TransducerFiles,
    find_transducer,
    precisions,
    require_provider,
)
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.stop_words import StopWordSpotter
from xiaozhi.stages.asr.streaming import StreamingRecognizer
from xiaozhi.text.one_line import one_line

# Quiet that makes the last word come out: the frames of one encoder step, so that the step with the last voiced
# frame is complete, and as long again as the model waits before it emits. Measured on 112 clips cut at their last
# voiced sample: Mandarin is complete after 480 ms and English after 600 ms with steps of 450 ms.
_EMISSION_FRAMES: Final = 16
# Faint noise, not zeros: after 2 s of digital silence the English model says "and" or "that" (word errors 15.7 % for
# 11.6 % with noise, measured).
_FLOOR: Final = 1e-4
_FRAME_SAMPLES: Final = UPLINK_RATE_HZ // 100
# The window of 25 ms around the middle of a frame reaches so far behind its beginning: with it, the frame exists.
_WINDOW_REACHES_SAMPLES: Final = _FRAME_SAMPLES // 2 + UPLINK_RATE_HZ // 80
# Beam search with 4 paths: 15.7 % word errors where greedy search has 17.3 %, at 1.2 times its CPU (measured without
# gain).
_PATHS: Final = 4
_CJK: Final = range(0x2E80, 0xA000)

# Measured with the English streaming zipformer, word errors over 17 recordings without and with this gain: as recorded
# 15.7 and 11.4 %, at a tenth of the amplitude 28.6 and 11.4 %, at three hundredths 41.6 and 16.2 %. Mandarin changes
# likewise. Targets of 0.2 to 0.5 and limits of 8 to 30 differ little.
_TARGET_PEAK: Final = 0.3
_MAX_GAIN: Final = 30.0


# Whoever speaks over a reply is understood, or given up, sooner.
_MAX_SO_FAR_S: Final = 4.0


class Zipformer(StreamingRecognizer):
    """One recogniser for all conversations, a stream for each utterance.

    The language of a transcript is the one in the settings; where that is `auto` it is `zh` for a text with Chinese
    characters and for vocabularies without BPE pieces (characters, pinyin), else `en`. A vocabulary in capitals only
    gives text in small letters.

    Streams of several conversations are not stepped together: the small exports are made for a batch of one (their
    inputs are `[1, 45, 80]` and states with a 1 where larger ones have a free axis). A second of speech costs 16 to
    20 ms of one core as it is, a step 5 ms.

    Args:
        files: validated files.
        language: what is spoken, said in the transcript; the model itself is not steered by it.
        threads: threads of one step.
        provider: `cpu` or `cuda`.

    Raises:
        EngineError: sherpa-onnx cannot load or run the model, or was built without CUDA.
    """

    name = "zipformer"

    def __init__(
        self, files: TransducerFiles, *, language: Language = "auto", threads: int = 1, provider: Provider = "cpu"
    ) -> None:
        require_provider(provider)
        self.flush: PcmFloat = np.random.default_rng(0).standard_normal(
            (files.chunk_frames + _EMISSION_FRAMES) * _FRAME_SAMPLES, np.float32
        ) * np.float32(_FLOOR)
        """The quiet that `finish` feeds, float32[n] at 16 kHz."""
        self.chunk_frames, self.step_frames = files.chunk_frames, files.step_frames
        letters = "".join(symbol for symbol in files.symbols if not symbol.startswith("<"))
        self._capitals = letters == letters.upper() and letters != letters.lower()
        self._has_pieces = any(symbol.startswith("▁") for symbol in files.symbols)
        self._language = language
        has_characters = any(ord(letter) in _CJK for letter in letters)
        self.languages = frozenset({"zh"} if not self._has_pieces else {"zh", "en"} if has_characters else {"en"})
        try:
            self.recognizer: Any = sherpa_onnx.OnlineRecognizer.from_transducer(
                tokens=str(files.tokens),
                encoder=str(files.encoder),
                decoder=str(files.decoder),
                joiner=str(files.joiner),
                model_type=files.kind,
                num_threads=threads,
                provider=provider,
                decoding_method="modified_beam_search",
                max_active_paths=_PATHS,
            )
            self.spotter = StopWordSpotter.build(files, self.flush, threads) if provider == "cpu" else None
            warm = ZipformerStream(self)
            warm.accept(np.zeros(UPLINK_RATE_HZ, np.float32))
            warm.finish()
        except (RuntimeError, IndexError) as error:
            raise EngineError(
                f"{files.encoder.parent}: sherpa-onnx cannot use it ({one_line(error)}); {ZIPFORMER_ADVICE}"
            ) from error

    @classmethod
    def build(cls, context: RecognizerContext) -> "Zipformer":
        """The model of the settings."""
        return cls.variants(context)["published"](context.settings.threads)

    @classmethod
    def variants(cls, context: RecognizerContext) -> dict[str, Callable[[int], "Zipformer"]]:
        """`published` alone."""
        settings = context.settings
        files = find_transducer(context.folder(cls.name), precisions(settings.precision, settings.provider))

        def load(threads: int) -> Zipformer:
            engine = cls(files, language=settings.language, threads=threads, provider=settings.provider)
            engine.about = f"{cls.name} ({files.encoder}), streaming, on {settings.provider}"
            return engine

        return {"published": load}

    def begin(self) -> "ZipformerStream":
        """Begin an utterance. Costs nothing: the stream's memory is claimed with its first audio."""
        return ZipformerStream(self)

    def tidy(self, text: str) -> str:
        """The text as it is shown."""
        text = " ".join(text.split())
        return text.lower() if self._capitals else text

    def language_of(self, text: str) -> str:
        """The language of a text; see the class."""
        if not text:
            return ""
        if self._language != "auto":
            return self._language
        return "zh" if not self._has_pieces or any(ord(character) in _CJK for character in text) else "en"

    def close(self) -> None:
        """Let go of the model; open streams keep it until they are gone."""
        self.recognizer = None


class RunningGain:
    """Raises an utterance so that its loudest sample so far is at 0.3; never lowers it, never by more than 30 dB.

    The gain only ever falls within an utterance, when something louder comes.
    """

    def __init__(self) -> None:
        self._peak = _TARGET_PEAK / _MAX_GAIN

    def apply(self, pcm: PcmFloat) -> PcmFloat:
        """The next piece, float32[n], raised."""
        if len(pcm):
            self._peak = max(self._peak, float(np.abs(pcm).max()))
        raised: PcmFloat = pcm * np.float32(max(1.0, _TARGET_PEAK / self._peak))
        return raised


class ZipformerStream:
    """One utterance; calls must not overlap."""

    def __init__(self, engine: Zipformer) -> None:
        self._engine = engine
        self._recognizer: Any = engine.recognizer
        self._stream: Any = None
        self._gain = RunningGain()
        self._finished: Transcript | None = Transcript("")
        self._so_far: list[PcmFloat] = []  # what was fed, while it is short
        self._samples = self._steps = 0

    @property
    def wants_samples(self) -> int:
        """What is missing for the next step of the encoder, which looks at a few frames behind those that it adds."""
        frames = self._engine.chunk_frames + self._steps * self._engine.step_frames
        return frames * _FRAME_SAMPLES + _WINDOW_REACHES_SAMPLES - self._samples

    def accept(self, pcm: PcmFloat) -> str:
        """Feed float32[n] at 16 kHz and return the text so far. Blocking: 20 ms of one core for a second of speech.

        Raises:
            EngineError: sherpa-onnx failed on this audio.
        """
        if len(pcm):
            raised = self._gain.apply(pcm)
            self._feed(raised)
            self._finished = None
            short = self._samples <= _MAX_SO_FAR_S * UPLINK_RATE_HZ
            self._so_far = [*self._so_far, raised] if short else []
        return self._text()

    def finish(self) -> Transcript:
        """Flush with quiet and return the whole text. More audio may follow; without any, the answer is the same.

        Raises:
            EngineError: sherpa-onnx failed.
        """
        if self._finished is None:
            self._feed(self._engine.flush)
            text = self._text()
            self._finished = Transcript(text, language=self._engine.language_of(text))
        return self._finished

    def so_far(self, *, stop_words: bool) -> Transcript:
        """The whole text up to here by a stream of its own: in this one the quiet behind it would tear what follows.

        Words that ask for silence are looked for first, where that is wanted. Sound that is longer than a few seconds
        is not decoded once more; of it the text so far is the answer.

        Raises:
            EngineError: sherpa-onnx failed.
        """
        if not self._so_far:
            return Transcript(text := self._text(), language=self._engine.language_of(text))
        spotter, pcm = self._engine.spotter, np.concatenate(self._so_far)
        self._so_far = [pcm]
        try:
            found = spotter.find(pcm) if stop_words and spotter is not None else ""
        except RuntimeError as error:
            raise EngineError(f"zipformer failed to decode: {one_line(error)}") from error
        if found:
            return Transcript(found, language="en" if found.isascii() else "zh")
        fresh = ZipformerStream(self._engine)
        fresh._feed(pcm)
        fresh._finished = None
        return fresh.finish()

    def _feed(self, pcm: PcmFloat) -> None:
        if self._recognizer is None:
            raise EngineError("the zipformer is closed")
        try:
            if self._stream is None:
                self._stream = self._recognizer.create_stream()
            self._stream.accept_waveform(UPLINK_RATE_HZ, np.ascontiguousarray(pcm, np.float32))
            self._samples += len(pcm)
            while self._recognizer.is_ready(self._stream):
                self._recognizer.decode_stream(self._stream)
                self._steps += 1
        except (RuntimeError, IndexError) as error:
            raise EngineError(f"zipformer failed to decode: {one_line(error)}") from error

    def _text(self) -> str:
        return "" if self._stream is None else self._engine.tidy(self._recognizer.get_result(self._stream))
