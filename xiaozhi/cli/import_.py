"""`xiaozhi import`: a file of `xiaozhi export` into the store, all of it or nothing."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import on_store
from xiaozhi.program import PlainError

if TYPE_CHECKING:
    from xiaozhi.store import Store

ABOUT = "Reads a file of `xiaozhi export`, checks all of it, and takes it whole or not at all."
EXAMPLES = """\
examples:
  xiaozhi import xiaozhi-backup.jsonl
  xiaozhi import xiaozhi-backup.jsonl --replace      delete what is there first
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what `xiaozhi export` wrote")
    parser.add_argument("--replace", action="store_true", help="delete what the store holds now")


def run(args: argparse.Namespace) -> None:
    """Import; 1 when the file is not whole or the store holds something already."""
    on_store(args, lambda store, _settings: _run(args.file, store, replace=args.replace))


async def _run(path: Path, store: "Store", *, replace: bool) -> None:
    from xiaozhi.store.backup import BackupError, import_store

    try:
        with path.open("rb") as file:
            counts = await import_store(store.database, file, replace=replace)
    except OSError as error:
        raise PlainError(f"{path}: {error.strerror}") from error
    except BackupError as error:
        raise PlainError(f"{path}: {error}; nothing was changed") from error
    print(f"{path}: " + ", ".join(f"{count} {table}" for table, count in counts.items() if count))
