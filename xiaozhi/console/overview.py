"""How the server does right now, as the overview page shows it; read from the shared engines, costs nothing between."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xiaozhi.console.series import Series
from xiaozhi.conversation.services import Services
from xiaozhi.overload.usage import CpuMeter, used_bytes
from xiaozhi.stages.llm.chat import Chat

_MB: Final = 1024 * 1024

Alerts = Callable[[], Sequence[Mapping[str, Any]]]
"""Alerts that hold now, each with `name`, `since`, `text_zh`, `text_en`, `value`, `limit`."""


def gauges(services: Services, devices_online: int, cpu: CpuMeter) -> dict[str, Any]:
    """What can be read at any moment; goes into the overview and, a part of it, into the plots."""
    readings = services.load_shedder.readings
    return {
        "devices_online": devices_online,
        "asr_queue_ms": round(services.recognition.pool.oldest_wait_s() * 1000.0, 1),
        "loop_lag_ms": round(services.load_shedder.lag.lag_ms(), 1),
        "cpu_percent": round(cpu.percent() or 0.0, 1),
        "memory_mb": round(used_bytes() / _MB, 1),
        "memory_percent": round(readings.memory_percent, 1),
    }


def overview(
    services: Services, series: Series, devices_online: int, cpu: CpuMeter, alerts: Alerts, now_s: float
) -> dict[str, Any]:
    """Everything of the overview page but the plots; `now_s` is monotonic."""
    return {
        "at": round(time.time(), 3),
        **gauges(services, devices_online, cpu),
        **series.summary(now_s),
        "caches": caches(services),
        "degraded": sorted(step.value for step in services.load_shedder.taken),
        "endpoints": endpoints(services.chat),
        "voices": voices(services, series, now_s),
        "alerts": [dict(alert) for alert in alerts()],
        "engines": list(services.banner),
    }


def hearing(services: Services) -> dict[str, Any]:
    """What the recogniser in use understands, and how often somebody spoke another language."""
    engine, unknown = services.recognition.engine, services.unknown_language
    return {
        "engine": engine.name,
        "languages": sorted(engine.languages),
        "unknown": unknown.utterances,
        "unknown_at": round(unknown.last_at, 1),
    }


def caches(services: Services) -> dict[str, Any]:
    """Hits and misses; a cache that is switched off is null."""
    answers, kept = services.caches.answers, services.caches.speech.cache
    shown: dict[str, Any] = {"answers": None, "speech": None}
    if answers is not None:
        shown["answers"] = {
            "hits": answers.hits + answers.similar_hits + answers.common_hits,
            "misses": answers.misses,
            "entries": len(answers),
        }
    if kept is not None:
        shown["speech"] = {"hits": kept.hits + kept.joined, "misses": kept.misses}
    return shown


def endpoints(chat: Chat) -> list[dict[str, Any]]:
    """Every endpoint of the language model; the built-in responder has none."""
    return [
        {
            "name": state.name,
            "tier": state.tier,
            "state": state.breaker.value.replace("-", "_"),
            "in_flight": state.in_flight,
            "max_concurrent": state.max_concurrent,
            "first_token_ms": _ms(state.first_byte_s),
            "p90_ms": _ms(state.first_byte_p90_s),
            "requests": state.requests,
            "failures": sum(state.failures.values()),
            "failures_by_kind": state.failures,
            "healthy": state.healthy,
            "rests_s": round(state.rests_s, 1),
            "last_error": state.last_error,
        }
        for state in chat.states()
    ]


def voices(services: Services, series: Series, now_s: float) -> list[dict[str, Any]]:
    """Every voice engine, best first."""
    first = services.voice.first_in_line()
    states = []
    for state, breaker in zip(services.voice.states, services.voice.breakers, strict=True):
        states.append(
            {
                "name": state.name,
                "state": breaker.state(now_s).value.replace("-", "_"),
                "first": state.name == first,
                "first_sound_ms": series.first_sound_ms(state.name, now_s),
                "spoken": state.spoken,
                "failures": state.failed,
                "last_error": state.last_error,
            }
        )
    return states


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000.0, 1)
