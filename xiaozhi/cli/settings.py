"""`xiaozhi settings`: the settings file that says every default, with its explanations."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    subparsers.add_parser(
        "settings",
        help="print a settings file with every setting, its default and what it is for",
        description="Print a settings file with every setting, its default and what it is for.",
        epilog="example: xiaozhi settings > settings.toml",
    )


def run(_args: argparse.Namespace) -> int:
    """Print it."""
    from xiaozhi.settings.documents import settings_toml

    print(settings_toml(), end="")
    return 0
