"""What came of the drill of `bench.cluster`: what devices saw, what nodes logged, and what of it is a miss. Pure."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from bench.stats import table
from xiaozhi.client.report import TurnOutcome

_BACK_WITHIN_S: Final = 15.0
FRONT: Final = "front"
"""Instead of a node, where the load balancer chose it and only the node's log can tell."""
_NOTHING: Final = frozenset({"idle", "waiting"})
_SAID: Final = re.compile(r"(\w+)=(\S+)")
# A device learns at once that it was hung up; what was begun longer before has reached the node.
_ON_THE_WIRE_S: Final = 1.0


@dataclass(slots=True)
class Asked:
    """One turn as its device saw it.

    Attributes:
        phase: what was going on when it began.
        node: where the device was connected, or `FRONT`.
        device: its id.
        outcome: `answered`, or what became of it.
        spoken: through the microphone; otherwise typed.
        mixed: the answer is not for this device.
        begun: the server had begun to answer when it broke off.
        offline: the user was told that the uplink is cut.
        took_s: from its beginning to its end or loss.
    """

    phase: str
    node: str
    device: str
    outcome: str
    spoken: bool = False
    mixed: bool = False
    begun: bool = False
    offline: bool = False
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LetGo:
    """How a node that drained hung up one device, as its log says.

    Attributes:
        node: that drained.
        device: its id.
        at_signal, at_close: what its conversation was doing when the signal came, and when it was hung up.
        after_s: the time between them.
    """

    node: str
    device: str
    at_signal: str
    at_close: str
    after_s: float


@dataclass(slots=True)
class Record:
    """What happened."""

    phase: str = "calm"
    phases: list[str] = field(default_factory=list)
    """In their order."""
    turns: list[Asked] = field(default_factory=list)
    away_s: dict[str, list[float]] = field(default_factory=dict)
    moved: Counter[str] = field(default_factory=Counter)
    mixed_conversations: int = 0
    logged: list[str] = field(default_factory=list)
    """What the nodes logged about devices that got no answer."""
    drains: dict[str, list[LetGo]] = field(default_factory=dict)
    """The devices of the node that drained, by phase."""
    lag_ms: float = 0.0
    """How late the devices themselves were at most: above a second nothing can be concluded about the nodes."""
    others: float = 0.0
    """What others took of the machine, 0 to 1."""
    bad_ends: list[str] = field(default_factory=list)
    """Nodes that were told to stop and ended in another way."""


def let_go(node: str, log: str) -> list[LetGo]:
    """What a node's log says of the devices that it hung up when it was told to stop."""
    found = []
    for line in log.splitlines():
        if " let go  " in line:
            said = dict(_SAID.findall(line))
            found.append(LetGo(node, said["device"], said["at_signal"], said["at_close"], float(said["after_s"])))
    return found


def show(record: Record) -> str:
    """One row for each phase, as a Markdown table."""
    rows = []
    for phase in dict.fromkeys(turn.phase for turn in record.turns):
        turns = [turn for turn in record.turns if turn.phase == phase]
        away = record.away_s.get(phase, [])
        rows.append((
            phase, len(turns), sum(turn.outcome == "answered" for turn in turns),
            sum(lost(turn, record) for turn in turns), sum(said_again(turn, record) for turn in turns),
            sum(turn.mixed for turn in turns), sum(turn.offline for turn in turns),
            len(away), f"{max(away, default=0.0):.1f}",
        ))  # fmt: skip
    header = (
        "phase",
        "turns",
        "answered",
        "lost",
        "on the wire",
        "mixed",
        "told offline",
        "came back",
        "longest away s",
    )
    lines = [table(header, rows), ""]
    for phase, devices in record.drains.items():
        doing = Counter(f"{one.at_signal} > {one.at_close}" for one in devices)
        last_s = max((one.after_s for one in devices), default=0.0)
        shown = ", ".join(f"{count} {states}" for states, count in doing.most_common())
        lines.append(
            f"{phase}: {len(devices)} devices hung up within {last_s:.1f} s; at the signal > at the end: {shown}"
        )
    for turn in record.turns:
        if turn.outcome != "answered" and not killed(turn):
            kind, begun = "spoken" if turn.spoken else "typed", "begun" if turn.begun else "not begun"
            what = "on the wire" if said_again(turn, record) else "LOST"
            lines.append(
                f"{what}: {kind} by {turn.device} at node {turn.node}, {turn.phase}: {turn.outcome}, {begun}, "
                f"{turn.took_s:.2f} s after it began"
            )
    return "\n".join(lines)


def lost(turn: Asked, record: Record) -> bool:
    """A turn that was not answered and cannot be put down to a device that talked while it was hung up."""
    return turn.outcome != "answered" and not said_again(turn, record)


def killed(turn: Asked) -> bool:
    """Of the node that was killed, while it was there before."""
    return turn.node == "a" and turn.phase in ("calm", "kill -9 a")


def said_again(turn: Asked, record: Record) -> bool:
    """Whether it was on the wire while a draining node hung the device up: the user says it again.

    The device lost its connection within a second, nothing had been begun, and the node's log says that the device was
    doing nothing when it was hung up. Speech that the node had found, or a text that it had taken, shows as another
    state there, and is a loss.
    """
    if turn.outcome != TurnOutcome.LOST.value or turn.begun or turn.took_s > _ON_THE_WIRE_S:
        return False
    before = dict(zip(record.phases[1:], record.phases, strict=False))
    return any(
        turn.device == one.device and turn.node in (one.node, FRONT) and one.at_close in _NOTHING
        for phase, devices in record.drains.items()
        if turn.phase in (phase, before.get(phase))
        for one in devices
    )


def verdict(record: Record) -> list[str]:
    """What was missed, one line each; empty when nothing was."""
    missed = []
    elsewhere = Counter(
        f"{turn.phase}, node {turn.node}: {turn.outcome}"
        for turn in record.turns
        if lost(turn, record) and not killed(turn)
    )
    missed += record.bad_ends
    for phase, devices in record.drains.items():
        if cut := sum(one.at_close not in _NOTHING for one in devices):
            missed.append(f"{cut} devices were hung up in the midst of a turn ({phase})")
    missed += [f"{count} turns lost where nothing was killed ({where})" for where, count in elsewhere.items()]
    for phase, away in record.away_s.items():
        if max(away) > _BACK_WITHIN_S:
            missed.append(f"a device was away for {max(away):.1f} s ({phase})")
    if mixed := sum(turn.mixed for turn in record.turns):
        missed.append(f"{mixed} answers were another device's")
    if record.mixed_conversations:
        missed.append(f"{record.mixed_conversations} conversations held the words of several devices")
    if not any(turn.offline for turn in record.turns if turn.phase == "uplink of edge cut"):
        missed.append("nobody was told that the uplink is cut")
    return missed
