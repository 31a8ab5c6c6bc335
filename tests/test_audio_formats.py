"""Sound files and streams of every kind, cut anywhere, damaged anyhow."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.standins.sound import SoundFormat, pack
from tests.sounds import loudest_hz, sine
from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmInt, to_float
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.audio.stream_decode import SpeechDecoder, SpeechFormat, decode_parts
from xiaozhi.audio.wav import WavError, read_wav, write_wav

FORMATS: list[SoundFormat] = ["pcm", "wav", "mp3", "opus"]


def decoded(data: bytes, expected: SpeechFormat, step: int) -> tuple[PcmInt, int]:
    """The sound, and how many bytes it took until the first of it."""
    decoder = SpeechDecoder(expected)
    pieces, first = [], 0
    for start in range(0, len(data), step):
        pieces.append(decoder.feed(data[start : start + step]))
        if not first and len(pieces[-1]):
            first = start + step
    pieces.append(decoder.finish())
    return np.concatenate(pieces), first


def contained(form: str, codec: str, rate_hz: int, layout: str) -> bytes:
    """A second of tone in a file as libav writes it."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(sine(440, 1.0)[None], format="s16", layout="mono")
        frame.sample_rate = DOWNLINK_RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


# Resampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_hz", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("as_float", [False, True])
def test_any_rate_becomes_24_khz_without_losing_sound(from_hz: int, as_float: bool) -> None:
    pcm = sine(440, 1.0, from_hz)
    resampler = StreamResampler(from_hz)
    source = to_float(pcm) if as_float else pcm
    parts = [resampler.feed(source[start : start + 777]) for start in range(0, len(source), 777)]
    out = np.concatenate([*parts, resampler.flush()])
    assert out.dtype == np.int16
    assert len(out) == pytest.approx(DOWNLINK_RATE_HZ, abs=2)
    assert loudest_hz(out, DOWNLINK_RATE_HZ) == pytest.approx(440, abs=1)
    assert np.abs(out).max() == pytest.approx(10_000, rel=0.03)


def test_a_resampler_that_heard_nothing_flushes_nothing() -> None:
    assert len(StreamResampler(16_000).flush()) == 0
    assert len(StreamResampler(16_000).feed(np.empty(0, np.int16))) == 0
    with pytest.raises(ValueError, match="positive"):
        StreamResampler(0)


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "rate_hz", "layout"),
    [
        ("pcm_u8", 8000, "mono"),
        ("pcm_s16le", 16_000, "mono"),
        ("pcm_s16le", 44_100, "stereo"),
        ("pcm_s24le", 48_000, "stereo"),
        ("pcm_s32le", 22_050, "mono"),
        ("pcm_f32le", 48_000, "mono"),
    ],
)
def test_every_wav_is_read(tmp_path: Path, codec: str, rate_hz: int, layout: str) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(contained("wav", codec, rate_hz, layout))
    pcm = read_wav(path)
    assert pcm.dtype == np.float32
    assert len(pcm) == pytest.approx(UPLINK_RATE_HZ, abs=20)
    assert loudest_hz(pcm, UPLINK_RATE_HZ) == pytest.approx(440, abs=1)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    pcm = sine(440, 0.5, UPLINK_RATE_HZ)
    write_wav(path, pcm, UPLINK_RATE_HZ)
    assert np.array_equal(read_wav(path), to_float(pcm))
    write_wav(path, to_float(pcm), UPLINK_RATE_HZ)
    assert np.array_equal(read_wav(path), to_float(pcm))


@pytest.mark.parametrize("content", [b"", b"hello, this is no sound" * 20, b"RIFF\x24\0\0\0WA"])
def test_what_is_no_sound_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(WavError, match=r"bad\.wav: not a sound file"):
        read_wav(path)


def test_files_that_are_missing_or_hold_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(WavError, match="No such file"):
        read_wav(tmp_path / "none.wav")
    write_wav(tmp_path / "empty.wav", np.empty(0, np.int16), UPLINK_RATE_HZ)
    with pytest.raises(WavError, match="no samples"):
        read_wav(tmp_path / "empty.wav")


# Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 97, 720, 10**6])
@pytest.mark.parametrize("form", FORMATS)
def test_a_stream_is_decoded_however_it_is_cut(form: SoundFormat, step: int) -> None:
    data = pack(sine(440, 2.0), form)
    pcm, first = decoded(data, form, step)
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(2.0, abs=0.1)  # MP3 adds up to 70 ms around the sound
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(440, abs=2)
    if step < 1000:
        assert first < len(data) / 6, "the first sound comes long before the last byte"


@pytest.mark.parametrize("form", FORMATS)
def test_how_a_stream_is_cut_changes_no_sample(form: SoundFormat) -> None:
    data = pack(sine(440, 0.7), form)
    assert np.array_equal(decoded(data, form, 11)[0], decoded(data, form, 10**6)[0])


def test_long_pieces_are_decoded_in_parts() -> None:
    parts = list(decode_parts(SpeechDecoder("pcm"), pack(sine(440, 1.0), "pcm")))
    assert len(parts) > 5
    assert np.array_equal(np.concatenate(parts), sine(440, 1.0))


@pytest.mark.parametrize(
    ("form", "codec", "rate_hz", "layout"),
    [
        ("mp3", "libmp3lame", 44_100, "stereo"),
        ("mp3", "libmp3lame", 16_000, "mono"),
        ("ogg", "libopus", 48_000, "stereo"),
        ("wav", "pcm_u8", 8000, "mono"),
        ("wav", "pcm_s24le", 44_100, "stereo"),
        ("wav", "pcm_s32le", 48_000, "mono"),
        ("wav", "pcm_f32le", 48_000, "stereo"),
        ("wav", "pcm_f64le", 16_000, "mono"),
    ],
)
def test_another_format_than_the_one_asked_for_is_recognised(form: str, codec: str, rate_hz: int, layout: str) -> None:
    pcm, _ = decoded(contained(form, codec, rate_hz, layout), "wav", 500)
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(1.0, abs=0.1)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(440, abs=3)


def test_samples_that_look_like_the_start_of_an_mp3_are_samples() -> None:
    pcm = np.full(1000, -1025, np.int16)  # bytes FF FB
    assert np.array_equal(decoded(pack(pcm, "pcm"), "pcm", 100)[0], pcm)


def test_what_follows_the_sound_of_a_wav_is_not_played() -> None:
    data = contained("wav", "pcm_s16le", DOWNLINK_RATE_HZ, "mono") + b"LIST\x10\0\0\0" + b"\x55" * 16
    assert np.array_equal(decoded(data, "wav", 333)[0], sine(440, 1.0))


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_stream_ends_quietly_with_what_was_heard(form: SoundFormat) -> None:
    data = pack(sine(440, 2.0), form)
    pcm, _ = decoded(data[: len(data) // 2 + 1], form, 300)
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b'{"error": {"message": "no such voice"}}',
        b"\nnot found",
        b"Internal Server Error",
    ],
)
def test_text_is_no_sound(form: SoundFormat, body: bytes) -> None:
    with pytest.raises(DecodeError):
        decoded(body, form, 7)


@pytest.mark.parametrize("form", ["wav", "mp3", "opus"])
def test_noise_is_no_sound(form: SoundFormat) -> None:
    with pytest.raises(DecodeError):
        decoded(bytes(range(1, 256)) * 9, form, 500)


@pytest.mark.parametrize(
    "header",
    [
        b"RIFF\xff\xff\xff\xffAVI LIST" + bytes(40),
        b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff" + bytes(40),
        b"RIFF\xff\xff\xff\xffWAVEfmt \x04\0\0\0" + bytes(40),
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x11\0\x01\0\xc0\x5d\0\0" + bytes(40),
        b"RIFF\xff\xff\xff\xffWAVEjunk\xff\xff\xff\x0f" + bytes(40),
        b"OggS" + bytes(22) + b"\x01\x13" + b"not an Opus head...",
    ],
)
def test_packages_of_the_wrong_kind_are_refused(header: bytes) -> None:
    with pytest.raises(DecodeError):
        decoded(header, "wav", 5)


def test_an_mp3_whose_rate_changes_in_the_middle_is_played_on() -> None:
    first, second = (contained("mp3", "libmp3lame", rate_hz, "mono") for rate_hz in (24_000, 48_000))
    pcm, _ = decoded(first + second, "mp3", 500)
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(2.0, abs=0.2)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(440, abs=3)


@given(
    form=st.sampled_from(FORMATS),
    start=st.binary(max_size=60),
    at=st.integers(0, 3000),
    damage=st.binary(max_size=200),
    step=st.integers(1, 2000),
)
@settings(max_examples=150, deadline=None)
def test_no_damage_does_more_than_refuse(form: SoundFormat, start: bytes, at: int, damage: bytes, step: int) -> None:
    data = pack(sine(440, 0.2), form)
    data = start + data[:at] + damage + data[at + len(damage) :]
    try:
        pcm, _ = decoded(data, form, step)
    except DecodeError:
        return
    assert 0 < len(pcm) < 5 * DOWNLINK_RATE_HZ
