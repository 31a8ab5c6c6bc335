"""Which node a device belongs to. Pure.

Weighted rendezvous hashing: every device ranks all nodes by a hash of both, weighted by the nodes' capacity, and takes
the first with room. So all nodes decide alike without talking to each other, and when a node comes or goes only the
devices that gain or lose it move. "With room" is a bound on the load of a node relative to the average (consistent
hashing with bounded loads, Mirrokni et al. 2016), so that no node gets far more than its share.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Above this reading a node counts as having no room: its own load control sheds devices from 1.0 on.
PRESSED: Final = 0.9
# A node gets at least room for so many above the average: with few devices any bound is a matter of one or two.
_SLACK: Final = 1.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the others see it.

    Attributes:
        name: unique in the cluster.
        address: base URL that devices reach it at, `http://host:port`.
        capacity: devices it is made for.
        devices: connected to it now.
        pressure: its highest load reading as a share of what it may be, 0 idle, 1 sheds devices.
        tier: `edge` or `cloud`.
        draining: it is about to stop; devices go elsewhere.
        version: of the program.
        beat: rises with every heartbeat.
        dead: chat endpoints whose circuit is open on it, by the ids that all nodes know them by.
    """

    name: str
    address: str
    capacity: int
    devices: int = 0
    pressure: float = 0.0
    tier: str = "cloud"
    draining: bool = False
    version: str = ""
    beat: int = 0
    dead: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Devices may be sent to it."""
        return not self.draining and self.capacity > 0

    @property
    def load(self) -> float:
        """Share of its capacity that is taken; above 1 it is overfull."""
        return self.devices / self.capacity if self.capacity else math.inf


def score(device_id: str, node: NodeView) -> float:
    """How high a device ranks a node: the highest score of all nodes with weights is hit in proportion to weight."""
    digest = hashlib.blake2b(f"{node.name}\0{device_id}".encode(), digest_size=8).digest()
    # In (0, 1], so that the logarithm is finite and not positive.
    share = (int.from_bytes(digest, "big") + 1) / 2**64
    return node.capacity / -math.log(share) if share < 1.0 else math.inf


def ranked(device_id: str, nodes: Iterable[NodeView]) -> list[NodeView]:
    """Healthy nodes, the device's favourite first."""
    healthy = [node for node in nodes if node.healthy]
    return sorted(healthy, key=lambda node: (-score(device_id, node), node.name))


def place(
    device_id: str,
    nodes: Sequence[NodeView],
    *,
    overload: float = 1.25,
    just_placed: Mapping[str, int] | None = None,
) -> list[NodeView]:
    """The nodes a device may be sent to, the best first; empty when no node is healthy.

    Nodes with room come first, in the device's own order; then those above the bound or under pressure, the least
    loaded first, since a busy node is better than none.

    Args:
        device_id: the device.
        nodes: all that are known.
        overload: how far above the average load, as a factor, a node may go before devices are sent on.
        just_placed: devices sent to a node since its last heartbeat, by its name.
    """
    recent = just_placed or {}
    order = ranked(device_id, nodes)
    capacity = sum(node.capacity for node in order)
    held = {node.name: node.devices + recent.get(node.name, 0) for node in order}
    total = sum(held.values())

    def has_room(node: NodeView) -> bool:
        bound = overload * (total + 1) * node.capacity / capacity + _SLACK
        return node.pressure < PRESSED and held[node.name] + 1 <= min(math.ceil(bound), node.capacity)

    with_room = [node for node in order if has_room(node)]
    others = [node for node in order if not has_room(node)]
    others.sort(key=lambda node: (node.pressure >= PRESSED, held[node.name] / node.capacity))
    return with_room + others
