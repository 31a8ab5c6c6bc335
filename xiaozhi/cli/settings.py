"""`xiaozhi settings`: the settings file that says every default, with its explanations."""

import argparse

ABOUT = "Print a settings file with every setting, its default and what it is for."
EXAMPLES = "example: xiaozhi settings > settings.toml"


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(_args: argparse.Namespace) -> None:
    """Print it."""
    from xiaozhi.settings.documents import settings_toml

    print(settings_toml(), end="")
