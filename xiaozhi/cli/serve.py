"""`xiaozhi serve`: the server, until it is told to stop."""

import argparse
import os
from typing import TYPE_CHECKING

from xiaozhi.cli.options import add_address, load

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "serve",
        help="run the server that devices talk to",
        description="Run the server. It prints the OTA address to type into a device and the engine of each stage.",
        epilog="SIGTERM and Ctrl-C let replies that are being spoken end (server.drain_s); a second one stops at once.",
    )
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; the exit code is the server's."""
    loaded = load(args)
    from xiaozhi.app.process import run as run_server
    from xiaozhi.settings.load import SettingsSource

    origin = SettingsSource(args.settings or loaded.source, args.overrides, os.environ)
    return run_server(loaded.settings, loaded.source, lambda: load(args), origin, loaded.warnings)
