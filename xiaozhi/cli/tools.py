"""`xiaozhi tools`: which there are, call one, try every external server."""

import argparse
import asyncio
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import WrongUsage, load, tell, unknown

if TYPE_CHECKING:
    from xiaozhi.tools.external import ExternalServer
    from xiaozhi.tools.shared_tools import SharedTools
    from xiaozhi.tools.toolbox import Toolbox

ABOUT = "Built-in tools and those of external MCP servers, as [tools] in the settings allows them."
EXAMPLES = """\
examples:
  xiaozhi tools list
  xiaozhi tools call get_weather city=Shanghai days=2
  xiaozhi tools call calculate 'expression=(3+4)*5'
  xiaozhi tools check                     start every MCP server and say what it offers

Tools of the device itself need a connected device and are not shown here.
"""

_WAIT_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, words in (("list", "names, sources and what they are for"), ("check", "try every external MCP server")):
        action = actions.add_parser(name, help=words)
        _add_wait(action)
    calling = actions.add_parser("call", help="call one tool and print its result")
    calling.add_argument("name", metavar="NAME", help="a name of `xiaozhi tools list`")
    calling.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="its arguments")
    calling.add_argument("--json", metavar="OBJECT", help="all arguments as one JSON object instead")
    calling.add_argument("--language", choices=("zh", "en"), default="zh", help="of the result (zh)")
    calling.add_argument("--yes", action="store_true", help="do what is dangerous without asking")
    _add_wait(calling)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", type=float, default=_WAIT_S, metavar="SECONDS", help=f"time for MCP servers to start ({_WAIT_S:g})"
    )


def run(args: argparse.Namespace) -> int:
    """Do it; 1 when a tool failed or a server is away, 2 when there is no such tool."""
    settings = load(args).settings.tools
    if getattr(args, "yes", False):
        settings = settings.model_copy(update={"confirm": False})

    async def inside() -> int:
        from xiaozhi.tools.shared_tools import SharedTools

        house = SharedTools(settings)
        try:
            house.start()
            away = await _settled(house, args.wait)
            match args.action:
                case "list":
                    return _list(house, away)
                case "check":
                    return _check(house)
                case _:
                    return await _call(house, args)
        finally:
            await house.close()

    return asyncio.run(inside())


async def _settled(house: "SharedTools", wait_s: float) -> list["ExternalServer"]:
    """Wait until every server is ready or has failed once; those that are not ready."""
    from xiaozhi.tools.external import ServerState

    servers = house.external.servers if house.settings.enabled else []
    try:
        async with asyncio.timeout(wait_s):
            for server in servers:
                await server.reached(ServerState.READY, ServerState.WAITING)
    except TimeoutError:
        pass
    return [server for server in servers if server.state is not ServerState.READY]


def _box(house: "SharedTools", language: str) -> "Toolbox":
    from xiaozhi.tools.tool import ToolContext

    return house.toolbox(ToolContext(device_id="command-line", language=language))


def _list(house: "SharedTools", away: list["ExternalServer"]) -> int:
    if not house.settings.enabled:
        print("tools are off: [tools] enabled = false")
        return 0
    sources = {tool.name: tool.source for tool in house.registry.tools()}
    for own, spec in _box(house, "en").offered():
        arguments = ", ".join(spec.parameters.get("properties", ()))
        print(f"{spec.name}({arguments})  [{sources.get(own, '')}]")
        print(f"    {spec.description.splitlines()[0] if spec.description else ''}")
    for server in away:
        tell(f"MCP server {server.config.name} is away: {_why(server)}")
    return 0


def _check(house: "SharedTools") -> int:
    from xiaozhi.tools.external import ServerState

    servers = house.external.servers
    if not servers:
        print("no external MCP server is set up: tools.mcp_config or [[tools.servers]]")
        return 0
    bad = 0
    for server in servers:
        if server.state is ServerState.READY:
            print(f"ok    {server.config.name}: {len(server.tools())} tools")
        else:
            bad += 1
            print(f"away  {server.config.name}: {_why(server)}")
    return 1 if bad else 0


def _why(server: "ExternalServer") -> str:
    return server.problem or "it did not start in time"


async def _call(house: "SharedTools", args: argparse.Namespace) -> int:
    import json

    from xiaozhi.events import ToolCall

    box = _box(house, args.language)
    names = [spec.name for spec in box.specs()]
    if args.name not in names:
        raise unknown("tool", args.name, names, "tools list")
    values: dict[str, object] = {}
    for pair in args.arguments:
        key, equals, text = pair.partition("=")
        if not equals:
            raise WrongUsage(f"{pair!r} is not KEY=VALUE")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    arguments = args.json if args.json is not None else json.dumps(values)
    (answer,) = await box.run([ToolCall("1", args.name, arguments)])
    print(answer.result.text)
    if answer.result.audio is not None:
        print("(sound; it is played on a device only)")
    return 1 if answer.result.failed else 0
