"""`xiaozhi import`: a file of `xiaozhi export` into the store, all of it or nothing."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.stored import fail, on_store

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it

    from xiaozhi.store import Store

EXAMPLES = """\
examples:
  xiaozhi import xiaozhi-backup.jsonl
  xiaozhi import xiaozhi-backup.jsonl --replace      delete what is there first
"""


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "import",
        help="take what `export` wrote",
        description="Reads a file of `xiaozhi export`, checks all of it, and takes it whole or not at all.",
        epilog=EXAMPLES,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what `xiaozhi export` wrote")
    parser.add_argument("--replace", action="store_true", help="delete what the store holds now")


def run(args: argparse.Namespace) -> int:
    """Import; 1 when the file is not whole or the store holds something already."""
    return on_store(args, lambda store, _settings: _run(args.file, store, replace=args.replace))


async def _run(path: Path, store: "Store", *, replace: bool) -> int:
    from xiaozhi.store.backup import BackupError, import_store

    try:
        with path.open("rb") as file:
            counts = await import_store(store.database, file, replace=replace)
    except OSError as error:
        return fail(f"{path}: {error.strerror}")
    except BackupError as error:
        return fail(f"{path}: {error}; nothing was changed")
    print(f"{path}: " + ", ".join(f"{count} {table}" for table, count in counts.items() if count))
    return 0
