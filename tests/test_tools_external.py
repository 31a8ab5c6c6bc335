"""External MCP servers: real ones over stdio and HTTP, killed in the middle."""

import asyncio
import gzip
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from xiaozhi.events import ToolCall
from xiaozhi.settings import ToolsSettings
from xiaozhi.settings.tools import McpServer
from xiaozhi.tools.external import ExternalServer, ServerState
from xiaozhi.tools.external_config import McpConfigError, configured_servers, read_config
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.tools.tool import ToolContext, ToolResult
from xiaozhi.tools.toolbox import Registry, ToolAnswer, Toolbox

pytestmark = pytest.mark.real_time  # servers in processes of their own

SCRIPT = str(Path(__file__).with_name("mcp_server.py"))
WAY = 90.0


def over_stdio(name: str = "sums", timeout_s: float = 10.0) -> McpServer:
    return McpServer(
        name=name, command=sys.executable, args=(SCRIPT, "stdio"), env={"FLAVOUR": "plum"}, timeout_s=timeout_s
    )


@asynccontextmanager
async def running(config: McpServer) -> AsyncIterator[ExternalServer]:
    server = ExternalServer(config, first_retry_s=0.01, alive_every_s=0.2)
    server.start()
    try:
        yield server
    finally:
        await server.close()


async def ready(server: ExternalServer) -> None:
    async with asyncio.timeout(WAY):
        await server.reached(ServerState.READY)


def toolbox(server: ExternalServer) -> Toolbox:
    made = Toolbox(Registry((), [server]), ToolContext(language="en"), ToolsSettings())
    made.begin_turn("")
    return made


def call(name: str, /, **arguments: object) -> ToolCall:
    return ToolCall("1", name, json.dumps(arguments))


async def test_a_server_over_stdio_is_listed_called_killed_and_started_again() -> None:
    async with running(over_stdio()) as server:
        await ready(server)
        tools = toolbox(server)
        names = [spec.name for spec in tools.specs()]
        assert names == ["sums_add", "sums_crash", "sums_environment", "sums_fail", "sums_hang", "sums_process_id"]
        (three,) = await tools.run([call("sums_add", a=1, b="2")])
        assert three.result.text == "3" and not three.result.failed
        (failed,) = await tools.run([call("sums_fail")])
        assert failed.result.failed and "fail" in failed.result.text
        (flavour,) = await tools.run([call("sums_environment", name="FLAVOUR")])
        assert flavour.result.text == "plum"
        (wrong,) = await tools.run([call("sums_add", a="one")])
        assert wrong.result.failed and wrong.result.text.startswith("Not called.")
        tools.begin_turn("again")
        version = server.version
        (crashed,) = await tools.run([call("sums_crash")])
        assert crashed.result.failed
        async with asyncio.timeout(WAY):
            await server.reached(ServerState.STARTING)
        assert [spec.name for spec in tools.specs()] == names
        await ready(server)
        assert server.restarts >= 1 and server.version == version
        tools.begin_turn("and again")
        (five,) = await tools.run([call("sums_add", a=2, b=3)])
        assert five.result.text == "5"


async def test_a_call_that_hangs_is_given_up_and_a_cancelled_one_leaves_the_server_well() -> None:
    async with running(over_stdio(timeout_s=0.5)) as server:
        await ready(server)
        tools = toolbox(server)
        calling = asyncio.create_task(tools.run([call("sums_hang")]))
        await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        (hung,) = await tools.run([call("sums_hang")])
        assert hung.result.failed
        await ready(server)
        (two,) = await tools.run([call("sums_add", a=1, b=1)])
        assert two.result.text == "2"


async def hanging(tools: Toolbox, name: str) -> tuple["asyncio.Task[tuple[ToolAnswer, ...]]", int]:
    """A call that the server is at work on, and the process to kill: it has answered a later call meanwhile."""
    tools.begin_turn("hang")
    calling = asyncio.create_task(tools.run([call(f"{name}_hang")]))
    await asyncio.sleep(0)
    (process,) = await tools.run([call(f"{name}_process_id")])
    return calling, int(process.result.text)


async def test_a_server_over_stdio_that_is_killed_in_the_middle_of_a_call_is_away_at_once_and_comes_back() -> None:
    async with running(over_stdio(timeout_s=100.0)) as server, asyncio.timeout(WAY):
        await ready(server)
        tools = toolbox(server)
        calling, process_id = await hanging(tools, "sums")
        os.kill(process_id, signal.SIGKILL)
        (gone,) = await calling
        assert gone.result.failed and gone.result.text == "The service sums is not available right now."
        await server.reached(ServerState.WAITING, ServerState.STARTING)
        await ready(server)
        assert server.restarts == 1
        tools.begin_turn("again")
        (four,) = await tools.run([call("sums_add", a=1, b=3)])
        assert four.result.text == "4"


async def test_pauses_between_tries_double(caplog: pytest.LogCaptureFixture) -> None:
    async with running(McpServer(name="none", command="/nowhere/server", timeout_s=5)) as server:
        async with asyncio.timeout(WAY):
            while server.restarts < 3:
                await server.reached(ServerState.WAITING)
                await server.reached(ServerState.STARTING)
    pauses_s = [each.args[2] for each in caplog.records if isinstance(each.args, tuple) and "next try" in each.msg]
    assert pauses_s[:3] == [0.01, 0.02, 0.04]


async def test_a_command_that_is_not_there_is_named_and_tried_again() -> None:
    config = McpServer(name="none", command="/nowhere/server", timeout_s=5)
    async with running(config) as server:
        async with asyncio.timeout(WAY):
            await server.reached(ServerState.WAITING)
            assert "/nowhere/server" in server.problem
            await server.reached(ServerState.STARTING)
        (away,) = await toolbox(server).run([call("none_x")])
        assert away.result.failed


async def test_a_server_over_http_that_is_killed_in_the_middle_of_a_call_comes_back() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def begin() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, SCRIPT, str(port), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )

    config = McpServer(name="web", url=f"http://127.0.0.1:{port}/mcp", headers={"X-Key": SecretStr("k")}, timeout_s=60)
    process = await begin()
    try:
        async with running(config) as server:
            await ready(server)
            tools = toolbox(server)
            (three,) = await tools.run([call("web_add", a=1, b=2)])
            assert three.result.text == "3"
            calling, _ = await hanging(tools, "web")
            process.kill()
            await process.wait()
            (gone,) = await calling
            assert gone.result.failed and gone.result.text == "The service web is not available right now."
            (gone,) = await tools.run([call("web_add", a=2, b=2)])
            assert gone.result.failed and "web" in gone.result.text
            async with asyncio.timeout(WAY):
                await server.reached(ServerState.WAITING, ServerState.STARTING)
            process = await begin()
            await ready(server)
            tools.begin_turn("again")
            (five,) = await tools.run([call("web_add", a=2, b=3)])
            assert five.result.text == "5"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def stranger(answer: Callable[[dict[str, Any]], web.Response]) -> AsyncIterator[McpServer]:
    """A server by hand over streamable HTTP, revision 2025-06-18, that says more than a good one would."""

    async def post(request: web.Request) -> web.Response:
        asked = await request.json()
        if "id" not in asked:
            return web.Response(status=202)
        if asked["method"] == "initialize":
            about = {"name": "stranger", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})
        if asked["method"] == "server/discover":
            error = {"code": -32601, "message": "no such method"}
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        return answer(asked)

    app = web.Application()
    app.router.add_post("/mcp", post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield McpServer(name="far", url=f"http://127.0.0.1:{port}/mcp", timeout_s=10)
    finally:
        await runner.cleanup()


def told(asked: dict[str, Any], result: dict[str, Any]) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})


async def test_schemas_of_a_server_are_never_evaluated_and_too_large_ones_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    evil = {"type": "object", "properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}}
    text = "a" * 40 + "!"

    def answer(asked: dict[str, Any]) -> web.Response:
        if asked["method"] == "tools/list":
            wide = {"type": "object", "properties": {f"p{number}": {} for number in range(500)}}
            good = {"name": "good", "inputSchema": evil, "outputSchema": evil}
            return told(asked, {"tools": [good, {"name": "wide", "inputSchema": wide}]})
        content = [{"type": "text", "text": "done"}]
        return told(asked, {"content": content, "structuredContent": {"text": text}, "isError": False})

    async with stranger(answer) as config, running(config) as server:
        await ready(server)
        tools = toolbox(server)
        assert [spec.name for spec in tools.specs()] == ["far_good"]
        (done,) = await tools.run([call("far_good", text=text)])
        assert done.result == ToolResult("done")
    assert caplog.text.count("1 tools cannot be offered: wide: it takes 500 arguments, more than") == 1


@pytest.mark.parametrize("packed", [True, False])
async def test_an_answer_without_end_is_not_taken_in(packed: bool) -> None:
    def answer(asked: dict[str, Any]) -> web.Response:
        if asked["method"] == "tools/list":
            return told(asked, {"tools": [{"name": "much", "inputSchema": {"type": "object"}}]})
        body = told(asked, {"content": [{"type": "text", "text": "x" * 50_000_000}]}).body
        assert isinstance(body, bytes)
        headers = {"Content-Type": "application/json", **({"Content-Encoding": "gzip"} if packed else {})}
        return web.Response(body=gzip.compress(body, 1) if packed else body, headers=headers)

    async with stranger(answer) as config, running(config) as server:
        await ready(server)
        (much,) = await toolbox(server).run([call("far_much")])
        assert much.result == ToolResult("The service far is not available right now.", failed=True)


def test_the_usual_file_of_servers_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(
        json.dumps(
            {
                "mcpServers": {
                    "file system": {"command": "npx", "args": ["-y", "x"], "env": {"A": "b"}, "autoApprove": []},
                    "remote": {
                        "type": "http",
                        "url": "https://example.org/mcp",
                        "headers": {"Authorization": "Bearer s"},
                    },
                    "off": {"command": "x", "disabled": True},
                }
            }
        )
    )
    servers = read_config(file)
    assert [(each.name, each.enabled) for each in servers] == [("file_system", True), ("remote", True), ("off", False)]
    assert servers[1].headers["Authorization"].get_secret_value() == "Bearer s"
    assert "Bearer s" not in repr(servers) and "'b'" not in repr(servers)
    settings = ToolsSettings(mcp_config=file, servers=(McpServer(name="remote", command="mine"),))
    assert [(each.name, each.command) for each in configured_servers(settings)] == [
        ("file_system", "npx"),
        ("remote", "mine"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", '"mcpServers" must be'),
        ('{"mcpServers": {"a": {}}}', "mcpServers.a: needs either command or url"),
        ('{"mcpServers": {"a": {"command": "x", "args": 3}}}', "mcpServers.a.args"),
        ('{"mcpServers": {"a": {"type": "sse", "url": "http://x"}}}', "SSE"),
        ('{"mcpServers": {"a": {"url": "ftp://x"}}}', "must begin with"),
        ('{"mcpServers": {"a": {"url": "http://x", "headers": {"k": 3}}}}', "headers must be texts"),
        ('{"mcpServers": {"a": 3}}', "must be an object"),
    ],
)
def test_a_wrong_file_of_servers_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(text)
    with pytest.raises(McpConfigError) as told:
        read_config(file)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_a_missing_file_of_servers_is_named(tmp_path: Path) -> None:
    with pytest.raises(McpConfigError, match=r"gone\.json"):
        SharedTools(ToolsSettings(mcp_config=tmp_path / "gone.json"))
