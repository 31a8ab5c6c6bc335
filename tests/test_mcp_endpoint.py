"""This server as an MCP server: used by the official client, and by those who should not get in."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.house import House, house
from xiaozhi.access.own_token import MCP_TOKEN, read_token
from xiaozhi.http.mcp_endpoint import VERSIONS, McpEndpoint, _RpcError
from xiaozhi.settings import McpServerSettings

TOKEN = "another-token-of-sixteen"
ONE = "02:00:00:00:00:01"


@asynccontextmanager
async def home_with_mcp(folder: Path, **settings: Any) -> AsyncIterator[House]:
    async with house(folder, "🙂 Yes.", mcp_server={"enabled": True, "token": TOKEN, **settings}) as home:
        yield home


def url(home: House) -> str:
    return f"http://127.0.0.1:{home.server.port}/mcp"


async def post(home: House, body: Any, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    async with aiohttp.ClientSession() as session, session.post(url(home), data=data, headers=sent) as response:
        content = await response.read()
        return response.status, orjson.loads(content) if content else None


async def test_the_official_client_lists_and_calls_the_tools(tmp_path: Path) -> None:
    async with home_with_mcp(tmp_path) as home, home.device() as device:
        store = home.server.services.store
        assert (await device.turn_text("my cat is called Momo")).answered
        await store.devices.update(ONE, name="Kitchen")
        await store.reminders.add(ONE, "call Anna", time.time() + 3600.0, repeat="daily")
        http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"})
        async with http, Client(streamable_http_client(url(home), http_client=http)) as client:
            listed = await client.list_tools()
            assert [tool.name for tool in listed.tools] == [
                "say_on_device",
                "list_devices",
                "read_history",
                "list_reminders",
            ]

            async def call(name: str, **arguments: Any) -> tuple[bool, str]:
                result = await client.call_tool(name, arguments)
                return bool(result.is_error), result.content[0].text  # type: ignore[union-attr]  # only texts

            failed, text = await call("list_devices")
            (entry,) = orjson.loads(text)
            assert (failed, entry["id"], entry["name"], entry["connected"]) == (False, ONE, "Kitchen", True)
            failed, text = await call("say_on_device", text="Dinner is ready.", devices=["kitchen"])
            assert (failed, orjson.loads(text)) == (False, {"kitchen": "spoken"})
            assert "Dinner is ready." in [message.get("text") for _, message in device.received]
            failed, text = await call("read_history", device="Kitchen", turns=5)
            asked, announced = orjson.loads(text)
            assert (asked["heard"], announced["heard"]) == ("my cat is called Momo", "")
            assert "Dinner is ready." in announced["said"]
            failed, text = await call("list_reminders")
            assert [(one["text"], one["repeat"]) for one in orjson.loads(text)] == [("call Anna", "daily")]
            failed, text = await call("read_history", device="nobody")
            assert failed
            assert "nobody" in text
            failed, text = await call("read_history", device="Kitchen", turns=5000)
            assert failed


async def test_only_the_token_opens_and_no_foreign_web_page_gets_in(tmp_path: Path) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with home_with_mcp(tmp_path, origins=["https://chat.example.com"]) as home:
        assert await post(home, ping) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})
        assert (await post(home, ping, Authorization="Bearer wrong"))[0] == 401
        assert (await post(home, ping, Authorization=""))[0] == 401
        assert (await post(home, ping, Origin="https://evil.example.com"))[0] == 403
        assert (await post(home, ping, Origin="https://chat.example.com"))[0] == 200
        assert (await post(home, ping, MCP_Protocol_Version="1999-01-01"))[0] == 400
        assert (await post(home, ping, Content_Type="text/plain"))[0] == 415
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url(home)) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_what_is_no_request_is_told_so(tmp_path: Path) -> None:
    async with home_with_mcp(tmp_path, max_kb=16) as home:
        assert (await post(home, b"{"))[1]["error"]["code"] == -32700
        assert (await post(home, [{"jsonrpc": "2.0", "id": 1, "method": "ping"}]))[1]["error"]["code"] == -32600
        assert (await post(home, {"id": 1, "method": "ping"}))[0] == 400
        assert (await post(home, b" " * 20_000))[0] == 413
        assert await post(home, {"jsonrpc": "2.0", "method": "notifications/initialized"}) == (202, None)
        request = {"jsonrpc": "2.0", "id": "a"}
        assert (await post(home, request | {"method": "resources/list"}))[1]["error"]["code"] == -32601
        assert (await post(home, request | {"method": "ping", "params": [1]}))[1]["error"]["code"] == -32602
        call = {"method": "tools/call", "params": {"name": "format_disk"}}
        assert (await post(home, request | call))[1]["error"]["code"] == -32602
        hello = {"method": "initialize", "params": {"protocolVersion": "2024-11-05"}}
        assert (await post(home, request | hello))[1]["result"]["protocolVersion"] == "2024-11-05"
        hello = {"method": "initialize", "params": {"protocolVersion": "3000-01-01"}}
        assert (await post(home, request | hello))[1]["result"]["protocolVersion"] == VERSIONS[0]


async def test_it_is_closed_until_it_is_switched_on_and_makes_its_own_token(tmp_path: Path) -> None:
    async with house(tmp_path) as home, aiohttp.ClientSession() as session, session.post(url(home)) as response:
        assert response.status == 404
    async with home_with_mcp(tmp_path, token="") as home:
        token = read_token(tmp_path / "data", MCP_TOKEN)
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert (await post(home, ping))[0] == 401
        assert (await post(home, ping, Authorization=f"Bearer {token}"))[0] == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["initialize", "tools/list", "tools/call", "ping", "x"]), json_values)
async def test_no_parameters_break_it(method: str, params: Any) -> None:
    endpoint = McpEndpoint(McpServerSettings(), (), TOKEN, ())
    try:
        assert isinstance(await endpoint._answer(method, params), dict)
    except _RpcError as error:
        assert error.code in {-32601, -32602}


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        McpServerSettings.model_validate({"token": "short"})
