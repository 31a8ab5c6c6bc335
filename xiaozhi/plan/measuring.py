"""Measuring how quick this box is: some decodes, some frames of Opus, some windows of the VAD. Blocking, seconds."""

import json
import logging
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.overload.usage import give_back
from xiaozhi.plan.calibration import ENCODER_EFFORTS, SOUND_S, Calibration, Decode, Ground, model_folders
from xiaozhi.settings import Settings
from xiaozhi.settings.asr import RECOGNIZERS
from xiaozhi.settings.engines import load_engine
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.recogniser import Recognizer, RecognizerContext
from xiaozhi.stages.asr.streaming import StreamingRecognizer
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, STATE_WIDTH, WINDOW_SAMPLES, load_silero

_log = logging.getLogger(__name__)

# No model is loaded any more after this time; what has been measured until then counts.
MAX_MEASURE_S: Final = 60.0
# Threads of one decode beyond which nothing is gained in so short a sound.
_MAX_THREADS: Final = 8
_TRIES: Final = 3
# What takes a millisecond is tried so often: the least of many is steady on a busy box too.
_MANY: Final = 60
_FRAMES: Final = 5
_WINDOWS: Final = 8
_FRAME_MS: Final = 60
# A decode that takes this much longer than it computes had to share the processor.
_DISTURBED: Final = 1.3
# Milliseconds at a time are recognised while somebody speaks, as packets come.
_PIECE: Final = UPLINK_RATE_HZ * _FRAME_MS // 1000


class _Took(NamedTuple):
    cpu_s: float
    wall_s: float


def measure(settings: Settings, ground: Ground) -> Calibration:
    """Measure everything there is, on this thread; what cannot be loaded is left out and said.

    Args:
        settings: whose models, VAD and bit rate.
        ground: what it will hold for.

    Raises:
        VadError: the VAD cannot be loaded.
    """
    until_s = time.monotonic() + MAX_MEASURE_S
    sound = _like_speech()
    decodes: list[Decode] = []
    for name, folder in reversed(model_folders(settings.asr, settings.models.dir).items()):  # the small one first
        try:
            decodes += _decodes(name, folder, settings, sound, ground.cores, until_s)
        except EngineError as error:
            _log.warning("%s is not measured: %s", name, error)
    give_back()
    shared = any(one.threads == 1 and one.wall_s > _DISTURBED * one.cpu_s for one in decodes)
    return Calibration(
        ground=ground,
        date=date.today().isoformat(),
        decodes=tuple(decodes),
        encode_s={effort: _encode_s(settings, effort) for effort in ENCODER_EFFORTS},
        vad_s=_vad_s(settings),
        interpreter_s=_best(python, _MANY).cpu_s,
        disturbed=shared or time.monotonic() > until_s,
    )


def _decodes(name: str, folder: Path, settings: Settings, sound: PcmFloat, cores: int, until_s: float) -> list[Decode]:
    """Every variant of an engine with one thread, the usual one first, then the quickest with all cores."""
    asr = settings.asr.model_copy(update={"engine": name, "model_dir": folder})
    kind: type[Recognizer] = load_engine(RECOGNIZERS, name)
    variants = kind.variants(RecognizerContext(asr, settings.models.dir, ()))
    found: list[Decode] = []

    def one(variant: str, threads: int) -> None:
        if time.monotonic() < until_s:
            engine = variants[variant](threads)
            try:
                found.append(_decode(engine, name, variant, threads, sound))
            finally:
                engine.close()

    for variant in reversed(list(variants)):  # the usual one first
        one(variant, 1)
    if found and cores > 1:
        one(min(found, key=lambda decode: decode.cpu_s).variant, min(cores, _MAX_THREADS))
    return found


def _decode(engine: Recognizer, name: str, variant: str, threads: int, sound: PcmFloat) -> Decode:
    if isinstance(engine, OfflineRecognizer):
        took = _best(lambda: engine.decode(sound))
        return Decode(engine=name, variant=variant, threads=threads, cpu_s=took.cpu_s, wall_s=took.wall_s)
    assert isinstance(engine, StreamingRecognizer)
    streams = [engine.begin() for _ in range(_TRIES + 1)]
    feeding, ending = list(streams), list(streams)

    def feed() -> None:
        stream = feeding.pop()
        for start in range(0, len(sound), _PIECE):
            stream.accept(sound[start : start + _PIECE])

    fed, ended = _best(feed), _best(lambda: ending.pop().finish())
    return Decode(
        engine=name,
        variant=variant,
        threads=threads,
        cpu_s=fed.cpu_s + ended.cpu_s,
        wall_s=fed.wall_s + ended.wall_s,
        final_s=ended.cpu_s,
    )


def _best(call: Callable[[], object], tries: int = _TRIES) -> _Took:
    """The least of several, behind one that claims memory."""
    call()
    took = []
    for _ in range(tries):
        wall_s, cpu_s = time.monotonic(), time.thread_time()
        call()
        took.append(_Took(max(time.thread_time() - cpu_s, 1e-6), max(time.monotonic() - wall_s, 1e-6)))
    return _Took(min(one.cpu_s for one in took), min(one.wall_s for one in took))


def _encode_s(settings: Settings, effort: int) -> float:
    encoder = OpusEncoder(DOWNLINK_RATE_HZ, _FRAME_MS, settings.audio.bitrate_bps, effort, "audio")
    pcm = to_int16(np.repeat(_like_speech(), 2))[: encoder.frame_samples * _FRAMES]
    return _best(lambda: encoder.encode(pcm), _MANY).cpu_s / _FRAMES


def _vad_s(settings: Settings) -> float:
    model = load_silero(settings.vad)
    windows = _like_speech()[: _WINDOWS * (CONTEXT_SAMPLES + WINDOW_SAMPLES)].reshape(_WINDOWS, -1)
    states = np.zeros((2, _WINDOWS, STATE_WIDTH), np.float32)
    return _best(lambda: model.probabilities(windows, states), _MANY).cpu_s / _WINDOWS


def python() -> object:
    """What the event loop mostly does: texts, tables, JSON. Changing it changes what kept measurements mean."""
    counts: dict[str, int] = {}
    for number in range(3000):
        name = str(number % 97)
        counts[name] = counts.get(name, 0) + number
    return json.loads(json.dumps([{"type": "tts", "state": "sentence_start", "text": "hello there"}] * 200))


def _like_speech() -> PcmFloat:
    """`SOUND_S` of a voice's harmonics, four syllables a second, float32[n] at 16 kHz: costs what speech costs."""
    seconds = np.arange(round(SOUND_S * UPLINK_RATE_HZ)) / UPLINK_RATE_HZ
    voice = sum(np.sin(2.0 * np.pi * 150.0 * harmonic * seconds) / harmonic for harmonic in range(1, 21))
    breath = np.random.default_rng(0).normal(0.0, 0.05, len(seconds))
    sound: PcmFloat = (0.2 * (voice + breath) * (0.5 - 0.5 * np.cos(8.0 * np.pi * seconds))).astype(np.float32)
    return sound
