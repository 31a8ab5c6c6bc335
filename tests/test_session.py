"""What a turn leaves behind: one log line, no secrets, no words unless asked for; and a turn in the Edge voice."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from bench.standins.edge import EdgeStandIn
from tests.house import brief, house, question
from xiaozhi.logs import DeviceFilter, JsonFormatter, TextFormatter
from xiaozhi.turn.machine import ListeningMode

SECRET = "sk-do-not-tell-anyone-0123456789"
DEVICE_ID = "02:00:00:00:00:01"


class Lines(logging.Handler):
    """Every record of the process, of every library, at every level."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.addFilter(DeviceFilter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def _of_turns(self, level: int) -> list[dict[str, Any]]:
        ours = [one for one in self.records if one.name == "xiaozhi.turn" and one.levelno == level]
        return [orjson.loads(JsonFormatter().format(one)) for one in ours]

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The lines about turns that everybody gets, as JSON."""
        return self._of_turns(logging.INFO)

    @property
    def traces(self) -> list[dict[str, Any]]:
        """Everything that is known of the turns, as JSON."""
        return self._of_turns(logging.DEBUG)

    def text(self, name: str = "") -> str:
        """All that was written by loggers whose names begin with `name`, in both formats."""
        chosen = [one for one in self.records if one.name.startswith(name)]
        return "\n".join(formatter.format(one) for formatter in (TextFormatter(), JsonFormatter()) for one in chosen)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root, ours = Lines(), logging.getLogger(), logging.getLogger("xiaozhi")
    levels = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


async def test_a_turn_is_one_line_with_its_device_and_its_times(tmp_path: Path, lines: Lines) -> None:
    async with house(tmp_path) as home, home.device() as device:
        reports = [await device.turn(question()) for _ in range(2)]
    for turn, trace, report in zip(lines.turns, lines.traces, reports, strict=True):
        assert report.trace is not None
        first_audio_ms = round(report.trace["spans"]["first_packet"])
        told = {name: turn[name] for name in turn if name != "time"}
        ordinary = {"level": "info", "message": "turn", "device": DEVICE_ID, "first_audio_ms": first_audio_ms}
        assert told == ordinary, "a turn like all others is a short line"
        assert trace["spans"] == report.trace["spans"], "one record for everybody who looks"
        assert (trace["turn"], trace["device"]) == (report.trace["turn"], DEVICE_ID)
        assert trace["engine"]
        assert trace["voice"]
        assert trace["error"] == ""


async def test_words_are_not_logged_unless_asked_for_even_at_debug(tmp_path: Path, lines: Lines) -> None:
    async with house(tmp_path) as home, home.device() as device:
        assert (await device.turn(question())).answered
        assert (await device.turn_text("my secret diary")).answered
    assert not [word for word in ("what time", "ten past nine", "secret diary") if word in lines.text("xiaozhi")]


async def test_words_are_logged_where_asked_for(tmp_path: Path, lines: Lines) -> None:
    async with house(tmp_path, log={"transcripts": True}) as home, home.device() as device:
        assert (await device.turn(question())).answered
    (turn,) = lines.turns
    assert turn["heard"] == "what time is it"
    assert "It is ten past nine." in turn["said"]


@pytest.mark.parametrize("fault", ["", "401", "500", "refuse", "garbage", "html"])
async def test_keys_are_in_no_line_of_any_library(tmp_path: Path, lines: Lines, fault: str) -> None:
    """Servers like to repeat the key they refuse."""
    async with house(tmp_path) as probe:
        chat_url, speech_url = probe.chat.url, probe.speech.url
        endpoint = {"name": "stand-in", "base_url": f"{chat_url}/v1", "model": "bench", "api_key": SECRET}
        openai = {"base_url": f"{speech_url}/v1", "model": "tts-1", "voice": "alloy", "api_key": SECRET}
        async with house(
            tmp_path,
            llm={"endpoints": [endpoint]},
            tts={"engines": ["openai", "espeak"], "openai": openai},
            auth={"mode": "token", "tokens": [SECRET + "-token"]},
        ) as home:
            probe.chat.fault = fault
            probe.speech.fault = "error-500" if fault else ""
            async with home.device(connect=False) as device:
                await device.connect(home.url, SECRET + "-token")
                report = await device.turn(question())
            assert report.answered
            told = [request for request in probe.chat.requests if SECRET in str(request.headers)]
            assert told, "the key reaches the server that it is for"
    (turn,) = lines.traces
    assert turn["voice"] == ("espeak" if fault else "openai"), "the voice that spoke, not the one that was wanted"
    assert SECRET not in lines.text()
    assert SECRET not in repr(home.server)


async def test_a_failing_turn_says_in_its_line_what_failed(tmp_path: Path, lines: Lines) -> None:
    async with house(tmp_path) as home, home.device() as device:
        home.chat.fault = "500"
        assert (await device.turn(question())).answered
    (turn,) = lines.turns
    assert "stand-in" in turn["error"]
    ours = [one for one in lines.records if one.name.startswith("xiaozhi") and one.levelno >= logging.WARNING]
    assert ours
    assert all(getattr(one, "device", DEVICE_ID) == DEVICE_ID for one in ours)
    about = [one for one in ours if one.getMessage().startswith("turn ")]
    assert all(hasattr(one, "device") for one in about), "a line about a turn names its device"


async def test_an_interrupted_turn_is_one_line_too(tmp_path: Path, lines: Lines) -> None:
    long = "🙂 " + "This is a sentence of a long reply. " * 15
    async with house(tmp_path, long) as home, home.device(mode=ListeningMode.REALTIME) as device:
        device.listen()
        device.detect("tell me a story")
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 300)
        device.abort()
        await device.until(lambda: device.turn_log.trace is not None)
    (turn,), (trace,) = lines.turns, lines.traces
    assert turn["interrupted"] is True
    assert trace["spans"]["end"] >= trace["spans"]["interrupted"] is not None


async def test_a_turn_is_spoken_in_the_edge_voice(tmp_path: Path, lines: Lines) -> None:
    answer = "🙂 It is ten past nine. It is time for a cup of tea."
    async with EdgeStandIn(sound=brief) as edge:
        tts = {"engines": ["edge"], "edge": {"url": edge.ws_url}}
        async with house(tmp_path, answer, tts=tts) as home, home.device() as device:
            reports = [await device.turn(question()) for _ in range(2)]
            assert home.speech.requests == []
        asked = list(edge.requests)
    for report in reports:
        assert report.answered
        assert (report.dropped, report.starved_count, report.undecodable) == ({}, 0, 0)
        assert report.text == answer.removeprefix("🙂 ")
        assert report.reply_pcm is not None
        assert float(np.abs(report.reply_pcm).max()) > 0.05
    assert {request.voice for request in asked} == {
        "Microsoft Server Speech Text to Speech Voice (en-US, EmmaMultilingualNeural)"
    }
    assert "🙂" not in "".join(request.text for request in asked)
    assert all("mp3" in request.config for request in asked)
    assert [trace["voice"] for trace in lines.traces] == ["edge", "edge"]
