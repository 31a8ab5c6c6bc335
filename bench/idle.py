"""A thousand devices that are only connected: what they cost in memory. Exit code 1 when it is 120 MB or more.

Every device has said hello and listens to nothing; with `--mqtt` it sleeps, and has been asked for its tools. The
recogniser is a small one: what is measured is the difference.
For another number of devices the limit is in proportion.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import sampling
from bench.connections import connected, quiet_server, settled_mb
from bench.harness import allow_files, free_port
from bench.mqtt_device import MqttDevice
from bench.progress import Progress
from bench.verdict import Line, broken
from xiaozhi.client.errors import ConnectFailed

LIMIT_KB_EACH: Final = 120.0
# Sockets of both sides beside everything else that is open.
_SPARE_FILES: Final = 200


@dataclass(frozen=True, slots=True)
class Idle:
    """Memory of the server in MB: without devices, with them, after they have idled, and when they have gone."""

    devices: int
    base_mb: float
    connected_mb: float
    idled_mb: float
    gone_mb: float
    idle_cpu: float
    """Processor time while they idled, of one core."""
    alive: int
    """Devices still connected at the end."""
    tasks: int | None

    @property
    def above_mb(self) -> float:
        """What the idling devices cost."""
        return self.idled_mb - self.base_mb

    @property
    def kb_each(self) -> float:
        """What each of them costs."""
        return self.above_mb * 1000.0 / self.devices

    def verdict(self) -> list[Line]:
        """Whether it holds."""
        limit_mb = LIMIT_KB_EACH * self.devices / 1000.0
        return [
            Line(
                f"{self.devices} idle devices under {limit_mb:.0f} MB",
                f"{self.above_mb:.1f} MB above the base, {self.kb_each:.1f} KB each",
                self.above_mb < limit_mb,
            ),
            Line("all of them stay connected", f"{self.alive} of {self.devices}", self.alive == self.devices),
        ]


async def measure(devices: int, idle_s: float, *, mqtt: bool) -> Idle:
    """Connect them, let them idle, let them go."""
    progress = Progress()
    sets = [f"server.max_devices={devices + 1}", "server.idle_close_s=86400"]
    if mqtt:
        sets += ["mqtt.enabled=true", f"mqtt.port={free_port()}", f"mqtt.udp_port={free_port()}"]
    async with quiet_server(*sets) as server:
        watcher = sampling.Watcher(server.pid, server.base_url)
        base_mb = await settled_mb(server)
        async with connected(
            server, devices, lambda there: progress.say(f"{there} of {devices} connected"), asleep=mqtt
        ) as there:
            progress.end()
            connected_mb = await settled_mb(server)
            await watcher.look()
            await asyncio.sleep(idle_s)
            sample = await watcher.look()
            alive = sum(device.online if isinstance(device, MqttDevice) else device.connected for device in there)
        gone_mb = await settled_mb(server)
    return Idle(devices, base_mb, connected_mb, sample.rss_mb, gone_mb, sample.cpu_share, alive, sample.tasks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 when the limit was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to idle")
    parser.add_argument("--mqtt", action="store_true", help="devices that sleep, by MQTT")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.devices < 1 or given.idle < 0:
        parser.error("--devices must be above 0 and --idle not negative")
    files = allow_files(65_536)
    if files < given.devices + _SPARE_FILES:
        parser.error(f"{files} files may be open here (ulimit -n): too few for {given.devices} devices")
    try:
        found = asyncio.run(measure(given.devices, given.idle, mqtt=given.mqtt))
    except ConnectFailed as error:
        print(f"a device could not connect: {error}", file=sys.stderr)
        return 1
    print(f"base                  {found.base_mb:8.1f} MB")
    print(f"all connected         {found.connected_mb:8.1f} MB")
    print(
        f"after {given.idle:3.0f} s of idling  {found.idled_mb:8.1f} MB, CPU {100 * found.idle_cpu:.1f} % of one core"
    )
    print(f"all gone              {found.gone_mb:8.1f} MB")
    if found.tasks is not None:
        print(f"tasks while idle      {found.tasks:6d}")
    lines = found.verdict()
    print("\n".join(str(line) for line in lines))
    if given.json:
        given.json.write_text(json.dumps(asdict(found), indent=1))
    return 1 if broken(lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
