"""`xiaozhi talk` as its user meets it: what it prints, what it writes, how it ends."""

import asyncio
import importlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from tests.scripted_server import TTS_START, TTS_STOP, Script, script
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, to_int16
from xiaozhi.audio.wav import read_wav, write_wav
from xiaozhi.cli import main
from xiaozhi.client.errors import NoSoundCard
from xiaozhi.client.microphone import LiveMicrophone
from xiaozhi.client.soundcard import Loudspeaker, Recorder

__all__ = ["script"]

TONE = to_int16((0.5 * np.sin(2 * np.pi * 300 * np.arange(DOWNLINK_RATE_HZ * 3 // 10) / DOWNLINK_RATE_HZ)).astype("f4"))
REPLY = OpusEncoder(DOWNLINK_RATE_HZ, 60).encode(TONE)
SETTINGS = ["--set", "tts.espeak.rate_wpm=450"]


async def talk(*words: str) -> int:
    """Run the command in a thread of its own, as a process would."""
    return await asyncio.to_thread(main, [*SETTINGS, "talk", *words])


async def answer_once(script: Script, ready: Callable[[], bool], version: int = 1) -> None:
    """One turn of a server that only forgets to wait for the end of playback."""
    await script.until(ready)
    await script.say({"type": "stt", "text": "what time is it"}, TTS_START)
    await asyncio.sleep(0.06)  # what the protocol asks of servers between the start and the first packet
    await script.say({"type": "llm", "emotion": "happy", "text": "🙂"})
    await script.say({"type": "tts", "state": "sentence_start", "text": "It is ten past nine."})
    await script.say(*(struct.pack("!BBH", 0, 0, len(opus)) + opus if version == 3 else opus for opus in REPLY))
    await script.say(TTS_STOP)
    await script.say({"type": "trace", "turn": 1, "spans": {"text": 20.0, "commit": 21.0}})


def typed(script: Script) -> Callable[[], bool]:
    return lambda: script.count(state="detect") == 1


async def test_a_typed_turn_shows_what_was_heard_and_answered_and_where_the_time_went(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = await asyncio.gather(
        talk("--url", script.url, "--quiet", "--text", "what time is it"), answer_once(script, typed(script))
    )
    shown = capsys.readouterr().out
    assert code == 0
    assert "heard     what time is it" in shown
    assert "answered  It is ten past nine." in shown
    assert "emotion   happy" in shown
    assert "first packet here" in shown
    assert "0.3 s heard" in shown
    assert script.texts[0]["features"]["trace"] is True


@pytest.mark.real_time
async def test_the_embedded_voice_is_sent_and_what_was_heard_is_written(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reply.wav"
    script.ota = {"websocket": {"url": script.url, "token": "T", "version": 1}}
    words = ("--ota", script.ota_url, "--say", "what time is it", "--out", str(out), "--protocol-version", "3")
    code, _ = await asyncio.gather(
        talk(*words, "--device-id", "02:00:00:AA:BB:CC"),
        answer_once(script, lambda: len(script.audio) >= 15, version=3),
    )
    assert code == 0
    assert f"written to {out}" in capsys.readouterr().out
    assert len(read_wav(out)) == pytest.approx(UPLINK_RATE_HZ * 0.3, abs=100)
    headers = script.requests[1].headers
    assert (headers["Authorization"], headers["Protocol-Version"]) == ("Bearer T", "3")
    assert headers["Device-Id"] == "02:00:00:aa:bb:cc"
    decoder = OpusDecoder(UPLINK_RATE_HZ)
    sent = np.concatenate([decoder.decode(message[4:]) for message in script.audio])
    assert np.abs(sent).max() > 0.1


@pytest.mark.real_time
async def test_a_recording_is_sent_and_a_turn_as_json_says_what_a_desktop_client_lost(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wav = tmp_path / "question.wav"
    write_wav(wav, TONE, DOWNLINK_RATE_HZ)
    code, _ = await asyncio.gather(
        talk("--url", script.url, "--wav", str(wav), "--json", "--like", "desktop", "--frame-ms", "20"),
        answer_once(script, lambda: len(script.audio) >= 15),
    )
    turn = orjson.loads(capsys.readouterr().out)
    assert code == (0 if turn["outcome"] == "answered" else 1)
    assert turn["dropped"]["cleared by stop"] >= 4  # the first may just have begun to sound
    assert turn["received"] == 5
    assert turn["heard"] == "what time is it"
    assert turn["said"][0]["text"] == "It is ten past nine."
    assert turn["trace"]["spans"]["text"] == 20.0


async def test_an_utterance_that_nobody_answers_ends_with_1(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert await talk("--url", script.url, "--quiet", "--text", "hello", "--timeout", "0.05") == 1
    assert "no answer (nothing was understood)" in capsys.readouterr().out


async def test_a_lost_connection_ends_the_conversation(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    async def hang_up() -> None:
        await script.until(typed(script))
        assert script.requests[0].transport is not None
        script.requests[0].transport.abort()

    code, _ = await asyncio.gather(talk("--url", script.url, "--quiet", "--text", "one", "two"), hang_up())
    assert code == 1
    shown = capsys.readouterr().out
    assert shown.count("connection lost") == 1


# Mistakes -------------------------------------------------------------------------------------------------------------


async def test_a_refused_token_is_one_line_that_says_what_to_do(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.status = 401
    assert await talk("--url", script.url, "--quiet", "--text", "hello") == 2
    error = capsys.readouterr().err
    assert "status 401" in error
    assert "--token" in error
    assert error.count("\n") == 1


def test_no_server_is_one_line_that_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert main(["--set", f"server.port={port}", "talk", "--quiet", "--text", "hello"]) == 2
    error = capsys.readouterr().err
    assert f"http://127.0.0.1:{port}/xiaozhi/ota/" in error
    assert "xiaozhi serve`, or add --serve" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", ""), (b"no sound at all" * 100, "not a sound file")],
)
def test_a_file_that_is_no_speech_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    wav = tmp_path / "question.wav"
    if content is not None:
        wav.write_bytes(content)
    assert main(["talk", "--url", "ws://127.0.0.1:1/", "--quiet", "--wav", str(wav)]) == 2
    error = capsys.readouterr().err
    assert str(wav) in error
    assert message in error
    assert error.count("\n") == 1


def test_silence_and_a_missing_folder_are_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wav = tmp_path / "silence.wav"
    write_wav(wav, np.zeros(16_000, np.int16), UPLINK_RATE_HZ)
    assert main(["talk", "--url", "ws://127.0.0.1:1/", "--quiet", "--wav", str(wav)]) == 2
    assert "nothing to hear" in capsys.readouterr().err
    assert main(["talk", "--out", str(tmp_path / "no" / "reply.wav"), "--text", "hello"]) == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--say", "a", "--text", "b"],
        ["--text", "a", "--serve", "--url", "ws://x"],
        ["--text", "a", "--device-id", "12"],
        ["--text", "a", "--turns", "0"],
        ["--text", "a", "--protocol-version", "4"],
    ],
)
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["talk", *words]) == 2
    assert "usage:" in capsys.readouterr().err


# The sound card -------------------------------------------------------------------------------------------------------


class FakeStream:
    """A sound card that plays or records exactly when the test says so."""

    made: "list[FakeStream]" = []  # noqa: RUF012 - every stream the test made

    def __init__(self, *, samplerate: int, channels: int, dtype: str, callback: Callable[..., None]) -> None:
        assert (channels, dtype) == (1, "int16")
        self.samplerate = samplerate
        self.callback = callback
        self.open = False
        FakeStream.made.append(self)

    def start(self) -> None:
        self.open = True

    def close(self) -> None:
        self.open = False


@pytest.fixture
def sound_card(monkeypatch: pytest.MonkeyPatch) -> list[FakeStream]:
    FakeStream.made = []
    fake = SimpleNamespace(RawOutputStream=FakeStream, RawInputStream=FakeStream, PortAudioError=RuntimeError)
    monkeypatch.setattr(importlib, "import_module", lambda _name: fake)
    return FakeStream.made


async def test_the_loudspeaker_plays_packets_in_order_and_forgets_on_request(sound_card: list[FakeStream]) -> None:
    with Loudspeaker() as loudspeaker:
        (stream,) = sound_card
        assert stream.samplerate == DOWNLINK_RATE_HZ
        for opus in [*REPLY, b"\x58not opus at all"]:
            loudspeaker.play(opus)
        out = bytearray(2 * 12_000)
        stream.callback(out, 12_000, None, None)
        assert np.abs(np.frombuffer(bytes(out), np.int16)).max() > 10_000
        await loudspeaker.drain()
        stream.callback(out, 12_000, None, None)
        assert not any(out[-200:])
        loudspeaker.play(REPLY[0])
        loudspeaker.clear()
        stream.callback(out, 12_000, None, None)
        assert not any(out)
    assert not stream.open


async def test_the_recorder_feeds_the_microphone_from_the_sound_cards_thread(sound_card: list[FakeStream]) -> None:
    microphone = LiveMicrophone(60)
    with Recorder(microphone):
        (stream,) = sound_card
        assert stream.samplerate == UPLINK_RATE_HZ
        await asyncio.to_thread(stream.callback, TONE[:1600].tobytes(), 1600, None, None)
        await asyncio.sleep(0)
        frame = microphone.read()
        assert frame is not None
        assert frame.voiced_before_end_ms == 0.0
    assert not stream.open


@pytest.mark.parametrize(("failure", "advice"), [(OSError(), "libportaudio2"), (ImportError(), "pip install")])
def test_without_portaudio_the_user_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, advice: str
) -> None:
    def missing(_name: str) -> Any:
        raise failure

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(NoSoundCard, match=advice), Loudspeaker():
        pass
    with pytest.raises(NoSoundCard, match=advice), Recorder(LiveMicrophone(60)):
        pass


async def test_a_missing_sound_card_is_said_and_the_turn_goes_on(
    script: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_self: Loudspeaker) -> Loudspeaker:
        raise NoSoundCard("no loudspeaker: none found")

    monkeypatch.setattr(Loudspeaker, "__enter__", none)
    code, _ = await asyncio.gather(talk("--url", script.url, "--text", "hello"), answer_once(script, typed(script)))
    assert code == 0
    assert "the reply is not played: no loudspeaker: none found; --out FILE writes it" in capsys.readouterr().err
