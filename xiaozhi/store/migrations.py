"""The tables, as numbered steps. A step that has been published is never changed; a change is a further step."""

import sqlite3
from typing import Final

STEPS: Final[tuple[str, ...]] = (
    # 1: devices, and single values such as the generations of secrets
    """
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE devices (
        id TEXT PRIMARY KEY,
        client_id TEXT NOT NULL DEFAULT '',
        name TEXT NOT NULL DEFAULT '',
        room TEXT NOT NULL DEFAULT '',
        owner TEXT NOT NULL DEFAULT '',
        board TEXT NOT NULL DEFAULT '',
        firmware TEXT NOT NULL DEFAULT '',
        agent TEXT NOT NULL DEFAULT '',
        language TEXT NOT NULL DEFAULT '',
        access TEXT NOT NULL DEFAULT '' CHECK (access IN ('', 'allowed', 'blocked')),
        serial TEXT NOT NULL DEFAULT '',
        hmac_key BLOB NOT NULL DEFAULT x'',
        code TEXT NOT NULL DEFAULT '',
        code_until REAL NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        last_seen REAL NOT NULL DEFAULT 0,
        bound_at REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX devices_code ON devices (code) WHERE code <> '';
    CREATE INDEX devices_last_seen ON devices (last_seen);
    """,
    # 2: agents
    """
    CREATE TABLE agents (
        name TEXT PRIMARY KEY,
        definition TEXT NOT NULL,
        changed_at REAL NOT NULL
    ) WITHOUT ROWID;
    """,
    # 3: conversations
    """
    CREATE TABLE conversations (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
        began_at REAL NOT NULL
    );
    CREATE INDEX conversations_device ON conversations (device);
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
        conversation INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        agent TEXT NOT NULL DEFAULT '',
        at REAL NOT NULL,
        heard TEXT NOT NULL,
        said TEXT NOT NULL,
        played TEXT NOT NULL,
        interrupted INTEGER NOT NULL DEFAULT 0,
        trace TEXT NOT NULL DEFAULT '{}'
    );
    CREATE INDEX turns_device ON turns (device, id);
    CREATE INDEX turns_conversation ON turns (conversation);
    CREATE INDEX turns_at ON turns (at);
    CREATE TABLE summaries (
        device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
        agent TEXT NOT NULL,
        text TEXT NOT NULL,
        up_to INTEGER NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (device, agent)
    ) WITHOUT ROWID;
    """,
    # 4: what a device's owner told it to keep in mind
    """
    CREATE TABLE memories (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
        text TEXT NOT NULL,
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL
    );
    CREATE INDEX memories_device ON memories (device);
    CREATE TABLE reminders (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
        text TEXT NOT NULL,
        due_at REAL NOT NULL,
        repeat TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL,
        done_at REAL NOT NULL DEFAULT 0
    );
    CREATE INDEX reminders_due ON reminders (due_at) WHERE done_at = 0;
    CREATE INDEX reminders_device ON reminders (device);
    """,
    # 5: who is recognised first when many wait
    """
    ALTER TABLE devices ADD COLUMN priority TEXT NOT NULL DEFAULT '';
    """,
    # 6: what the model was told of a turn below the user's words: how they sounded, which tools were called
    """
    ALTER TABLE turns ADD COLUMN note TEXT NOT NULL DEFAULT '';
    """,
    # 7: a code belongs to one client of a device, not to whoever knows the device's id; `devices.code` is used no more
    """
    CREATE TABLE pending_clients (
        device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
        client_id TEXT NOT NULL,
        code TEXT NOT NULL UNIQUE,
        challenge TEXT NOT NULL,
        address TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (device, client_id)
    ) WITHOUT ROWID;
    UPDATE devices SET code = '', code_until = 0;
    """,
    # 8: how long the user of a device pauses inside sentences
    """
    ALTER TABLE devices ADD COLUMN pause_ms REAL NOT NULL DEFAULT 0;
    """,
    # 9: whether a device leaves the echo of its loudspeaker to the server
    """
    ALTER TABLE devices ADD COLUMN aec INTEGER NOT NULL DEFAULT 0;
    """,
)

VERSION: Final = len(STEPS)


def version_of(connection: sqlite3.Connection) -> int:
    """How many steps a file has behind it."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, up_to: int = VERSION) -> None:
    """Take the missing steps, each in a transaction of its own: a power cut leaves a whole version behind.

    Args:
        connection: in autocommit mode.
        up_to: the version to stop at; tests make old files with it.

    Raises:
        sqlite3.Error: the file cannot be written or is damaged.
    """
    for number in range(version_of(connection), up_to):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if version_of(connection) == number:  # else another process has just taken this step
                for statement in STEPS[number].split(";\n"):
                    if statement.strip():
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
