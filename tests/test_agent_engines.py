"""Agents with a recogniser, a language model and a voice of their own, through whole turns; the server's stand in."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.standins.chat import ChatStandIn
from bench.standins.volcengine import VolcengineAsrStandIn
from tests.house import House, house, question
from tests.recognisers import until
from xiaozhi.agents import Agent
from xiaozhi.agents.agent import agent_from_json, agent_from_toml, agent_to_toml
from xiaozhi.checks.agents import agents
from xiaozhi.checks.finding import Level
from xiaozhi.client.device import Device
from xiaozhi.conversation.agent_engines import faults
from xiaozhi.settings import Settings
from xiaozhi.turn.trace import TurnTrace

UNCLE: dict[str, Any] = {
    "name": "uncle",
    "prompt": "You are an uncle.",
    "recognizer": "volcengine",
    "endpoint": "wise",
    "voice": {"engine": "espeak"},
}


@asynccontextmanager
async def home_of(
    folder: Path, ears: VolcengineAsrStandIn, *said: dict[str, Any], wise: str = "Wise words."
) -> AsyncIterator[tuple[House, ChatStandIn, list[TurnTrace]]]:
    """A house with these agents, what a second endpoint is asked, and the records of its turns."""
    asr: dict[str, Any] = {"volcengine": {"url": ears.ws_url, "api_key": ears.key}}
    async with ChatStandIn(wise) as other, house(folder, "Plain words.", asr=asr) as home:
        services, records = home.server.services, list[TurnTrace]()
        services.on_turn.append(lambda _device, trace: records.append(trace))
        plain = services.settings.llm.endpoints[0]
        wiser = plain.model_copy(update={"name": "wise", "base_url": f"{other.url}/v1", "weight": 1e-6})
        llm = services.settings.llm.model_copy(update={"endpoints": (plain, wiser)})
        await home.server.reloader.apply(services.settings.model_copy(update={"llm": llm}))
        for one in said:
            await services.store.agents.put(one["name"], Agent(**one).model_dump_json())
        await services.roster.refresh(services.store)
        yield home, other, records


def asked(endpoint: ChatStandIn) -> int:
    """How many questions it was asked; looks whether it is there do not count."""
    return sum("messages" in request.body for request in endpoint.requests)


async def become(home: House, device: Device, name: str) -> None:
    """The device has this agent, and what it names is there."""
    assert (await device.turn_text(f"switch to {name}")).answered
    await home.server.services.for_agents.made()


async def test_an_agent_hears_thinks_and_speaks_with_what_it_names_and_others_with_the_servers(tmp_path: Path) -> None:
    async with (
        VolcengineAsrStandIn(last="how late is it") as ears,
        home_of(tmp_path, ears, UNCLE) as (home, wise, records),
        home.device() as device,
    ):
        before = await device.turn(question())
        assert (before.heard, before.text) == ("what time is it", "Plain words.")
        assert (len(ears.streams), asked(wise), records[-1].voice) == (0, 0, "openai")
        await become(home, device, "uncle")
        own = await device.turn(question())
        assert (own.heard, own.text) == ("how late is it", "Wise words.")
        assert (records[-1].endpoint, records[-1].voice) == ("wise", "espeak")
        assert records[-1].engine.startswith("volcengine")
        async with home.device(2) as other:
            assert (await other.turn(question())).heard == "what time is it"
            await become(home, other, "uncle")
            assert (await other.turn(question())).heard == "how late is it"
        assert len(home.server.services.for_agents._recognitions) == 1, "made once for both"


async def test_what_fails_in_mid_utterance_is_heard_by_the_servers_recogniser_and_answered_by_its_model(
    tmp_path: Path,
) -> None:
    async with (
        VolcengineAsrStandIn() as ears,
        home_of(tmp_path, ears, UNCLE) as (home, wise, _),
        home.device() as device,
    ):
        await become(home, device, "uncle")
        ears.fault, wise.fault = "reset-midway", "500"
        report = await device.turn(question())
        assert (report.heard, report.text) == ("what time is it", "Plain words.")
        assert asked(wise) == 1


async def test_what_there_is_not_is_said_once_and_the_servers_own_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = {"name": "lost", "recognizer": "nobody", "endpoint": "nowhere", "voice": {"engine": "mute"}}
    async with VolcengineAsrStandIn() as ears, home_of(tmp_path, ears, lost) as (home, _, records):
        async with home.device() as device:
            with caplog.at_level(logging.WARNING):
                await become(home, device, "lost")
                for _ in range(2):
                    report = await device.turn(question())
                    assert (report.heard, report.text) == ("what time is it", "Plain words.")
        assert records[-1].voice == "openai"
        for what in ("recogniser 'nobody'", "endpoint 'nowhere'", "voice engine 'mute'"):
            assert sum(what in line for line in caplog.messages) == 1
        found = await agents(home.server.services.settings)
        assert [one.level for one in found] == [Level.BAD] * 3 and not any(one.required for one in found)
        assert all("the server's own is used" in one.text for one in found)


async def test_the_check_tries_what_agents_name(tmp_path: Path) -> None:
    async with VolcengineAsrStandIn() as ears, home_of(tmp_path, ears, UNCLE) as (home, _, _):
        settings = home.server.services.settings
        named, tried = await agents(settings)
        assert (named.subject, named.text) == ("agent uncle", "recogniser volcengine, endpoint wise, voice espeak")
        assert (tried.level, tried.text) == (Level.OK, "answers")
        ears.key = "another"
        bad = (await agents(settings))[-1]
        assert bad.level is Level.BAD and "asr.volcengine.api_key" in bad.text and not bad.required
        empty = settings.store.model_copy(update={"file": "none.db"})
        assert await agents(settings.model_copy(update={"store": empty})) == []


async def test_an_engine_that_no_agent_names_any_more_is_closed_and_so_is_one_of_other_settings(tmp_path: Path) -> None:
    async with VolcengineAsrStandIn(last="how late is it") as ears, home_of(tmp_path, ears, UNCLE) as (home, _, _):
        services = home.server.services
        async with home.device() as device:
            await become(home, device, "uncle")
            first = services.for_agents._recognitions["volcengine"]
            asr = services.settings.asr.model_copy(update={"itn": not services.settings.asr.itn})
            outcome = await home.server.reloader.apply(services.settings.model_copy(update={"asr": asr}))
            assert outcome.applied == ("asr.itn",)
            assert (await device.turn_text("hello there")).answered
            await services.for_agents.made()
            assert services.for_agents._recognitions["volcengine"] is not first
            assert (await device.turn(question())).heard == "how late is it"
            closed = services.retirement.closed
            plain = Agent(**{**UNCLE, "recognizer": "", "voice": {}})
            await services.store.agents.put("uncle", plain.model_dump_json())
            await services.roster.refresh(services.store)
            for text in ("and now", "and then"):  # the store is looked into behind a turn
                assert (await device.turn_text(text)).answered
            await until(lambda: services.for_agents._recognitions == {})
            assert (await device.turn(question())).heard == "what time is it"
        await until(lambda: services.retirement.closed > closed)


async def test_a_model_that_the_server_has_behind_its_service_is_not_loaded_twice(tmp_path: Path) -> None:
    async with VolcengineAsrStandIn(last="how late is it") as ears:
        asr: dict[str, Any] = {"engine": "volcengine", "fallback": "sense-voice"}
        asr["volcengine"] = {"url": ears.ws_url, "api_key": ears.key}
        async with house(tmp_path, asr=asr) as home, home.device() as device:
            services = home.server.services
            local = Agent(name="local", recognizer="sense-voice")
            await services.store.agents.put("local", local.model_dump_json())
            await services.roster.refresh(services.store)
            await become(home, device, "local")
            assert (await device.turn(question())).heard == "what time is it"
            recognition, owned = services.for_agents._recognitions["sense-voice"]
            assert recognition.engine is services.recognition.engine.local and owned is None  # type: ignore[attr-defined]


def test_an_agent_of_before_is_read_and_a_new_one_comes_back_as_it_was_written() -> None:
    assert agent_from_json('{"name": "old", "voice": {"rate_percent": 5}}', "store") == Agent(
        name="old", voice={"rate_percent": 5}
    )
    agent = Agent(**{**UNCLE, "voice": {"engine": "minimax", "pitch_semitones": -3}})
    assert agent_from_toml(agent_to_toml(agent), "file") == agent


def test_a_missing_key_is_a_fault_of_what_lacks_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VOLCENGINE_API_KEY", "VOLCENGINE_APP_ID", "MINIMAX_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    found = faults(Agent(name="x", recognizer="volcengine", voice={"engine": "minimax"}), Settings())
    assert set(found) == {"recogniser", "voice"} and "asr.volcengine.api_key" in found["recogniser"]
    assert faults(Agent(name="x", recognizer="sense-voice", voice={"engine": "espeak"}), Settings()) == {}
