"""What several sub-commands share: the settings they run on."""

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xiaozhi.settings.load import Loaded


def add_address(parser: argparse.ArgumentParser) -> None:
    """Options for the address of the server; they stand for `--set server.host=…` and `--set server.port=…`."""
    parser.add_argument("--host", metavar="ADDRESS", help="listen on this address (server.host)")
    parser.add_argument("--port", metavar="PORT", help="listen on this port (server.port)")


def load(args: argparse.Namespace) -> "Loaded":
    """The settings of this call: command line over environment over file over defaults.

    Args:
        args: as `xiaozhi.cli.main` hands them to `run`: `settings` is the file or `None`, `overrides` single values.

    Raises:
        SettingsError: `main` prints it, one line each, and exits with 2.
    """
    from xiaozhi.settings.load import load_settings

    return load_settings(args.settings, args.overrides, os.environ)
