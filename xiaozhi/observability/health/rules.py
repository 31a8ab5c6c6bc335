"""When an alert is raised and when it is over. Pure: readings and a time in, changes out.

An alert is raised when its reading has been bad for a while, and is over when it has been clearly well for a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from xiaozhi.observability.health.readings import Readings
from xiaozhi.settings.operation import AlertsSettings

AlertName: TypeAlias = Literal[
    "memory", "cpu", "asr_queue", "disk", "errors", "cache_hits", "chat_gone", "voices_gone", "recognition_gone"
]
"""What can be wrong."""

# Well is below this share of the threshold, or as much above it where little is bad.
_RELEASE: Final = 0.9


class State(Enum):
    """Of one rule."""

    CALM = "calm"
    PRESSED = "pressed"  # bad, not yet for long
    RAISED = "raised"
    EASING = "easing"  # raised, well again, not yet for long


@dataclass(frozen=True, slots=True)
class Rule:
    """What is compared with what.

    Attributes:
        name: of the alert.
        reading: name of the field of `Readings`.
        threshold: name of the setting; empty where the reading itself says yes or no.
        unit: of both, for people.
        below: little is bad, not much.
    """

    name: AlertName
    reading: str
    threshold: str
    unit: str = ""
    below: bool = False


RULES: Final[Sequence[Rule]] = (
    Rule("memory", "memory_percent", "memory_percent", "%"),
    Rule("cpu", "cpu_percent", "cpu_percent", "%"),
    Rule("asr_queue", "asr_wait_ms", "asr_wait_ms", "ms"),
    Rule("disk", "disk_percent", "disk_percent", "%"),
    Rule("errors", "error_percent", "error_percent", "%"),
    Rule("cache_hits", "cache_hit_percent", "cache_hit_percent", "%", below=True),
    Rule("chat_gone", "chat_gone", ""),
    Rule("voices_gone", "voices_gone", ""),
    Rule("recognition_gone", "recognition_gone", ""),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something is wrong.

    Attributes:
        name: what.
        value, threshold: the newest reading and what it is compared with; 1 and 0 for yes-or-no ones.
        unit: of both.
        since_s: when it was raised, on the clock of whoever asks the rules.
    """

    name: AlertName
    value: float
    threshold: float
    unit: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """An alert was raised, or is over."""

    alert: Alert
    raised: bool


@dataclass(slots=True)
class _Standing:
    state: State = State.CALM
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
        self._standing: dict[AlertName, _Standing] = {rule.name: _Standing() for rule in RULES}

    @property
    def active(self) -> tuple[Alert, ...]:
        """What is wrong now, in the order of the rules."""
        return tuple(
            self._alert(rule) for rule in RULES if self._standing[rule.name].state in (State.RAISED, State.EASING)
        )

    def update(self, now_s: float, readings: Readings) -> list[Change]:
        """Take readings at a monotonic time and return what changes."""
        changes = []
        for rule in RULES:
            standing = self._standing[rule.name]
            bad, well, value = self._judge(rule, getattr(readings, rule.reading))
            if value is not None:
                standing.value = value
            state = _next(standing, bad, well, now_s, self.settings.after_s, self.settings.clear_s)
            if state is standing.state:
                continue
            was_active = standing.state in (State.RAISED, State.EASING)
            is_active = state in (State.RAISED, State.EASING)
            standing.state, standing.since_s = state, now_s
            if is_active and not was_active:
                standing.raised_s = now_s
            if is_active != was_active:
                changes.append(Change(self._alert(rule), is_active))
        return changes

    def _judge(self, rule: Rule, reading: float | bool | None) -> tuple[bool, bool, float | None]:
        """Whether a reading is bad, whether it is clearly well, and its value."""
        if reading is None or not self.settings.enabled:
            return False, True, None
        if not rule.threshold:
            bad = bool(reading) and self.settings.upstreams
            return bad, not bad, float(reading)
        threshold: float = getattr(self.settings, rule.threshold)
        if not threshold:
            return False, True, reading
        if rule.below:
            return reading < threshold, reading >= threshold / _RELEASE, reading
        return reading >= threshold, reading < threshold * _RELEASE, reading

    def _alert(self, rule: Rule) -> Alert:
        standing = self._standing[rule.name]
        threshold = getattr(self.settings, rule.threshold) if rule.threshold else 0.0
        return Alert(rule.name, standing.value, threshold, rule.unit, standing.raised_s)


def _next(standing: _Standing, bad: bool, well: bool, now_s: float, after_s: float, clear_s: float) -> State:
    """The state after a reading; a state that has been held for long enough is left in the same step."""
    state, held_s = standing.state, now_s - standing.since_s
    match state:
        case State.CALM:
            if bad:
                return State.RAISED if after_s <= 0.0 else State.PRESSED
        case State.PRESSED:
            if not bad:
                return State.CALM
            if held_s >= after_s:
                return State.RAISED
        case State.RAISED:
            if well:
                return State.CALM if clear_s <= 0.0 else State.EASING
        case State.EASING:
            if not well:
                return State.RAISED
            if held_s >= clear_s:
                return State.CALM
    return state
