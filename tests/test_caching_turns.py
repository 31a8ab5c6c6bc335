"""Whole turns on a server with its caches on: what is repeated is not asked, spoken or recognised again."""

from pathlib import Path
from typing import Any

import pytest

from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from tests.house import House, brief, house, settings_for
from xiaozhi.app.server import serving
from xiaozhi.client.device import Device
from xiaozhi.client.report import TurnReport

ON: dict[str, Any] = {"answers": True, "speech": True, "recognition": True, "premake": False}


async def ask(device: Device, text: str) -> TurnReport:
    report = await device.turn_text(text)
    assert report.answered and report.trace is not None
    return report


def spoken(home: House) -> int:
    """How often the speech server was asked for sound."""
    return sum(bool(getattr(request, "text", "")) for request in home.speech.requests)


async def test_a_repeated_question_is_asked_once_and_spoken_once(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 It is Paris.", cache=ON) as home:
        async with home.device(1) as one:
            first = await ask(one, "what is the capital of france")
            second = await ask(one, "What is the capital of France?")
        async with home.device(2) as two:
            third = await ask(two, "can you tell me what france's capital is")
        assert first.trace is not None and second.trace is not None and third.trace is not None
        assert [report.trace["cached"] for report in (first, second, third) if report.trace] == ["", "exact", "similar"]
        assert [report.text for report in (first, second, third)] == ["It is Paris."] * 3
        assert [report.emotion for report in (first, second, third)] == ["happy"] * 3
        assert [report.trace["kept_clauses"] for report in (first, second, third) if report.trace] == [0, 1, 1]
        assert (second.trace["endpoint"], second.trace["attempts"]) == ("cache", 0)
        assert second.trace["voice"] == "openai"
        assert len(home.asked) == 1
        assert spoken(home) == 1


async def test_a_cached_answer_is_remembered_like_any_other(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 It is Paris.", cache=ON) as home, home.device() as device:
        await ask(device, "what is the capital of france")
        await ask(device, "what is the capital of france")
        await ask(device, "and who lives there")
        texts = [message["content"] for message in home.asked[-1] if message["role"] != "system"]
    assert texts[0] == texts[2] == "what is the capital of france"
    assert texts[1] == texts[3] and texts[1].endswith("It is Paris.")
    assert texts[4] == "and who lives there"


@pytest.mark.parametrize(
    "text", ["what time is it", "tell me a joke", "what is my name", "turn on the light", "and what about him"]
)
async def test_what_leans_on_something_is_asked_every_time(tmp_path: Path, text: str) -> None:
    async with house(tmp_path, cache=ON) as home, home.device() as device:
        for _ in range(2):
            report = await ask(device, text)
            assert report.trace is not None and report.trace["cached"] == ""
        assert len(home.asked) == 2


async def test_after_the_user_spoke_of_himself_the_cache_is_silent(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 It is Paris.", cache=ON) as home, home.device() as device:
        await ask(device, "what is the capital of france")
        await ask(device, "i am five years old")
        report = await ask(device, "what is the capital of france")
        assert report.trace is not None and report.trace["cached"] == ""
        assert len(home.asked) == 3


async def test_everything_can_be_switched_off(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 It is Paris.", cache={"disk_mb": 0}) as home, home.device() as device:
        for _ in range(2):
            await ask(device, "what is the capital of france")
        assert len(home.asked) == spoken(home) == 2
    assert not (tmp_path / "data" / "speech-cache.sqlite").exists()


async def test_an_excuse_is_not_kept_as_an_answer(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 It is Paris.", cache=ON) as home, home.device() as device:
        home.chat.fault = "cut"
        await ask(device, "what is the capital of france")
        home.chat.fault = ""
        report = await ask(device, "what is the capital of france")
        assert report.text == "It is Paris."
        assert report.trace is not None and report.trace["cached"] == ""


async def test_common_phrases_are_ready_at_start_and_after_a_restart(tmp_path: Path) -> None:
    async with ChatStandIn("🙂 Yes.") as chat, SpeechStandIn(sound=brief) as speech:
        settings = settings_for(tmp_path, chat.url, speech.url, cache={**ON, "premake": True})
        async with serving(settings) as server:
            home = House(server, chat, speech)
            services = server.devices._services
            assert services._warming is not None
            await services._warming
            await services.caches.premade()
            made = spoken(home)
            assert made > 20
            async with home.device() as device:
                report = await ask(device, "你好")
                assert report.trace is not None
                assert report.trace["cached"] == "common" and report.trace["kept_clauses"] >= 1
            assert spoken(home) == made and home.asked == []
        settings = settings_for(tmp_path, chat.url, speech.url, cache=ON)
        async with serving(settings) as server:
            home = House(server, chat, speech)
            async with home.device() as device:
                report = await ask(device, "你好")
                assert report.trace is not None and report.trace["kept_clauses"] >= 1
            assert spoken(home) == made, "what was made is on disk"


async def test_a_dead_model_is_apologised_for_from_the_cache(tmp_path: Path) -> None:
    async with house(tmp_path, cache=ON) as home, home.device() as device:
        home.chat.fault = "500"
        for kept in (0, 1):
            report = await ask(device, "why is the sky blue")
            assert report.trace is not None and report.trace["kept_clauses"] == kept
        assert spoken(home) == 1
