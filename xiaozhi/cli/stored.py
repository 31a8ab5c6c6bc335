"""What the commands on the store share: opening it, and saying what went wrong."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from xiaozhi.cli.options import load
from xiaozhi.program import program

if TYPE_CHECKING:
    from xiaozhi.settings import Settings
    from xiaozhi.store import Device, Store


def on_store(args: argparse.Namespace, work: "Callable[[Store, Settings], Awaitable[int]]") -> int:
    """Open the store of these settings, do something with it, close it; a running server does not mind.

    Returns:
        What `work` returns; 1 with one line on standard error where the store cannot be used.
    """
    from xiaozhi.cluster.link import ClusterError
    from xiaozhi.cluster.shared import join_shared
    from xiaozhi.store import Store, StoreError

    settings = load(args).settings

    async def run() -> int:
        store = await Store.open(settings.server.data_dir / settings.store.file)
        try:
            if not store.database.keeps:
                return fail(f"{settings.server.data_dir / settings.store.file} cannot be used")
            shared = await join_shared(settings.cluster, store)  # other nodes get to know what is changed
            try:
                return await work(store, settings)
            finally:
                if shared is not None:
                    await shared.close()
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except (StoreError, ClusterError) as error:
        return fail(str(error))


def fail(text: str) -> int:
    """Say what went wrong; returns the exit code 1."""
    for line in text.splitlines():
        print(f"xiaozhi: {line}", file=sys.stderr)
    return 1


def confirmed(question: str) -> bool:
    """Ask on the terminal; no answer is a no."""
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in {"y", "yes"}


async def device_called(store: "Store", name: str) -> "Device | None":
    """A device by its id, its name, or the beginning or end of its id; says so where there is none or several."""
    devices = await store.devices.list()
    wanted = name.strip().lower()
    exact = [device for device in devices if device.id == wanted]
    found = exact or [device for device in devices if device.name and device.name.lower() == wanted]
    found = found or [
        device for device in devices if len(wanted) > 2 and (device.id.startswith(wanted) or device.id.endswith(wanted))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        fail(f"{name!r} is not one device but {len(found)}: {', '.join(device.id for device in found[:5])}")
    else:
        fail(f"no device is called {name!r}; `{program()} devices list` shows them")
    return None


def when(seconds: float) -> str:
    """A time for people; `never` for 0."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds > 0.0 else "never"
