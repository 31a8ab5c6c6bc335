"""This process as a node of a cluster: tells the others how it does, and where a device belongs."""

import asyncio
import hashlib
import logging
import re
import socket
from collections.abc import Callable
from typing import Final, NamedTuple

from xiaozhi import __version__
from xiaozhi.cluster.placement import NodeView
from xiaozhi.cluster.registry import NodeRegistry
from xiaozhi.cluster.shared import Shared
from xiaozhi.overload.steps import Readings
from xiaozhi.settings import LoadStep, Settings

_log = logging.getLogger(__name__)

# A heartbeat under which a draining node is known to all before its last device is gone.
_MAX_BEATS: Final = 2**53


class LiveFigures(NamedTuple):
    """What a node tells of itself at each heartbeat; see `NodeView`."""

    devices: int
    pressure: float
    dead: tuple[str, ...]


class ClusterNode:
    """Made when the port is known.

    Args:
        settings: all of them.
        shared: what is shared.
        address: base URL that devices reach this node at, where `cluster.address` does not say.
        live: this node's figures of the moment.
        suspect: called with the id of an endpoint that another node has found dead, see `endpoint_ids`.
    """

    def __init__(
        self,
        settings: Settings,
        shared: Shared,
        address: str,
        live: Callable[[], LiveFigures],
        suspect: Callable[[str], object],
    ) -> None:
        cluster = settings.cluster
        self.address = cluster.address or settings.server.public_url or address
        self.name = cluster.node or node_name(socket.gethostname(), self.address)
        self.draining = False
        self._explicit = bool(cluster.address)
        self._capacity = cluster.capacity or settings.server.max_devices
        self._tier = cluster.tier
        self._live = live
        self._beat = 0
        self._shared = shared
        self.registry = NodeRegistry(shared.link, self.view, suspect=suspect)
        self._tasks: list[asyncio.Task[None]] = []

    def view(self) -> NodeView:
        """This node as it is now."""
        self._beat = (self._beat + 1) % _MAX_BEATS
        live = self._live()
        return NodeView(
            self.name,
            self.address,
            self._capacity,
            live.devices,
            round(live.pressure, 3),
            self._tier,
            self.draining,
            __version__,
            self._beat,
            live.dead,
        )

    async def start(self) -> None:
        """Write this node down, and go on doing so."""
        await self.registry.beat()
        self._tasks += [
            asyncio.create_task(self.registry.watch(), name="cluster-heartbeat"),
            asyncio.create_task(self._shared.look_after(), name="cluster-deletions"),
        ]
        _log.info("node %s at %s, %d other nodes", self.name, self.address, len(self.registry.nodes) - 1)

    async def place(self, device_id: str) -> str:
        """The base address of the node where a device belongs; empty for this one, as the device has reached it."""
        chosen = await self.registry.place(device_id)
        if chosen.name == self.name and not self._explicit and len(self.registry.nodes) == 1:
            return ""
        return chosen.address

    async def drain(self) -> None:
        """Devices that ask from now on are sent to other nodes."""
        self.draining = True
        await self.registry.beat()

    async def stop(self) -> None:
        """Leave the cluster."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.registry.leave()


def node_name(host: str, address: str) -> str:
    """A name that stays the same over restarts: the machine's, and what tells its nodes apart. Pure."""
    port = re.search(r":(\d+)/?$", address)
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{host}-{port[1]}" if port else host)[:64]


def pressure_of(readings: Readings, limit: LoadStep) -> float:
    """The reading that is nearest to its threshold, as a share of it; thresholds of 0 do not count. Pure."""
    shares = [
        getattr(readings, name) / threshold for name in type(limit).model_fields if (threshold := getattr(limit, name))
    ]
    return max(shares, default=0.0)


def endpoint_ids(settings: Settings) -> dict[str, str]:
    """Names of the chat endpoints by the ids that all nodes know them by, which show nothing of their addresses."""

    def identity(*parts: str) -> str:
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()

    return {identity(one.name, one.base_url, one.model): one.name for one in settings.llm.endpoints}
