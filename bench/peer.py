"""Another server of this protocol beside ours: the same devices, the same sentences, one after the other.

`python -m bench.compare --peer ws://127.0.0.1:8000/xiaozhi/v1/ --peer-pid PID`. What its language model and voice cost
in time is its own affair, unless it asks the stand-ins: they listen on fixed ports (`--ports`), speak OpenAI's wire
format (`http://127.0.0.1:9101/v1`, model `bench`; speech `http://127.0.0.1:9102/v1`, model `tts-1`, `pcm`), and are
there as long as this bench runs. Ours runs with its caches off. They take turns at each number of devices, so that
neither takes the other's processor time, and a machine that drifts drifts for both.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.devices import Scene, Stage, conditions, let_talk, of_size, staged, sweep_table
from bench.harness import allow_files
from bench.outcome import Outcome
from bench.plot import line_chart
from bench.sampling import Watcher
from bench.user import Load, Target

OURS: Final = "ours"
PEER: Final = "the peer"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that runs already.

    Attributes:
        url: its WebSocket, or its OTA address, which tells each device where to go.
        pid: its process where it is on this machine, to watch it.
        ports: where it looks for chat and speech.
    """

    url: str
    pid: int | None = None
    ports: tuple[int, int] = (0, 0)

    def stage(self) -> Stage:
        """Where its devices go."""
        target = Target(self.url) if self.url.startswith("ws") else Target(ota_url=self.url)
        return Stage(target, Watcher(self.pid) if self.pid else None)


async def side_by_side(peer: Peer, load: Load, counts: Sequence[int], scene: Scene) -> dict[str, list[Outcome]]:
    """Every number of devices with ours and with the peer."""
    found: dict[str, list[Outcome]] = {OURS: [], PEER: []}
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(staged(scene))
        for count in counts:
            for name, stage in ((OURS, ours), (PEER, peer.stage())):
                found[name].append(await let_talk(stage, of_size(load, count), scene))
    return found


def tables(found: Mapping[str, Sequence[Outcome]]) -> str:
    """A table for each server; what went wrong below it."""
    lines: list[str] = []
    for name, outcomes in found.items():
        lines += [f"## {name}", "", sweep_table(outcomes), ""]
        for outcome in outcomes:
            if errors := outcome.errors():
                lines += [f"{outcome.load.devices} devices: {dict(errors.most_common(4))}", ""]
    return "\n".join(lines)


def draw(found: Mapping[str, Sequence[Outcome]], counts: Sequence[int], plot: Path) -> None:
    """First audio against devices, two lines for each server."""
    plot.parent.mkdir(parents=True, exist_ok=True)
    line_chart(
        plot,
        "First audio at the device, ours and the peer",
        "devices at once",
        "ms after the last voiced sample",
        [float(count) for count in counts],
        {
            f"{name} {share}": [outcome.first_audio()[share] for outcome in outcomes]
            for name, outcomes in found.items()
            for share in ("p50", "p95")
        },
    )


def main(
    peer: Peer,
    counts: Sequence[int],
    duration_s: float,
    recordings: tuple[Path, ...],
    plot: Path,
    *,
    tiny: bool = False,
) -> int:
    """Measure, print, draw; exit code 1 when one of them answered nothing at all."""
    allow_files(65_536)
    scene = Scene(recordings, tiny=tiny, ports=peer.ports)
    print(conditions(scene))
    found = asyncio.run(side_by_side(peer, Load(max(counts), duration_s), counts, scene))
    print(tables(found))
    draw(found, counts, plot)
    return 0 if all(any(outcome.answered for outcome in outcomes) for outcomes in found.values()) else 1
