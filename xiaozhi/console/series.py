"""Figures over time: waits of the last quarter of an hour, and plots of the last half hour. Pure: time is passed in."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from xiaozhi.turn.trace import STARVED_MS, TurnTrace
from xiaozhi.upstream.latency import RollingLatency

WINDOW_S: Final = 900.0
MINUTE_S: Final = 60.0
SAMPLE_EVERY_S: Final = 5.0
# Half an hour.
SAMPLES: Final = 360
# 1000 devices with three turns a minute for 15 minutes are 45 000; the newest of them say enough.
_MAX_TURNS: Final = 20_000


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """What of a turn goes into the figures; times in milliseconds, None where they do not count.

    Attributes:
        at_s: when it was finished, monotonic.
        wait_ms: last voiced sample (or typed text) to the first packet.
        own_ms: of it what was not spent waiting for the first token and the first sound of upstreams.
        starved: there was an audible gap.
        failed: it ended with an error.
    """

    at_s: float
    wait_ms: float | None
    own_ms: float | None
    starved: bool
    failed: bool


def figures_of(trace: TurnTrace, now_s: float) -> TurnFigures:
    """The figures of a finished turn."""
    spans = trace.spans_ms()
    wait_ms = spans["first_packet"]
    own_ms = None
    if wait_ms is not None:
        own_ms = wait_ms
        for begin, end in (("text", "first_token"), ("first_clause", "first_speech")):
            since, until = spans[begin], spans[end]
            if since is not None and until is not None and since <= until <= wait_ms:
                own_ms -= until - since
    return TurnFigures(now_s, wait_ms, own_ms, trace.starved_ms > STARVED_MS, bool(trace.error))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` (0 to 1) of the values do not exceed; None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)


class Series:
    """Turns of the last quarter of an hour and samples of the last half hour."""

    def __init__(self) -> None:
        self._turns: deque[TurnFigures] = deque(maxlen=_MAX_TURNS)
        self.samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        """For plots, the oldest first."""
        self.turns_total = 0
        self.failed_total = 0

        self._first_sounds: dict[str, RollingLatency] = {}

    def spoke(self, trace: TurnTrace, now_s: float) -> None:
        """How long the voice of a turn took to its first sound."""
        voice = trace.voice.partition("+")[0]
        if voice and trace.first_clause is not None and trace.first_speech is not None:
            took_s = trace.first_speech - trace.first_clause
            if took_s >= 0.0:
                self._first_sounds.setdefault(voice, RollingLatency()).add(now_s, took_s)

    def first_sound_ms(self, voice: str, now_s: float) -> float | None:
        """How long a voice takes to its first sound, lately; None where it has not spoken lately."""
        latency = self._first_sounds.get(voice)
        mean_s = latency.mean_s(now_s) if latency is not None else None
        return None if mean_s is None else round(mean_s * 1000.0, 1)

    def add(self, turn: TurnFigures) -> None:
        """Take in a turn."""
        self._turns.append(turn)
        self.turns_total += 1
        self.failed_total += turn.failed

    def recent(self, now_s: float, within_s: float) -> list[TurnFigures]:
        """The turns of the last seconds."""
        while self._turns and now_s - self._turns[0].at_s > WINDOW_S:
            self._turns.popleft()
        found = []
        for turn in reversed(self._turns):
            if now_s - turn.at_s > within_s:
                break
            found.append(turn)
        return found

    def summary(self, now_s: float) -> dict[str, Any]:
        """Percentiles and shares of the last quarter of an hour."""
        turns = self.recent(now_s, WINDOW_S)
        waits = [turn.wait_ms for turn in turns if turn.wait_ms is not None]
        own = [turn.own_ms for turn in turns if turn.own_ms is not None]
        return {
            "turns_minute": sum(now_s - turn.at_s <= MINUTE_S for turn in turns),
            "turns_total": self.turns_total,
            "failed_total": self.failed_total,
            "latency_ms": {
                "p50": percentile(waits, 0.5),
                "p95": percentile(waits, 0.95),
                "p99": percentile(waits, 0.99),
                "n": len(waits),
            },
            "own_ms": {"p50": percentile(own, 0.5), "p95": percentile(own, 0.95)},
            "starved_share": round(sum(turn.starved for turn in turns) / len(turns), 4) if turns else 0.0,
        }

    def sample(self, now_s: float, at: float, figures: dict[str, Any]) -> dict[str, Any]:
        """Take a point for the plots at wall time `at`; turns and waits are those of the last minute."""
        turns = self.recent(now_s, MINUTE_S)
        waits = [turn.wait_ms for turn in turns if turn.wait_ms is not None]
        point = {
            "at": round(at, 1),
            "turns": len(turns),
            "p50_ms": percentile(waits, 0.5),
            "p95_ms": percentile(waits, 0.95),
            **figures,
        }
        self.samples.append(point)
        return point
