"""Devices that have been seen: what they are, whose they are, and which client may connect as each of them."""

import dataclasses
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from xiaozhi.program import program
from xiaozhi.store.database import Database, StoreError, record

# Whoever makes up devices finds an end: those of which nothing is kept make room, and then no new ones are taken.
MAX_DEVICES: Final = 20_000
# A made-up name, or a device that was told its code, or that has connected and never said anything: forgotten when it
# was not seen for so long.
_STRANGER_S: Final = 86_400.0
_SILENT_S: Final = 30 * 86_400.0
# Of a device: nobody has decided anything about it, and nothing was said to it.
_NOTHING_KEPT: Final = (
    "bound_at = 0 AND access = '' AND owner = '' AND name = '' AND room = '' AND agent = '' AND language = ''"
    " AND priority = '' AND serial = '' AND length(hmac_key) = 0"
    " AND NOT EXISTS (SELECT 1 FROM turns WHERE device = devices.id)"
    " AND NOT EXISTS (SELECT 1 FROM summaries WHERE device = devices.id)"
    " AND NOT EXISTS (SELECT 1 FROM memories WHERE device = devices.id)"
    " AND NOT EXISTS (SELECT 1 FROM reminders WHERE device = devices.id)"
)
_FIND: Final = "SELECT *, EXISTS (SELECT 1 FROM turns WHERE device = devices.id) AS talked FROM devices"
# No client can give itself an id with these signs.
NO_CLIENT_ID: Final = "*"
"""Stands for the id of a client that gives none."""
UNPROVEN: Final = "?"
"""Stands before the id of a client that was let in, and has yet to prove that its board holds the device's key."""
_LONGEST: Final = 200
_EDITABLE: Final = frozenset(
    {"client_id", "name", "room", "owner", "board", "firmware", "agent", "language", "priority", "serial", "hmac_key"}
)


class DeviceAccess(StrEnum):
    """What was decided about a device by hand."""

    NONE = ""
    ALLOWED = "allowed"
    BLOCKED = "blocked"


class NoRoom(StoreError):
    """As many devices, or as many that wait to be let in, as there may be; one line says what to do."""


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One device. Times are seconds since 1970, 0 where it has not happened.

    Attributes:
        id: usually its MAC address, lower case.
        client_id: the UUID that the device made on its first boot. It is the one client that may connect as this
            device; `NO_CLIENT_ID` for one that gives none; empty where the next one that comes becomes it.
        name, room, owner: given by people.
        board, firmware: what it last said about itself.
        agent: the name of its agent; empty for the default.
        language: `zh`, `en` … where its owner fixed one; empty for automatic.
        priority: `high` or `low` goes before or behind others where many wait to be recognised; empty for neither.
        access: allowed or blocked by hand.
        serial, hmac_key: of boards with a key burnt in, for the activation challenge.
        created_at, last_seen, bound_at: when.
        talked: something that was said to it is kept.
        pause_ms: how long its user pauses inside sentences; 0 where that is not known.
        aec: it leaves the echo of its loudspeaker to the server.
    """

    id: str
    client_id: str = ""
    name: str = ""
    room: str = ""
    owner: str = ""
    board: str = ""
    firmware: str = ""
    agent: str = ""
    language: str = ""
    priority: str = ""
    access: DeviceAccess = DeviceAccess.NONE
    serial: str = ""
    hmac_key: bytes = field(default=b"", repr=False)
    created_at: float = 0.0
    last_seen: float = 0.0
    bound_at: float = 0.0
    talked: bool = False
    pause_ms: float = 0.0
    aec: bool = False

    @property
    def bound(self) -> bool:
        """Somebody has entered its activation code, or allowed it."""
        return self.bound_at > 0.0 or self.access is DeviceAccess.ALLOWED

    @property
    def label(self) -> str:
        """What to call it: its name, or else its id."""
        return self.name or self.id


class Devices:
    """The table of devices."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s

    async def get(self, device_id: str) -> DeviceRecord | None:
        """A device, or `None` where it was never seen. Raises `StoreError`."""
        return await self._database.read(lambda connection: find(connection, device_id))

    async def list(self) -> list[DeviceRecord]:
        """Every device, the one seen last first. Raises `StoreError`."""
        return [_device(row) for row in await self._database.rows(f"{_FIND} ORDER BY last_seen DESC, id")]

    async def seen(self, device_id: str, *, client_id: str = "", board: str = "", firmware: str = "") -> DeviceRecord:
        """A device has called: write down when, and what it said about itself; empty words change nothing.

        Where the disk takes nothing the answer is what is known and what was said, and serving goes on.
        """
        said: dict[str, Any] = {"client_id": client_id, "board": board, "firmware": firmware}
        said = {key: value[:_LONGEST] for key, value in said.items() if value}
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> DeviceRecord:
            put(connection, device_id, now, {**said, "last_seen": now})
            return found(connection, device_id)

        try:
            return await self._database.write(call, durable=False)
        except StoreError:  # said once by the store itself
            known = await self._known(device_id)
            return dataclasses.replace(known or DeviceRecord(device_id, created_at=now), last_seen=now, **said)

    async def _known(self, device_id: str) -> DeviceRecord | None:
        try:
            return await self.get(device_id)
        except StoreError:
            return None

    async def update(self, device_id: str, **values: str | bytes) -> DeviceRecord:
        """Change what people decide (`name`, `room`, `owner`, `agent`, `language`, `serial`, `hmac_key` …).

        A device that was never seen is made, so that it can be set up before it is plugged in.

        Raises:
            ValueError: there is no such field.
            StoreError: the file cannot be written.
        """
        wrong = set(values) - _EDITABLE
        if wrong:
            raise ValueError(f"a device has no {', '.join(sorted(wrong))}")
        cut = {key: value[:_LONGEST] for key, value in values.items()}
        return await self._change(device_id, cut)

    def assign(self, device_id: str, agent: str) -> None:
        """Give a device another agent, without waiting; one that was removed meanwhile is not made again."""
        self._database.post(
            lambda connection: connection.execute("UPDATE devices SET agent = ? WHERE id = ?", (agent, device_id))
        )

    def note_pause(self, device_id: str, pause_ms: float) -> None:
        """Keep how long its user pauses inside sentences, without waiting; a removed device is not made again."""
        self._database.post(
            lambda connection: connection.execute("UPDATE devices SET pause_ms = ? WHERE id = ?", (pause_ms, device_id))
        )

    def note_aec(self, device_id: str, *, aec: bool) -> None:
        """Keep whether it leaves the echo to the server, without waiting; a removed device is not made again."""
        self._database.post(
            lambda connection: connection.execute("UPDATE devices SET aec = ? WHERE id = ?", (aec, device_id))
        )

    async def allow(self, device_id: str) -> DeviceRecord:
        """Let a device in without a code. Raises `StoreError`."""
        return await self._change(device_id, {"access": DeviceAccess.ALLOWED.value})

    async def block(self, device_id: str) -> DeviceRecord:
        """Keep a device out whatever it shows. Raises `StoreError`."""
        return await self._change(device_id, {"access": DeviceAccess.BLOCKED.value})

    async def unlist(self, device_id: str) -> DeviceRecord:
        """Neither allowed nor blocked any more. Raises `StoreError`."""
        return await self._change(device_id, {"access": DeviceAccess.NONE.value})

    async def unbind(self, device_id: str) -> DeviceRecord:
        """It belongs to nobody and must be activated anew. Raises `StoreError`."""
        return await self._change(
            device_id, {"bound_at": 0.0, "owner": "", "access": DeviceAccess.NONE.value, "client_id": ""}
        )

    async def release(self, device_id: str) -> DeviceRecord:
        """Whichever client comes next is this device from then on. Raises `StoreError`."""
        return await self._change(device_id, {"client_id": ""})

    async def pin(self, device_id: str, client_id: str) -> DeviceRecord:
        """Make a client the only one that may be this device, unless there is one already.

        Where the disk takes nothing the answer is what would have been written, and serving goes on.

        Raises:
            NoRoom: the device is new, and there are as many as there may be.
        """
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> DeviceRecord:
            device = find(connection, device_id)
            if device is None or not device.client_id:
                put(connection, device_id, now, {"client_id": client_id})
            return found(connection, device_id)

        try:
            return await self._database.write(call)
        except NoRoom:
            raise
        except StoreError:  # said once by the store itself
            return await self._known(device_id) or DeviceRecord(device_id, client_id, created_at=now)

    async def _change(self, device_id: str, values: dict[str, Any]) -> DeviceRecord:
        def call(connection: sqlite3.Connection) -> DeviceRecord:
            put(connection, device_id, self._now_s(), values)
            return found(connection, device_id)

        return await self._database.write(call)

    async def remove(self, device_id: str) -> bool:
        """Delete a device and everything of it: conversations, summaries, memories, reminders; overwritten on disk.

        Returns:
            Whether there was one.

        Raises:
            StoreError: the file cannot be written.
        """
        removed = await self._database.change("DELETE FROM devices WHERE id = ?", (device_id,)) > 0
        if removed:  # the log that SQLite keeps beside the file holds its words until it is folded in
            await self._database.read(_fold_in)
        return removed

    async def sweep(self, now: float | None = None) -> int:
        """Delete strangers: not seen for a day, or for 30 where they have connected, and nothing is kept of them.

        Args:
            now: seconds since 1970; the clock when left out.

        Returns:
            How many it was.

        Raises:
            StoreError: the file cannot be written.
        """
        at = self._now_s() if now is None else now
        return await self._database.change(
            "DELETE FROM devices WHERE max(last_seen, created_at) <"
            f" CASE WHEN client_id = '' AND last_seen = 0 THEN ? ELSE ? END AND {_NOTHING_KEPT}",
            (at - _STRANGER_S, at - _SILENT_S),
        )


# In the store's thread; other tables of the store use these too -----------------------------------------------------


def _fold_in(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:  # else it is folded in by itself with one of the next writes
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def find(connection: sqlite3.Connection, device_id: str) -> DeviceRecord | None:
    """A device by its id."""
    row = connection.execute(f"{_FIND} WHERE id = ?", (device_id,)).fetchone()
    return None if row is None else _device(row)


def put(connection: sqlite3.Connection, device_id: str, now: float, values: dict[str, Any]) -> None:
    """Make the device where it is new, and set columns of it. Raises `NoRoom`."""
    if connection.execute("SELECT 1 FROM devices WHERE id = ?", (device_id,)).fetchone() is None:
        _forget_surplus(connection)
        connection.execute("INSERT INTO devices (id, created_at) VALUES (?, ?)", (device_id, now))
    if values:
        columns = ", ".join(f"{column} = :{column}" for column in values)  # the names are this module's own
        connection.execute(f"UPDATE devices SET {columns} WHERE id = :id", {**values, "id": device_id})


def _forget_surplus(connection: sqlite3.Connection) -> None:
    """Make room for one more. A device that one client has connected as stays that client's."""
    surplus = connection.execute("SELECT count(*) FROM devices").fetchone()[0] + 1 - MAX_DEVICES
    if surplus > 0:
        gone = connection.execute(
            "DELETE FROM devices WHERE id IN (SELECT id FROM devices"
            f" WHERE client_id = '' AND {_NOTHING_KEPT} ORDER BY max(last_seen, created_at) LIMIT ?)",
            (surplus,),
        ).rowcount
        if gone < surplus:
            raise NoRoom(f"the store holds as many devices as it may; remove some with `{program()} devices remove`")


def found(connection: sqlite3.Connection, device_id: str) -> DeviceRecord:
    """A device that was there a moment ago. Raises `StoreError`."""
    device = find(connection, device_id)
    if device is None:
        raise StoreError("the device was removed meanwhile")
    return device


def _device(row: sqlite3.Row) -> DeviceRecord:
    own: dict[str, Any] = {"access": DeviceAccess(row["access"]), "hmac_key": bytes(row["hmac_key"])}
    own |= {name: bool(row[name]) for name in ("talked", "aec")}
    return record(DeviceRecord, row, **own)
