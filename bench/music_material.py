"""What the music benches play: an encoded track with a beat, chords and, where wanted, voices that sing or tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import av
import numpy as np

from xiaozhi.audio.pcm import PcmFloat, PcmInt, to_int16

RATE_HZ: Final = 44_100
_BEAT_S: Final = 0.5
_BAR_BEATS: Final = 4
# Frequencies of four chords, C, a minor, F and G, one for each bar.
_CHORDS: Final = ((261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7))
# Mean loudness of the finished track and of a voice in it: as loud as records are, and a singer as loud as the band.
_RMS: Final = 0.17
_VOICE_RMS: Final = 0.12
_CODECS: Final = {".mp3": ("libmp3lame", "fltp"), ".flac": ("flac", "s16"), ".ogg": ("libopus", "flt")}


def band(seconds: float, seed: int = 1) -> PcmFloat:
    """A band without a singer: float32[n] at 44.1 kHz."""
    dice = np.random.default_rng(seed)
    beat = int(_BEAT_S * RATE_HZ)
    time_s = np.arange(beat) / RATE_HZ
    fall = np.exp(-5.0 * time_s)
    kick = np.sin(2.0 * np.pi * 60.0 * np.exp(-6.0 * time_s) * time_s) * np.exp(-9.0 * time_s)
    beats = []
    for number in range(int(np.ceil(seconds / _BEAT_S))):
        chord = _CHORDS[number // _BAR_BEATS % len(_CHORDS)]
        melody = chord[dice.integers(len(chord))] * 2.0
        sound = 0.9 * kick if number % 2 == 0 else 0.25 * dice.normal(0.0, 1.0, beat) * np.exp(-25.0 * time_s)
        for root in (*chord, melody):
            for harmonic, share in ((1, 1.0), (2, 0.5), (3, 0.3), (5, 0.1)):
                sound = sound + 0.15 * share * np.sin(2.0 * np.pi * root * harmonic * time_s) * fall
        beats.append(sound)
    played = np.concatenate(beats)[: int(seconds * RATE_HZ)]
    loud: PcmFloat = (played / np.sqrt(np.mean(played**2)) * _RMS).astype(np.float32)
    return loud


def with_voices(played: PcmFloat, voices: Sequence[PcmFloat]) -> PcmFloat:
    """The band with people over it, one after the other and again: what is most like somebody in the room.

    Args:
        played: float32[n] at 44.1 kHz.
        voices: float32[n] at 16 kHz each.
    """
    mixed, at = played.copy(), RATE_HZ
    while voices:
        for voice in voices:
            places = np.arange(int(len(voice) * RATE_HZ / 16_000)) * 16_000 / RATE_HZ
            sung = np.interp(places, np.arange(len(voice)), voice)
            sung *= _VOICE_RMS / max(1e-6, float(np.sqrt(np.mean(sung**2))))
            if at + len(sung) > len(mixed):
                return mixed
            mixed[at : at + len(sung)] += sung.astype(np.float32)
            at += len(sung) + RATE_HZ // 2
    return mixed


def write_track(path: Path, played: PcmFloat, title: str) -> Path:
    """Encode float32[n] at 44.1 kHz, or 48 kHz for Ogg, as the ending says (`.mp3`, `.flac`, `.ogg`), in stereo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, layout = _CODECS[path.suffix]
    pcm: PcmInt = to_int16(np.clip(played, -1.0, 1.0))
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.format = "stereo", layout
        resampler = av.AudioResampler(format=layout, layout="stereo", rate=stream.rate, frame_size=stream.frame_size)
        for at in range(0, len(pcm), RATE_HZ):
            frame = av.AudioFrame.from_ndarray(pcm[None, at : at + RATE_HZ], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, at
            for piece in resampler.resample(frame):
                container.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path
