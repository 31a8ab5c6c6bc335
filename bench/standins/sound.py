"""What stand-in speech servers say, in every format they are asked for. Blocking."""

import io
from typing import Final, Literal, TypeAlias

import av
import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.settings import EspeakVoiceSettings
from xiaozhi.stages.tts.espeak import say

SoundFormat: TypeAlias = Literal["pcm", "wav", "mp3", "opus"]

TONE_HZ: Final = 440.0
_TONE_S_PER_CHAR: Final = 0.18  # Mandarin is spoken at five to six syllables a second
_BYTES_PER_S: Final[dict[SoundFormat, int]] = {"pcm": 48_000, "wav": 48_000, "mp3": 6_000, "opus": 8_000}


def tone(text: str) -> PcmInt:
    """A tone as long as the text would take to say; int16[n] at 24 kHz."""
    samples = int(max(1, len(text)) * _TONE_S_PER_CHAR * DOWNLINK_RATE_HZ)
    wave: PcmInt = (8000.0 * np.sin(2 * np.pi * TONE_HZ / DOWNLINK_RATE_HZ * np.arange(samples))).astype(np.int16)
    return wave


def speech(text: str) -> PcmInt:
    """The text spoken by espeak-ng; int16[n] at 24 kHz."""
    return say(text, "zh", EspeakVoiceSettings())


def pack(pcm: PcmInt, form: SoundFormat) -> bytes:
    """int16[n] at 24 kHz as a server would send it: MP3 at 48 kbit/s, WAV of unknown length as streaming servers do."""
    match form:
        case "pcm":
            return pcm.astype("<i2").tobytes()
        case "wav":
            return _wav_header() + pcm.astype("<i2").tobytes()
        case "mp3":
            return _mp3(pcm)
        case "opus":
            return _ogg(pcm)


def bytes_per_s(form: SoundFormat) -> int:
    """How many bytes a second of sound has, roughly."""
    return _BYTES_PER_S[form]


def _wav_header() -> bytes:
    rate = DOWNLINK_RATE_HZ
    parts = [b"RIFF", b"\xff\xff\xff\xff", b"WAVEfmt ", (16).to_bytes(4, "little"), (1).to_bytes(2, "little")]
    parts += [(1).to_bytes(2, "little"), rate.to_bytes(4, "little"), (rate * 2).to_bytes(4, "little")]
    parts += [(2).to_bytes(2, "little"), (16).to_bytes(2, "little"), b"data", b"\xff\xff\xff\xff"]
    return b"".join(parts)


def _mp3(pcm: PcmInt) -> bytes:
    """Bare frames, as the read-aloud service sends them: no tag, no Xing header."""
    codec = av.CodecContext.create("libmp3lame", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout, codec.format, codec.bit_rate = DOWNLINK_RATE_HZ, "mono", "s16p", 48_000
    codec.options = {"reservoir": "0"}
    codec.open()
    size = codec.frame_size
    packets: list[bytes] = []
    for start in range(0, len(pcm), size):
        packets += [bytes(packet) for packet in codec.encode(_frame(pcm[start : start + size], "s16p"))]
    return b"".join([*packets, *(bytes(packet) for packet in codec.encode(None))])


def _ogg(pcm: PcmInt) -> bytes:
    file = io.BytesIO()
    # Short pages: a streaming server does not wait for a second of sound before it sends any.
    with av.open(file, "w", format="ogg", options={"page_duration": "100000"}) as container:
        stream = container.add_stream("libopus", rate=48_000)
        stream.layout = "mono"
        for packet in [*stream.encode(_frame(pcm, "s16")), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def _frame(pcm: PcmInt, form: str) -> av.AudioFrame:
    frame = av.AudioFrame(format=form, layout="mono", samples=len(pcm))
    frame.sample_rate = DOWNLINK_RATE_HZ
    frame.planes[0].update(pcm.tobytes())
    return frame
