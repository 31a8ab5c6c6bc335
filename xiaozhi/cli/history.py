"""`xiaozhi history`: what was said."""

import argparse
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import add_device, confirm, device_called, on_store, when

if TYPE_CHECKING:
    from xiaozhi.store import DeviceRecord, Store

ABOUT = "The conversations that are kept. Works beside a running server."
EXAMPLES = """\
examples:
  xiaozhi history show 客厅音箱
  xiaozhi history show 客厅音箱 --turns 5 --trace     with where the time of each turn went
  xiaozhi history clear 客厅音箱 --yes                memories stay

Switch store.conversations off to keep nothing of what is said.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    showing = actions.add_parser("show", help="the last turns, the oldest first")
    showing.add_argument("--turns", type=int, default=20, metavar="N", help="how many (20)")
    showing.add_argument("--trace", action="store_true", help="with the milliseconds of each turn")
    clearing = actions.add_parser("clear", help="forget what was said")
    clearing.add_argument("--yes", action="store_true", help="do not ask")
    for action in (showing, clearing):
        add_device(action)


def run(args: argparse.Namespace) -> None:
    """Show or clear; 1 when there is no such device."""
    on_store(args, lambda store, _settings: _run(args, store))


async def _run(args: argparse.Namespace, store: "Store") -> None:
    device = await device_called(store, args.device)
    await (_show if args.action == "show" else _clear)(args, store, device)


async def _show(args: argparse.Namespace, store: "Store", device: "DeviceRecord") -> None:
    turns = await store.turns.list(device.id, limit=max(1, args.turns))
    for turn in reversed(turns):
        print(f"{when(turn.at)}  {turn.agent or '-'}")
        print(f"  > {turn.heard or '(unasked)'}")
        print(f"  < {turn.played or '(nothing was heard)'}")
        if args.trace:
            spans = turn.trace.get("spans", {})
            print("    " + ", ".join(f"{name} {ms:g} ms" for name, ms in spans.items() if ms is not None))
            if turn.trace.get("error"):
                print(f"    error: {turn.trace['error']}")
    if not turns:
        print(f"nothing is kept of {device.label}")


async def _clear(args: argparse.Namespace, store: "Store", device: "DeviceRecord") -> None:
    confirm(args, f"Forget everything that was said to {device.label}?", "forgotten")
    print(f"{await store.turns.clear(device.id)} turns of {device.label} are forgotten")
