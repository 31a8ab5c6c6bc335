"""`xiaozhi cache`: what is kept on disk, and throwing it away."""

import argparse
import time
from pathlib import Path

from xiaozhi.cli.frame import load
from xiaozhi.program import PlainError, program

_MB = 1024 * 1024

ABOUT = (
    "The speech that is kept on disk, in server.data_dir. Works while a server runs, too; what the "
    "server holds in memory, answers among it, is gone when it stops."
)
EXAMPLES = "exit codes: 0 done, 1 the file cannot be used"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("stats", "clear"), metavar="stats|clear", help="what to do")


def run(args: argparse.Namespace) -> None:
    """Print what is kept, or forget it."""
    from xiaozhi.cache.disk_file import FILE_NAME

    settings = load(args).settings
    path = settings.server.data_dir / FILE_NAME
    if not settings.cache.speech or not settings.cache.disk_mb:
        print("speech is not kept on disk: cache.speech or cache.disk_mb switches it off")
    if not path.exists():
        print(f"nothing is kept: there is no {path}")
    elif args.action == "clear":
        _clear(path)
    else:
        _stats(path, settings.cache.disk_mb)


def _stats(path: Path, max_mb: int) -> None:
    """Only reads: a damaged file is left for the server to set aside."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT length(value), expires, used FROM entries").fetchall()
    except sqlite3.Error as error:
        raise PlainError(
            f"{path} cannot be read: {error}\n"
            f"a damaged file is set aside when the server starts; to throw it away now: {program()} cache clear"
        ) from error
    now = time.time()
    size = sum(row[0] for row in rows)
    on_disk = sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists())
    print(f"file            {path}")
    print(f"entries         {len(rows)}")
    print(f"size            {size / _MB:.1f} MB of {max_mb} MB allowed ({on_disk / _MB:.1f} MB on disk)")
    if rows:
        print(f"expired         {sum(row[1] <= now for row in rows)}")
        print(f"last kept until {_when(max(row[1] for row in rows))}")
        print(f"last used       {_when(max(row[2] for row in rows))}")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _clear(path: Path) -> None:
    import sqlite3

    from xiaozhi.cache.disk_file import DiskError, DiskFile

    try:
        file = DiskFile(path)
        count = len(file.entries())
        file.clear()
        file.close()
        path.with_name(path.name + ".damaged").unlink(missing_ok=True)
    except (DiskError, OSError, sqlite3.Error) as error:
        raise PlainError(f"{path} cannot be cleared: {error}") from error
    print(f"{count} entries forgotten")
