"""This server as an MCP server for other programs: streamable HTTP at `/mcp`, without sessions, on the devices' port.

The official SDK serves only through ASGI, which would be a second server beside this one; what is needed of the
protocol (modelcontextprotocol.io, revisions 2024-11-05 to 2025-11-25) is small: every request is answered with one JSON
object, there are no streams, and nothing is remembered between requests.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from xiaozhi import __version__
from xiaozhi.access.addresses import Network
from xiaozhi.access.own_token import WrongTokens, shows
from xiaozhi.http.bodies import BodyTooLong, read_body
from xiaozhi.http.openapi import takes
from xiaozhi.settings import McpServerSettings
from xiaozhi.store import StoreError
from xiaozhi.text import bounded_json
from xiaozhi.tools.arguments import BadArguments
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult

_log = logging.getLogger(__name__)

MCP_PATH: Final = "/mcp"

VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Revisions of the protocol that this speaks, the newest first."""
_INSTRUCTIONS: Final = "Voice devices of a house: say something on them, list them, read what was said and what is due."
_PARSE_ERROR, _INVALID_REQUEST, _NO_METHOD, _BAD_PARAMS, _INTERNAL = -32700, -32600, -32601, -32602, -32603


class _RpcError(Exception):
    """Answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class McpEndpoint:
    """Answers MCP clients.

    Args:
        settings: the table `mcp_server`.
        tools: what they may call.
        token: what they must show.
        proxies: whose word about a client's address counts.
    """

    def __init__(
        self, settings: McpServerSettings, tools: Sequence[Tool], token: str, proxies: Sequence[Network]
    ) -> None:
        self._settings = settings
        self._tools = {tool.name: tool for tool in tools}
        self._token = token
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.origins)
        self._wrong = WrongTokens(proxies)
        self._context = ToolContext(language="en")
        self.calls = 0
        """Tools that were called."""

    @takes(jsonrpc=(str, ...), method=(str, ...), id=(int | str, None), params=(dict[str, Any], {}))
    async def post(self, request: web.Request) -> web.Response:
        """One JSON-RPC message, one answer."""
        if (refusal := self._refusal(request)) is not None:
            return refusal
        try:
            message = bounded_json.loads(await read_body(request, self._settings.max_kb * 1024))
        except BodyTooLong:
            return _failed(413, _INVALID_REQUEST, f"a request has at most {self._settings.max_kb} kB")
        except orjson.JSONDecodeError:
            return _failed(400, _PARSE_ERROR, "this is no JSON")
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return _failed(400, _INVALID_REQUEST, "send one JSON-RPC 2.0 message")
        number, method = message.get("id"), message.get("method")
        if not isinstance(method, str) or number is None:
            return web.Response(status=202)  # a notification, or an answer that nobody has asked for
        if isinstance(number, bool) or not isinstance(number, int | str):
            return _failed(400, _INVALID_REQUEST, "id must be a number or a text")
        try:
            result = await self._answer(method, message.get("params"))
        except _RpcError as error:
            return _json(200, {"jsonrpc": "2.0", "id": number, "error": {"code": error.code, "message": str(error)}})
        return _json(200, {"jsonrpc": "2.0", "id": number, "result": result})

    async def other(self, request: web.Request) -> web.Response:
        """GET and DELETE: there are no streams and no sessions."""
        return self._refusal(request) or web.Response(status=405, headers={"Allow": "POST"})

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Why this request is not answered."""
        origin = request.headers.get("Origin", "").rstrip("/").lower()
        if origin and origin not in self._origins:  # a web page that tries its luck in somebody's browser
            return _failed(403, _INVALID_REQUEST, "this origin may not ask; see [mcp_server] origins")
        if not shows(request, self._token):
            if wait_s := self._wrong.wait_s(request):
                return _failed(429, _INVALID_REQUEST, "too many wrong tokens", {"Retry-After": str(int(wait_s) + 1)})
            return _failed(401, _INVALID_REQUEST, "show the token", {"WWW-Authenticate": "Bearer"})
        if request.headers.get("MCP-Protocol-Version", VERSIONS[0]) not in VERSIONS:
            return _failed(400, _INVALID_REQUEST, f"the protocol version must be one of {', '.join(VERSIONS)}")
        if request.method == "POST" and request.content_type != "application/json":
            return _failed(415, _INVALID_REQUEST, "send application/json")
        return None

    async def _answer(self, method: str, params: object) -> dict[str, Any]:
        given: Mapping[str, Any] = params if isinstance(params, dict) else {}
        if params is not None and not isinstance(params, dict):
            raise _RpcError(_BAD_PARAMS, "params must be an object")
        match method:
            case "initialize":
                wanted = given.get("protocolVersion")
                return {
                    "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
                    "capabilities": {"tools": {"listChanged": False}},
                    "serverInfo": {"name": "xiaozhi", "version": __version__},
                    "instructions": _INSTRUCTIONS,
                }
            case "ping":
                return {}
            case "tools/list":
                return {"tools": [_listing(tool) for tool in self._tools.values()]}
            case "tools/call":
                return await self._call(given)
            case _:
                raise _RpcError(_NO_METHOD, f"there is no method {method[:64]!r}")

    async def _call(self, params: Mapping[str, Any]) -> dict[str, Any]:
        name, arguments = params.get("name"), params.get("arguments")
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise _RpcError(_BAD_PARAMS, f"there is no tool {str(name)[:64]!r}")
        if arguments is not None and not isinstance(arguments, dict):
            raise _RpcError(_BAD_PARAMS, "arguments must be an object")
        self.calls += 1
        try:
            result = await tool.run(tool.check(arguments or {}), self._context)
        except (BadArguments, ToolError) as error:
            result = ToolResult(str(error), failed=True)
        except StoreError as error:
            _log.error("mcp: %s: %s", tool.name, error)
            raise _RpcError(_INTERNAL, "the store is out of order") from None
        return {"content": [{"type": "text", "text": result.text}], "isError": result.failed}


def _listing(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "inputSchema": dict(tool.parameters)}


def _failed(status: int, code: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return _json(status, {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text}}, headers)


def _json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(value), content_type="application/json", headers=dict(headers or {})
    )
