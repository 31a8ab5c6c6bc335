"""Devices that have been seen: what they are, whose they are, who may connect, and six-digit activation codes."""

import dataclasses
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson

from xiaozhi.program import program
from xiaozhi.store.database import Database, StoreError
from xiaozhi.store.meta import read_value, write_value

# A code is spoken and shown until then; a device asks again and gets a new one.
CODE_TTL_S: Final = 600.0
# Guessing: a million codes, a handful pending, at most this many wrong ones in the window, whoever asks.
MOST_WRONG_CODES: Final = 10
WRONG_CODES_WINDOW_S: Final = 600.0
_WRONG_CODES_KEY: Final = "activation.wrong-codes"
# Whoever floods the OTA address with made-up devices finds an end: the longest unseen that belong to nobody go first.
MOST_DEVICES: Final = 20_000
# Whoever was told a code and has let it run out for so long was a stranger, or a made-up name.
_STRANGER_S: Final = 86_400.0
_LONGEST: Final = 200
_EDITABLE: Final = frozenset(
    {"client_id", "name", "room", "owner", "board", "firmware", "agent", "language", "priority", "serial", "hmac_key"}
)


class Access(StrEnum):
    """What was decided about a device by hand."""

    NONE = ""
    ALLOWED = "allowed"
    BLOCKED = "blocked"


class TooManyTries(StoreError):
    """Too many wrong activation codes; one line says when to try again."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device. Times are seconds since 1970, 0 where it has not happened.

    Attributes:
        id: usually its MAC address, lower case.
        client_id: the UUID the device made on its first boot.
        name, room, owner: given by people.
        board, firmware: what it last said about itself.
        agent: the name of its persona; empty for the default.
        language: `zh`, `en` … where its owner fixed one; empty for automatic.
        priority: `high` or `low` goes before or behind others where many wait to be recognised; empty for neither.
        access: allowed or blocked by hand.
        serial, hmac_key: of boards with a key burnt in, for the activation challenge.
        code, code_until: the activation code that is pending.
        created_at, last_seen, bound_at: when.
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
    access: Access = Access.NONE
    serial: str = ""
    hmac_key: bytes = field(default=b"", repr=False)
    code: str = field(default="", repr=False)
    code_until: float = 0.0
    created_at: float = 0.0
    last_seen: float = 0.0
    bound_at: float = 0.0

    @property
    def bound(self) -> bool:
        """Somebody has entered its activation code, or allowed it."""
        return self.bound_at > 0.0 or self.access is Access.ALLOWED

    @property
    def label(self) -> str:
        """What to call it: its name, or else its id."""
        return self.name or self.id


class Devices:
    """The table of devices."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s

    async def get(self, device_id: str) -> Device | None:
        """A device, or `None` where it was never seen.

        Raises:
            StoreError: the file cannot be read.
        """
        return await self._database.read(lambda connection: find(connection, device_id))

    async def list(self) -> list[Device]:
        """Every device, the one seen last first.

        Raises:
            StoreError: the file cannot be read.
        """

        def call(connection: sqlite3.Connection) -> list[Device]:
            rows = connection.execute("SELECT * FROM devices ORDER BY last_seen DESC, id")
            return [_device(row) for row in rows]

        return await self._database.read(call)

    async def seen(self, device_id: str, *, client_id: str = "", board: str = "", firmware: str = "") -> Device:
        """A device has called: write down when, and what it said about itself; empty words change nothing.

        Where the disk takes nothing the answer is what is known and what was said, and serving goes on.
        """
        said: dict[str, Any] = {"client_id": client_id, "board": board, "firmware": firmware}
        said = {key: value[:_LONGEST] for key, value in said.items() if value}
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> Device:
            put(connection, device_id, now, {**said, "last_seen": now})
            return _found(connection, device_id)

        try:
            return await self._database.write(call, durable=False)
        except StoreError:  # said once by the store itself
            known = await self._known(device_id)
            return dataclasses.replace(known or Device(device_id, created_at=now), last_seen=now, **said)

    async def _known(self, device_id: str) -> Device | None:
        try:
            return await self.get(device_id)
        except StoreError:
            return None

    async def update(self, device_id: str, **values: str | bytes) -> Device:
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
        """Give a device another persona, without waiting; one that was removed meanwhile is not made again."""
        self._database.post(
            lambda connection: connection.execute("UPDATE devices SET agent = ? WHERE id = ?", (agent, device_id))
        )

    async def allow(self, device_id: str) -> Device:
        """Let a device in without a code. Raises `StoreError`."""
        return await self._change(device_id, {"access": Access.ALLOWED.value, "code": ""})

    async def block(self, device_id: str) -> Device:
        """Keep a device out whatever it shows. Raises `StoreError`."""
        return await self._change(device_id, {"access": Access.BLOCKED.value, "code": ""})

    async def unlist(self, device_id: str) -> Device:
        """Neither allowed nor blocked any more. Raises `StoreError`."""
        return await self._change(device_id, {"access": Access.NONE.value})

    async def unbind(self, device_id: str) -> Device:
        """It belongs to nobody and must be activated anew. Raises `StoreError`."""
        return await self._change(device_id, {"bound_at": 0.0, "owner": "", "access": Access.NONE.value})

    async def _change(self, device_id: str, values: dict[str, Any]) -> Device:
        def call(connection: sqlite3.Connection) -> Device:
            put(connection, device_id, self._now_s(), values)
            return _found(connection, device_id)

        return await self._database.write(call)

    async def remove(self, device_id: str) -> bool:
        """Delete a device and everything of it: conversations, summaries, memories, reminders; overwritten on disk.

        Returns:
            Whether there was one.

        Raises:
            StoreError: the file cannot be written.
        """

        def call(connection: sqlite3.Connection) -> bool:
            return connection.execute("DELETE FROM devices WHERE id = ?", (device_id,)).rowcount > 0

        removed = await self._database.write(call)
        if removed:  # the log that SQLite keeps beside the file holds its words until it is folded in
            await self._database.read(_fold_in)
        return removed

    # Activation ---------------------------------------------------------------------------------------------------

    async def pending_code(self, device_id: str, now: float | None = None) -> str:
        """The six digits that bind this device; the same ones until they expire.

        Args:
            device_id: the device; it is made where it was never seen.
            now: seconds since 1970; the clock when left out.

        Raises:
            StoreError: the file cannot be written.
        """
        at = self._now_s() if now is None else now

        def call(connection: sqlite3.Connection) -> str:
            put(connection, device_id, at, {})
            device = _found(connection, device_id)
            if device.code and device.code_until > at:
                return device.code
            connection.execute("UPDATE devices SET code = '' WHERE code <> '' AND code_until <= ?", (at,))
            taken = {row["code"] for row in connection.execute("SELECT code FROM devices WHERE code <> ''")}
            code = _new_code(taken)
            put(connection, device_id, at, {"code": code, "code_until": at + CODE_TTL_S})
            return code

        return await self._database.write(call)

    async def sweep(self, now: float | None = None) -> int:
        """Delete strangers: their code ran out more than a day ago, and nothing else is known of them.

        Args:
            now: seconds since 1970; the clock when left out.

        Returns:
            How many it was.

        Raises:
            StoreError: the file cannot be written.
        """
        before = (self._now_s() if now is None else now) - _STRANGER_S

        def call(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM devices WHERE code_until > 0 AND code_until < ? AND last_seen < ? AND bound_at = 0"
                " AND access = '' AND owner = '' AND name = '' AND room = '' AND agent = '' AND language = ''"
                " AND serial = '' AND length(hmac_key) = 0"
                " AND NOT EXISTS (SELECT 1 FROM conversations WHERE device = devices.id)"
                " AND NOT EXISTS (SELECT 1 FROM memories WHERE device = devices.id)"
                " AND NOT EXISTS (SELECT 1 FROM reminders WHERE device = devices.id)",
                (before, before),
            ).rowcount

        return await self._database.write(call)

    async def bind(self, code: str, *, owner: str = "", now: float | None = None) -> Device | None:
        """Bind the device that shows this code; `None` for a code that is not pending.

        Args:
            code: six digits; blanks and dashes between them do not matter.
            owner: whose it becomes; empty leaves that as it is.
            now: seconds since 1970; the clock when left out.

        Raises:
            TooManyTries: too many wrong codes lately.
            StoreError: the file cannot be written.
        """
        at = self._now_s() if now is None else now
        digits = "".join(char for char in code if not char.isspace() and char != "-")

        def call(connection: sqlite3.Connection) -> Device | TooManyTries | None:
            wrong = [then for then in _wrong_codes(connection) if at - WRONG_CODES_WINDOW_S < then <= at]
            if len(wrong) >= MOST_WRONG_CODES:
                wait_s = wrong[0] + WRONG_CODES_WINDOW_S - at
                return TooManyTries(f"too many wrong codes; try again in {wait_s / 60.0:.0f} minutes")
            row = connection.execute(
                "SELECT id FROM devices WHERE code = ? AND code <> '' AND code_until > ?", (digits, at)
            ).fetchone()
            if row is None:
                write_value(connection, _WRONG_CODES_KEY, orjson.dumps([*wrong, at]).decode())
                return None
            values = {"bound_at": at, "code": "", "code_until": 0.0, **({"owner": owner[:_LONGEST]} if owner else {})}
            put(connection, row["id"], at, values)
            return _found(connection, row["id"])

        bound = await self._database.write(call)
        if isinstance(bound, TooManyTries):
            raise bound
        return bound


def _wrong_codes(connection: sqlite3.Connection) -> list[float]:
    try:
        times = orjson.loads(read_value(connection, _WRONG_CODES_KEY) or "[]")
    except orjson.JSONDecodeError:
        return []
    return [float(at) for at in times] if isinstance(times, list) else []


def _new_code(taken: set[str]) -> str:
    while True:
        code = f"{secrets.randbelow(1_000_000):06d}"
        if code not in taken:
            return code


# In the store's thread; other tables of the store use these too -----------------------------------------------------


def _fold_in(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:  # else it is folded in by itself with one of the next writes
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def find(connection: sqlite3.Connection, device_id: str) -> Device | None:
    """A device by its id."""
    row = connection.execute("SELECT * FROM devices WHERE id = ?", (device_id,)).fetchone()
    return None if row is None else _device(row)


def put(connection: sqlite3.Connection, device_id: str, now: float, values: dict[str, Any]) -> None:
    """Make the device where it is new, and set columns of it."""
    made = connection.execute(
        "INSERT INTO devices (id, created_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING", (device_id, now)
    ).rowcount
    if values:
        columns = ", ".join(f"{column} = :{column}" for column in values)  # the names are this module's own
        connection.execute(f"UPDATE devices SET {columns} WHERE id = :id", {**values, "id": device_id})
    if made > 0:
        _forget_surplus(connection)


def _forget_surplus(connection: sqlite3.Connection) -> None:
    surplus = connection.execute("SELECT count(*) FROM devices").fetchone()[0] - MOST_DEVICES
    if surplus > 0:
        connection.execute(
            "DELETE FROM devices WHERE id IN (SELECT id FROM devices"
            " WHERE bound_at = 0 AND access = '' AND owner = '' AND name = '' ORDER BY last_seen LIMIT ?)",
            (surplus,),
        )


def _found(connection: sqlite3.Connection, device_id: str) -> Device:
    device = find(connection, device_id)
    if device is None:
        raise StoreError(f"the store holds as many devices as it may; remove some with `{program()} devices remove`")
    return device


def _device(row: sqlite3.Row) -> Device:
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - iterating a Row gives its values
    return Device(**{**values, "access": Access(values["access"]), "hmac_key": bytes(values["hmac_key"])})
