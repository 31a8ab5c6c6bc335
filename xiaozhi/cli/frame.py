"""What every command is made of: the settings it runs on, the store, its mistakes, and questions on the terminal.

A command is a module with `ABOUT` (what `--help` says first), `EXAMPLES` (what it says last; may be missing),
`add_arguments(parser)`, and `run(args)` that returns an exit code, None for 0. Whatever a person can put right ends
it as a `PlainError`.
"""

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from xiaozhi.program import PlainError, program

if TYPE_CHECKING:
    from xiaozhi.settings import Settings
    from xiaozhi.settings.load import Loaded
    from xiaozhi.store import DeviceRecord, Store


class WrongUsage(PlainError):
    """The words of the command line make no sense together."""

    exit_code = 2


def tell(text: object) -> None:
    """Something for people that is no result: on standard error, with our name before each line."""
    for line in str(text).splitlines():
        print(f"xiaozhi: {line}", file=sys.stderr)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Options for the address of the server; they stand for `--set server.host=…` and `--set server.port=…`."""
    parser.add_argument("--host", metavar="ADDRESS", help="listen on this address (server.host)")
    parser.add_argument("--port", metavar="PORT", help="listen on this port (server.port)")


def add_device(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The device that an action is about, for `device_called`; returns the parser."""
    parser.add_argument("device", metavar="DEVICE", help="its id, its name, or the beginning or end of its id")
    return parser


def load(args: argparse.Namespace) -> "Loaded":
    """The settings of this call: command line over environment over file over defaults.

    Args:
        args: as `xiaozhi.cli.main` hands them to `run`: `settings` is the file or `None`, `overrides` single values.

    Raises:
        SettingsError: `main` prints it, one line each, and exits with 2.
    """
    from xiaozhi.settings.load import load_settings

    return load_settings(args.settings, args.overrides, os.environ)


def on_store(args: argparse.Namespace, work: "Callable[[Store, Settings], Awaitable[int | None]]") -> int | None:
    """Open the store of these settings, do something with it, close it; a running server does not mind.

    Returns:
        What `work` returns.

    Raises:
        StoreError: it cannot be used.
        ClusterError: what is changed cannot be told to the other nodes.
    """
    import asyncio

    from xiaozhi.cluster.shared import join_shared
    from xiaozhi.store import Store, StoreError

    settings = load(args).settings

    async def run() -> int | None:
        store = await Store.open(settings.server.data_dir / settings.store.file)
        try:
            if not store.database.keeps:
                raise StoreError(f"{settings.server.data_dir / settings.store.file} cannot be used")
            shared = await join_shared(settings.cluster, store)  # other nodes get to know what is changed
            try:
                return await work(store, settings)
            finally:
                if shared is not None:
                    await shared.close()
        finally:
            await store.close()

    return asyncio.run(run())


def confirm(args: argparse.Namespace, question: str, undone: str) -> None:
    """Ask on the terminal, unless `--yes` was said; no answer is a no.

    Raises:
        PlainError: no; says that nothing was `undone`.
    """
    if args.yes:
        return
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise PlainError(f"nothing was {undone}; `--yes` does not ask")


def unknown(kind: str, name: str, names: Iterable[str], listing: str) -> WrongUsage:
    """The error that there is no `kind` of that name, with the nearest of `names`, or the command that lists them."""
    import difflib

    near = difflib.get_close_matches(name, list(names), 1)
    return WrongUsage(
        f"no {kind} is called {name!r}; "
        + (f"did you mean {near[0]}?" if near else f"`{program()} {listing}` shows them")
    )


async def device_called(store: "Store", name: str) -> "DeviceRecord":
    """A device by its id, its name, or the beginning or end of its id.

    Raises:
        PlainError: there is none, or there are several.
    """
    devices = await store.devices.list()
    wanted = name.strip().lower()
    exact = [device for device in devices if device.id == wanted]
    found = exact or [device for device in devices if device.name and device.name.lower() == wanted]
    found = found or [
        device for device in devices if len(wanted) > 2 and (device.id.startswith(wanted) or device.id.endswith(wanted))
    ]
    if len(found) > 1:
        ids = ", ".join(device.id for device in found[:5])
        raise PlainError(f"{name!r} is not one device but {len(found)}: {ids}")
    if not found:
        raise PlainError(f"no device is called {name!r}; `{program()} devices list` shows them")
    return found[0]


def when(seconds: float) -> str:
    """A time for people; `never` for 0."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds > 0.0 else "never"
