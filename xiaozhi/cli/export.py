"""`xiaozhi export`: everything the store holds, as one file."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import on_store
from xiaozhi.program import PlainError

if TYPE_CHECKING:
    from xiaozhi.store import Store

ABOUT = "Writes everything the store holds to one file of JSON lines."
EXAMPLES = """\
examples:
  xiaozhi export xiaozhi-backup.jsonl        also while the server runs
  xiaozhi import xiaozhi-backup.jsonl        on another machine, or after a damage

The file holds what people said and the keys of devices: keep it as private as the server's data folder, of which the
keys that sign tokens are not part (devices fetch new tokens by themselves).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="to write; it must not be there yet")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def run(args: argparse.Namespace) -> None:
    """Export; 1 when the file is there or cannot be written."""
    if args.file.exists() and not args.force:
        raise PlainError(f"{args.file} is there already; `--force` replaces it")
    on_store(args, lambda store, _settings: _run(args.file, store))


async def _run(path: Path, store: "Store") -> None:
    from xiaozhi.store.backup import export_store

    partial = path.with_name(path.name + ".part")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            counts = await export_store(store.database, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PlainError(f"{path}: {error.strerror}") from error
    print(f"{path}: " + ", ".join(f"{count} {table}" for table, count in counts.items() if count))
