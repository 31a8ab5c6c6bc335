"""`xiaozhi console`: the password of the pages for owners."""

import argparse
import getpass
import sys
from typing import TYPE_CHECKING

from xiaozhi.cli.options import load
from xiaozhi.program import program

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "console",
        help="set the password of the console",
        description=(
            "The console is a part of the server, at /console/. Its password is made at the first start. "
            "A running server takes up another password at once and signs everybody out."
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    password = actions.add_parser("password", help="set another password: asked for twice, or one line from a pipe")
    ways = password.add_mutually_exclusive_group()
    ways.add_argument("--reset", action="store_true", help="make a random one and print it")
    ways.add_argument("--show", action="store_true", help="print the first one, while nobody has signed in")


def run(args: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from xiaozhi.console.password import (
        PasswordError,
        hash_of,
        kept_first_password,
        new_password,
        password_path,
        write_hash,
    )

    settings = load(args).settings
    path = password_path(settings.server.data_dir, settings.console.password_file)
    try:
        if args.show:
            return _show(kept_first_password(path))
        password = new_password() if args.reset else _asked()
        if password is None:
            print("xiaozhi: the two are not the same; nothing was changed", file=sys.stderr)
            return 1
        write_hash(path, hash_of(password))
    except PasswordError as error:
        print(f"xiaozhi: {error}", file=sys.stderr)
        return 1
    print(f"the console's password is now {password}" if args.reset else "the console has another password")
    return 0


def _show(password: str) -> int:
    if not password:
        again = f"set another with: {program()} console password"
        print(f"xiaozhi: no first password is kept: it was shown, or somebody has signed in; {again}", file=sys.stderr)
        return 1
    print(password)
    return 0


def _asked() -> str | None:
    """What is typed, or the first line of a pipe; None where the second time is not like the first."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("new password: ")
    return first if getpass.getpass("once more: ") == first else None
