"""Whether the process should get devices, and what `/health` shows: for load balancers, people and their programs."""

import time
from collections.abc import Mapping
from typing import Any

from xiaozhi import __version__
from xiaozhi.cache.disk import DiskTier
from xiaozhi.cache.memory import MemoryTier
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.services import Services
from xiaozhi.observability.health.alerts import Alerts
from xiaozhi.observability.health.upstreams import all_resting, remote_recognition, voice_states


def not_ready_because(services: Services, *, draining: bool, no_room: str) -> str:
    """Why devices should go elsewhere, in a word or two; empty when they are welcome.

    The models are loaded before the port is opened, and behind every remote recogniser a local one stands in, so what
    is left to ask is whether there is room and whether any voice may be asked now. A chat model that cannot be reached
    does not count: the server then says so, and a balancer that took all servers out would leave devices with nothing.

    Args:
        services: of the process.
        draining: it is about to stop.
        no_room: why it takes no further device.
    """
    if draining:
        return "draining"
    if no_room:
        return no_room
    return "no voice" if all_resting([state.breaker for state in voice_states(services)]) else ""


def report(services: Services, alerts: Alerts, *, started_at: float, not_ready: str) -> dict[str, Any]:
    """The state of the process as JSON values.

    Args:
        services: of the process.
        alerts: likewise.
        started_at: when it began to serve, on `time.monotonic()`.
        not_ready: why devices should go elsewhere; empty when they are welcome.
    """
    now_s = time.monotonic()
    status = "not ready" if not_ready else "degraded" if alerts.active or services.load_shedder.taken else "ok"
    return {
        "status": status,
        "ready": not not_ready,
        "not_ready_because": not_ready,
        "version": __version__,
        "uptime_s": round(now_s - started_at, 1),
        "alerts": [
            {
                "alert": alert.rule.name,
                "value": round(alert.value, 2),
                "threshold": alert.threshold,
                "unit": alert.rule.unit,
                "for_s": round(now_s - alert.since_s, 1),
                "text": alert.text("en"),
                "text_zh": alert.text("zh"),
            }
            for alert in alerts.active
        ],
        "stages": {
            "vad": {"engines": services.about["vad"].lines, "late": services.batcher.stats.late},
            "asr": _recognition(services),
            "llm": {"engines": services.about["llm"].lines, "endpoints": _endpoints(services)},
            "tts": {
                "engines": services.about["tts"].lines,
                "waiting": services.voice.slots.waiting,
                "voices": _voices(services),
            },
            "codec": _pool(services.codec),
        },
        "caches": _caches(services),
        "load": {
            "given_up": sorted(step.value for step in services.load_shedder.taken),
            "loop_lag_ms": round(services.load_shedder.readings.loop_lag_ms, 1),
            "memory_percent": round(services.load_shedder.readings.memory_percent, 1),
            "cpu_percent": None if alerts.readings.cpu_percent is None else round(alerts.readings.cpu_percent, 1),
            "disk_percent": None if alerts.readings.disk_percent is None else round(alerts.readings.disk_percent, 1),
            "turns_waiting": services.admission.waiting,
        },
        "store": {
            "dropped": services.store.database.dropped,
            "failed": services.store.database.failed,
            "trouble": services.store.database.trouble,
        },
        "former_engines": services.retirement.retiring,
    }


def _pool(pool: WorkerPool) -> dict[str, Any]:
    return {
        "queue_ms": round(pool.oldest_wait_s() * 1000.0, 1),
        "waiting": pool.waiting,
        "workers": pool.workers,
        "busy": pool.workers - pool.idle_workers,
    }


def _recognition(services: Services) -> dict[str, Any]:
    shown: dict[str, Any] = {"engines": services.about["asr"].lines, **_pool(services.recognition.pool)}
    if (remote := remote_recognition(services)) is not None:
        shown["remote"] = {
            "breaker": remote.breaker.state(time.monotonic()).value,
            "in_flight": remote.in_flight,
            "requests": remote.requests,
            "failures": remote.failures,
            "fallbacks": remote.fallbacks,
        }
    return shown


def _endpoints(services: Services) -> list[dict[str, Any]]:
    return [
        {
            "name": state.name,
            "tier": state.tier,
            "breaker": state.breaker.value,
            "rests_s": round(state.rests_s, 1),
            "healthy": state.healthy,
            "in_flight": state.in_flight,
            "max_concurrent": state.max_concurrent,
            "first_byte_p90_s": None if state.first_byte_p90_s is None else round(state.first_byte_p90_s, 3),
            "requests": state.requests,
            "succeeded": state.succeeded,
            "failures": state.failures,
            "last_error": state.last_error,
        }
        for state in services.chat.states()
    ]


def _voices(services: Services) -> list[dict[str, Any]]:
    return [
        {
            "name": state.name,
            "breaker": state.breaker.value,
            "spoken": state.spoken,
            "failed": state.failed,
            "last_error": state.last_error,
        }
        for state in voice_states(services)
    ]


def _caches(services: Services) -> Mapping[str, Any]:
    shown: dict[str, Any] = {}
    answers, kept = services.caches.answers, services.caches.speech.cache
    if answers is not None:
        shown["answers"] = {"hit_rate": round(answers.hit_rate, 3), "entries": len(answers), "bytes": answers.bytes}
    if kept is not None:
        shown["speech"] = {
            "hit_rate": round(kept.hit_rate, 3),
            "tiers": {
                tier.name: {"entries": len(tier), "bytes": tier.bytes, "hits": tier.hits, "misses": tier.misses}
                for tier in kept.tiers.tiers
                if isinstance(tier, MemoryTier | DiskTier)
            },
        }
    if (memory := services.recognition.cache) is not None:
        asked = memory.hits + memory.misses
        shown["recognition"] = {
            "hit_rate": round(memory.hits / asked, 3) if asked else 0.0,
            "entries": len(memory),
        }
    return shown
