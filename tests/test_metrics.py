"""What a scrape shows."""

from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.house import House, house, question
from xiaozhi.metrics.turns import TurnMetrics
from xiaozhi.settings import MetricsSettings, Settings
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
        assert (
            shown["xiaozhi_uplink_packets_total"] > 10
            and shown["xiaozhi_channel_dropped_total{channel=microphone}"] == 0
        )
        assert shown["xiaozhi_degraded{step=devices}"] == 0 and shown["process_resident_memory_bytes"] > 1e7
        assert "what time" not in text


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
    metrics.count(TurnTrace(2, anchor=10.0, interrupted=12.0))
    metrics.count(TurnTrace(3))
    shown = figures(generate_latest(registry).decode())
    assert {name: value for name, value in shown.items() if name.startswith("xiaozhi_turns_total")} == {
        "xiaozhi_turns_total{outcome=failed}": 1,
        "xiaozhi_turns_total{outcome=interrupted}": 1,
        "xiaozhi_turns_total{outcome=silent}": 1,
    }
    assert shown["xiaozhi_pipeline_seconds_count"] == 0 and shown["xiaozhi_starved_turns_total"] == 1
    assert shown["xiaozhi_cached_answers_total{how=exact}"] == 1


def test_metrics_have_settings() -> None:
    assert Settings().metrics.enabled
