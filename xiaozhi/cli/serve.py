"""`xiaozhi serve`: the server, until it is told to stop."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from xiaozhi.cli.options import add_address, load

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it

    from xiaozhi.settings import Settings


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
    for name in missing_models(loaded.settings):
        if reason := fetch(name, loaded.settings):
            print(f"{reason}; going on with what is embedded", file=sys.stderr)
            break  # what cannot reach one model will not reach the next
    from xiaozhi.process import run as run_server
    from xiaozhi.settings.source import SettingsSource

    origin = SettingsSource(args.settings or loaded.source, args.overrides, os.environ)
    return run_server(loaded.settings, loaded.source, lambda: load(args), origin, loaded.warnings)


def missing_models(settings: "Settings") -> list[str]:
    """Which better models are to be fetched: for stages where nobody chose one and no folder of one is there.

    A folder that is there is left alone whatever it holds: it may be somebody's own model.
    """
    if not settings.models.auto_pull:
        return []
    from xiaozhi.models.catalogue import MODELS

    there = {model.role for model in MODELS if model.folder(settings.models.dir).exists()}
    chosen = settings.asr.engine != "auto" or settings.asr.model_dir is not None
    missing = [] if chosen or "recognition" in there else ["sense-voice"]
    return missing if settings.vad.model != "auto" or "voice activity" in there else [*missing, "silero-v6"]


def fetch(name: str, settings: "Settings") -> str:
    """Try once to fetch a model; an empty text when it is there, else one line why not. Up to 5 s when offline."""
    import asyncio

    from xiaozhi.cli.progress import Bar
    from xiaozhi.cli.verify import verify
    from xiaozhi.models.catalogue import find
    from xiaozhi.models.pull import pull_if_missing

    model = find(name)
    if model is None:
        raise LookupError(f"{name} is not in the catalogue")
    told = False
    with Bar() as bar:

        def show(file: str, done: int, total: int | None) -> None:
            nonlocal told
            if not told:
                print(f"fetching {model.name} ({model.size_mb} MB), once; `models.auto_pull = false` does without it")
                told = True
            bar.show(file, done, total)

        return asyncio.run(pull_if_missing(model, settings.models.dir, settings.models, verify=verify, progress=show))
