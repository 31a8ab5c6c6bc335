"""Ogg Opus files as devices fetch them: read by libav, by our own reader, and looked at page by page."""

import io
import struct
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.audio.ogg import OpusStreamDecoder
from xiaozhi.audio.ogg_writer import ogg_opus
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.packet_time import packet_ms


def spoken(seconds: float) -> list[bytes]:
    encoder = OpusEncoder()
    tone = 8000.0 * np.sin(np.arange(int(24_000 * seconds)) * 2 * np.pi * 330 / 24_000)
    return [*encoder.encode(tone.astype(np.int16)), *encoder.flush()]


def pages(data: bytes) -> list[tuple[int, int, int, list[int], bytes]]:
    """Flags, granule, number, lacing and body of each page; its checksum is checked bit by bit."""
    found, at = [], 0
    while at < len(data):
        magic, version, flags, granule, _, number, checksum, count = struct.unpack_from("<4sBBqIIIB", data, at)
        assert (magic, version) == (b"OggS", 0)
        lacing = list(data[at + 27 : at + 27 + count])
        end = at + 27 + count + sum(lacing)
        crc = 0
        for byte in data[at : at + 22] + bytes(4) + data[at + 26 : end]:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        assert crc == checksum
        found.append((flags, granule, number, lacing, data[at + 27 + count : end]))
        at = end
    return found


def test_the_file_is_what_every_firmware_wants() -> None:
    packets = spoken(3.5)
    found = pages(ogg_opus(packets))
    assert found[0][:3] == (0x02, 0, 0) and found[0][4][:8] == b"OpusHead" and len(found[0][4]) == 19
    assert found[0][4][8:10] == b"\x01\x01" and found[0][4][18] == 0
    assert found[1][:3] == (0, 0, 1) and found[1][4].startswith(b"OpusTags")
    assert [page[2] for page in found] == list(range(len(found)))
    assert [page[0] & 0x04 for page in found] == [0] * (len(found) - 1) + [4]
    assert all(0 < later - former <= 48_000 for (_, former, *_), (_, later, *_) in pairwise(found[1:]))
    assert found[-1][1] == len(packets) * 60 * 48


def test_libav_and_our_own_reader_hear_what_was_spoken() -> None:
    data = ogg_opus(spoken(2.0))
    with av.open(io.BytesIO(data), "r") as file:
        assert file.streams.audio[0].layout.name == "mono"
        heard = sum(frame.samples for frame in file.decode(file.streams.audio[0]))
    assert 2.0 * 48_000 <= heard + 312 <= 2.1 * 48_000
    assert len(OpusStreamDecoder().feed(data)) == pytest.approx(2.04 * 24_000, abs=400)


@given(st.lists(st.integers(2, 2000), min_size=1, max_size=80), st.sampled_from((0x58, 0x78, 0x08)))
def test_every_packet_comes_out_as_it_went_in_and_the_last_one_never_fills_its_segments(
    lengths: list[int], toc: int
) -> None:
    packets = [bytes((toc, *(n % 251 for n in range(length - 1)))) for length in lengths]
    found = pages(ogg_opus(packets))
    out, partial = [], b""
    for _, _, _, lacing, body in found[2:]:
        at = 0
        for size in lacing:
            partial += body[at : at + size]
            at += size
            if size < 255:
                out.append(partial)
                partial = b""
    assert partial == b"" and len(out[-1]) % 255
    assert out[: len(packets) - 1] == packets[:-1]
    assert sum(map(packet_ms, out)) == sum(map(packet_ms, packets))


@pytest.mark.parametrize(("frame_ms", "bit_rate"), [(20, 102_000), (60, 34_000)])
def test_a_last_packet_of_255_bytes_is_made_longer_and_sounds_the_same(frame_ms: int, bit_rate: int) -> None:
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate, codec.layout, codec.format, codec.bit_rate = 24_000, "mono", "s16", bit_rate
    codec.options = {"vbr": "off", "frame_duration": str(frame_ms), "application": "audio"}
    codec.open()
    samples = 24 * frame_ms
    frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
    frame.sample_rate = 24_000
    frame.planes[0].update((6000 * np.sin(np.arange(samples) / 9)).astype(np.int16).tobytes())
    packet = bytes(codec.encode(frame)[0])
    assert len(packet) == 255
    _, _, _, lacing, body = pages(ogg_opus([packet]))[-1]
    assert len(lacing) == 2 and lacing[1] > 0
    assert np.allclose(OpusDecoder(24_000).decode(body), OpusDecoder(24_000).decode(packet), atol=0.01)


@pytest.mark.parametrize("packets", [[], [b""], [bytes((0x5C, 1))], [bytes((0x58, *bytes(2048)))]])
def test_what_no_device_could_play_is_refused(packets: list[bytes]) -> None:
    with pytest.raises(ValueError):
        ogg_opus(packets)
