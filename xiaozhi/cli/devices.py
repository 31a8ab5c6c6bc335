"""`xiaozhi devices`: who has been here, who may come, what they are called."""

import argparse
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import add_device, confirm, device_called, on_store, when
from xiaozhi.program import PlainError, program

if TYPE_CHECKING:
    from xiaozhi.settings import Settings
    from xiaozhi.store import DeviceRecord, Store

ABOUT = "The devices that have called. Works beside a running server."
EXAMPLES = """\
examples:
  xiaozhi devices list
  xiaozhi devices bind 123456 --owner 小明           the code that the device shows and speaks
  xiaozhi devices set 30:ed:a0:12:34:56 --name 客厅音箱 --room 客厅
  xiaozhi devices release 客厅音箱                   it was erased and comes back with a new Client-Id
  xiaozhi devices block 34:56                       the end of an id is enough where only one has it
  xiaozhi devices remove 客厅音箱 --yes              with everything it said and was told to remember
"""

_FIELDS = ("name", "room", "owner", "agent", "language", "priority")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="every device, the one seen last first")
    add_device(actions.add_parser("show", help="everything known about one"))
    binding = actions.add_parser("bind", help="let in the device that shows this code, or the new client of one")
    binding.add_argument("code", metavar="CODE", help="six digits")
    binding.add_argument("--owner", default="", help="whose it is")
    add_device(actions.add_parser("unbind", help="it must be activated anew"))
    add_device(
        actions.add_parser("release", help="let in its new client: a board that was erased, or that took its place")
    )
    add_device(actions.add_parser("allow", help="let it in without a code"))
    add_device(actions.add_parser("block", help="keep it out"))
    add_device(actions.add_parser("unlist", help="neither allowed nor blocked any more"))
    setting = actions.add_parser("set", help="name it, say where it stands and whose it is")
    add_device(setting)
    for field in _FIELDS:
        setting.add_argument(f"--{field}", help='a text; "" takes it away')
    removing = actions.add_parser("remove", help="delete it and everything of it")
    add_device(removing)
    removing.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> None:
    """Do it; 1 when there is no such device or code."""
    on_store(args, lambda store, settings: _run(args, store, settings))


async def _run(args: argparse.Namespace, store: "Store", settings: "Settings") -> None:
    match args.action:
        case "list":
            await _list(store)
            return
        case "bind":
            device = await store.pending.bind(args.code, owner=args.owner)
            if device is None:
                raise PlainError(f"no device shows the code {args.code}; codes change after ten minutes")
            print(f"{device.label} is bound{f' to {device.owner}' if device.owner else ''}")
            return
        case "allow" | "block" | "set" if _looks_like_id(args.device):
            await store.devices.update(args.device.lower())  # may be set up before it has ever called
    await _on_one(args, store, settings, await device_called(store, args.device))


async def _on_one(args: argparse.Namespace, store: "Store", settings: "Settings", device: "DeviceRecord") -> None:
    devices = store.devices
    match args.action:
        case "show":
            _show(device)
            print(f"{'turns kept':12} {len(await store.turns.list(device.id, limit=1_000_000))}")
            print(f"{'memories':12} {len(await store.memories.list(device.id))}")
            return
        case "unbind":
            await devices.unbind(device.id)
        case "release":
            await _release(store, device)
            return
        case "allow":
            await devices.allow(device.id)
        case "block":
            await devices.block(device.id)
        case "unlist":
            await devices.unlist(device.id)
        case "set":
            values = {field: getattr(args, field) for field in _FIELDS if getattr(args, field) is not None}
            if not values:
                raise PlainError("nothing to set; for example --name 客厅音箱 --room 客厅")
            if values.get("priority", "") not in ("", "high", "low"):
                raise PlainError('priority is "high", "low" or "" for neither')
            if values.get("agent"):
                from xiaozhi.agents.roster import Roster

                agent = (await Roster.load(settings, store)).find(values["agent"])
                if agent is None:
                    raise PlainError(f"there is no agent {values['agent']!r}; `{program()} agents list` shows them")
                values["agent"] = agent.name
            _show(await devices.update(device.id, **values))
            return
        case "remove":
            await _remove(args, store, device)
            return
    print(f"{device.label}: {_standing(await devices.get(device.id) or device)}")


async def _release(store: "Store", device: "DeviceRecord") -> None:
    waiting = [one for one in await store.pending.list() if one.device == device.id]
    if len(waiting) > 1:
        for one in waiting:
            print(f"waits, and shows {one.code}: a client at {one.address or 'this machine'}")
        raise PlainError(f"several want to be this device; let in the right one: {program()} devices bind CODE")
    if waiting:
        await store.pending.bind(waiting[0].code)
        print(f"{device.label}: the client that shows {waiting[0].code} is let in, and no other one")
    else:
        await store.devices.release(device.id)
        print(f"{device.label}: the next client that comes is this device from then on")


async def _list(store: "Store") -> None:
    print(f"{'DEVICE':22} {'NAME':16} {'ROOM':10} {'OWNER':10} {'AGENT':16} {'STANDING':10} {'LAST SEEN':17} BOARD")
    for device in await store.devices.list():
        print(
            f"{device.id:22} {device.name:16} {device.room:10} {device.owner:10} {device.agent or '-':16} "
            f"{_standing(device):10} {when(device.last_seen):17} {device.board} {device.firmware}".rstrip()
        )
    for one in await store.pending.list():
        print(f"{one.device} wants in from {one.address or 'this machine'} and shows {one.code}")


def _standing(device: "DeviceRecord") -> str:
    return device.access.value or ("bound" if device.bound else "unbound")


def _show(device: "DeviceRecord") -> None:
    rows = {
        "device": device.id,
        "client": device.client_id,
        **{field: getattr(device, field) for field in _FIELDS},
        "board": device.board,
        "firmware": device.firmware,
        "standing": _standing(device),
        "first seen": when(device.created_at),
        "last seen": when(device.last_seen),
        "bound": when(device.bound_at),
        "own key": "yes" if device.hmac_key else "no",
    }
    for name, value in rows.items():
        print(f"{name:12} {value or '-'}")


async def _remove(args: argparse.Namespace, store: "Store", device: "DeviceRecord") -> None:
    confirm(args, f"Delete {device.label} and everything it said and was told to remember?", "deleted")
    await store.devices.remove(device.id)
    print(f"{device.label} is gone, with everything of it")


def _looks_like_id(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(
        len(part) == 2 and all(char in "0123456789abcdefABCDEF" for char in part) for part in parts
    )
