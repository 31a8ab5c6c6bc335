"""Conversations: every turn with its trace, and the summary of what is older. Each device has its own."""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from xiaozhi.store import devices
from xiaozhi.store.database import Database, StoreError, record
from xiaozhi.text.tool_note import MAX_NOTE_CHARS


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One finished turn.

    Attributes:
        id: rises with time; from `Turns.next_id`.
        device: whose.
        conversation: from `Past`; 0 where none could be begun, and then the turn is not kept.
        agent: the agent that answered; empty for the default.
        at: seconds since 1970.
        heard: what the user said; empty where the server spoke unasked.
        said: what the model answered.
        played: as much of it as was heard, with the mark of an interruption.
        interrupted: the user broke in.
        trace: the turn's record of times.
        note: what later prompts say below `heard`: how it sounded, which tools were called and what came of them. Of
            a longer one the first `MAX_NOTE_CHARS` are kept.
    """

    id: int
    device: str
    conversation: int
    agent: str
    at: float
    heard: str
    said: str
    played: str
    interrupted: bool = False
    trace: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """What a conversation begins with.

    Attributes:
        conversation: the number its turns carry; 0 where it could not be written down.
        summary: what was before `turns`, in a few sentences; may be empty.
        turns: the last ones, the oldest first.
    """

    conversation: int = 0
    summary: str = ""
    turns: Sequence[TurnRecord] = ()


class Turns:
    """The tables of conversations, turns and summaries."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s
        self._last_id = 0

    async def prepare(self) -> None:
        """Find the last number given. Raises `StoreError`."""
        ((newest,),) = await self._database.rows("SELECT coalesce(max(id), 0) FROM turns")
        self._last_id = max(self._last_id, int(newest))

    @property
    def last_id(self) -> int:
        """The number given last; 0 before the first."""
        return self._last_id

    def next_id(self) -> int:
        """A number for a turn, higher than every one before."""
        self._last_id += 1
        return self._last_id

    async def begin(self, device_id: str, agent: str, most: int) -> Past:
        """Begin a conversation where the last one ended.

        Where the disk takes nothing, what is known is read all the same.

        Args:
            device_id: whose; it is made where it was never seen.
            agent: the agent; each remembers what was said with it, not with another.
            most: turns to read at most, and as many things that were said unasked.
        """
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> Past:
            devices.put(connection, device_id, now, {})
            number = connection.execute(
                "INSERT INTO conversations (device, began_at) VALUES (?, ?)", (device_id, now)
            ).lastrowid
            past = _past(connection, device_id, agent, most)
            return Past(int(number or 0), past.summary, past.turns)

        try:
            return await self._database.write(call, durable=False)
        except StoreError:  # said once by the store itself
            try:
                return await self.past(device_id, agent, most)
            except StoreError:
                return Past()

    async def past(self, device_id: str, agent: str, most: int) -> Past:
        """What was said with one agent lately, without beginning a conversation. Raises `StoreError`."""
        return await self._database.read(lambda connection: _past(connection, device_id, agent, most))

    def add(self, turn: TurnRecord) -> None:
        """Write a turn down, without waiting. Of a device that has been removed meanwhile nothing is written."""
        if not turn.conversation:
            return
        trace = orjson.dumps(dict(turn.trace)).decode()  # now: it may go on changing
        self._database.post(lambda connection: _insert(connection, turn, trace))

    def summarise(self, device_id: str, agent: str, text: str, up_to: int) -> None:
        """Keep a summary of everything up to the turn of this number, without waiting."""
        now = self._now_s()
        self._database.post(
            lambda connection: connection.execute(
                "INSERT INTO summaries (device, agent, text, up_to, changed_at)"
                " SELECT id, ?, ?, ?, ? FROM devices WHERE id = ?"
                " ON CONFLICT (device, agent) DO UPDATE"
                " SET text = excluded.text, up_to = excluded.up_to, changed_at = excluded.changed_at",
                (agent, text, up_to, now, device_id),
            )
        )

    async def clear(self, device_id: str) -> int:
        """Forget what was said to a device; returns how many turns it was. Raises `StoreError`."""

        def call(connection: sqlite3.Connection) -> int:
            gone = connection.execute("DELETE FROM turns WHERE device = ?", (device_id,)).rowcount
            connection.execute("DELETE FROM summaries WHERE device = ?", (device_id,))
            return gone

        return await self._database.write(call)

    async def sweep(self, keep_days: float, keep_turns_per_device: int) -> int:
        """Delete what is older than `keep_days` (0: nothing is too old) or too much; returns how many turns it was.

        Raises:
            StoreError: the file cannot be written.
        """
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> int:
            gone = 0
            if keep_days > 0.0:
                before = now - keep_days * 86_400.0
                gone += connection.execute("DELETE FROM turns WHERE at < ?", (before,)).rowcount
                connection.execute("DELETE FROM summaries WHERE changed_at < ?", (before,))
                connection.execute("DELETE FROM reminders WHERE done_at > 0 AND done_at < ?", (before,))
            gone += connection.execute(
                "DELETE FROM turns WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER"
                " (PARTITION BY device ORDER BY id DESC) AS place FROM turns) WHERE place > ?)",
                (keep_turns_per_device,),
            ).rowcount
            connection.execute(  # those of the last day may still be open
                "DELETE FROM conversations WHERE began_at < ? AND id NOT IN (SELECT conversation FROM turns)",
                (now - 86_400.0,),
            )
            return gone

        return await self._database.write(call)

    async def list(self, device_id: str = "", *, limit: int = 50, before: int = 0) -> list[TurnRecord]:
        """Turns of a device, or of all, the newest first.

        Args:
            device_id: empty for all.
            limit: at most so many.
            before: only those with lower numbers; 0 for the newest.

        Raises:
            StoreError: the file cannot be read.
        """
        rows = await self._database.rows(
            "SELECT * FROM turns WHERE (?1 = '' OR device = ?1) AND (?2 = 0 OR id < ?2) ORDER BY id DESC LIMIT ?3",
            (device_id, before, limit),
        )
        return [_turn(row) for row in rows]


# In the store's thread ------------------------------------------------------------------------------------------------


def _insert(connection: sqlite3.Connection, turn: TurnRecord, trace: str) -> None:
    """Write a turn; under another number where that one has been taken by another process."""
    taken = connection.execute("SELECT 1 FROM turns WHERE id = ?", (turn.id,)).fetchone()
    connection.execute(
        "INSERT INTO turns (id, device, conversation, agent, at, heard, said, played, interrupted, trace, note)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(None if taken else turn.id, turn.device, turn.conversation, turn.agent, turn.at, turn.heard, turn.said),
            *(turn.played, int(turn.interrupted), trace, turn.note[:MAX_NOTE_CHARS]),
        ),
    )


def _past(connection: sqlite3.Connection, device_id: str, agent: str, most: int) -> Past:
    summary = connection.execute(
        "SELECT text, up_to FROM summaries WHERE device = ? AND agent = ?", (device_id, agent)
    ).fetchone()
    scope = (device_id, agent, summary["up_to"] if summary else 0)
    first = connection.execute(
        "SELECT id FROM turns WHERE device = ? AND agent = ? AND id > ? AND heard != ''"
        " ORDER BY id DESC LIMIT 1 OFFSET ?",
        (*scope, most - 1),
    ).fetchone()
    rows = connection.execute(
        "SELECT * FROM turns WHERE device = ? AND agent = ? AND id > ? AND id >= ? ORDER BY id DESC LIMIT ?",
        (*scope, first["id"] if first else 0, 2 * most),
    )
    turns = [_turn(row) for row in rows]
    return Past(0, summary["text"] if summary else "", turns[::-1])


def _turn(row: sqlite3.Row) -> TurnRecord:
    return record(TurnRecord, row, interrupted=bool(row["interrupted"]), trace=orjson.loads(row["trace"]))
