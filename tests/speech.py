"""Recorded speech for tests. It does not ship with the project: tests that need it skip where it is missing."""

import csv
import functools
import os
import subprocess
import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, to_float
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.settings import EspeakVoiceSettings
from xiaozhi.stages.tts import espeak

SPEECH_DIR = Path(os.environ.get("SPEECH_DIR") or Path(__file__).resolve().parents[2] / "shared" / "speech")

needs_speech = pytest.mark.skipif(not SPEECH_DIR.is_dir(), reason="recorded speech is not present")


@dataclass(frozen=True)
class Recording:
    """One line of the recordings' index."""

    path: Path
    language: str
    kind: str
    duration_s: float
    transcript: str


def recordings(language: str = "", kind: str = "") -> list[Recording]:
    """The recordings of a language and kind, in the order of the index; empty where they are not present."""
    index = SPEECH_DIR / "index.tsv"
    if not index.is_file():
        return []
    with index.open(encoding="utf-8") as file:
        rows = [
            Recording(
                SPEECH_DIR / row["file"],
                row["language"],
                row["kind"],
                float(row["duration_s"]),
                row["transcript"] or "",
            )
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    return [row for row in rows if (not language or row.language == language) and (not kind or row.kind == kind)]


def read_wav(path: Path) -> PcmFloat:
    """A 16 kHz mono 16-bit WAV file as float32[n]."""
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2), path
        return to_float(np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16))


def say(text: str, voice: str = "en-us+f2", rate_wpm: int = 160) -> PcmFloat:
    """The text spoken by espeak-ng, all of it by one voice; float32[n] at 16 kHz.

    Open-vocabulary recognition of synthetic voices is poor; `en-us+f2` at 160 words a minute is understood best.
    """
    language = "zh" if voice.startswith(("cmn", "yue")) else "en"
    pcm = espeak.say(text, language, EspeakVoiceSettings(voice=voice, voice_en=voice, rate_wpm=rate_wpm))
    resampler = StreamResampler(DOWNLINK_RATE_HZ, UPLINK_RATE_HZ)
    return to_float(np.concatenate([resampler.feed(pcm), resampler.flush()]))


def throw_the_same_dice() -> None:
    """Breath and flutter of espeak's voices are random, by the time of day when nobody says otherwise."""
    espeak._thread().submit(lambda: espeak._library()._lib.espeak_ng_SetRandSeed(1)).result()


@functools.cache
def say_the_same(text: str, voice: str = "en-us+f2", rate_wpm: int = 160) -> PcmFloat:
    """As `say`, but the same sound in every run, which also depends on what a process has had espeak say before."""
    asked = [sys.executable, "-m", "tests.speech", text, voice, str(rate_wpm)]
    return np.frombuffer(subprocess.run(asked, capture_output=True, check=True).stdout, np.float32)


if __name__ == "__main__":
    throw_the_same_dice()
    _, wanted_text, wanted_voice, wanted_rate = sys.argv
    sys.stdout.buffer.write(say(wanted_text, wanted_voice, int(wanted_rate)).tobytes())
