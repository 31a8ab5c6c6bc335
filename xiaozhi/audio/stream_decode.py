"""Compressed or packaged speech, arriving in any byte pieces, to int16 at 24 kHz as early as possible.

Speech servers stream MP3, AAC, FLAC, WAV, Ogg Opus or bare samples, and some answer in another format than the one
asked for, or with a web page. What arrives is recognised by its first bytes, then by its Content-Type; what cannot be
decoded is named, and noise is never passed on as sound.

Decoding runs on the caller's thread, which may be the event loop's. Measured for 100 ms of speech: MP3 0.08 ms (0.7 ms
for the first piece), Ogg Opus 0.3 ms (a page is decoded at once: 3 ms for one of a second), WAV and bare samples under
0.01 ms (0.3 ms when the rate must change). Long pieces are worked off in parts by `decode_parts`.
"""

import codecs
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np
from av.audio.stream import AudioStream

from xiaozhi.audio.errors import DecodeError, NoSound
from xiaozhi.audio.libav import av
from xiaozhi.audio.ogg import OpusStreamDecoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.audio.riff import FILE_MARKS, WavStreamDecoder
from xiaozhi.audio.samples import UnknownSamples

__all__ = ["PART_BYTES", "DecodeError", "SpeechDecoder", "SpeechFormat", "decode_parts"]

SpeechFormat: TypeAlias = Literal["pcm", "wav", "mp3", "opus"]
"""What was asked for; `pcm` is s16le mono."""

PART_BYTES: Final = 4096
"""What is decoded at once: 0.7 s of 48 kbit/s MP3 (1 ms of work), 85 ms of bare samples."""

_SNIFF_BYTES: Final = 16
_EMPTY: Final[PcmInt] = np.empty(0, np.int16)

# By the first bytes: what is here and cannot be decoded.
_OTHERS: Final[Mapping[bytes, str]] = {
    b"\x1a\x45\xdf\xa3": "WebM", b"FORM": "AIFF", b".snd": "an AU file", b"#!AMR": "AMR", b"caff": "CAF",
    b"riff": "Wave64", b"RIFX": "big-endian WAV", b"0&\xb2u": "WMA", b"MThd": "MIDI", b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a ZIP archive", b"%PDF": "a PDF", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture",
}  # fmt: skip
# By the Content-Type: what a stream is whose first bytes do not tell. RFC 3551 and 2586, and what servers write.
_FRAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("audio/mpeg", "audio/mp3", "audio/x-mp3", "audio/mpeg3", "audio/x-mpeg", "audio/mpga"), "mp3float"
    ),
    **dict.fromkeys(("audio/aac", "audio/aacp", "audio/x-aac", "audio/x-hx-aac-adts"), "aac"),
}
_TELEPHONE: Final[Mapping[str, Literal["mulaw", "alaw"]]] = {
    **dict.fromkeys(("audio/basic", "audio/pcmu", "audio/mulaw", "audio/x-mulaw", "audio/ulaw"), "mulaw"),
    **dict.fromkeys(("audio/pcma", "audio/alaw", "audio/x-alaw"), "alaw"),
}
_TELEPHONE_RATE_HZ: Final = 8000
_BARE: Final = ("audio/pcm", "audio/l16", "audio/x-pcm", "audio/raw", "audio/x-raw", "audio/s16le", "audio/linear16")
_RATES: Final = ("rate", "samplerate", "sample-rate", "sample_rate")


class _Decoder(Protocol):
    def feed(self, data: bytes) -> PcmInt: ...

    def finish(self) -> PcmInt: ...


class SpeechDecoder:
    """Decodes one stream.

    Args:
        expected: the format asked for; another one is recognised.
        content_type: what the server says it is; empty where it says nothing.
        rate_hz: of bare samples, where the server does not say it.
    """

    def __init__(self, expected: SpeechFormat, content_type: str = "", rate_hz: int = DOWNLINK_RATE_HZ) -> None:
        self._expected: SpeechFormat = expected
        declared = Message()
        declared["content-type"] = content_type or "application/octet-stream"
        self._declared = declared.get_content_type()
        self._rate_hz = next((rate for name in _RATES if (rate := _whole(declared.get_param(name)))), 0)
        self._asked_rate_hz = rate_hz
        self._channels = _whole(declared.get_param("channels")) or 1
        self._head = b""
        self._decoder: _Decoder | None = None
        self._samples = 0

    def feed(self, data: bytes) -> PcmInt:
        """Decode the next bytes, cut anywhere; returns int16[n] mono at 24 kHz, often empty.

        Raises:
            DecodeError: this is not sound (a web page, JSON, noise), or a kind of sound that cannot be decoded.
        """
        if self._decoder is None:
            self._head += data
            if len(self._head) < _SNIFF_BYTES:
                return _EMPTY
            self._decoder = self._open(self._head, whole=False)
            if self._decoder is None:
                return _EMPTY
            data, self._head = self._head, b""
        pcm = self._decoder.feed(data)
        self._samples += len(pcm)
        return pcm

    def finish(self) -> PcmInt:
        """The stream has ended, perhaps too early: return what was still inside.

        Raises:
            NoSound: the whole stream gave none.
        DecodeError: as `feed`.
        """
        if self._decoder is None:
            if not self._head:
                raise NoSound("the answer is empty")
            self._decoder = self._open(self._head, whole=True)
            assert self._decoder is not None
            pcm = np.concatenate([self._decoder.feed(self._head), self._decoder.finish()])
        else:
            pcm = self._decoder.finish()
        self._samples += len(pcm)
        if not self._samples:
            raise NoSound(f"the {self._expected} stream holds no sound")
        return pcm

    def _open(self, head: bytes, *, whole: bool) -> _Decoder | None:
        """What decodes a stream that begins so; None where more of it is needed to tell."""
        if head.startswith(FILE_MARKS):
            return WavStreamDecoder()
        if head.startswith(b"OggS"):
            return OpusStreamDecoder()
        if head.startswith(b"fLaC"):
            return _FrameDecoder("flac")
        if head.startswith(b"ID3"):
            return _FrameDecoder("aac" if _FRAMES.get(self._declared) == "aac" else "mp3float")
        other = next(
            (name for mark, name in _OTHERS.items() if head.startswith(mark)), "MP4" if head[4:8] == b"ftyp" else ""
        )
        if other:
            raise DecodeError(f"{other} instead of {self._expected}")
        if text := _as_text(head):
            raise DecodeError(f"text instead of sound: {text!r}")
        if self._declared in _FRAMES and (frame := _frame(head)) is not None:
            return _FrameDecoder(frame[0])
        frames = _followed(head)
        if frames is None and not whole:
            return None
        if frames or (self._expected == "mp3" and self._declared not in (*_BARE, *_TELEPHONE)):
            return _FrameDecoder(frames or "mp3float")
        telephone = _TELEPHONE.get(self._declared)
        if self._expected == "pcm" or self._declared in _BARE or telephone is not None:
            rate_hz = self._rate_hz or self._asked_rate_hz
            said = None if telephone is None else (telephone, self._rate_hz or _TELEPHONE_RATE_HZ)
            return UnknownSamples(rate_hz, self._channels, said)
        raise DecodeError(f"not {self._expected}: begins with {head[:4].hex(' ')}")


def decode_parts(decoder: SpeechDecoder, data: bytes) -> Iterator[PcmInt]:
    """Feed a piece of any length in parts that take under a few milliseconds each; yields what is not empty.

    Raises:
        DecodeError: as `SpeechDecoder.feed`.
    """
    for start in range(0, len(data), PART_BYTES):
        pcm = decoder.feed(data[start : start + PART_BYTES])
        if len(pcm):
            yield pcm


def _whole(value: object) -> int:
    """A parameter of a Content-Type as a number; 0 where it is none."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 8 else 0


def _other(head: bytes) -> str:
    """What is known by its first bytes and cannot be decoded; empty for what is not known."""
    if head[4:8] == b"ftyp":
        return "MP4"
    return next((name for mark, name in _OTHERS.items() if head.startswith(mark)), "")


def _as_text(head: bytes) -> str:
    """The first line of a web page, JSON or a plain message in any language; empty where these bytes are no text.

    16 bytes of samples that all happen to be letters would be a loud and very unlikely sound.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        text = decoder.decode(head[: 4 * _SNIFF_BYTES])
    except UnicodeDecodeError:
        return ""
    if any((char < " " and char not in "\t\n\r") or char in "\x7f\ufffd" for char in text):
        return ""
    return " ".join(text.split())[:_SNIFF_BYTES] or "blanks"


# Frames -----------------------------------------------------------------------------------------------------------

_MPEG_KBITS: Final = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # version 1, layer III
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # version 2
)
_MPEG_RATES: Final = (44_100, 48_000, 32_000)


def _frame(data: bytes, at: int = 0) -> tuple[str, int] | None:
    """The codec and the length in bytes of a frame of MP3 (layer III) or AAC (ADTS) that begins here; None for none."""
    head = data[at : at + 7]
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:  # ISO 13818-7, 6.2.1
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return ("aac", length) if length > 7 and (head[2] >> 2) & 0xF < 13 else None
    version, layer, bits, rate = (head[1] >> 3) & 3, (head[1] >> 1) & 3, head[2] >> 4, (head[2] >> 2) & 3
    if version == 1 or layer != 1 or bits in (0, 15) or rate == 3:  # ISO 11172-3, 2.4.2.3
        return None
    kbits = _MPEG_KBITS[0 if version == 3 else 1][bits]
    rate_hz = _MPEG_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    return "mp3float", (144 if version == 3 else 72) * kbits * 1000 // rate_hz + ((head[2] >> 1) & 1)


def _followed(head: bytes) -> str | None:
    """The codec of a frame that is followed by another one; empty for none, None where more is needed to tell.

    Bare samples may look like the beginning of a frame, and not like two at the right distance.
    """
    first = _frame(head)
    if first is None:
        return ""
    codec, length = first
    if len(head) < length + 7:
        return None
    second = _frame(head, length)
    return codec if second is not None and second[0] == codec else ""


class _FrameDecoder:
    """MP3, AAC or FLAC of any rate; finds its way past tags and damage by libav's own parser."""

    def __init__(self, codec: str) -> None:
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, av.AudioCodecContext)
        self._codec = context
        self._resampler = _to_downlink()
        self._form: tuple[int, str, str] | None = None  # rate, channels and samples of what the resampler gets
        self._pieces: list[PcmInt] = []
        self._heard = False

    def feed(self, data: bytes) -> PcmInt:
        for packet in self._codec.parse(data):
            self._decode(packet)
        return self._taken()

    def finish(self) -> PcmInt:
        while packets := self._codec.parse(None):  # of FLAC, ten frames are held back, and come one by one
            for packet in packets:
                self._decode(packet)
        if self._heard:
            self._resample(None)
        return self._taken()

    def _decode(self, packet: "av.Packet[AudioStream]") -> None:
        try:
            frames = self._codec.decode(packet)
        except av.error.FFmpegError:
            return  # a damaged or truncated frame; the next one may be whole, and none at all is an error at the end
        for frame in frames:
            if frame.samples:
                self._resample(frame)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        self._heard = True
        form = None if frame is None else (frame.rate, frame.layout.name, frame.format.name)
        if form is not None and form != self._form:
            if self._form is not None:  # it changes in mid-stream, as damage may look; a resampler takes one form only
                self._resample(None)
                self._resampler = _to_downlink()
            self._form = form
        self._pieces += [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]

    def _taken(self) -> PcmInt:
        pieces, self._pieces = self._pieces, []
        return np.concatenate(pieces) if pieces else _EMPTY


def _to_downlink() -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="mono", rate=DOWNLINK_RATE_HZ)
