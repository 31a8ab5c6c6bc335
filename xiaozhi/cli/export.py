"""`xiaozhi export`: everything the store holds, as one file."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.stored import fail, on_store

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it

    from xiaozhi.store import Store

EXAMPLES = """\
examples:
  xiaozhi export xiaozhi-backup.jsonl        also while the server runs
  xiaozhi import xiaozhi-backup.jsonl        on another machine, or after a damage

The file holds what people said and the keys of devices: keep it as private as the server's data folder, of which the
keys that sign tokens are not part (devices fetch new tokens by themselves).
"""


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "export",
        help="write devices, agents, conversations and memories to one file",
        description="Writes everything the store holds to one file of JSON lines.",
        epilog=EXAMPLES,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="to write; it must not be there yet")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def run(args: argparse.Namespace) -> int:
    """Export; 1 when the file is there or cannot be written."""
    if args.file.exists() and not args.force:
        return fail(f"{args.file} is there already; `--force` replaces it")
    return on_store(args, lambda store, _settings: _run(args.file, store))


async def _run(path: Path, store: "Store") -> int:
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
        return fail(f"{path}: {error.strerror}")
    print(f"{path}: " + ", ".join(f"{count} {table}" for table, count in counts.items() if count))
    return 0
