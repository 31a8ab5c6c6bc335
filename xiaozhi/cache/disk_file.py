"""The file of the disk tier: one SQLite table. Blocking; one thread uses an object at a time.

The command `xiaozhi cache` reads the same file, also while a server runs.
"""

import logging
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xiaozhi.store import private_file

_log = logging.getLogger(__name__)

FILE_NAME: Final = "speech-cache.sqlite"
"""In the folder `server.data_dir`."""
# Raised when the table changes: a file of another version is emptied.
_VERSION: Final = 1
_BUSY_S: Final = 2.0
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL,"
    " expires REAL NOT NULL, used REAL NOT NULL)"
)


class DiskError(Exception):
    """The file cannot be used or written; one line."""


@dataclass(frozen=True, slots=True)
class DiskEntry:
    """One value without its bytes: its key, its size in bytes, and wall-clock seconds of its end and its last use."""

    key: bytes
    size: int
    expires: float
    used: float


class DiskFile:
    """The opened file.

    Opening creates it, sets a damaged one aside under the name `….damaged` and begins a new one.

    Args:
        path: of the file; its folder is made.

    Raises:
        DiskError: the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = self._open_or_renew()

    def entries(self) -> list[DiskEntry]:
        """Every value, least recently used first."""
        rows = self._db.execute("SELECT key, length(value), expires, used FROM entries ORDER BY used")
        return [DiskEntry(bytes(key), size, expires, used) for key, size, expires, used in rows]

    def read(self, key: bytes) -> bytes | None:
        """A value as it was written; a damaged one is deleted and None.

        Raises:
            sqlite3.DatabaseError: see `damaged`.
        """
        row = self._db.execute("SELECT value, crc FROM entries WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value = bytes(row[0])
        if zlib.crc32(value) != row[1]:
            _log.warning("a damaged entry of %s was deleted", self.path)
            self.delete([key])
            return None
        return value

    def touch(self, key: bytes, used: float) -> None:
        """Write down when a value was last used."""
        with self._db:
            self._db.execute("UPDATE entries SET used = ? WHERE key = ?", (used, key))

    def write(self, key: bytes, value: bytes, expires: float, used: float) -> None:
        """Keep a value."""
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)",
                (key, value, zlib.crc32(value), expires, used),
            )

    def delete(self, keys: Iterable[bytes]) -> None:
        """Forget values; their room in the file is used again."""
        with self._db:
            self._db.executemany("DELETE FROM entries WHERE key = ?", ((key,) for key in keys))

    def clear(self) -> None:
        """Forget everything and give the room back to the file system."""
        with self._db:
            self._db.execute("DELETE FROM entries")
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def renew(self, why: object) -> None:
        """Set the damaged file aside and begin a new one."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._set_aside(why)
        self._db = self._open()

    def close(self) -> None:
        """Close the file; what was written is there after a restart."""
        self._db.close()

    def _open_or_renew(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._open()
            except sqlite3.DatabaseError as error:
                if not damaged(error):
                    raise
                self._set_aside(error)
                return self._open()
        except (OSError, sqlite3.Error) as error:
            raise DiskError(f"{self.path} cannot be used: {error}") from error

    def _open(self) -> sqlite3.Connection:
        private_file.make(self.path)  # what was said at home; SQLite gives -wal and -shm the same rights
        db = sqlite3.connect(self.path, timeout=_BUSY_S, check_same_thread=False)
        try:
            # A lost entry after a power cut is no harm, so nothing waits for the disk at every write.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            (fault,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if fault != "ok":
                raise sqlite3.DatabaseError(f"malformed: {fault}")
            with db:
                if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                    db.execute("DROP TABLE IF EXISTS entries")
                    db.execute(f"PRAGMA user_version = {_VERSION}")
                db.execute(_SCHEMA)
                db.execute("SELECT key, value, crc, expires, used FROM entries LIMIT 1")
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, why: object) -> None:
        aside = self.path.with_name(self.path.name + ".damaged")
        self.path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        _log.warning("the cache %s is damaged (%s): set aside as %s, a new one is begun", self.path, why, aside.name)


def damaged(error: sqlite3.Error) -> bool:
    """Whether an error means that the file is broken, rather than busy, full or not writable."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    text = str(error)
    return "malformed" in text or "not a database" in text or "no such column" in text or "no such table" in text
