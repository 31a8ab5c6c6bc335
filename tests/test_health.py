"""Is the process well: alerts, and what load balancers and people are told."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.house import House, house, question
from xiaozhi.observability.health.alerts import Alerts, message_of
from xiaozhi.observability.health.readings import AlertChange, AlertRules, HealthReadings, Outcomes
from xiaozhi.observability.health.rules import WATCHED, Alert
from xiaozhi.observability.health.webhook import Webhook
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.load import load_settings
from xiaozhi.settings.operation import AlertsSettings
from xiaozhi.turn.trace import TurnTrace
from xiaozhi.upstream.breaker import Admission


def told(changes: list[AlertChange]) -> list[tuple[str, bool]]:
    return [(change.alert.rule.name, change.raised) for change in changes]


# Rules ----------------------------------------------------------------------------------------------------------------


def test_an_alert_is_raised_after_a_while_and_over_when_it_has_been_well_for_a_while() -> None:
    rules = AlertRules(AlertsSettings(after_s=10, clear_s=20))
    bad, between, well = (HealthReadings(memory_percent=value) for value in (90.0, 80.0, 70.0))
    assert told(rules.update(0, bad)) == [] and told(rules.update(9, bad)) == []
    assert told(rules.update(10, bad)) == [("memory", True)]
    assert [(one.rule.name, one.value, one.since_s) for one in rules.active] == [("memory", 90.0, 10)]
    assert told(rules.update(15, between)) == [], "below the threshold, but not clearly"
    assert told(rules.update(20, well)) == [] and told(rules.update(30, between)) == []
    assert told(rules.update(31, well)) == [] and told(rules.update(50, well)) == []
    assert told(rules.update(51, well)) == [("memory", False)] and rules.active == ()


def test_a_peak_and_what_is_not_known_raise_nothing() -> None:
    rules = AlertRules(AlertsSettings(after_s=10))
    for now_s in range(0, 100, 5):
        peak = HealthReadings(cpu_percent=99.0) if now_s % 10 else HealthReadings(cpu_percent=10.0)
        assert told(rules.update(now_s, peak)) == []
    assert told(rules.update(200, HealthReadings())) == []


@pytest.mark.parametrize(
    ("readings", "name"),
    [
        (HealthReadings(memory_percent=85), "memory"),
        (HealthReadings(cpu_percent=80), "cpu"),
        (HealthReadings(asr_wait_ms=500), "asr_queue"),
        (HealthReadings(disk_percent=95), "disk"),
        (HealthReadings(error_percent=2), "errors"),
        (HealthReadings(cache_hit_percent=9.9), "cache_hits"),
        (HealthReadings(chat_gone=True), "chat_gone"),
        (HealthReadings(voices_gone=True), "voices_gone"),
        (HealthReadings(recognition_gone=True), "recognition_gone"),
    ],
)
def test_each_reading_has_its_alert_in_both_languages(readings: HealthReadings, name: str) -> None:
    rules = AlertRules(AlertsSettings(after_s=0, clear_s=0))
    assert told(rules.update(0, readings)) == [(name, True)]
    (alert,) = rules.active
    assert alert.text("en").isascii() and not alert.text("zh").isascii()
    assert "{" not in alert.text("zh") + alert.text("en")
    assert told(rules.update(1, HealthReadings())) == [(name, False)]


def test_a_threshold_of_0_and_a_switch_turn_alerts_off() -> None:
    everything = HealthReadings(100, 100, 10_000, 100, 100, 0, True, True, True)
    never = AlertsSettings(
        after_s=0,
        memory_percent=0,
        cpu_percent=0,
        asr_wait_ms=0,
        disk_percent=0,
        error_percent=0,
        cache_hit_percent=0,
        upstreams=False,
    )
    assert AlertRules(never).update(0, everything) == []
    assert AlertRules(AlertsSettings(enabled=False, after_s=0)).update(0, everything) == []
    assert len(AlertRules(AlertsSettings(after_s=0)).update(0, everything)) == len(WATCHED)


@given(st.lists(st.tuples(st.floats(0, 30), st.one_of(st.none(), st.floats(0, 100))), max_size=60))
def test_raised_and_over_take_turns_and_never_sooner_than_the_settings_say(
    steps: list[tuple[float, float | None]],
) -> None:
    rules = AlertRules(AlertsSettings(after_s=10, clear_s=20))
    now_s, expected, last_s = 0.0, True, 0.0
    for passed_s, value in steps:
        now_s += passed_s
        for change in rules.update(now_s, HealthReadings(cpu_percent=value)):
            assert change.raised is expected and now_s - last_s >= (10 if change.raised else 20)
            expected, last_s = not expected, now_s
        assert bool(rules.active) is not expected


def test_failed_turns_are_counted_over_a_sliding_window() -> None:
    outcomes = Outcomes(300)
    for second in range(100):
        outcomes.add(second, failed=second % 10 == 0)
    assert outcomes.counts(100) == (100, 10) and outcomes.percent(100, 20) == 10.0
    assert outcomes.percent(100, 101) is None
    turns, failed = outcomes.counts(345)
    assert 0 < turns < 70 and failed <= 7
    assert outcomes.counts(1000) == (0, 0)


# The webhook ----------------------------------------------------------------------------------------------------------


@dataclass
class Hook:
    """A server that takes alerts, or does not at first."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def hook(*statuses: int) -> AsyncIterator[Hook]:
    taking = Hook(statuses=list(statuses))

    async def take(request: web.Request) -> web.Response:
        taking.got.append(await request.json())
        status = taking.statuses.pop(0) if taking.statuses else 200
        if not taking.statuses:
            taking.arrived.set()
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/secret-path", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    taking.url = f"http://127.0.0.1:{runner.addresses[0][1]}/secret-path"
    try:
        yield taking
    finally:
        await runner.cleanup()


def alert() -> AlertChange:
    return AlertChange(Alert(WATCHED[0], 91.234, 85, 3.0), True)


async def test_the_webhook_gets_json_again_when_it_failed_and_the_log_keeps_its_address_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("xiaozhi.observability.health.webhook._FIRST_PAUSE_S", 0.0)
    async with hook(500, 200, 404) as taking:
        settings = AlertsSettings(webhook=SecretStr(taking.url))
        assert "secret-path" not in repr(settings)
        webhook = Webhook(settings)
        task = asyncio.create_task(webhook.run())
        webhook.post(message_of(alert()))
        webhook.post(message_of(AlertChange(alert().alert, False)))
        async with asyncio.timeout(10):
            await taking.arrived.wait()
            while not webhook.failed:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        task.cancel()
        assert [message["event"] for message in taking.got] == ["raised", "raised", "over"]
        assert taking.got[0]["alert"] == "memory" and taking.got[0]["value"] == 91.23 and taking.got[0]["text_zh"]
        assert (webhook.sent, webhook.failed) == (1, 1)
    assert "status 404" in caplog.text and "secret-path" not in caplog.text


async def test_alerts_that_the_webhook_does_not_take_do_not_pile_up() -> None:
    webhook = Webhook(AlertsSettings(webhook=SecretStr("http://127.0.0.1:9/")))
    for _ in range(100):
        webhook.post({})
    assert webhook.failed == 68
    off = Webhook(AlertsSettings())
    off.post({})
    assert off.failed == 0


def test_a_webhook_must_be_an_address_and_a_mistake_does_not_show_it() -> None:
    with pytest.raises(SettingsError, match=r"alerts\.webhook") as refused:
        load_settings(None, {"alerts.webhook": "ftp://user:pass@host"}, {})
    assert "pass" not in str(refused.value)


# The server -----------------------------------------------------------------------------------------------------------


async def get(home: House, path: str, **headers: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{home.server.port}{path}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_a_server_that_is_well_says_so_in_all_three_places(tmp_path: Path) -> None:
    caches = {"answers": True, "speech": True, "recognition": True}
    async with house(tmp_path, cache=caches, load={"shed": False}) as home:
        async with home.device() as device:
            assert (await device.turn(question())).outcome == "answered"
        assert await get(home, "/health/live") == (200, "ok\n")
        assert await get(home, "/health/ready") == (200, "ok\n")
        status, text = await get(home, "/health")
        assert status == 200
        shown = json.loads(text)
        assert shown["status"] == "ok" and shown["ready"] and shown["alerts"] == []
        (endpoint,) = shown["stages"]["llm"]["endpoints"]
        assert endpoint["name"] == "stand-in" and endpoint["succeeded"] >= 1 and endpoint["breaker"] == "closed"
        assert [voice["name"] for voice in shown["stages"]["tts"]["voices"]] == ["openai", "espeak"]
        assert shown["stages"]["asr"]["workers"] == 1 and shown["stages"]["asr"]["queue_ms"] == 0
        assert set(shown["caches"]) == {"answers", "speech", "recognition"}
        assert shown["uptime_s"] >= 0 and shown["version"]
        assert "what time" not in text


async def test_the_report_is_for_watchers_and_the_two_bare_ones_for_everybody(tmp_path: Path) -> None:
    async with house(tmp_path, metrics={"allow": ["10.9.9.9"], "token": "look"}) as home:
        assert (await get(home, "/health"))[0] == 403
        assert (await get(home, "/health", Authorization="Bearer look"))[0] == 200
        assert (await get(home, "/health/live"))[0] == (await get(home, "/health/ready"))[0] == 200


async def test_a_server_is_not_ready_while_it_drains_is_full_or_has_no_voice(tmp_path: Path) -> None:
    async with house(tmp_path, server={"max_devices": 1}) as home:
        async with home.device():
            assert await get(home, "/health/ready") == (503, "too many devices\n")
        async with asyncio.timeout(10):
            await home.server.devices.empty()
        services = home.server.services
        services.takes_devices = False
        assert await get(home, "/health/ready") == (503, "overloaded\n")
        services.takes_devices = True
        for breaker in services.voice.breakers:
            breaker.failed(Admission.ADMITTED, asyncio.get_running_loop().time(), for_good=True)
        assert await get(home, "/health/ready") == (503, "no voice\n")
        home.server.devices.draining = True
        assert await get(home, "/health/ready") == (503, "draining\n")
        assert (await get(home, "/health/live"))[0] == 200


async def test_alerts_of_a_real_server_reach_log_report_and_console(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"after_s": 0, "clear_s": 0, "error_least_turns": 2, "check_s": 300}
    async with house(tmp_path, alerts=settings) as home:
        alerts = Alerts(home.server.services)
        seen: list[AlertChange] = []
        alerts.listeners.append(seen.append)
        for turn in range(4):
            alerts.count("device", TurnTrace(turn, error="no endpoint" if turn else ""))
        alerts.count("device", TurnTrace(9, error="cut", interrupted=3.0))
        with caplog.at_level(logging.WARNING, "xiaozhi"):
            assert ("errors", True) in told(await alerts.check())
        assert alerts.readings.error_percent == 60.0 and alerts.raised == len(seen) >= 1
        assert "alert errors: 60 % of the latest turns failed" in caplog.text
        (shown,) = [one for one in alerts.shown() if one["name"] == "errors"]
        assert shown["limit"] == 2.0 and "60 %" in str(shown["text_zh"])
        assert isinstance(shown["since"], float) and shown["since"] > 1e9
        calmer = home.server.services.settings
        alerts.retune(calmer.model_copy(update={"alerts": AlertsSettings(error_percent=0, clear_s=0, after_s=0)}))
        assert ("errors", False) in told(await alerts.check())
