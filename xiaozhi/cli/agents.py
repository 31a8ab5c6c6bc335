"""`xiaozhi agents`: agents, and which device has which."""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import add_device, device_called, on_store
from xiaozhi.program import PlainError, program

if TYPE_CHECKING:
    from xiaozhi.agents import Agent, Roster
    from xiaozhi.settings import Settings
    from xiaozhi.store import Store

ABOUT = "Who answers: agents with a prompt, a voice and a language. Works beside a running server."
EXAMPLES = """\
examples:
  xiaozhi agents list
  xiaozhi agents assign 客厅音箱 storyteller
  xiaozhi agents show chef > uncle.toml              a file to begin with; change its name and prompt
  xiaozhi agents add uncle.toml
  xiaozhi agents edit uncle                          in $EDITOR

Users switch by voice: "换成故事大王", "switch to storyteller".
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="every agent, and how many devices have it")
    for action, summary in (
        ("show", "print one as TOML"),
        ("edit", "change one in $EDITOR; a preset is copied first"),
        ("remove", "delete one's own, or take back what was changed of a preset"),
    ):
        actions.add_parser(action, help=summary).add_argument("name", metavar="AGENT", help="its name or an alias")
    adding = actions.add_parser("add", help="make one from a TOML file, or replace it")
    adding.add_argument("file", metavar="FILE", help="as `xiaozhi agents show` prints; - for standard input")
    assigning = actions.add_parser("assign", help="give one to a device")
    add_device(assigning)
    assigning.add_argument("name", metavar="AGENT", help="its name or an alias")


def run(args: argparse.Namespace) -> None:
    """Do it; 1 when there is no such agent or device, or a file is wrong."""
    try:
        on_store(args, lambda store, settings: _run(args, store, settings))
    except OSError as error:
        raise PlainError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


async def _run(args: argparse.Namespace, store: "Store", settings: "Settings") -> None:
    from xiaozhi.agents.roster import Roster

    roster = await Roster.load(settings, store)
    if args.action == "list":
        await _list(store, roster)
        return
    if args.action == "add":
        await _put(store, roster, _text_of(args.file), args.file)
        return
    agent = roster.find(args.name)
    if agent is None:
        raise PlainError(f"there is no agent {args.name!r}; `{program()} agents list` shows them")
    match args.action:
        case "show":
            from xiaozhi.agents.agent import agent_to_toml

            print(agent_to_toml(agent), end="")
        case "edit":
            await _edit(store, roster, agent)
        case "remove":
            await _remove(store, roster, agent)
        case "assign":
            device = await device_called(store, args.device)
            await store.devices.update(device.id, agent=agent.name)
            print(f"{device.label} has {agent.name}")


def _text_of(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PlainError(f"{file}: this is no text in UTF-8") from None


async def _list(store: "Store", roster: "Roster") -> None:
    devices = await store.devices.list()
    print(f"{'AGENT':16} {'LANGUAGE':8} {'FROM':8} {'DEVICES':>7}  ABOUT")
    for agent in roster:
        default = agent.name == roster.default.name
        count = sum(roster.of(device.agent).name == agent.name for device in devices)
        about = f"{agent.about} (default)" if default else agent.about
        print(f"{agent.name:16} {agent.language:8} {roster.origin(agent):8} {count:7}  {about}")


async def _put(store: "Store", roster: "Roster", text: str, source: str) -> None:
    from xiaozhi.agents.agent import agent_from_toml
    from xiaozhi.turn.endpointing import plain

    agent = agent_from_toml(text, source)
    for name in agent.names:
        other = roster.find(name)
        if other is not None and other.name != agent.name and roster.origin(other) != "preset":
            raise PlainError(f"{source}: {name!r} is a name of {other.name} already")
    if not any(plain(name) for name in agent.names):
        raise PlainError(f"{source}: nobody can say the name {agent.name!r}; give it an alias")
    await store.agents.put(agent.name, agent.model_dump_json())
    print(f"{agent.name} is kept")


async def _edit(store: "Store", roster: "Roster", agent: "Agent") -> None:
    from xiaozhi.agents.agent import agent_to_toml

    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    before = agent_to_toml(agent)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{agent.name}.toml"
        path.write_text(before, encoding="utf-8")
        try:
            code = subprocess.run([*editor, str(path)], check=False).returncode  # noqa: ASYNC221 - nothing else runs
        except FileNotFoundError:
            raise PlainError(f"the editor {editor[0]!r} is not there; set EDITOR") from None
        if code:
            raise PlainError(f"the editor ended with {code}; nothing was changed")
        after = path.read_text(encoding="utf-8")
    if after == before:
        print("nothing was changed")
    else:
        await _put(store, roster, after, f"{agent.name}.toml")


async def _remove(store: "Store", roster: "Roster", agent: "Agent") -> None:
    origin = roster.origin(agent)
    if origin == "preset":
        raise PlainError(f"{agent.name} comes along with the program and stays")
    await store.agents.remove(agent.name)
    print(f"{agent.name} is {'gone' if origin == 'own' else 'as it came along again'}")
