"""Ogg Opus arriving in pieces: pages to packets to int16 at 24 kHz (RFC 3533, RFC 7845)."""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt, to_int16

_PAGE_HEADER_BYTES: Final = 27
_CONTINUED: Final = 0x01
_OPUS_CLOCK_HZ: Final = 48_000
_EMPTY: Final[PcmInt] = np.empty(0, np.int16)


class OpusStreamDecoder:
    """Decodes one Ogg Opus stream."""

    def __init__(self) -> None:
        self._pages = _PageReader()
        self._packets = 0
        self._skip = 0  # samples at 24 kHz that the encoder's start-up put in front
        self._decoder = OpusDecoder(DOWNLINK_RATE_HZ)

    def feed(self, data: bytes) -> PcmInt:
        """Decode the next bytes into int16[n] at 24 kHz; packets that are damaged are left out.

        Raises:
            DecodeError: the stream does not hold Opus.
        """
        pieces = [pcm for packet in self._pages.feed(data) if len(pcm := self._packet(packet))]
        return np.concatenate(pieces) if pieces else _EMPTY

    def finish(self) -> PcmInt:
        """Nothing is held back."""
        return _EMPTY

    def _packet(self, packet: bytes) -> PcmInt:
        self._packets += 1
        if self._packets == 1:
            if not packet.startswith(b"OpusHead") or len(packet) < 19:
                raise DecodeError("Ogg without Opus")
            (pre_skip,) = struct.unpack_from("<H", packet, 10)
            self._skip = pre_skip * DOWNLINK_RATE_HZ // _OPUS_CLOCK_HZ
            return _EMPTY
        if self._packets == 2:
            return _EMPTY  # OpusTags
        try:
            pcm = to_int16(self._decoder.decode(packet))
        except OpusError:
            return _EMPTY
        skipped = min(self._skip, len(pcm))
        self._skip -= skipped
        return pcm[skipped:]


class _PageReader:
    """Cuts an Ogg stream into packets. Checksums are left to TCP."""

    def __init__(self) -> None:
        self._buffer = b""
        self._partial = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while True:
            start = self._buffer.find(b"OggS")
            if start < 0:
                self._buffer = self._buffer[-3:]
                return
            if start:
                self._buffer = self._buffer[start:]
            if len(self._buffer) < _PAGE_HEADER_BYTES:
                return
            flags, segments = self._buffer[5], self._buffer[26]
            body = _PAGE_HEADER_BYTES + segments
            lacing = self._buffer[_PAGE_HEADER_BYTES:body]
            end = body + sum(lacing)
            if len(lacing) < segments or len(self._buffer) < end:
                return
            page, self._buffer = self._buffer[body:end], self._buffer[end:]
            if not flags & _CONTINUED:
                self._partial = b""
            yield from self._cut(lacing, page)

    def _cut(self, lacing: bytes, page: bytes) -> Iterator[bytes]:
        """A packet is the sum of its segments up to the first shorter than 255 bytes; the last may go on."""
        at = 0
        for size in lacing:
            self._partial += page[at : at + size]
            at += size
            if size < 255:
                packet, self._partial = self._partial, b""
                yield packet
