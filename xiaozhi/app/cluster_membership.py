"""A server joins its cluster: tells how it does, sends devices where they belong, and shares what it finds dead."""

from collections.abc import Callable

from xiaozhi.cluster.node import ClusterNode, LiveFigures, endpoint_ids, pressure_of
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
        self.node = ClusterNode(services.settings, services.shared, address, self._live, self._suspect)
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

    def _live(self) -> LiveFigures:
        services = self._services
        pressure = pressure_of(services.load_shedder.readings, services.settings.load.devices)
        open_ = {state.name for state in services.chat.states() if state.breaker is BreakerState.OPEN}
        dead = tuple(one for one, name in endpoint_ids(services.settings).items() if name in open_)
        return LiveFigures(self._devices(), pressure if services.takes_devices else 1.0, dead)

    def _suspect(self, endpoint: str) -> bool:
        name = endpoint_ids(self._services.settings).get(endpoint, "")
        return bool(name) and self._services.chat.pool.suspect(name)
