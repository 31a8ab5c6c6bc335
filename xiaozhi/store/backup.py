"""The whole store as one file of JSON lines, and back: checked first, then taken all or not at all."""

import sqlite3
import time
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import orjson

from xiaozhi.store.database import Database, StoreError
from xiaozhi.store.migrations import VERSION

FORMAT: Final = "xiaozhi-export"
# Parents before children, so that rows can be written in this order.
TABLES: Final = ("meta", "devices", "agents", "conversations", "turns", "summaries", "memories", "reminders")
_BLOBS: Final = frozenset({"hmac_key"})
# A turn with its trace takes about 2 KB; a line far above that is not ours.
_LONGEST_LINE: Final = 4 * 1024 * 1024


_NO_EXPORT: Final = "this is no file that `export` wrote"


class BackupError(StoreError):
    """A file cannot be imported; one line says why."""


async def export_store(database: Database, file: BinaryIO) -> dict[str, int]:
    """Write everything to a file.

    Returns:
        How many rows of each table.

    Raises:
        StoreError: the store cannot be read.
        OSError: the file cannot be written.
    """

    def call(connection: sqlite3.Connection) -> dict[str, int]:
        counts = dict.fromkeys(TABLES, 0)
        checksum = _Checksum(file)
        begins = not connection.in_transaction
        if begins:
            connection.execute("BEGIN")  # one moment for all tables, also while a server writes
        try:
            checksum.put({FORMAT: 1, "version": VERSION, "at": time.time()})
            for table in TABLES:
                for row in connection.execute(f"SELECT * FROM {table}"):
                    checksum.put({"table": table, "row": {key: _plain(row[key]) for key in row.keys()}})  # noqa: SIM118
                    counts[table] += 1
        finally:
            if begins:
                connection.execute("ROLLBACK")
        file.write(orjson.dumps({"end": sum(counts.values()), "crc32": checksum.crc}) + b"\n")
        return counts

    return await database.read(call)


async def import_store(database: Database, file: BinaryIO, *, replace: bool) -> dict[str, int]:
    """Take everything from a file, in one transaction.

    Args:
        database: where to.
        file: what `export_store` wrote; it is read twice.
        replace: delete what is there first; without it a store that holds devices or agents is left alone.

    Returns:
        How many rows of each table.

    Raises:
        BackupError: the file is damaged, cut, of a newer version or no export, or there is something already.
        StoreError: the store cannot be written.
    """

    def call(connection: sqlite3.Connection) -> dict[str, int]:
        columns = {table: _columns(connection, table) for table in TABLES}
        for _ in _rows(file, columns):
            pass  # checked to its last line before anything is touched
        if not replace:
            there = sum(
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("devices", "agents")
            )
            if there:
                raise BackupError(f"the store holds {there} devices and agents already; `--replace` deletes them first")
        for table in reversed(TABLES):
            connection.execute(f"DELETE FROM {table}")
        counts = dict.fromkeys(TABLES, 0)
        for table, row in _rows(file, columns):
            names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
            try:
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)
            except (sqlite3.IntegrityError, OverflowError) as error:
                raise BackupError(f"a row of {table} does not fit: {error}") from None
            counts[table] += 1
        return counts

    return await database.write(call)


class _Checksum:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.crc = 0

    def put(self, entry: dict[str, Any]) -> None:
        line = orjson.dumps(entry) + b"\n"
        self.crc = zlib.crc32(line, self.crc)
        self._file.write(line)


def _rows(file: BinaryIO, columns: dict[str, frozenset[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of an export; raises `BackupError` where it is not whole."""
    file.seek(0)
    crc = count = 0
    header, line = _line(file, 1)
    if header.get(FORMAT) != 1 or not isinstance(header.get("version"), int):
        raise BackupError(_NO_EXPORT)
    if header["version"] > VERSION:
        raise BackupError("this file was written by a newer xiaozhi; install that first")
    crc = zlib.crc32(line, crc)
    while True:
        number = count + 2
        entry, line = _line(file, number)
        if "end" in entry:
            if entry["end"] != count or entry.get("crc32") != crc:
                raise BackupError("the file was changed or is damaged: its checksum is wrong")
            if file.read(1):
                raise BackupError("there is something behind the end of the export")
            return
        table, row = entry.get("table"), entry.get("row")
        if not isinstance(table, str) or table not in columns or not isinstance(row, dict):
            raise BackupError(f"line {number} is not understood")
        if not row or not set(row) <= columns[table]:
            raise BackupError(f"line {number}: {table} has no {', '.join(sorted(set(row) - columns[table]))}")
        crc = zlib.crc32(line, crc)
        count += 1
        yield table, {key: _restored(key, value, number) for key, value in row.items()}


def _line(file: BinaryIO, number: int) -> tuple[dict[str, Any], bytes]:
    line = file.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise BackupError(
            "the file is cut off: its end is missing" if len(line) < _LONGEST_LINE else "a line is too long"
        )
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BackupError(f"line {number} is not JSON" if number > 1 else _NO_EXPORT) from None
    if not isinstance(entry, dict):
        raise BackupError(f"line {number} is not understood")
    return entry, line


def _columns(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    return frozenset(row["name"] for row in connection.execute(f"PRAGMA table_info({table})"))


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _restored(key: str, value: Any, number: int) -> Any:
    if key in _BLOBS:
        try:
            return bytes.fromhex(value)
        except (TypeError, ValueError):
            raise BackupError(f"line {number}: {key} is not hexadecimal") from None
    if isinstance(value, (list, dict)):
        raise BackupError(f"line {number}: {key} is not a value")
    return value
