"""When an alert is raised and when it is over. Pure: readings and a time in, changes out.

An alert is raised when its reading has been bad for a while, and is over when it has been clearly well for a while.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from xiaozhi.observability.health.rules import WATCHED, Alert, Rule
from xiaozhi.settings.operation import AlertsSettings

# Well is below this share of the threshold, or as much above it where little is bad.
_RELEASE: Final = 0.9
# Outcomes are counted in so many parts of their window.
_PARTS: Final = 30


@dataclass(frozen=True, slots=True)
class HealthReadings:
    """How the process is doing; None where it is not known, or too little is known to judge.

    Attributes:
        memory_percent: resident memory, of what the process may use.
        cpu_percent: processor time since the last readings, of all cores the process may use.
        asr_wait_ms: age of the oldest utterance that waits for a recogniser.
        disk_percent: used space of the disk with the data folder.
        error_percent: turns of the window that failed.
        cache_hit_percent: questions to the caches that were answered.
        chat_gone: every endpoint rests after failures.
        voices_gone: every voice rests after failures.
        recognition_gone: the remote recogniser rests after failures.
    """

    memory_percent: float | None = None
    cpu_percent: float | None = None
    asr_wait_ms: float | None = None
    disk_percent: float | None = None
    error_percent: float | None = None
    cache_hit_percent: float | None = None
    chat_gone: bool | None = None
    voices_gone: bool | None = None
    recognition_gone: bool | None = None


class Outcomes:
    """Counts good and bad turns over a sliding window.

    Args:
        window_s: its length in seconds; it slides in thirtieths.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        """May be changed at any time."""
        self._parts: deque[tuple[float, int, int]] = deque()  # since when, turns, of these failed

    def add(self, now_s: float, *, failed: bool) -> None:
        """A turn has ended."""
        if not self._parts or now_s - self._parts[-1][0] >= self.window_s / _PARTS:
            self._parts.append((now_s, 0, 0))
        since_s, turns, bad = self._parts[-1]
        self._parts[-1] = (since_s, turns + 1, bad + failed)

    def counts(self, now_s: float) -> tuple[int, int]:
        """Turns of the window, and how many of them failed."""
        while self._parts and now_s - self._parts[0][0] > self.window_s:
            self._parts.popleft()
        return sum(part[1] for part in self._parts), sum(part[2] for part in self._parts)

    def percent(self, now_s: float, least: int) -> float | None:
        """Failed turns in percent; None below `least` turns."""
        turns, failed = self.counts(now_s)
        return 100.0 * failed / turns if turns >= least else None


class AlertState(Enum):
    """Of one rule."""

    CALM = "calm"
    PRESSED = "pressed"  # bad, not yet for long
    RAISED = "raised"
    EASING = "easing"  # raised, well again, not yet for long


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert was raised, or is over."""

    alert: Alert
    raised: bool


@dataclass(slots=True)
class _Standing:
    state: AlertState = AlertState.CALM
    since_s: float = 0.0  # in this state
    raised_s: float = 0.0
    value: float = 0.0


class AlertRules:
    """The state of every rule.

    Args:
        settings: thresholds and times; may be exchanged at any time.
    """

    def __init__(self, settings: AlertsSettings) -> None:
        self.settings = settings
        self._standing = {rule.name: _Standing() for rule in WATCHED}

    @property
    def active(self) -> tuple[Alert, ...]:
        """What is wrong now, in the order of the rules."""
        return tuple(
            self._alert(rule)
            for rule in WATCHED
            if self._standing[rule.name].state in (AlertState.RAISED, AlertState.EASING)
        )

    def update(self, now_s: float, readings: HealthReadings) -> list[AlertChange]:
        """Take readings at a monotonic time and return what changes."""
        changes = []
        for rule in WATCHED:
            standing = self._standing[rule.name]
            bad, well, value = self._judge(rule, getattr(readings, rule.reading))
            if value is not None:
                standing.value = value
            state = _next(standing, bad, well, now_s, self.settings.after_s, self.settings.clear_s)
            if state is standing.state:
                continue
            was_active = standing.state in (AlertState.RAISED, AlertState.EASING)
            is_active = state in (AlertState.RAISED, AlertState.EASING)
            standing.state, standing.since_s = state, now_s
            if is_active and not was_active:
                standing.raised_s = now_s
            if is_active != was_active:
                changes.append(AlertChange(self._alert(rule), is_active))
        return changes

    def _judge(self, rule: Rule, reading: float | bool | None) -> tuple[bool, bool, float | None]:
        """Whether a reading is bad, whether it is clearly well, and its value."""
        if reading is None or not self.settings.enabled:
            return False, True, None
        value = float(reading)
        if not rule.wanted(self.settings):
            return False, True, value
        if not rule.unit:
            return bool(reading), not reading, value
        threshold = rule.threshold(self.settings)
        if rule.below:
            return value < threshold, value >= threshold / _RELEASE, value
        return value >= threshold, value < threshold * _RELEASE, value

    def _alert(self, rule: Rule) -> Alert:
        standing = self._standing[rule.name]
        return Alert(rule, standing.value, rule.threshold(self.settings), standing.raised_s)


def _next(standing: _Standing, bad: bool, well: bool, now_s: float, after_s: float, clear_s: float) -> AlertState:
    """The state after a reading; a state that has been held for long enough is left in the same step."""
    state, held_s = standing.state, now_s - standing.since_s
    match state:
        case AlertState.CALM:
            if bad:
                return AlertState.RAISED if after_s <= 0.0 else AlertState.PRESSED
        case AlertState.PRESSED:
            if not bad:
                return AlertState.CALM
            if held_s >= after_s:
                return AlertState.RAISED
        case AlertState.RAISED:
            if well:
                return AlertState.CALM if clear_s <= 0.0 else AlertState.EASING
        case AlertState.EASING:
            if not well:
                return AlertState.RAISED
            if held_s >= clear_s:
                return AlertState.CALM
    return state
