"""Clients that wait to be let in: each shows a code of six digits of its own, and entering it makes it the device."""

import dataclasses
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from xiaozhi.store.database import Database, StoreError, record
from xiaozhi.store.devices import UNPROVEN, DeviceRecord, NoRoom, found, put
from xiaozhi.store.named import read_value, write_value

# A code is spoken and shown until then; a device asks again and gets a new one.
CODE_TTL_S: Final = 600.0
_CHALLENGE_BYTES: Final = 16
# In place of one device (a board that was erased is one), from one address, in all.
MAX_PER_DEVICE: Final = 8
MAX_PER_ADDRESS: Final = 50
MAX_PENDING: Final = 2000
# Guessing: a million codes, a handful pending, at most this many wrong ones in the window, whoever asks.
MAX_WRONG_CODES: Final = 10
WRONG_CODES_WINDOW_S: Final = 600.0
_WRONG_CODES_KEY: Final = "activation.wrong-codes"
_MAX_OWNER_CHARS: Final = 200
# A code that holds longer than codes do was made while the clock was wrong.
_IS_PENDING: Final = "until > :at AND until <= :latest"


class TooManyTries(StoreError):
    """Too many wrong codes; one line says when to try again."""


@dataclass(frozen=True, slots=True)
class PendingClient:
    """Somebody who says to be a device: a new device, or another client of one that is known.

    Attributes:
        device, client_id: what it says it is; `NO_CLIENT_ID` where it gives no client id.
        code: the six digits that it shows.
        challenge: what a board with a key burnt in has to sign.
        until: when the code ends, in seconds since 1970.
        address: where it asked from: an address, or a /64 of IPv6; empty for this machine.
    """

    device: str
    client_id: str
    code: str = field(repr=False)
    challenge: str = field(repr=False)
    until: float
    address: str = ""


class PendingClients:
    """The table of those that wait."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s

    async def ask(
        self, device_id: str, client_id: str, *, address: str = "", now: float | None = None
    ) -> PendingClient:
        """What lets this client in; the same until its code expires.

        Of those that wait in place of one device, the oldest of the busiest address makes room: whoever asks under ever
        new names pushes himself out.

        Args:
            device_id: the device; it is made where it was never seen.
            client_id: the client; `NO_CLIENT_ID` for one that gives none.
            address: see `PendingClient`.
            now: seconds since 1970; the clock when left out.

        Raises:
            NoRoom: too many wait, or there are too many devices.
            StoreError: the file cannot be written.
        """
        at = self._now_s() if now is None else now

        def call(connection: sqlite3.Connection) -> PendingClient:
            connection.execute(f"DELETE FROM pending_clients WHERE NOT ({_IS_PENDING})", _window(at))
            known = _find(connection, at, device=device_id, client_id=client_id)
            if known is not None:
                return known
            put(connection, device_id, at, {})
            _make_room(connection, device_id, address)
            taken = {row["code"] for row in connection.execute("SELECT code FROM pending_clients")}
            challenge = secrets.token_hex(_CHALLENGE_BYTES)
            pending = PendingClient(device_id, client_id, _new_code(taken), challenge, at + CODE_TTL_S, address)
            _write(connection, pending)
            return pending

        return await self._database.write(call)

    async def find(self, device_id: str, client_id: str) -> PendingClient | None:
        """What this client was given, `None` where it does not wait. Raises `StoreError`."""
        at = self._now_s()
        return await self._database.read(
            lambda connection: _find(connection, at, device=device_id, client_id=client_id)
        )

    async def list(self) -> list[PendingClient]:
        """All that wait, the one that came last first. Raises `StoreError`."""
        at = self._now_s()
        rows = await self._database.rows(
            f"SELECT * FROM pending_clients WHERE {_IS_PENDING} ORDER BY until DESC", _window(at)
        )
        return [record(PendingClient, row) for row in rows]

    async def bind(self, code: str, *, owner: str = "", now: float | None = None) -> DeviceRecord | None:
        """Let in the client that shows this code: from now on it is the device, and no other client is.

        A board whose key is known has to answer its challenge before it counts: see `UNPROVEN`.

        Args:
            code: six digits; blanks and dashes between them do not matter.
            owner: whose it becomes; empty leaves that as it is.
            now: seconds since 1970; the clock when left out.

        Returns:
            The device; `None` for a code that is not pending.

        Raises:
            TooManyTries: too many wrong codes lately.
            StoreError: the file cannot be written.
        """
        at = self._now_s() if now is None else now
        digits = "".join(char for char in code if not char.isspace() and char != "-")

        def call(connection: sqlite3.Connection) -> DeviceRecord | TooManyTries | None:
            wrong = [then for then in _wrong_codes(connection) if at - WRONG_CODES_WINDOW_S < then <= at]
            if len(wrong) >= MAX_WRONG_CODES:
                wait_s = wrong[0] + WRONG_CODES_WINDOW_S - at
                return TooManyTries(f"too many wrong codes; try again in {wait_s / 60.0:.0f} minutes")
            pending = _find(connection, at, code=digits)
            if pending is None:
                write_value(connection, _WRONG_CODES_KEY, orjson.dumps([*wrong, at]).decode())
                return None
            values: dict[str, Any] = {"bound_at": at, "client_id": pending.client_id}
            if found(connection, pending.device).hmac_key:
                values["client_id"] = UNPROVEN + pending.client_id  # and it keeps its challenge
            else:
                connection.execute("DELETE FROM pending_clients WHERE code = ?", (digits,))
            if owner:
                values["owner"] = owner[:_MAX_OWNER_CHARS]
            put(connection, pending.device, at, values)
            return found(connection, pending.device)

        bound = await self._database.write(call)
        if isinstance(bound, TooManyTries):
            raise bound
        return bound

    async def keep(self, pending: PendingClient) -> None:
        """Take over what another node has given to a client. Raises `NoRoom`, `StoreError`."""
        at = self._now_s()

        def call(connection: sqlite3.Connection) -> None:
            put(connection, pending.device, at, {})
            _write(connection, dataclasses.replace(pending, until=min(pending.until, at + CODE_TTL_S)))

        await self._database.write(call)


# In the store's thread ------------------------------------------------------------------------------------------------


def _window(at: float) -> dict[str, float]:
    return {"at": at, "latest": at + CODE_TTL_S}


def _find(connection: sqlite3.Connection, at: float, **values: str) -> PendingClient | None:
    where = " AND ".join(f"{column} = :{column}" for column in values)  # the names are this module's own
    row = connection.execute(
        f"SELECT * FROM pending_clients WHERE {where} AND {_IS_PENDING}", {**values, **_window(at)}
    ).fetchone()
    return None if row is None else record(PendingClient, row)


def _write(connection: sqlite3.Connection, pending: PendingClient) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO pending_clients (device, client_id, code, challenge, until, address)"
        " VALUES (:device, :client_id, :code, :challenge, :until, :address)",
        dataclasses.asdict(pending),
    )


def _make_room(connection: sqlite3.Connection, device_id: str, address: str) -> None:
    """Room for one more client that waits. Raises `NoRoom`."""
    connection.execute(
        "DELETE FROM pending_clients WHERE device = :device AND client_id IN ("
        " SELECT client_id FROM pending_clients AS one WHERE device = :device ORDER BY ("
        "  SELECT count(*) FROM pending_clients WHERE device = :device AND address = one.address) DESC, until"
        " LIMIT max(0, (SELECT count(*) FROM pending_clients WHERE device = :device) + 1 - :most))",
        {"device": device_id, "most": MAX_PER_DEVICE},
    )
    total, here = connection.execute(
        "SELECT count(*), coalesce(sum(address = ? AND address <> ''), 0) FROM pending_clients", (address,)
    ).fetchone()
    if total >= MAX_PENDING or here >= MAX_PER_ADDRESS:
        raise NoRoom("too many devices wait for their code; those that nobody lets in make room within ten minutes")


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
