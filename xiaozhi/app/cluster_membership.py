"""A server joins its cluster: tells how it does, sends devices where they belong, and shares what it finds dead."""

from collections.abc import Callable

from xiaozhi import __version__
from xiaozhi.cluster.hints import BreakerHints
from xiaozhi.cluster.node import ClusterNode, endpoint_ids, pressure_of
from xiaozhi.conversation.services import Services
from xiaozhi.upstream.breaker import BreakerState


class Membership:
    """One server's place in a cluster; for a server that is alone it does nothing.

    Args:
        services: of the process.
        devices: how many are connected.
    """

    def __init__(self, services: Services, devices: Callable[[], int]) -> None:
        self.node: ClusterNode | None = None
        """This node, once it has joined."""
        self._services = services
        self._devices = devices
        self._told: dict[str, int] = {}

    @property
    def shared(self) -> bool:
        """There may be other nodes."""
        return self._services.shared is not None

    async def join(self, address: str) -> None:
        """Be one of the nodes from now on.

        Args:
            address: base URL that devices reach this server at.
        """
        services = self._services
        if services.shared is None:
            return
        self.node = ClusterNode(
            services.settings,
            services.shared,
            address,
            version=__version__,
            devices=self._devices,
            pressure=self._pressure,
        )
        self.node.share_hints(BreakerHints(services.shared.link, self.node.name, self._suspect))
        self.node.registry.on_beat.append(self._tell)
        await self.node.start()

    async def place(self, device_id: str) -> str:
        """The base address of the node a device belongs to; empty for this one, as the device has reached it."""
        return await self.node.place(device_id) if self.node is not None else ""

    async def drain(self) -> None:
        """Send devices to other nodes from now on."""
        if self.node is not None:
            await self.node.drain()

    async def leave(self) -> None:
        """Be no node any more."""
        if self.node is not None:
            await self.node.stop()

    def _pressure(self) -> float:
        services = self._services
        if not services.takes_devices:
            return 1.0
        return pressure_of(services.load_shedder.readings, services.settings.load.devices)

    def _suspect(self, endpoint: str) -> bool:
        name = endpoint_ids(self._services.settings).get(endpoint, "")
        return bool(name) and self._services.chat.pool.suspect(name)

    def _tell(self) -> None:
        """Let the others know of endpoints whose circuit has opened since the last look."""
        if self.node is None or self.node.hints is None:
            return
        ids = {name: identity for identity, name in endpoint_ids(self._services.settings).items()}
        for state in self._services.chat.states():
            before = self._told.get(state.name, 0)
            self._told[state.name] = state.opened
            if state.opened > before and state.breaker is BreakerState.OPEN and state.name in ids:
                self.node.hints.tell(ids[state.name])
