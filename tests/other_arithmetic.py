"""The arithmetic of another machine: `pytest -p tests.other_arithmetic` moves what codec and models compute by a hair.

CPUs with and without VNNI or AVX-512, and one release of onnxruntime or libopus and the next, disagree in the last
bits. Here they disagree a thousand times more, the same way each time: a test that passes alone and fails so stands on
such a bit. The number in `OTHER_ARITHMETIC` chooses another machine.
"""

import os
import zlib
from typing import Any, Final

import numpy as np
import pytest

from xiaozhi.audio.libopus import LibopusDecoder
from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.stages.asr.pocketsphinx_engine import Pocketsphinx
from xiaozhi.stages.asr.sense_voice import SenseVoice
from xiaozhi.stages.vad.silero import SileroModel, States, Windows

_GAIN: Final = 0.005
_SAMPLE: Final = 0.001
_LOG_ODDS: Final = 0.05
_MACHINE: Final = int(os.environ.get("OTHER_ARITHMETIC", "1"))


def _of(content: bytes) -> np.random.Generator:
    """This machine's deviations for an input."""
    return np.random.default_rng([_MACHINE, zlib.crc32(content)])


def _moved(pcm: PcmFloat, content: bytes) -> PcmFloat:
    """The sound a little louder or softer, and grainy; silence stays silence."""
    rng = _of(content)
    return (pcm * (1 + rng.normal(0, _GAIN)) * (1 + rng.normal(0, _SAMPLE, len(pcm)))).astype(np.float32)


def pytest_configure(config: pytest.Config) -> None:
    """Put the other arithmetic in place."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    decode, judge = LibopusDecoder.decode, SileroModel.probabilities

    def probabilities(self: SileroModel, windows: Windows, states: States) -> tuple[PcmFloat, States]:
        found, after = judge(self, windows, states)
        bounded = np.clip(found, 1e-7, 1 - 1e-7)
        odds = np.log(bounded / (1 - bounded)) + [_of(window.tobytes()).normal(0, _LOG_ODDS) for window in windows]
        return (1 / (1 + np.exp(-odds))).astype(np.float32), after

    patch.setattr(LibopusDecoder, "decode", lambda self, packet: _moved(decode(self, packet), packet))
    patch.setattr(SileroModel, "probabilities", probabilities)
    for engine in (SenseVoice, Pocketsphinx):
        _move_what_is_heard(patch, engine)


def _move_what_is_heard(patch: pytest.MonkeyPatch, engine: Any) -> None:
    recognise = engine.decode
    patch.setattr(engine, "decode", lambda self, pcm: recognise(self, _moved(pcm, pcm.tobytes())))
