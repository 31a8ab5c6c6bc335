"""`xiaozhi memories`: what is kept in mind about the people at a device."""

import argparse
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import add_device, confirm, device_called, on_store, when
from xiaozhi.program import PlainError

if TYPE_CHECKING:
    from xiaozhi.settings import Settings
    from xiaozhi.store import DeviceRecord, Store

ABOUT = "What is remembered at each device. Works beside a running server."
EXAMPLES = """\
examples:
  xiaozhi memories list 客厅音箱
  xiaozhi memories list 客厅音箱 --about cat       what has to do with it, the best first
  xiaozhi memories add 客厅音箱 "is allergic to nuts"
  xiaozhi memories forget 客厅音箱 12 15           by their numbers
  xiaozhi memories forget 客厅音箱 --about cat     what mentions it
  xiaozhi memories forget 客厅音箱 --all --yes

Switch memory.engine to "off" to draw no facts from conversations.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what is remembered")
    adding = actions.add_parser("add", help="remember something")
    forgetting = actions.add_parser("forget", help="erase some of it, or all")
    for action in (listing, adding, forgetting):
        add_device(action)
    listing.add_argument("--about", default="", metavar="WORDS", help="only what has to do with this")
    adding.add_argument("fact", metavar="FACT", help="one sentence")
    forgetting.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="as `list` shows them")
    forgetting.add_argument("--about", default="", metavar="WORDS", help="what mentions this")
    forgetting.add_argument("--all", action="store_true", help="everything")
    forgetting.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int | None:
    """Show, add or erase; 1 when there is no such device or nothing to do."""
    return on_store(args, lambda store, settings: _run(args, store, settings))


async def _run(args: argparse.Namespace, store: "Store", settings: "Settings") -> int | None:
    device = await device_called(store, args.device)
    return await {"list": _list, "add": _add, "forget": _forget}[args.action](args, store, device, settings)


async def _list(args: argparse.Namespace, store: "Store", device: "DeviceRecord", _settings: "Settings") -> None:
    from xiaozhi.memory.facts import Known, search

    memories = {memory.id: memory for memory in await store.memories.list(device.id)}
    facts = [Known(memory.id, memory.text) for memory in memories.values()]
    for fact in search(facts, args.about):
        print(f"{fact.id:>6}  {when(memories[fact.id].changed_at)}  {fact.text}")
    if not memories:
        print(f"nothing is remembered at {device.label}")


async def _add(args: argparse.Namespace, store: "Store", device: "DeviceRecord", settings: "Settings") -> None:
    from xiaozhi.memory.facts import Known, Proposal, merge

    known = [Known(memory.id, memory.text) for memory in await store.memories.list(device.id)]
    changes = merge(known, [Proposal(args.fact)], longest=settings.memory.max_fact_chars)
    if not changes.add:
        raise PlainError("this is known already, or there is nothing in it")
    for text in changes.add:
        await store.memories.add(device.id, text)
    for number in changes.remove:
        await store.memories.remove(device.id, number)
    print(f"remembered at {device.label}" + (f"; {len(changes.remove)} older taken back" if changes.remove else ""))


async def _forget(args: argparse.Namespace, store: "Store", device: "DeviceRecord", settings: "Settings") -> int:
    if sum((bool(args.numbers), bool(args.about.strip()), args.all)) != 1:
        raise PlainError("say what to forget: numbers, --about WORDS, or --all")
    if args.all:
        confirm(args, f"Forget everything that is remembered at {device.label}?", "forgotten")
    if args.numbers:
        texts = {memory.id: memory.text for memory in await store.memories.list(device.id)}
        gone = [number for number in args.numbers if await store.memories.remove(device.id, number)]
        subjects = [texts[number] for number in gone]
        count = len(gone)
    else:
        count = await store.memories.forget(device.id, args.about)
        subjects = [args.about]
    print(f"{count} forgotten at {device.label}")
    if settings.memory.engine == "mem0":
        await _forget_there(settings, device, subjects)
    return 0 if count or args.all else 1


async def _forget_there(settings: "Settings", device: "DeviceRecord", subjects: list[str]) -> None:
    """Erase it at the memory service as well."""
    from xiaozhi.memory.keeper import service_user
    from xiaozhi.memory.mem0 import Mem0, Mem0Error

    service = Mem0(settings.memory)
    try:
        for subject in subjects:
            await service.forget(service_user(device.id), subject)
    except Mem0Error as error:
        raise PlainError(f"not at the service: {error}") from error
    finally:
        await service.close()
