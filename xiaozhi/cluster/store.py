"""The store of a node whose devices may come to another one: records, codes, memories and deletions are shared."""

import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from xiaozhi.cluster.link import Gone, RedisLink, Use, number_of
from xiaozhi.cluster.synced import Synced
from xiaozhi.store import DeviceAccess, DeviceRecord, Store, StoreError
from xiaozhi.store.database import Database
from xiaozhi.store.devices import Devices
from xiaozhi.store.named import Meta
from xiaozhi.store.notes import MAX_MEMORIES, Memories, Memory
from xiaozhi.store.pending import CODE_TTL_S, PendingClient, PendingClients
from xiaozhi.store.turns import Turns

_log = logging.getLogger(__name__)

# What people decide about a device, and what binds it; when it was seen is every node's own affair.
_SHARED: Final = (
    "client_id", "name", "room", "owner", "board", "firmware", "agent", "language", "priority", "access", "serial",
    "hmac_key", "bound_at",
)  # fmt: skip
# Deletions are kept for nodes that are away for so long.
_REMEMBERED_MS: Final = 90 * 86_400_000
# Deletions taken up in one look.
_AT_ONCE: Final = 500
_CODE_TTL_MS: Final = int(CODE_TTL_S * 1000)
_MAX_WORD_CHARS: Final = 64
_MAX_TEXT_CHARS: Final = 200  # as the table itself cuts them
_AHEAD_MS: Final = 86_400_000.0
_LATEST_MS: Final = 1e14  # the year 5138: above it is no time
_LAST_SEEN: Final = "cluster.forgotten"
_UNTOLD: Final = "cluster.untold"


def record_of(device: DeviceRecord) -> bytes:
    """A device as it lies in Redis."""
    values: dict[str, Any] = {name: getattr(device, name) for name in _SHARED}
    return orjson.dumps({"v": 1, **values, "access": device.access.value, "hmac_key": device.hmac_key.hex()})


def values_of(record: bytes) -> dict[str, Any] | None:
    """The columns of a record; None for one that this version does not understand."""
    try:
        told: Any = orjson.loads(record)
        if told["v"] != 1:
            return None
        values = {name: told[name] for name in _SHARED}
        values["access"] = DeviceAccess(values["access"]).value
        values["hmac_key"] = bytes.fromhex(values["hmac_key"])
        values["bound_at"] = float(values["bound_at"])
        number_of(values["bound_at"], _LATEST_MS)
        texts = [value for name, value in values.items() if name not in ("hmac_key", "bound_at")]
        fits = all(isinstance(text, str) and len(text) <= _MAX_TEXT_CHARS for text in texts)
        return values if fits and len(values["hmac_key"]) <= _MAX_TEXT_CHARS else None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def merged_records(shared: bytes, own: bytes) -> bytes:
    """Of two records that were made apart: the one that was bound last, with what only the other one says. Pure."""
    theirs, ours = values_of(shared), values_of(own)
    if theirs is None or ours is None:
        return own
    first, second = (ours, theirs) if ours["bound_at"] > theirs["bound_at"] else (theirs, ours)
    values = {name: first[name] or second[name] for name in _SHARED}
    if DeviceAccess.BLOCKED.value in (first["access"], second["access"]):
        values["access"] = DeviceAccess.BLOCKED.value  # keeping somebody out wrongly is the lesser mistake
    return orjson.dumps({"v": 1, **values, "hmac_key": values["hmac_key"].hex()})


def merged_memories(shared: bytes, own: bytes) -> bytes:
    """What either side knows. Pure."""
    theirs, ours = _texts(shared), _texts(own)
    if theirs is None or ours is None:
        return own
    return orjson.dumps({"v": 1, "texts": list(dict.fromkeys([*theirs, *ours]))})


def _texts(document: bytes) -> list[str] | None:
    try:
        told: Any = orjson.loads(document)
        texts = told["texts"] if told["v"] == 1 else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return [str(text) for text in texts] if isinstance(texts, list) else None


class Deletions:
    """Tells the other nodes what was deleted, and deletes what they say.

    What could not be told waits in the node's file, also for a command line that ends at once.

    Args:
        link: to Redis.
        meta: of this node's file.
        now_s: wall time, seconds since 1970.
    """

    def __init__(self, link: RedisLink, meta: Meta, now_s: Callable[[], float] = time.time) -> None:
        self.told = 0
        """Deletions the other nodes were told of."""
        self.untold = 0
        """Deletions that could not be told, because Redis did not answer."""
        self._link = link
        self._now_s = now_s
        self._meta = meta

    async def tell(self, device_id: str, *, all_of_it: bool) -> None:
        """A device, or only what was said to it, was deleted: erase it in Redis and tell the others.

        Raises:
            StoreError: the file cannot be written.
        """
        waiting = await self._waiting()
        waiting[f"{'d' if all_of_it else 't'}|{device_id}"] = self._now_s() * 1000.0
        await self._meta.put(_UNTOLD, orjson.dumps(waiting).decode())
        await self.retry()

    async def _waiting(self) -> dict[str, float]:
        try:
            waiting: Any = orjson.loads(await self._meta.get(_UNTOLD) or "{}")
            return {str(member): float(at_ms) for member, at_ms in waiting.items()}
        except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
            return {}

    async def retry(self) -> None:
        """Tell what could not be told before. Raises `StoreError`."""
        waiting = await self._waiting()
        if not waiting:
            return
        for member, at_ms in list(waiting.items()):
            kind, _, device_id = member.partition("|")
            keys = self._keys(kind, device_id)
            try:
                await self._link.ask(Use.DEVICES, _telling(self._link.key("forgotten"), member, at_ms, keys))
            except Gone:
                self.untold += 1
                _log.warning("the other nodes are told later what was deleted", extra={"device": device_id})
                break
            self.told += 1
            del waiting[member]
        await self._meta.put(_UNTOLD, orjson.dumps(waiting).decode())

    def _keys(self, kind: str, device_id: str) -> list[str]:
        names = ("talk", "device", "memories") if kind == "d" else ("talk",)
        return [self._link.key(name, device_id) for name in names]

    async def waits(self, device_id: str) -> bool:
        """Whether a device was deleted here and the others do not know it yet. Raises `StoreError`."""
        return f"d|{device_id}" in await self._waiting()

    async def take_up(self, store: "Store") -> int:
        """Delete what other nodes have deleted; returns how much it was.

        Raises:
            Gone: Redis does not answer.
            StoreError: the file cannot be written.
        """
        now_ms = self._now_s() * 1000.0
        since_ms = min(float(await store.meta.get(_LAST_SEEN) or 0.0), now_ms)
        gone = await self._link.ask(Use.DEVICES, _deletions(self._link.key("forgotten"), since_ms, now_ms))
        count = 0
        for member, at_ms in gone:
            kind, _, device_id = member.partition("|")
            device = await Devices.get(store.devices, device_id)
            if device is not None and device.created_at * 1000.0 <= at_ms:
                await _delete(store, device_id, all_of_it=kind == "d")
                # This node may have written what it held once more before it knew.
                keys = self._keys(kind, device_id)
                await self._link.ask(Use.DEVICES, _deleting(keys))
                count += 1
            since_ms = max(since_ms, at_ms)
        if gone:
            await store.meta.put(_LAST_SEEN, repr(since_ms))
        return count


async def _delete(store: Store, device_id: str, *, all_of_it: bool) -> None:
    """On this node alone."""
    if not all_of_it:
        await Turns.clear(store.turns, device_id)
        return
    await Devices.remove(store.devices, device_id)
    if isinstance(store.devices, SharedDevices):
        await store.devices.synced.forget(device_id)
    if isinstance(store.memories, SharedMemories):
        await store.memories.synced.forget(device_id)


def _telling(index: str, member: str, at_ms: float, keys: list[str]) -> Callable[[Any], Awaitable[Any]]:
    async def tell(redis: Any) -> None:
        commands = redis.pipeline(transaction=True)
        commands.zadd(index, {member: at_ms})
        commands.zremrangebyscore(index, "-inf", at_ms - _REMEMBERED_MS)
        commands.delete(*keys)
        await commands.execute()

    return tell


def _deleting(keys: list[str]) -> Callable[[Any], Awaitable[Any]]:
    return lambda redis: redis.delete(*keys)


def _deletions(index: str, since_ms: float, now_ms: float) -> Callable[[Any], Awaitable[list[tuple[str, float]]]]:
    async def read(redis: Any) -> list[tuple[str, float]]:
        found = await redis.zrangebyscore(index, f"({since_ms!r}", "+inf", start=0, num=_AT_ONCE, withscores=True)
        gone = [(member.decode(errors="replace"), number_of(at_ms, _LATEST_MS)) for member, at_ms in found]
        # Told by a node whose clock was ahead: it would delete again and again what was made since.
        ahead = {member: now_ms for member, at_ms in gone if at_ms > now_ms + _AHEAD_MS}
        if ahead:
            await redis.zadd(index, ahead)
        return [one for one in gone if one[0] not in ahead]

    return read


class SharedDevices(Devices):
    """The table of devices of one node, in agreement with the others."""

    def __init__(self, database: Database, link: RedisLink, meta: Meta, deletions: Deletions) -> None:
        super().__init__(database)
        self.synced = Synced("device", link, meta, merged_records)
        self._link = link
        self._deletions = deletions

    async def get(self, device_id: str) -> DeviceRecord | None:
        """A device as all nodes know it. Raises `StoreError`."""
        own = await super().get(device_id)
        if own is None and await self._deletions.waits(device_id):
            return None
        return await self.settled(device_id, own)

    async def settled(self, device_id: str, own: DeviceRecord | None) -> DeviceRecord | None:
        """Agree with the other nodes on a device; None where nobody knows it. Raises `StoreError`."""
        taken = await self.synced.settle(device_id, record_of(own) if own is not None else None)
        values = values_of(taken) if taken is not None else None
        return own if values is None else await super()._change(device_id, values)

    async def seen(self, device_id: str, *, client_id: str = "", board: str = "", firmware: str = "") -> DeviceRecord:
        """A device has called; see `Devices.seen`."""
        try:
            await self.get(device_id)  # what others know goes before what it says now
            device = await super().seen(device_id, client_id=client_id, board=board, firmware=firmware)
            return await self.settled(device_id, device) or device
        except StoreError:
            return await super().seen(device_id, client_id=client_id, board=board, firmware=firmware)

    async def _change(self, device_id: str, values: dict[str, Any]) -> DeviceRecord:
        await self.get(device_id)
        device = await super()._change(device_id, values)
        return await self.settled(device_id, device) or device

    async def remove(self, device_id: str) -> bool:
        """Delete a device on every node. Raises `StoreError`."""
        removed = await super().remove(device_id)
        await self.synced.forget(device_id)
        await self._deletions.tell(device_id, all_of_it=True)
        return removed

    async def pin(self, device_id: str, client_id: str) -> DeviceRecord:
        """Make a client the only one that may be this device; see `Devices.pin`."""
        await self.get(device_id)  # it may have come to another node before
        device = await super().pin(device_id, client_id)
        return await self.settled(device_id, device) or device


class SharedPendingClients(PendingClients):
    """Clients that wait, known to every node: a device may ask each time another one.

    Args:
        database: of this node.
        link: to Redis.
        devices: of this node, shared.
    """

    def __init__(self, database: Database, link: RedisLink, devices: SharedDevices) -> None:
        super().__init__(database)
        self._link = link
        self._devices = devices

    def _key(self, device_id: str, client_id: str) -> str:
        return self._link.key("client", f"{device_id}|{client_id}")

    async def ask(
        self, device_id: str, client_id: str, *, address: str = "", now: float | None = None
    ) -> PendingClient:
        """What lets this client in, on whichever node it is typed in; see `PendingClients.ask`."""
        own = await super().ask(device_id, client_id, address=address, now=now)
        told = orjson.dumps([own.device, own.client_id, own.code, own.challenge])

        async def agree(redis: Any) -> PendingClient:
            await redis.set(self._key(device_id, client_id), told, nx=True, px=_CODE_TTL_MS)
            agreed = _client_of(await redis.get(self._key(device_id, client_id)), own.until)
            if agreed is None or (agreed.device, agreed.client_id) != (device_id, client_id):
                return own
            document = orjson.dumps([agreed.device, agreed.client_id, agreed.code, agreed.challenge])
            await redis.set(self._link.key("code", agreed.code), document, nx=True, px=_CODE_TTL_MS)
            return agreed

        try:
            agreed = dataclasses.replace(await self._link.ask(Use.DEVICES, agree), address=address)
        except Gone:
            return own
        if agreed.code != own.code:
            await self.keep(agreed)
        return agreed

    async def find(self, device_id: str, client_id: str) -> PendingClient | None:
        """What this client was given, by whichever node. Raises `StoreError`."""
        own = await super().find(device_id, client_id)
        return own or await self._told(self._key(device_id, client_id))

    async def _told(self, key: str) -> PendingClient | None:
        async def read(redis: Any) -> PendingClient | None:
            return _client_of(await redis.get(key), time.time() + CODE_TTL_S)

        try:
            return await self._link.ask(Use.DEVICES, read)
        except Gone:
            return None

    async def bind(self, code: str, *, owner: str = "", now: float | None = None) -> DeviceRecord | None:
        """Let in the client that shows this code, whichever node gave it. Raises `TooManyTries`, `StoreError`."""
        digits = "".join(char for char in code if char.isascii() and char.isdecimal())
        told = await self._told(self._link.key("code", digits)) if len(digits) == 6 else None
        if told is not None and told.code == digits:  # from here on it is a code of this node
            await self._devices.get(told.device)
            await self.keep(told)
        bound = await super().bind(code, owner=owner, now=now)
        if bound is None:
            return None
        keys = [self._link.key("code", digits)]
        if told is not None and not bound.hmac_key:
            keys.append(self._key(told.device, told.client_id))
        try:
            await self._link.ask(Use.DEVICES, lambda redis: redis.delete(*keys))
        except Gone:
            _log.debug("a code that was used is left to expire")
        return await self._devices.settled(bound.id, bound) or bound


def _client_of(document: Any, until: float) -> PendingClient | None:
    """Raises `ValueError`, `TypeError` for what is no such document."""
    if document is None:
        return None
    device, client_id, code, challenge = orjson.loads(document)
    texts = (device, client_id, code, challenge)
    if not all(isinstance(text, str) and len(text) <= _MAX_WORD_CHARS for text in texts):
        raise TypeError("not what a node writes of a client that waits")
    return PendingClient(device, client_id, code, challenge, until)


class SharedMemories(Memories):
    """What devices were told to keep in mind, in agreement with the other nodes."""

    def __init__(self, database: Database, link: RedisLink, meta: Meta) -> None:
        super().__init__(database)
        self.synced = Synced("memories", link, meta, merged_memories)

    async def list(self, device_id: str) -> list[Memory]:
        """A device's memories as all nodes know them. Raises `StoreError`."""
        own = await super().list(device_id)
        document = orjson.dumps({"v": 1, "texts": [memory.text for memory in own]})
        # A node that knows nothing yet has nothing to say: what the others know holds.
        first = not own and not await self.synced._last(device_id)
        taken = await self.synced.settle(device_id, None if first else document)
        texts = _texts(taken) if taken is not None else None
        if texts is None:
            return own
        for memory in own:
            if memory.text not in texts:
                await super().remove(device_id, memory.id)
        known = {memory.text for memory in own}
        for text in texts[-MAX_MEMORIES:]:
            if text not in known and text.strip():
                await super().add(device_id, text)
        return await super().list(device_id)


class SharedTurns(Turns):
    """Conversations of one node; forgetting them reaches the others."""

    def __init__(self, database: Database, deletions: Deletions) -> None:
        super().__init__(database)
        self._deletions = deletions

    async def clear(self, device_id: str) -> int:
        """Forget on every node what was said to a device. Raises `StoreError`."""
        gone = await super().clear(device_id)
        await self._deletions.tell(device_id, all_of_it=False)
        return gone


async def share_store(store: Store, link: RedisLink) -> Deletions:
    """Put the shared tables in the places of the node's own.

    Raises:
        StoreError: the file cannot be read.
    """
    deletions = Deletions(link, store.meta)
    store.devices = devices = SharedDevices(store.database, link, store.meta, deletions)
    store.pending = SharedPendingClients(store.database, link, devices)
    store.memories = SharedMemories(store.database, link, store.meta)
    store.turns = SharedTurns(store.database, deletions)
    await store.turns.prepare()
    return deletions
