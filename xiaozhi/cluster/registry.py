"""The nodes of a cluster: each writes down how it does, all read it, and devices are sent where there is room."""

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from cachetools import TTLCache

from xiaozhi.cluster.link import Gone, RedisLink, Use
from xiaozhi.cluster.placement import NodeView, place

_log = logging.getLogger(__name__)

# A heartbeat is nobody's latency: it may wait for a Redis that is slow.
_BEAT_TIMEOUT_S: Final = 1.0
# Without Redis a node that may be gone is knocked at before a device is sent there.
_KNOCK_S: Final = 0.25
# What one knock found holds so long, in seconds.
_KNOCK_HOLDS_S: Final = 2.0
# More nodes than this are a mistake, or somebody else's keys.
_MAX_NODES: Final = 1000
_MAX_DEVICES: Final = 1_000_000
_MAX_PRESSURE: Final = 1e6
_MAX_ADDRESS_CHARS: Final = 300
_MAX_DEAD: Final = 100
_MAX_ID_CHARS: Final = 64
_PLAIN: Final = re.compile(r"[!-~]+")
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "name": (str,), "address": (str,), "capacity": (int,), "devices": (int,), "pressure": (int, float), "tier": (str,),
    "draining": (bool,), "version": (str,), "beat": (int,), "dead": (tuple,),
}  # fmt: skip


class NodeRegistry:
    """Knows the nodes.

    Args:
        link: to Redis.
        me: this node as it is now.
        clock: monotonic seconds.
        suspect: called once with each endpoint that another node has found dead: it is to be tried carefully.
    """

    def __init__(
        self,
        link: RedisLink,
        me: Callable[[], NodeView],
        clock: Callable[[], float] = time.monotonic,
        suspect: Callable[[str], object] = lambda _endpoint: None,
    ) -> None:
        self.beats = 0
        """Heartbeats that were written."""
        self.missed = 0
        """Heartbeats that could not be written."""
        self.sent_elsewhere = 0
        """Devices that were told another node's address."""
        self._link = link
        self._me = me
        self._clock = clock
        self._suspect = suspect
        self._others: dict[str, NodeView] = {}
        self._read_at = -float("inf")
        self._just_placed: Counter[str] = Counter()
        self._knocked: TTLCache[str, bool] = TTLCache(_MAX_NODES, _KNOCK_HOLDS_S, clock)
        self._absent: Counter[str] = Counter()

    @property
    def nodes(self) -> Sequence[NodeView]:
        """This node as it is, and the others as they were last read."""
        return [self._me(), *self._others.values()]

    @property
    def fresh(self) -> bool:
        """What is known of the others is younger than their heartbeats may be old."""
        return self._clock() - self._read_at <= self._link.settings.expiry_s

    async def watch(self) -> None:
        """Write and read heartbeats until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(self._link.settings.heartbeat_s)

    async def beat(self) -> bool:
        """Write this node down and read the others; whether Redis answered."""
        try:
            found = await self._link.ask(Use.NODES, self._exchange, timeout_s=_BEAT_TIMEOUT_S)
        except Gone:
            self.missed += 1
            return False
        self.beats += 1
        self._take(found)
        self._link.recovered()
        return True

    async def _exchange(self, redis: Any) -> dict[str, bytes | None]:
        me, index = self._me(), self._link.key("nodes")
        told = orjson.dumps({"v": 1, **asdict(me)})
        commands = redis.pipeline(transaction=False)
        commands.set(self._link.key("node", me.name), told, px=int(self._link.settings.expiry_s * 1000))
        commands.sadd(index, me.name)
        commands.smembers(index)
        answers = await commands.execute()
        names = sorted(name.decode(errors="replace") for name in answers[2])[:_MAX_NODES]
        values = await redis.mget([self._link.key("node", name) for name in names])
        await self._forget_absent(redis, dict(zip(names, values, strict=True)))
        return dict(zip(names, values, strict=True))

    async def _forget_absent(self, redis: Any, found: dict[str, bytes | None]) -> None:
        """A name without a heartbeat several times over goes from the index; a node that lives writes it again."""
        for name, value in found.items():
            self._absent[name] = 0 if value is not None else self._absent[name] + 1
        gone = [name for name, times in self._absent.items() if times > 5]
        if gone:
            await redis.srem(self._link.key("nodes"), *gone)
            for name in gone:
                del self._absent[name]

    def _take(self, found: dict[str, bytes | None]) -> None:
        mine, before = self._me().name, self._others
        self._others = {}
        for name, value in found.items():
            node = node_of(value) if value is not None and name != mine else None
            if node is not None and node.name == name:
                self._others[name] = node
        for name in self._others.keys() - before.keys():
            _log.info("node %s at %s is here", name, self._others[name].address)
        for name in before.keys() - self._others.keys():
            _log.warning("node %s is gone", name)
        for name, node in self._others.items():
            if name not in before or before[name].beat != node.beat:
                self._just_placed[name] = 0  # counted in its own figures by now
            for endpoint in set(node.dead).difference(before[name].dead if name in before else ()):
                self._suspect(endpoint)
        self._just_placed[mine] = 0
        self._read_at = self._clock()

    async def leave(self) -> None:
        """This node stops: take it out of the list at once."""
        name = self._me().name
        try:
            await self._link.ask(
                Use.NODES,
                lambda redis: redis.delete(self._link.key("node", name)),
                timeout_s=_BEAT_TIMEOUT_S,
            )
        except Gone:
            _log.debug("not taken out of the list; the heartbeat expires")

    async def place(self, device_id: str) -> NodeView:
        """The node a device should connect to; this one when it is alone or no other can be reached."""
        me = self._me()
        nodes = self.nodes
        # A front spreads the questions, so the others have placed about as many since the last heartbeat.
        recent = {name: count * len(nodes) for name, count in self._just_placed.items()}
        order = place(device_id, nodes, overload=self._link.settings.overload, just_placed=recent) or [me]
        chosen = me
        for node in order:
            if node.name == me.name or self.fresh or await self._reachable(node):
                chosen = node
                break
        self._just_placed[chosen.name] += 1
        self.sent_elsewhere += chosen.name != me.name
        return chosen

    async def _reachable(self, node: NodeView) -> bool:
        """Whether somebody listens at a node's address; asked while Redis cannot say."""
        if (known := self._knocked.get(node.name)) is not None:
            return known
        url = urlsplit(node.address)
        port = url.port or (443 if url.scheme in ("https", "wss") else 80)
        open_ = False
        try:
            async with asyncio.timeout(_KNOCK_S):
                _, writer = await asyncio.open_connection(url.hostname, port)
            writer.close()
            open_ = True
        except (OSError, TimeoutError) as error:
            _log.debug("node %s cannot be reached: %s", node.name, error or "too slow")
        self._knocked[node.name] = open_
        return open_


def node_of(value: bytes) -> NodeView | None:
    """A node from its heartbeat; None for one that this version does not understand."""
    try:
        told: Any = orjson.loads(value)
        if told.pop("v") != 1:
            return None
        known = {name: told[name] for name in NodeView.__dataclass_fields__ if name in told}
        if type(known.get("dead")) is list:
            known["dead"] = tuple(known["dead"])
        node = NodeView(**known)
        base = urlsplit(node.address)
        right = (
            # Exactly these kinds, in these bounds: a device is sent to what is written here.
            all(type(getattr(node, name)) in kinds for name, kinds in _KINDS.items())
            and base.scheme in ("http", "https", "ws", "wss")
            and bool(base.hostname)
            and (base.port is None or base.port > 0)
            and len(node.address) <= _MAX_ADDRESS_CHARS
            and _PLAIN.fullmatch(node.address) is not None
            and 0 <= node.capacity <= _MAX_DEVICES
            and 0 <= node.devices <= _MAX_DEVICES
            and 0.0 <= node.pressure <= _MAX_PRESSURE
            and len(node.dead) <= _MAX_DEAD
            and all(isinstance(endpoint, str) and len(endpoint) <= _MAX_ID_CHARS for endpoint in node.dead)
        )
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return node if right else None
