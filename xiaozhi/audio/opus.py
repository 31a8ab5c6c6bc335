"""Opus in both directions through libopus: packets from the microphone, packets to the speaker.

Both classes block for tens to hundreds of microseconds a packet and keep state from packet to packet: one object for
one stream, never two calls at once. Measured for packets of 60 ms, on a fast and on a slow core: decoding to
16 kHz 0.02 and 0.05 ms; encoding at 24 kHz 0.07 and 0.24 ms at complexity 0, 0.15 and 0.5 ms at 5, 0.16
and 0.7 ms at 10; making an encoder 0.1 to 0.2 ms. The GIL is free while they code.
"""

from typing import Final, Literal, TypeAlias

import numpy as np

from xiaozhi.audio import libopus
from xiaozhi.audio.libav import av
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt

_DECODER_RATE_HZ: Final = 48_000
# 60 ms at 200 kbit/s, and what fits an Ethernet frame. Devices send 60 to 300 bytes; the format itself has no useful
# limit (48 frames of 1275 bytes).
MAX_PACKET_BYTES: Final = 1500
Way: TypeAlias = Literal["libopus", "libav"]


class OpusError(Exception):
    """A packet is not Opus; one line. The decoder goes on with the next packet."""


def _through(way: Way | None, rate_hz: int) -> Way:
    return way or ("libopus" if libopus.available() and rate_hz in libopus.RATES_HZ else "libav")


class OpusEncoder:
    """Turns int16[n] mono into Opus packets of one length.

    Args:
        rate_hz: of the sound: 8000, 12000, 16000, 24000 or 48000.
        frame_ms: sound in one packet: 20, 40, 60, 80, 100 or 120.
        bitrate_bps: aimed at; the rate varies with the sound.
        complexity: 0 (cheapest) to 10 (best).
        application: what libopus favours, clear speech (`voip`) or faithful sound (`audio`).
        through: `libopus` itself, or `libav` where that is not to be had; None chooses. Their packets are the same.
    """

    def __init__(
        self,
        rate_hz: int = DOWNLINK_RATE_HZ,
        frame_ms: int = 60,
        bitrate_bps: int = 24_000,
        complexity: int = 5,
        application: Literal["audio", "voip"] = "audio",
        through: Way | None = None,
    ) -> None:
        self.rate_hz = rate_hz
        self.frame_ms = frame_ms
        self.frame_samples = rate_hz * frame_ms // 1000
        self._rest: PcmInt = np.empty(0, np.int16)
        kind = libopus.LibopusEncoder if _through(through, rate_hz) == "libopus" else _LibavEncoder
        self._encoder = kind(rate_hz, self.frame_samples, bitrate_bps, complexity, application)
        self._finished = False

    @property
    def pending_samples(self) -> int:
        """Samples that wait for the rest of their frame."""
        return len(self._rest)

    def encode(self, pcm: PcmInt) -> list[bytes]:
        """Encode the whole frames that `pcm`, int16[n] of any length, completes; the rest waits for the next call.

        Raises:
            RuntimeError: after `flush`.
        """
        if self._finished:
            raise RuntimeError("the encoder has been flushed")
        pcm = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        whole = len(pcm) - len(pcm) % self.frame_samples
        packets = self._encoder.encode(pcm[:whole])
        self._rest = pcm[whole:].copy()
        return packets

    def flush(self) -> list[bytes]:
        """End the stream: the rest is filled up with silence to a whole frame. The encoder cannot be used after."""
        packets: list[bytes] = []
        if len(self._rest):
            packets = self.encode(np.zeros(self.frame_samples - len(self._rest), np.int16))
        self._finished = True
        return packets


class OpusDecoder:
    """Turns Opus packets into float32[n] mono.

    Args:
        rate_hz: of the result: 16 kHz for recognition; a simulated device plays 24 kHz.
        through: `libopus` itself, or `libav` where that is not to be had or cannot make the rate; None chooses.
    """

    def __init__(self, rate_hz: int = UPLINK_RATE_HZ, through: Way | None = None) -> None:
        self.rate_hz = rate_hz
        of_libopus = _through(through, rate_hz) == "libopus"
        self._decoder = libopus.LibopusDecoder(rate_hz) if of_libopus else _LibavDecoder(rate_hz)

    def decode(self, packet: bytes) -> PcmFloat:
        """Decode one packet of 2.5 to 120 ms; through libav the sound may lag up to 2 ms behind, in its resampler.

        An empty packet gives no sound.

        Raises:
            OpusError: the packet is not Opus or too long.
        """
        if not packet:
            return np.empty(0, np.float32)
        if len(packet) > MAX_PACKET_BYTES:
            raise OpusError(f"{len(packet)} bytes are too long for an Opus packet (at most {MAX_PACKET_BYTES})")
        try:
            return self._decoder.decode(packet)
        except libopus.LibopusError as error:
            raise OpusError(f"{len(packet)} bytes are not an Opus packet: {error}") from error
        except av.error.FFmpegError as error:
            raise OpusError(f"{len(packet)} bytes are not an Opus packet: {error.strerror}") from error

    def conceal(self, samples: int) -> PcmFloat:
        """What may have been in a packet that was lost, float32[samples]; silence through libav."""
        if not isinstance(self._decoder, libopus.LibopusDecoder):
            return np.zeros(samples, np.float32)
        try:
            return self._decoder.conceal(samples)
        except libopus.LibopusError as error:
            raise OpusError(f"{samples} samples cannot be made up for: {error}") from error


class _LibavEncoder:
    """libav's libopus; as `libopus.LibopusEncoder`."""

    def __init__(self, rate_hz: int, frame_samples: int, bitrate_bps: int, complexity: int, application: str) -> None:
        codec = av.CodecContext.create("libopus", "w")
        codec.sample_rate = rate_hz
        codec.layout = "mono"
        codec.format = "s16"
        codec.bit_rate = bitrate_bps
        codec.options = {
            "application": application,
            "compression_level": str(complexity),
            "frame_duration": str(frame_samples * 1000 // rate_hz),
            "vbr": "on",
        }
        codec.open()
        self._codec = codec
        self._rate_hz, self._frame_samples = rate_hz, frame_samples

    def encode(self, pcm: PcmInt) -> list[bytes]:
        """Encode whole frames, one packet each."""
        return [self._frame(pcm[at : at + self._frame_samples]) for at in range(0, len(pcm), self._frame_samples)]

    def _frame(self, pcm: PcmInt) -> bytes:
        # More than a frame at once would make libav cut and queue it; one frame in gives one packet out at once.
        frame = av.AudioFrame(format="s16", layout="mono", samples=self._frame_samples)
        frame.sample_rate = self._rate_hz
        frame.planes[0].update(pcm.tobytes())
        (packet,) = self._codec.encode(frame)
        return bytes(packet)


class _LibavDecoder:
    """libav's libopus, which decodes to 48 kHz whatever was encoded, and a resampler behind it."""

    def __init__(self, rate_hz: int) -> None:
        decoder = av.CodecContext.create("libopus", "r")
        decoder.sample_rate = _DECODER_RATE_HZ
        decoder.layout = "mono"
        decoder.open()
        self._decoder = decoder
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)

    def decode(self, packet: bytes) -> PcmFloat:
        """Decode one packet; an empty one would end the decoder for good."""
        frames = self._decoder.decode(av.Packet(packet))
        pieces: list[PcmFloat] = [
            piece.to_ndarray()[0] for frame in frames for piece in self._resampler.resample(frame)
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, np.float32)
