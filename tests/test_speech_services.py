"""Speech services that answer in whatever format they please: decoded by what it is, or passed over, never as noise."""

import io
import itertools
import struct
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from edge_tts import communicate
from edge_tts.constants import WSS_URL
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.edge import EdgeStandIn
from bench.standins.sound import TONE_HZ, SoundFormat, pack, speech
from tests.house import brief, house
from tests.sounds import is_speech, loudest_hz, sine
from xiaozhi.audio.errors import DecodeError, NoSound
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt, to_float
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.audio.stream_decode import SpeechDecoder, SpeechFormat

TONE = sine(440, 0.8)
FORMATS: list[SoundFormat] = ["pcm", "wav", "mp3", "opus"]


def decoded(
    data: bytes, expected: SpeechFormat = "pcm", kind: str = "", step: int = 1000, rate_hz: int = 24_000
) -> PcmInt:
    decoder = SpeechDecoder(expected, kind, rate_hz)
    pieces = [decoder.feed(data[start : start + step]) for start in range(0, len(data), step)]
    return np.concatenate([*pieces, decoder.finish()])


def at(rate_hz: int, pcm: PcmInt = TONE) -> PcmInt:
    resampler = StreamResampler(DOWNLINK_RATE_HZ, rate_hz)
    return np.concatenate([resampler.feed(pcm), resampler.flush()])


def contained(
    form: str, codec: str, rate_hz: int = DOWNLINK_RATE_HZ, layout: str = "mono", pcm: PcmInt = TONE
) -> bytes:
    """A sound in a file as libav writes it, without tags."""
    file = io.BytesIO()
    options = {"id3v2_version": "0", "write_xing": "0"} if form == "mp3" else {}
    with av.open(file, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = DOWNLINK_RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


@cache
def tone_in(form: str, codec: str, rate_hz: int, layout: str) -> bytes:
    """`TONE` in such a file, written once for all the ways to ask for it."""
    return contained(form, codec, rate_hz, layout)


def telephone(codec: str, pcm: PcmInt = TONE) -> bytes:
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout, context.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(at(8000, pcm)[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in context.encode(frame))


def require_tone(pcm: PcmInt, seconds: float = 0.8) -> None:
    """The tone at about its loudness, all along: what is decoded wrongly is noise somewhere."""
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(seconds, abs=0.12)
    middle = pcm[DOWNLINK_RATE_HZ // 10 : -DOWNLINK_RATE_HZ // 10].astype(np.float64)
    assert loudest_hz(middle.astype(np.float32), DOWNLINK_RATE_HZ) == pytest.approx(440, abs=2)
    spectrum = np.abs(np.fft.rfft(middle)) ** 2
    near = slice(int(400 * len(middle) / DOWNLINK_RATE_HZ), int(480 * len(middle) / DOWNLINK_RATE_HZ))
    assert spectrum[near].sum() > 0.97 * spectrum.sum()
    assert np.abs(middle).max() < 13_000


ASKED: list[tuple[SpeechFormat, str, int]] = [
    ("pcm", "", 3),  # cut as finely once
    *itertools.product(FORMATS, ["", "application/octet-stream", "audio/mpeg", "audio/pcm"], [313, 10**6]),
]


# By what it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("expected", "kind", "step"), ASKED)
@pytest.mark.parametrize(
    ("form", "codec", "rate_hz", "layout"),
    [
        ("mp3", "libmp3lame", 24_000, "mono"),
        ("mp3", "libmp3lame", 44_100, "stereo"),
        ("mp3", "libmp3lame", 16_000, "mono"),
        ("adts", "aac", 24_000, "mono"),
        ("adts", "aac", 44_100, "stereo"),
        ("flac", "flac", 24_000, "mono"),
        ("flac", "flac", 48_000, "stereo"),
        ("wav", "pcm_mulaw", 8000, "mono"),
        ("wav", "pcm_alaw", 8000, "mono"),
        ("wav", "pcm_s16le", 22_050, "mono"),
        ("ogg", "libopus", 48_000, "mono"),
    ],
)
def test_compressed_speech_is_decoded_whatever_was_asked_for_and_however_it_is_called(
    expected: SpeechFormat, kind: str, step: int, form: str, codec: str, rate_hz: int, layout: str
) -> None:
    require_tone(decoded(tone_in(form, codec, rate_hz, layout), expected, kind, step))


@pytest.mark.parametrize("form", FORMATS)
def test_speech_is_heard_as_speech_where_samples_were_asked_for(form: SoundFormat) -> None:
    assert is_speech(decoded(pack(speech("今天天气很好，我们去公园。"), form)))


@pytest.mark.parametrize(
    ("data", "kind", "rate_hz"),
    [
        (telephone("pcm_mulaw"), "audio/basic", 24_000),
        (telephone("pcm_mulaw"), "audio/PCMU", 24_000),
        (telephone("pcm_mulaw"), "audio/x-mulaw; rate=8000", 24_000),
        (telephone("pcm_alaw"), "audio/PCMA", 24_000),
        (pack(TONE, "pcm"), "audio/basic", 24_000),  # as Azure calls it
        (at(16_000).tobytes(), "audio/L16; rate=16000", 24_000),
        (at(16_000).astype(">i2").tobytes(), "audio/L16;rate=16000;channels=1", 24_000),  # as RFC 2586 has it
        (at(22_050).tobytes(), 'audio/pcm; rate="22050"', 24_000),
        (at(44_100).tobytes(), "audio/x-raw; samplerate=44100", 24_000),
        (np.repeat(at(48_000), 2).tobytes(), "audio/pcm;rate=48000;channels=2", 24_000),
        (at(16_000).tobytes(), "application/octet-stream", 16_000),
        (at(16_000).tobytes(), "", 16_000),
        (to_float(TONE).astype("<f4").tobytes(), "application/octet-stream", 24_000),
        (b"\0" * 5000 + TONE.astype(">i2").tobytes(), "audio/L16;rate=24000", 24_000),
        (pack(TONE, "pcm"), "audio/mpeg", 24_000),  # a server that calls everything so
    ],
)
@pytest.mark.parametrize("step", [77, 1000])
def test_bare_samples_are_decoded_by_what_is_said_of_them_and_by_what_they_can_be(
    data: bytes, kind: str, rate_hz: int, step: int
) -> None:
    pcm = decoded(data, "pcm", kind, step, rate_hz)
    require_tone(np.trim_zeros(pcm, "f"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (contained("webm", "libopus", 48_000), "WebM instead of"),
        (contained("mp4", "aac"), "MP4 instead of"),
        (contained("aiff", "pcm_s16be"), "AIFF instead of"),
        (contained("au", "pcm_mulaw", 8000), "AU file instead of"),
        (contained("caf", "pcm_s16le"), "CAF instead of"),
        (contained("w64", "pcm_s16le"), "Wave64 instead of"),
        (pack(TONE, "mp3")[700:][7:], "noise instead of"),  # cut in the middle of a frame
        (np.random.default_rng(3).bytes(40_000), "noise instead of"),
        (b"\0" * 4000 + np.random.default_rng(4).bytes(40_000), "noise instead of"),
        (b'{"error": {"message": "no such voice"}}', "text instead of sound"),
        ('{"错误": "没有这个声音"}'.encode(), "text instead of sound"),
        ("\ufeff服务不可用，请稍后再试。".encode(), "text instead of sound"),
        (b"<!DOCTYPE html><html></html>", "text instead of sound"),
        (b"\n\n    Bad gateway     ", "text instead of sound"),
    ],
)
def test_what_cannot_be_decoded_is_named_and_not_played(data: bytes, why: str) -> None:
    for kind in ("", "audio/pcm", "application/octet-stream"):
        with pytest.raises(DecodeError, match=why):
            decoded(data, "pcm", kind)


@pytest.mark.parametrize("expected", FORMATS)
def test_an_empty_answer_is_no_sound_and_no_other_fault(expected: SpeechFormat) -> None:
    with pytest.raises(NoSound):
        decoded(b"", expected)
    with pytest.raises(NoSound):
        decoded(pack(TONE[:0], "wav"), expected)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000))
def test_quiet_loud_and_clipped_samples_are_never_taken_for_something_else(seed: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    loudness = 10 ** rng.uniform(0, 4.6)
    wave = np.convolve(rng.normal(0, 1, 6000), np.ones(rng.integers(2, 30)) / 3, "same")  # a hiss with some tone to it
    pcm = np.clip(wave * loudness, -32768, 32767).astype(np.int16)
    assert np.array_equal(decoded(pcm.tobytes(), "pcm", "", step), pcm)


# WAV --------------------------------------------------------------------------------------------------------------


def wav(pcm: PcmInt, size: int | None = None, rate_hz: int = DOWNLINK_RATE_HZ, tail: bytes = b"") -> bytes:
    """A WAV file whose header says `size` bytes of sound; the right number when left out."""
    data = pcm.astype("<i2").tobytes()
    size = len(data) if size is None else size
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", min(36 + size, 2**32 - 1), b"WAVE", b"fmt ", 16, 1, 1, rate_hz, rate_hz * 2, 2, 16
    )
    return head + struct.pack("<4sI", b"data", size) + data + tail


FIRST, SECOND = sine(440, 0.4), sine(440, 0.4)
TAGS = b"LIST\x0a\0\0\0INFOabcdef" + b"id3 \x03\0\0\0abc\0"


@pytest.mark.parametrize("step", [1, 5, 4096, 10**6])
@pytest.mark.parametrize(
    ("size", "tail"),
    [  # where the length is wrong nobody can tell tags from sound
        (None, b""), (None, TAGS), (0, b""), (0xFFFFFFFF, b""), (0x7FFFFFFF, b""), (0x80000000, b""), (100, b""),
        (48_000 * 5, b""),
    ],
    ids=str,
)  # fmt: skip
def test_every_file_of_several_in_a_row_is_heard_whatever_its_length_field_says(
    step: int, size: int | None, tail: bytes
) -> None:
    first, second = FIRST[:2400], SECOND[:2400]  # with a step for each byte
    pcm = decoded(wav(first, size, tail=tail) + wav(second, size, tail=tail), "pcm", "audio/wav", step)
    assert np.array_equal(pcm, np.concatenate([first, second]))


@pytest.mark.parametrize("step", [1, 97, 10**6])
def test_files_of_different_rates_in_a_row_are_heard_at_their_own(step: int) -> None:
    data = wav(at(16_000, FIRST), rate_hz=16_000) + wav(at(44_100, SECOND), 0, rate_hz=44_100)
    require_tone(decoded(data, "wav", "", step))


def test_a_header_may_be_long_and_its_chunks_of_any_kind() -> None:
    head, rest = wav(TONE)[:12], wav(TONE)[12:]
    chunks = b"JUNK" + (70_001).to_bytes(4, "little") + bytes(70_002) + b"bext\x05\0\0\0abcde\0"
    for step in (1, 1000):
        assert np.array_equal(decoded(head + chunks + rest, "wav", "", step), TONE)


def test_several_pieces_of_sound_in_one_file_are_heard() -> None:
    again = struct.pack("<4sI", b"data", len(SECOND) * 2) + SECOND.tobytes()
    assert np.array_equal(decoded(wav(FIRST) + again, "wav"), np.concatenate([FIRST, SECOND]))


@pytest.mark.parametrize("mark", [b"RF64", b"BW64"])
def test_the_long_forms_of_wav_are_wav(mark: bytes) -> None:
    head, rest = wav(TONE, 0xFFFFFFFF)[4:12], wav(TONE, 0xFFFFFFFF)[12:]
    sizes = b"ds64\x1c\0\0\0" + bytes(28)
    assert np.array_equal(decoded(mark + head + sizes + rest, "wav"), TONE)


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=4), st.sampled_from([None, 0, 0xFFFFFFFF]), st.integers(1, 99)
)
def test_files_are_told_apart_however_they_are_cut(lengths: list[int], size: int | None, step: int) -> None:
    rng = np.random.default_rng(len(lengths))
    sounds = [rng.integers(-9000, 9000, length).astype(np.int16) for length in lengths]
    data = b"".join(wav(pcm, size) for pcm in sounds)
    assert np.array_equal(decoded(data, "wav", "", step), np.concatenate(sounds))


# Whole turns ------------------------------------------------------------------------------------------------------


def as_they_please(pcm: PcmInt) -> list[tuple[str, bytes, dict[str, str]]]:
    """A sound as services send it that were asked for `pcm`."""
    half = len(pcm) // 2
    return [
        ("mp3", pack(pcm, "mp3"), {"Content-Type": "audio/mpeg"}),
        ("mp3, not called so", pack(pcm, "mp3"), {"Content-Type": "application/octet-stream"}),
        ("aac", contained("adts", "aac", pcm=pcm), {"Content-Type": "audio/aac"}),
        ("flac", contained("flac", "flac", pcm=pcm), {"Content-Type": "audio/flac"}),
        ("opus", pack(pcm, "opus"), {"Content-Type": "audio/ogg"}),
        ("two wavs", wav(pcm[:half], 0) + wav(pcm[half:], 0), {"Content-Type": "audio/wav"}),
        ("mu-law", telephone("pcm_mulaw", pcm), {"Content-Type": "audio/basic"}),
        ("16 kHz", at(16_000, pcm).tobytes(), {"Content-Type": "audio/L16;rate=16000"}),
        ("22.05 kHz", at(22_050, pcm).tobytes(), {"Content-Type": "audio/pcm", "X-Sample-Rate": "22050"}),
    ]


async def test_a_reply_is_heard_as_it_was_spoken_whatever_the_service_answers(tmp_path: Path) -> None:
    names = [name for name, _, _ in as_they_please(brief("a"))]
    async with house(tmp_path, "It is ten past nine.") as home, home.device() as device:
        for index, name in enumerate(names):
            home.speech.pack_as = lambda pcm, index=index: as_they_please(pcm)[index][1:]
            report = await device.turn_text("what is it")
            pcm = report.reply_pcm
            assert pcm is not None
            heard = pcm[np.abs(pcm) > 0.01]
            assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=3), name
            assert float(np.sqrt(np.mean(np.square(heard)))) < 0.25, f"{name}: that is noise"
            assert report.trace is not None and report.trace["voice"] == "openai", name


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (contained("webm", "libopus", 48_000), {"Content-Type": "audio/webm"}),
        (np.random.default_rng(5).bytes(60_000), {"Content-Type": "application/octet-stream"}),
        ('{"错误": "没有这个声音"}'.encode(), {"Content-Type": "audio/mpeg"}),
        (b'{"error": {"message": "quota"}}', {"Content-Type": "application/json"}),
        (b"<html>Sign in</html>", {"Content-Type": "text/html"}),
    ],
)
async def test_what_is_no_speech_is_passed_over_and_the_next_voice_speaks(
    tmp_path: Path, body: bytes, headers: dict[str, str]
) -> None:
    async with house(tmp_path, "It is ten past nine.") as home, home.device() as device:
        home.speech.pack_as = lambda _pcm: (body, headers)
        report = await device.turn_text("what is it")
    assert report.text == "It is ten past nine."
    assert report.trace is not None and report.trace["voice"] == "espeak"


async def test_the_rate_of_bare_samples_may_be_set(tmp_path: Path) -> None:
    async with house(tmp_path, "It is ten past nine.") as home:
        openai: dict[str, Any] = {"base_url": f"{home.speech.url}/v1", "pcm_rate_hz": 16_000}
        async with (
            house(tmp_path / "slow", "It is ten.", tts={"engines": ["openai", "espeak"], "openai": openai}) as slow,
            slow.device() as device,
        ):
            home.speech.pack_as = lambda pcm: (at(16_000, pcm).tobytes(), {"Content-Type": "application/octet-stream"})
            report = await device.turn_text("what is it")
    assert report.reply_pcm is not None
    assert loudest_hz(report.reply_pcm, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=3)


async def test_one_text_that_the_read_aloud_service_will_not_say_does_not_take_it_away_from_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communicate, "WSS_URL", WSS_URL)  # put back afterwards
    async with EdgeStandIn(sound=brief) as edge:
        tts = {"engines": ["edge", "espeak"], "edge": {"url": edge.ws_url}}
        async with house(tmp_path, "They say that this cannot be said.", tts=tts) as home, home.device() as device:
            edge.fault = "empty"
            report = await device.turn_text("what is it")
            assert report.trace is not None and report.trace["voice"] == "espeak"
            edge.fault, home.chat.answer = "", "It is ten past nine."
            report = await device.turn_text("and again")
            assert report.trace is not None and report.trace["voice"] == "edge"
            edge.fault = "refuse"
            await device.turn_text("and once more")
            edge.fault = ""
            report = await device.turn_text("and now")
            assert report.trace is not None and report.trace["voice"] == "espeak", (
                "a service that refuses is left alone"
            )
