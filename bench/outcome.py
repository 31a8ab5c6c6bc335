"""What came of a run with many devices: shares, percentiles, and the tables on the terminal."""

from collections import Counter
from dataclasses import asdict, dataclass, field

from bench.freezing import Thawed
from bench.load import Tally
from bench.sampling import Sample, Series
from bench.stats import spread, table
from bench.user import SPANS, Load, Turn
from xiaozhi.turn.trace import STARVED_MS

_KEYS = ("n", "p50", "p95", "p99", "max")


@dataclass(slots=True)
class Outcome:
    """A run.

    Attributes:
        load: what was asked.
        turns: every turn, in the order in which they ended; calls that were refused are among them.
        samples: the server, once a second while devices talked; empty where it could not be watched.
        tallies: one of each process of devices.
        died: processes of devices that ended without a word.
        server_ended: the server was gone before the devices were done.
        frozen: how often a device froze in mid-reply; `thawed`: what became of those that were woken.
    """

    load: Load
    turns: list[Turn] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    died: int = 0
    server_ended: bool = False
    frozen: int = 0
    thawed: list[Thawed] = field(default_factory=list)

    @property
    def fair(self) -> list[Turn]:
        """Turns that nobody spoiled on purpose."""
        return [turn for turn in self.turns if turn.meant and not turn.is_call]

    @property
    def answered(self) -> list[Turn]:
        """Those of them whose reply was heard."""
        return [turn for turn in self.fair if turn.answered]

    @property
    def success(self) -> float:
        """Share of fair turns answered."""
        return len(self.answered) / max(1, len(self.fair))

    def errors(self) -> Counter[str]:
        """What went wrong, by kind: turns, calls, and answers that only apologised for a broken upstream."""
        found = Counter(turn.outcome for turn in self.turns if turn.is_call or (turn.meant and not turn.answered))
        found.update(f"answered, but: {turn.error}" for turn in self.answered if turn.error)
        return found

    @property
    def error_share(self) -> float:
        """Errors for each fair turn, 1 at most."""
        return min(1.0, self.errors().total() / max(1, len(self.fair)))

    @property
    def starved(self) -> float:
        """Share of answered turns with over 60 ms of silence in the midst of the reply."""
        return sum(turn.starved_ms > STARVED_MS for turn in self.answered) / max(1, len(self.answered))

    @property
    def worst_gap_ms(self) -> float:
        """The longest silence in the midst of any reply."""
        return max((turn.worst_gap_ms for turn in self.answered), default=0.0)

    @property
    def late(self) -> tuple[int, int]:
        """Packets that came after the loudspeaker had run dry, and packets in all."""
        return sum(turn.late_frames for turn in self.answered), sum(turn.frames for turn in self.answered)

    @property
    def due(self) -> int:
        """Turns that should have begun."""
        return sum(tally.due for tally in self.tallies)

    @property
    def begun(self) -> float:
        """Share of the turns due that were begun, or would have been had the server let the device in."""
        return min(1.0, sum(not turn.is_call for turn in self.turns) / self.due) if self.due else 0.0

    @property
    def turns_a_minute(self) -> float:
        """Of all devices together."""
        return len(self.fair) * 60.0 / self.load.duration_s

    @property
    def device_lag_ms(self) -> float:
        """The worst lag of the devices' own loops."""
        return max((tally.lag_ms for tally in self.tallies), default=0.0)

    def first_audio(self) -> dict[str, float]:
        """The first packet at the device, in milliseconds after the last voiced sample."""
        return spread(turn.first_packet_ms for turn in self.answered)

    def spans(self) -> dict[str, dict[str, float]]:
        """Every time of the turn in milliseconds after the last voiced sample."""
        rows = {
            "first packet at the device": self.first_audio(),
            "first sound from the loudspeaker": spread(turn.first_heard_ms for turn in self.answered),
        }
        return rows | {name: spread(turn.spans.get(name) for turn in self.answered) for name in SPANS}

    def busy_samples(self) -> list[Sample]:
        """Samples of the time when all devices were there: the last came, the first did not leave yet."""
        if not self.samples:
            return []
        from_s, until_s = (self.samples[0].at_s + part_s for part_s in (self.load.ramp_s, self.load.duration_s))
        return [sample for sample in self.samples if from_s <= sample.at_s <= until_s] or self.samples

    def budget_ms(self) -> dict[str, float]:
        """What a turn costs while all devices are there, in milliseconds of one core: each part of the server."""
        samples = self.busy_samples()
        names = dict.fromkeys(name for sample in samples for name in sample.parts)
        a_turn_s = 60.0 / self.turns_a_minute if self.fair else 0.0
        shares = {name: sum(sample.parts.get(name, 0.0) for sample in samples) / len(samples) for name in names}
        return {name: share * a_turn_s * 1000.0 for name, share in shares.items()}

    def as_dict(self) -> dict[str, object]:
        """The figures, for JSON."""
        return {
            "budget_ms": self.budget_ms(),
            "devices": self.load.devices,
            "turns": len(self.fair),
            "turns_a_minute": self.turns_a_minute,
            "success": self.success,
            "errors": dict(self.errors()),
            "spans": self.spans(),
            "starved": self.starved,
            "worst_gap_ms": self.worst_gap_ms,
            "late_frames": self.late[0],
            "frames": self.late[1],
            "device_lag_ms": self.device_lag_ms,
            "frozen": self.frozen,
            "thawed": [asdict(thawed) for thawed in self.thawed],
            "server": [asdict(sample) for sample in self.samples],
        }


def show(outcome: Outcome) -> str:
    """The tables on the terminal."""
    spans = table(
        ("ms after the last voiced sample", *_KEYS),
        ((name, *(row[key] for key in _KEYS)) for name, row in outcome.spans().items()),
    )
    late, frames = outcome.late
    spoilt = Counter(turn.outcome for turn in outcome.turns if not turn.meant)
    voices = Counter(turn.voice for turn in outcome.answered if turn.voice)
    lines = [
        spans,
        "",
        f"turns {len(outcome.fair)} ({outcome.turns_a_minute:.0f} a minute; {outcome.due} were due), "
        f"answered {outcome.success:.2%}",
        f"errors {_counts(outcome.errors())}",
        f"starved over {STARVED_MS:.0f} ms {outcome.starved:.2%} of turns, worst gap {outcome.worst_gap_ms:.0f} ms; "
        f"late frames {late} of {frames} ({late / max(1, frames):.2%})",
        f"voices {_counts(voices)}",
        f"the devices' own loops lagged {outcome.device_lag_ms:.0f} ms at most"
        + ("; figures below this are the bench's own" if outcome.device_lag_ms > STARVED_MS else ""),
    ]
    pranks: Counter[str] = sum((Counter(tally.pranks) for tally in outcome.tallies), Counter())
    if pranks or spoilt:
        lines.append(f"pranks {_counts(pranks)}; turns not counted {_counts(spoilt)}")
    if outcome.frozen:
        given_up = sum(thawed.given_up for thawed in outcome.thawed)
        later = Counter(thawed.next_turn for thawed in outcome.thawed)
        lines.append(
            f"froze in mid-reply {outcome.frozen}, woken {len(outcome.thawed)}, of these given up by the server "
            f"meanwhile {given_up}; their next turns {_counts(later)}"
        )
    if outcome.died:
        lines.append(f"{outcome.died} processes of devices died: what they saw is missing")
    if outcome.samples:
        lines += ["", server_table(outcome.samples), "", budget_table(outcome.budget_ms())]
    return "\n".join(lines)


def budget_table(budget_ms: dict[str, float]) -> str:
    """What a turn costs, the dearest part first."""
    rows = sorted(budget_ms.items(), key=lambda row: -row[1])
    header = ("threads of the server", "core-ms a turn")
    return table(header, [*rows, ("together", sum(budget_ms.values()))])


def server_table(samples: list[Sample], most: int = 8) -> str:
    """The server over time, in at most `most` rows."""
    header = ("from s", "server CPU, % of one core", "machine CPU %", "server MB", "threads", "fds")
    rows = []
    for point in Series.of(samples, most).points:
        shares = (100.0 * point.cpu_share, 100.0 * point.box_share)
        files = "–" if point.fds is None else point.fds
        rows.append((f"{point.from_s:.0f}", *shares, point.rss_mb, point.threads, files))
    return table(header, rows)


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counted.most_common()) or "none"
