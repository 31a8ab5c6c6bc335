"""`xiaozhi serve`: the server, until it is told to stop."""

import argparse
import os

from xiaozhi.cli.frame import add_address, load

ABOUT = "Run the server. It prints the OTA address to type into a device and the engine of each stage."
EXAMPLES = "SIGTERM and Ctrl-C let replies that are being spoken end (server.drain_s); a second one stops at once."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; the exit code is the server's."""
    loaded = load(args)
    from xiaozhi.app.process import run as run_server
    from xiaozhi.settings.load import SettingsSource

    origin = SettingsSource(args.settings or loaded.source, args.overrides, os.environ)
    return run_server(loaded.settings, loaded.source, lambda: load(args), origin, loaded.warnings)
