"""A turn as a waterfall for a terminal: one bar for each step, in milliseconds from the last voiced sample. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xiaozhi.client.report import TurnReport

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_SHORTEST_BAR: Final = 10
# The reply is much longer than the wait for it: its bar ends shortly after the first sound.
_AFTER_FIRST_SOUND: Final = 1.15


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what happened, and from when to when in milliseconds; `detail` is printed behind the times."""

    name: str
    begins_ms: float
    ends_ms: float
    detail: str = ""


# name, the trace's time of its end, and those after which it could begin: it began at the latest of them.
_SERVER: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("soft end (silence)", "soft_end", ()),
    ("text", "text", ("soft_end",)),
    ("first token", "first_token", ("text",)),
    ("first clause", "first_clause", ("first_token",)),
    ("first speech", "first_speech", ("first_clause",)),
    ("commit", "commit", ()),
    ("first packet sent", "first_packet", ("first_speech", "commit")),
)


def steps(report: TurnReport) -> list[Bar]:
    """The turn's steps in the order in which they ended; the server's own only where it sent its times.

    A step with nothing known before it begins at the last voiced sample.
    """
    found: list[Bar] = []
    for name, span, after in _SERVER:
        ends_ms = report.span_ms(span)
        if ends_ms is not None:
            before = (report.span_ms(earlier) for earlier in after)
            found.append(Bar(name, min(ends_ms, max((0.0, *filter(None, before)))), ends_ms))
    sent_ms = report.span_ms("first_packet")
    if report.tts_start_ms is not None:
        found.append(Bar("told to speak", 0.0, report.tts_start_ms, "tts/start"))
    if report.first_packet_ms is not None:
        began_ms = sent_ms if sent_ms is not None and sent_ms <= report.first_packet_ms else report.tts_start_ms
        found.append(Bar("first packet here", began_ms or 0.0, report.first_packet_ms))
    found.sort(key=lambda step: step.ends_ms)
    if report.first_heard_ms is not None and report.play_end_ms is not None:
        detail = f"{report.reply_ms / 1000.0:.1f} s heard"
        found.append(Bar("reply", report.first_heard_ms, report.play_end_ms, detail))
    return found


def waterfall(report: TurnReport, width: int = 79, *, plain: bool = False) -> list[str]:
    """Draw a turn.

    Args:
        report: the turn.
        width: columns of the terminal.
        plain: ASCII only, for pipes and terminals without UTF-8.

    Returns:
        Lines without line ends; empty where nothing has a time.
    """
    bars = steps(report)
    if not bars:
        return []
    max_ms = max(step.ends_ms for step in bars if step.name != "reply")
    if report.first_heard_ms is not None:
        max_ms = max(max_ms, report.first_heard_ms * _AFTER_FIRST_SOUND)
    min_ms = min(0.0, *(step.begins_ms for step in bars))
    labels = [f"{step.ends_ms:.0f} ms" if step.name != "reply" else f"{step.begins_ms:.0f} ms" for step in bars]
    name_width = max(len(step.name) for step in bars)
    label_width = max(len(label) for label in labels)
    detail_width = max(len(step.detail) for step in bars)
    room = max(_SHORTEST_BAR, width - name_width - label_width - detail_width - 6)
    draw: Callable[[float, float, int], str] = _ascii_bar if plain else _block_bar
    scale = room / max(max_ms - min_ms, 1.0)
    lines = []
    for step, label in zip(bars, labels, strict=True):
        bar = draw((step.begins_ms - min_ms) * scale, (step.ends_ms - min_ms) * scale, room)
        lines.append(f"{step.name:<{name_width}}  {bar}  {label:>{label_width}}  {step.detail}".rstrip())
    return lines


def _ascii_bar(begins: float, ends: float, room: int) -> str:
    """A bar in columns; a `>` where it goes on beyond the room."""
    first = min(int(begins), room - 1)
    last = max(first + 1, min(round(ends), room))
    bar = " " * first + "#" * (last - first)
    return (bar[:-1] + ">" if ends > room + 0.5 else bar).ljust(room)


def _block_bar(begins: float, ends: float, room: int) -> str:
    """The same in blocks whose right end is exact to an eighth of a column; the left is to a whole one."""
    first = min(int(begins), room - 1)
    if ends > room + 0.5:
        return " " * first + "█" * (room - first - 1) + "▶"
    eighths = max(1, round((min(ends, room) - first) * 8))
    bar = " " * first + "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return bar.ljust(room)
