"""What is given up under load, and when it comes back. Pure: readings and a time in, steps out.

Every step has thresholds of its own. It is taken as soon as one reading reaches its threshold, and taken back when all
readings have stayed below `_RELEASE` of theirs for a while, so that it does not flutter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

from xiaozhi.settings import LoadSettings, LoadStep


class Step(Enum):
    """What can be given up, the least missed first."""

    EXTRAS = "extras"  # partial texts, hearing through a device's own sound
    SECOND_PASS = "second_pass"  # confirming what a streaming recogniser has heard
    SPECULATION = "speculation"  # replies prepared before the turn is over
    QUALITY = "quality"  # effort and bitrate of Opus
    HEDGING = "hedging"  # second requests to upstreams
    TURNS = "turns"  # answering at once: new turns wait their turn, and are told so; decodes before anybody asked
    DEVICES = "devices"  # new devices


@dataclass(frozen=True, slots=True)
class Readings:
    """How loaded the process is; names are those of the thresholds in the settings.

    Attributes:
        asr_wait_ms: age of the oldest utterance that waits for a recogniser.
        codec_wait_ms: age of the oldest audio that waits to be encoded.
        loop_lag_ms: the second longest delay of the event loop in the last two seconds.
        memory_percent: resident memory of the process in percent of what it may use; 0 where that is unknown.
        codec_percent: share of the cores that encoding all replies of now takes at full effort, by what a frame was
            measured to cost; known before anything waits.
    """

    asr_wait_ms: float = 0.0
    codec_wait_ms: float = 0.0
    loop_lag_ms: float = 0.0
    memory_percent: float = 0.0
    codec_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """A step was taken or taken back at a reading; `reason` is for the log."""

    step: Step
    taken: bool
    reason: str


# A step is taken back below this share of its threshold.
_RELEASE: Final = 0.7


class Steps:
    """Which steps are taken now.

    Args:
        settings: the `[load]` table.
    """

    def __init__(self, settings: LoadSettings) -> None:
        self._thresholds: Mapping[Step, LoadStep] = {step: getattr(settings, step.value) for step in Step}
        self._recover_s = settings.recover_s
        self._pressed_at_s: dict[Step, float] = {}

    def retune(self, settings: LoadSettings) -> None:
        """Other thresholds from now on; what is taken stays taken until they say otherwise."""
        self._thresholds = {step: getattr(settings, step.value) for step in Step}
        self._recover_s = settings.recover_s

    @property
    def taken(self) -> frozenset[Step]:
        """The steps that are taken."""
        return frozenset(self._pressed_at_s)

    def release(self) -> frozenset[Step]:
        """Take every step back at once; returns those that were taken."""
        taken = self.taken
        self._pressed_at_s.clear()
        return taken

    def update(self, now_s: float, readings: Readings) -> list[Change]:
        """Take readings at a monotonic time and return what changes, the least missed first."""
        changes: list[Change] = []
        for step, thresholds in self._thresholds.items():
            taken = step in self._pressed_at_s
            reason = _pressing(readings, thresholds, _RELEASE if taken else 1.0)
            if reason:
                self._pressed_at_s[step] = now_s
                if not taken:
                    changes.append(Change(step, True, reason))
            elif taken and now_s - self._pressed_at_s[step] >= self._recover_s:
                del self._pressed_at_s[step]
                changes.append(Change(step, False, f"calm for {self._recover_s:g} s"))
        return changes


def _pressing(readings: Readings, thresholds: LoadStep, share: float) -> str:
    """Which reading has reached its share of its threshold; empty when none has. A threshold of 0 is never reached."""
    for name in _NAMES:
        limit, value = getattr(thresholds, name), getattr(readings, name)
        if limit and value >= limit * share:
            return f"{name} {value:.0f} of {limit:g}"
    return ""


_NAMES: Final = tuple(field.name for field in fields(Readings))
