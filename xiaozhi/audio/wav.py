"""Sound files: any of them in, 16-bit WAV out. Blocking; for the command line, tests and benches."""

import wave
from pathlib import Path

import numpy as np

from xiaozhi.audio.libav import av, open_sound
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, PcmInt, to_int16


class WavError(Exception):
    """A sound file cannot be read; one line naming the file and the reason."""


def read_wav(path: Path) -> PcmFloat:
    """Read a WAV file of any width, rate and channel count (or any other sound file libav knows).

    Returns:
        float32[n] mono at 16 kHz.

    Raises:
        WavError: missing, unreadable, not sound, or empty.
    """
    try:
        with open_sound(path) as container:
            if not container.streams.audio:
                raise WavError(f"{path}: holds no sound")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=UPLINK_RATE_HZ)
            frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
            frames += resampler.resample(None) if frames else []
    except OSError as error:  # libav's errors for files are also the operating system's
        raise WavError(f"{path}: {error.strerror or error}") from error
    except av.error.FFmpegError as error:
        raise WavError(f"{path}: not a sound file ({error.strerror})") from error
    if not frames:
        raise WavError(f"{path}: holds no samples")
    pcm: PcmFloat = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return pcm


def write_wav(path: Path, pcm: PcmInt | PcmFloat, rate_hz: int) -> None:
    """Write mono int16[n], or float32[n] in [-1, 1], as a 16-bit WAV file.

    Raises:
        OSError: the file cannot be written.
    """
    samples = pcm if pcm.dtype == np.int16 else to_int16(pcm.astype(np.float32, copy=False))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2", copy=False).tobytes())
