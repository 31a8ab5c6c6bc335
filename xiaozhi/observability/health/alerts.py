"""Watches the process and says when somebody should look: log, metric, console, webhook."""

import asyncio
import logging
import shutil
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from xiaozhi import __version__
from xiaozhi.conversation.services import Services
from xiaozhi.observability.health.readings import AlertChange, AlertRules, HealthReadings, Outcomes
from xiaozhi.observability.health.rules import Alert
from xiaozhi.observability.health.upstreams import none_well, remote_recognition, voice_states
from xiaozhi.observability.health.webhook import Webhook
from xiaozhi.overload.usage import CpuMeter
from xiaozhi.settings import Settings
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)


class Alerts:
    """The alerts of one process.

    Args:
        services: what is watched.
        clock: monotonic time in seconds.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        settings = services.settings.alerts
        self.rules = AlertRules(settings)
        self.webhook = Webhook(settings)
        self.readings = HealthReadings()
        """The newest."""
        self.raised = 0
        """Alerts since the start."""
        self.listeners: list[Callable[[AlertChange], None]] = []
        """Told of every alert that is raised or over."""
        self._services = services
        self._clock = clock
        self._outcomes = Outcomes(settings.error_window_s)
        self._cpu = CpuMeter(clock)

    @property
    def active(self) -> tuple[Alert, ...]:
        """What is wrong now; `since_s` counts on `time.monotonic()`."""
        return self.rules.active

    def shown(self) -> list[dict[str, object]]:
        """What is wrong now, for pages: `since` in seconds since 1970."""
        offset_s = time.time() - self._clock()
        return [
            {
                "name": alert.rule.name,
                "since": alert.since_s + offset_s,
                "text_zh": alert.text("zh"),
                "text_en": alert.text("en"),
                "value": alert.value,
                "limit": alert.threshold,
                "unit": alert.rule.unit,
            }
            for alert in self.active
        ]

    def count(self, _device_id: str, trace: TurnTrace) -> None:
        """A turn has ended; a listener of `Services.on_turn`."""
        self._outcomes.add(self._clock(), failed=bool(trace.error) and trace.interrupted is None)

    def retune(self, settings: Settings) -> None:
        """Other thresholds and another webhook from now on."""
        self.rules.settings = self.webhook.settings = settings.alerts
        self._outcomes.window_s = settings.alerts.error_window_s

    async def watch(self) -> None:
        """Look now and then. Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.webhook.run(), name="alerts-webhook")
            while True:
                await asyncio.sleep(self.rules.settings.check_s)
                try:
                    await self.check()
                except Exception:  # noqa: BLE001 - serving goes on without alerts; it is logged whole
                    _log.exception("looking for alerts failed")

    async def check(self) -> list[AlertChange]:
        """Read everything once and act on it; returns what has changed."""
        data_dir = self._services.settings.server.data_dir
        self.readings = self._read(await asyncio.to_thread(disk_percent, data_dir))
        changes = self.rules.update(self._clock(), self.readings)
        for change in changes:
            self._tell(change)
        return changes

    def _read(self, disk: float | None) -> HealthReadings:
        services, settings = self._services, self.rules.settings
        hits, lookups = cache_lookups(services)
        remote = remote_recognition(services)
        now_s = self._clock()
        return HealthReadings(
            memory_percent=services.load_shedder.readings.memory_percent or None,
            cpu_percent=self._cpu.percent(),
            asr_wait_ms=services.recognition.pool.oldest_wait_s() * 1000.0,
            disk_percent=disk,
            error_percent=self._outcomes.percent(now_s, settings.error_least_turns),
            cache_hit_percent=100.0 * hits / lookups if lookups >= settings.cache_least_lookups else None,
            chat_gone=none_well([state.breaker for state in services.chat.states()]),
            voices_gone=none_well([state.breaker for state in voice_states(services)]),
            recognition_gone=none_well([remote.breaker.state(now_s)]) if remote is not None else None,
        )

    def _tell(self, change: AlertChange) -> None:
        alert = change.alert
        self.raised += change.raised
        english = alert.text("en")
        if change.raised:
            _log.warning("alert %s: %s", alert.rule.name, english)
        else:
            _log.info("alert %s is over", alert.rule.name)
        self.webhook.post(message_of(change))
        for listener in self.listeners:
            listener(change)


def message_of(change: AlertChange) -> dict[str, object]:
    """What the webhook gets: nothing secret, nothing of anybody's conversation."""
    alert = change.alert
    return {
        "event": "raised" if change.raised else "over",
        "alert": alert.rule.name,
        "value": round(alert.value, 2),
        "threshold": alert.threshold,
        "unit": alert.rule.unit,
        "text": alert.text("en"),
        "text_zh": alert.text("zh"),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "version": __version__,
    }


def cache_lookups(services: Services) -> tuple[int, int]:
    """Hits and questions of the caches of answers and speech, since the start."""
    hits = lookups = 0
    answers, kept = services.caches.answers, services.caches.speech.cache
    if answers is not None:
        found = answers.hits + answers.similar_hits + answers.common_hits
        hits += found
        lookups += found + answers.misses
    if kept is not None:
        found = kept.hits + kept.joined
        hits += found
        lookups += found + kept.misses
    return hits, lookups


def disk_percent(folder: Path) -> float | None:
    """Used space of a folder's disk in percent; None where the folder cannot be seen. Blocking."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return 100.0 * (usage.total - usage.free) / usage.total if usage.total else None
