"""`xiaozhi console`: the password of the pages for owners."""

import argparse
import getpass
import sys

from xiaozhi.cli.frame import load
from xiaozhi.program import PlainError, program

ABOUT = (
    "The console is a part of the server, at /console/. Its password is made at the first start. "
    "A running server takes up another password at once and signs everybody out."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    password = actions.add_parser("password", help="set another password: asked for twice, or one line from a pipe")
    ways = password.add_mutually_exclusive_group()
    ways.add_argument("--reset", action="store_true", help="make a random one and print it")
    ways.add_argument("--show", action="store_true", help="print the first one, while nobody has signed in")


def run(args: argparse.Namespace) -> None:
    """Do it; 1 when there is no such password, or it cannot be used."""
    from xiaozhi.console.password import hash_of, kept_first_password, new_password, password_path, write_hash

    settings = load(args).settings
    path = password_path(settings.server.data_dir, settings.console.password_file)
    if args.show:
        first = kept_first_password(path)
        if not first:
            again = f"set another with: {program()} console password"
            raise PlainError(f"no first password is kept: it was shown, or somebody has signed in; {again}")
        print(first)
        return
    password = new_password() if args.reset else _asked()
    write_hash(path, hash_of(password))
    print(f"the console's password is now {password}" if args.reset else "the console has another password")


def _asked() -> str:
    """What is typed, twice the same, or the first line of a pipe."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("new password: ")
    if getpass.getpass("once more: ") != first:
        raise PlainError("the two are not the same; nothing was changed")
    return first
