"""What a scrape shows."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.house import House, house, question
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.observability.health.rules import WATCHED
from xiaozhi.observability.metrics import figures as figures_tables
from xiaozhi.observability.metrics.tables import Sources, Table
from xiaozhi.observability.metrics.turns import TurnMetrics
from xiaozhi.settings import MetricsSettings, Settings
from xiaozhi.settings.tools import McpServer
from xiaozhi.tools.external import ExternalServer
from xiaozhi.transport.announcer import AnnouncementOutcome
from xiaozhi.turn.trace import TurnTrace


def figures(text: str) -> dict[str, float]:
    """Samples as `name{label=value}`."""
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{key}={value}" for key, value in sorted(labels.items())) + "}" if labels else ""


async def scrape(home: House, **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{home.server.port}/metrics", headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_a_scrape_after_a_turn_adds_up(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        report = await device.turn(question())
        assert report.outcome == "answered" and report.trace is not None
        status, text = await scrape(home)
        assert status == 200
        shown = figures(text)
        assert shown["xiaozhi_turns_total{outcome=answered}"] == 1
        assert shown["xiaozhi_pipeline_seconds_count"] == 1
        spans = report.trace["spans"]
        assert shown["xiaozhi_pipeline_seconds_sum"] == pytest.approx(spans["first_packet"] / 1000.0, abs=0.001)
        assert shown["xiaozhi_turn_span_seconds_sum{span=commit}"] == pytest.approx(spans["commit"] / 1000.0, abs=0.001)
        assert shown["xiaozhi_recognition_seconds_count{engine=sense-voice}"] == 1
        assert shown["xiaozhi_first_token_seconds_count{endpoint=stand-in}"] == 1
        assert shown["xiaozhi_first_speech_seconds_count{voice=openai}"] == 1
        assert shown["xiaozhi_devices_online"] == 1
        assert shown["xiaozhi_speculations_total"] >= shown["xiaozhi_speculations_committed_total"] == 1
        assert shown["xiaozhi_uplink_packets_total"] > 10
        assert "xiaozhi_channel_dropped_total{channel=microphone}" in shown  # none, on a machine that keeps up
        assert shown["xiaozhi_degraded{step=devices}"] == 0 and shown["process_resident_memory_bytes"] > 1e7
        assert "what time" not in text


async def test_packets_that_devices_did_not_take_are_counted_beyond_their_connections(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        devices = home.server.devices
        async with home.device(1) as first, home.device(2):
            for number, dropped in ((1, 3), (2, 4)):
                home.writer(ClientIdentity.numbered(number).device_id).dropped = dropped
            home.server.services.echoes.held_back = 2
            assert devices.packets_dropped == 7
            async with home.device(1):  # the same device again: the older connection goes
                await first.until(lambda: not first.connected)
                assert devices.packets_dropped == 7
        await devices.empty()
        shown = figures((await scrape(home))[1])
        assert shown["xiaozhi_downlink_dropped_total"] == 7
        assert shown["xiaozhi_own_voice_held_back_total"] == 2 and shown["xiaozhi_own_voice_let_through_total"] == 0


async def test_engines_caches_store_and_the_house_itself_are_shown(tmp_path: Path) -> None:
    caches = {"answers": True, "speech": True, "recognition": True, "premake": False}
    async with house(tmp_path, cache=caches) as home, home.device() as device:
        for _ in range(2):
            assert (await device.turn(question())).outcome == "answered"
        shown = figures((await scrape(home))[1])
        one = "{endpoint=stand-in}"
        assert shown[f"xiaozhi_endpoint_requests_total{one}"] >= shown[f"xiaozhi_endpoint_succeeded_total{one}"] >= 1
        assert shown["xiaozhi_endpoint_failures_total{endpoint=stand-in,kind=connection}"] == 0
        assert shown[f"xiaozhi_endpoint_in_flight{one}"] == 0
        assert shown["xiaozhi_endpoint_breaker{endpoint=stand-in,state=closed}"] == 1
        assert shown["xiaozhi_endpoint_breaker{endpoint=stand-in,state=open}"] == 0
        assert shown["xiaozhi_voice_sentences_total{voice=openai}"] >= 1
        assert shown["xiaozhi_voice_breaker{state=closed,voice=espeak}"] == 1
        # Every clause of the two turns was found, joined or made.
        speech = [name for name in shown if name.startswith("xiaozhi_cache_hits_total{cache=speech")]
        assert sum(shown[name] for name in speech) + shown["xiaozhi_cache_misses_total{cache=speech}"] >= 2
        assert shown["xiaozhi_speech_tier_hits_total{tier=memory}"] >= 1
        assert shown["xiaozhi_cache_misses_total{cache=recognition}"] >= 1
        assert "xiaozhi_cache_hits_total{cache=answers,how=similar}" in shown
        assert shown["xiaozhi_store_failed_total"] == shown["xiaozhi_store_dropped_total"] == 0
        assert shown["xiaozhi_tool_calls_total"] == 0 and shown["xiaozhi_summaries_made_total"] == 0
        assert {name for name in shown if name.startswith("xiaozhi_alert{")} == {
            f"xiaozhi_alert{{name={rule.name}}}" for rule in WATCHED
        }
        assert shown["xiaozhi_reloads_total{outcome=applied}"] == 0
        assert shown["xiaozhi_refused_total{why=token_or_blocked}"] == 0


async def test_names_that_strangers_make_up_never_become_labels(tmp_path: Path) -> None:
    async with house(tmp_path, server={"requests_per_minute": 0}) as home:
        before = {name for name in figures((await scrape(home))[1]) if "_created" not in name}
        async with aiohttp.ClientSession() as http:
            for number in range(40):
                device = f'{number:012x}"}} 1\\n{{evil="'
                headers = {"Device-Id": device.encode().hex(), "Client-Id": "x" * number, "User-Agent": f"e{number}/1"}
                url = f"http://127.0.0.1:{home.server.port}"
                async with http.post(f"{url}/xiaozhi/ota/", headers=headers, json={"mac_address": device}) as answer:
                    assert answer.status < 500
                async with http.get(f"{url}/no/such/{number}") as answer:
                    assert answer.status == 404
        for number in range(1, 4):
            async with home.device(number):
                pass
        after = {name for name in figures((await scrape(home))[1]) if "_created" not in name}
        assert after == before


async def test_every_name_follows_the_conventions(tmp_path: Path) -> None:
    async with house(tmp_path, cache={"answers": True, "speech": True, "recognition": True}) as home:
        families = list(text_string_to_metric_families((await scrape(home))[1]))
        ours = [family for family in families if family.name.startswith("xiaozhi_")]
        assert len(ours) > 60 and len({family.name for family in ours}) == len(ours)
        for family in ours:
            assert family.documentation.endswith((".", "label."))
            assert not family.name.endswith(("_ms", "_mb", "_percent", "_count"))
            if family.type == "counter":
                assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
            for sample in family.samples:
                assert not {"device", "device_id", "address", "session"} & set(sample.labels)


async def test_only_those_who_may_see_the_figures(tmp_path: Path) -> None:
    async with house(tmp_path, metrics={"allow": ["10.9.9.9"], "token": "look-at-me"}) as home:
        assert (await scrape(home))[0] == 403
        assert (await scrape(home, Authorization="Bearer look-at-you"))[0] == 403
        assert (await scrape(home, Authorization="Bearer look-at-me"))[0] == 200


async def test_figures_can_be_switched_off(tmp_path: Path) -> None:
    async with house(tmp_path, metrics={"enabled": False}) as home:
        assert (await scrape(home))[0] == 404


def test_networks_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="allow"):
        MetricsSettings(allow=("everybody",))


def test_a_turn_that_failed_is_counted_as_such_and_spans_that_are_missing_are_left_out() -> None:
    registry = CollectorRegistry()
    metrics = TurnMetrics(registry)
    metrics.count(TurnTrace(1, anchor=10.0, first_packet=9.0, error="no endpoint", starved_ms=80.0, cached="exact"))
    metrics.count(TurnTrace(2, anchor=10.0, interrupted=12.0, first_token=11.0, endpoint="a+b+a", voice="x+y"))
    metrics.count(TurnTrace(3))
    shown = figures(generate_latest(registry).decode())
    assert {name: value for name, value in shown.items() if name.startswith("xiaozhi_turns_total")} == {
        "xiaozhi_turns_total{outcome=failed}": 1,
        "xiaozhi_turns_total{outcome=interrupted}": 1,
        "xiaozhi_turns_total{outcome=silent}": 1,
    }
    assert shown["xiaozhi_pipeline_seconds_count"] == 0 and shown["xiaozhi_starved_turns_total"] == 1
    assert shown["xiaozhi_cached_answers_total{how=exact}"] == 1
    assert shown["xiaozhi_first_token_seconds_count{endpoint=a}"] == 1, "combinations of names are no label"


def test_metrics_have_settings() -> None:
    assert Settings().metrics.enabled


async def test_memory_announcements_reminders_and_the_doors_are_shown(tmp_path: Path) -> None:
    async with house(tmp_path, memory={"engine": "local"}, push={"quiet_hours": ""}) as home, home.device():
        memory = home.server.services.memory
        await memory.remember("02:00:00:00:00:01", "The user is allergic to nuts.")
        assert len(await memory.known("02:00:00:00:00:01")) == 1
        with pytest.raises(ValueError, match="nothing to remember"):
            await memory.remember("02:00:00:00:00:01", " ")
        assert await memory.forget("02:00:00:00:00:01") == 1
        told = await home.server.services.announce("Dinner is ready.", ["no such room", "02:00:00:00:00:01"], "")
        assert sorted(told.values()) == ["spoken", "unknown device"]
        shown = figures((await scrape(home))[1])
    facts = {what: shown[f"xiaozhi_memory_facts_total{{what={what}}}"] for what in ("added", "recalled", "erased")}
    assert facts == {"added": 1, "recalled": 1, "erased": 1} and shown["xiaozhi_memory_refused_total"] == 1
    outcomes = {name: value for name, value in shown.items() if name.startswith("xiaozhi_announcements_total")}
    assert len(outcomes) == len(AnnouncementOutcome)
    assert {name for name, value in outcomes.items() if value} == {
        "xiaozhi_announcements_total{outcome=spoken}",
        "xiaozhi_announcements_total{outcome=unknown}",
    }
    assert shown["xiaozhi_unasked_total{outcome=heard}"] == 1
    assert shown["xiaozhi_reminders_total{outcome=told}"] == shown["xiaozhi_turns_held_total"] == 0
    assert shown["xiaozhi_pictures_total{outcome=answered}"] == shown["xiaozhi_chat_offline_total"] == 0
    assert "xiaozhi_tokens_issued_total" in shown and "xiaozhi_web_requests_total" in shown


def test_external_mcp_servers_and_the_redis_of_a_cluster_are_shown_by_name() -> None:
    server = ExternalServer(McpServer(name="files", command="true"))
    server.restarts = 3

    def samples(table: Table[Any], **services: object) -> list[Sample]:
        sources = cast(Sources, SimpleNamespace(services=SimpleNamespace(**services), node=lambda: None))
        return [sample for family in table.read(sources) for sample in family.samples]

    tools = SimpleNamespace(external=SimpleNamespace(servers=[server]))
    found = samples(figures_tables._SERVERS, tools=tools)
    assert [sample.value for sample in found if sample.name == "xiaozhi_mcp_server_restarts_total"] == [3]
    assert [sample.labels["state"] for sample in found if sample.labels.get("state") and sample.value] == ["stopped"]

    link = SimpleNamespace(asked=5, failed=2, spared=1)
    talks = SimpleNamespace(taken_over=4, written=9, dropped=0)
    answers = SimpleNamespace(hits=7, misses=1, dropped=0)
    shared = SimpleNamespace(link=link, conversations=talks)
    caches = SimpleNamespace(speech=SimpleNamespace(cache=None), shared=answers)
    assert samples(figures_tables._NODES, shared=shared) == [], "it has not joined"
    both = samples(figures_tables._SHARED, shared=shared) + samples(
        figures_tables._REDIS_CACHES, shared=shared, caches=caches
    )
    values = {(sample.name, *sample.labels.values()): sample.value for sample in both}
    assert values["xiaozhi_redis_failures_total",] == 2 and values["xiaozhi_redis_cache_hits_total", "answers"] == 7
    assert values["xiaozhi_shared_conversations_total", "taken_over"] == 4


async def test_a_scrape_never_holds_the_loop_for_long_and_is_well_formed_in_both_formats(tmp_path: Path) -> None:
    caches = {"answers": True, "speech": True, "recognition": True}
    async with house(tmp_path, cache=caches) as home, home.device() as device:
        assert (await device.turn(question())).outcome == "answered"
        status, text = await scrape(home)
        assert status == 200 and "# EOF" not in text
        wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
        _, body = await scrape(home, **wanted)
        assert body.endswith("# EOF\n") and body.count("# EOF") == 1
        names = [family.name for family in openmetrics_families(body)]  # type: ignore[no-untyped-call]
        assert len(names) == len(set(names)) > 60
        # Between any two metrics the loop goes round: others take their turn as often as there are metrics.
        rounds = 0
        asking = asyncio.create_task(scrape(home))
        while not asking.done():
            rounds += 1
            await asyncio.sleep(0)
        assert rounds > len(names)
