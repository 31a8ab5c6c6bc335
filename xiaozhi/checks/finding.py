"""What a check found: one line, good or bad, with what to do."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it is; the value is what is printed."""

    OK = "ok"
    WARN = "warn"
    BAD = "BAD"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check.

    Attributes:
        level: good, working but worth a look, or bad.
        subject: what was looked at.
        text: what was found, and what to do when it is not good.
        required: serving would fail, or no device would be answered, while this is bad.
    """

    level: Level
    subject: str
    text: str
    required: bool = False

    def __str__(self) -> str:
        return f"{self.level:4}  {self.subject:22} {' '.join(self.text.split())}"


def ok(subject: str, text: str) -> Finding:
    """Good."""
    return Finding(Level.OK, subject, text)


def warn(subject: str, text: str) -> Finding:
    """Works, but not well, or not now."""
    return Finding(Level.WARN, subject, text)


def bad(subject: str, text: str, *, required: bool = True) -> Finding:
    """Does not work."""
    return Finding(Level.BAD, subject, text, required)


def serving_fails(findings: list[Finding]) -> bool:
    """Whether anything required is bad."""
    return any(finding.level is Level.BAD and finding.required for finding in findings)
