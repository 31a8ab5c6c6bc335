"""Opening the store's file: its settings, its version, and what happens when it is damaged or cannot be written."""

import contextlib
import logging
import sqlite3
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from xiaozhi.program import program
from xiaozhi.store import private_file
from xiaozhi.store.migrations import VERSION, migrate, version_of

_log = logging.getLogger(__name__)

MEMORY: Final = ":memory:"

# Another process (`xiaozhi devices` beside a running server) may hold the file for as long as a commit takes.
_BUSY_S: Final = 5.0

# https://www.sqlite.org/fileformat2.html#magic_header_string
_HEADER: Final = b"SQLite format 3\0"

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(slots=True)
class OpenedDatabase:
    """An open connection.

    Attributes:
        connection: in autocommit mode, to be used by one thread at a time.
        keeps: it is a file; false when only memory was left.
        set_aside: how many damaged files were renamed on the way.
    """

    connection: sqlite3.Connection
    keeps: bool
    set_aside: int = 0

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):  # a damaged file may refuse its last checkpoint; nothing is lost by it
            self.connection.close()


def is_damage(error: sqlite3.Error) -> bool:
    """The file is no good, as opposed to a disk that is full or a call that is wrong."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _DAMAGED


def open_database(path: Path | str) -> OpenedDatabase:
    """Open a store, brought up to date. Blocking.

    A damaged file is renamed and a new one begun; a file that is no database at all is left as it is. It, or one that
    cannot be opened or written, is replaced by memory. All of it is logged with what to do: serving goes on.

    Raises:
        ValueError: the file was written by a newer version of this program; one line says what to do.
    """
    set_aside_count = 0
    if path != MEMORY and not is_database(Path(path)):
        _log.error(
            "%s cannot be used: it is no database, and is left as it is; serving goes on, but devices, agents and "
            "conversations are not kept. Name another file in store.file, or move this one away",
            path,
        )
        return OpenedDatabase(_connect(MEMORY), keeps=False)
    for _ in range(2):
        try:
            return OpenedDatabase(_connect(path), keeps=path != MEMORY, set_aside=set_aside_count)
        except (sqlite3.DatabaseError, OSError) as error:
            if isinstance(error, sqlite3.DatabaseError) and is_damage(error) and path != MEMORY:
                try:
                    set_aside(Path(path), error)
                except OSError as refused:
                    _log.error("%s is damaged and cannot be renamed: %s", path, refused)
                    break
                set_aside_count += 1
                continue
            _log.error(
                "%s cannot be used: %s; serving goes on, but devices, agents and conversations are not kept. "
                "Make its folder writable and start again",
                path,
                error,
            )
            break
    return OpenedDatabase(_connect(MEMORY), keeps=False, set_aside=set_aside_count)


def is_database(path: Path) -> bool:
    """Whether a file is SQLite's by its first bytes, empty, or not there: no other may be written or renamed."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(len(_HEADER)) in (b"", _HEADER)
    except FileNotFoundError:
        return True
    except OSError:  # it may not even be read: opening it says why
        return True


def set_aside(path: Path, error: Exception) -> Path:
    """Rename a damaged file, and what SQLite keeps beside it, with the date.

    Returns:
        The new name.

    Raises:
        OSError: the folder cannot be written.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("", "-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(target.with_name(target.name + suffix))
    _log.error(
        "%s is damaged (%s): it is now called %s, and a new one is begun. Devices must be bound again, or "
        "`%s import` a file that `%s export` wrote",
        path,
        error,
        target.name,
        program(),
        program(),
    )
    return target


def _former(path: Path | str, version: int) -> Path:
    """Where the store is kept as it was before it was brought to a later version."""
    return Path(f"{path}.version-{version}")


def _keep_former(connection: sqlite3.Connection, former: Path) -> None:
    """Copy the store, so that the program before this one can be gone back to. One that is there already stays."""
    if former.exists():
        return
    try:
        private_file.make(former)
        connection.execute("VACUUM INTO ?", (str(former),))
    except (sqlite3.OperationalError, OSError) as error:  # a full disk must not keep the server from starting
        former.unlink(missing_ok=True)
        _log.warning("the store is brought up to date without a copy of what it was: %s: %s", former, error)
    else:
        _log.info(
            "the store is brought up to date; as it was it is kept as %s, to go back to the former version", former
        )


def _connect(path: Path | str) -> sqlite3.Connection:
    if isinstance(path, Path):
        private_file.make(path)  # what people said at home is nobody else's; SQLite gives -wal and -shm the same rights
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        if path != MEMORY:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only unlinked
        connection.execute("PRAGMA journal_size_limit = 4194304")
        found = version_of(connection)
        if found > VERSION:
            former = _former(path, VERSION)
            instead = f"put {former.name} in its place" if former.is_file() else "move the file away"
            raise ValueError(
                f"{path} has version {found}, this program knows {VERSION}: "
                f"install the newer xiaozhi again, or {instead}"
            )
        check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            damage = sqlite3.DatabaseError(str(check))
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
        if 0 < found < VERSION:
            _keep_former(connection, _former(path, found))
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection
