"""External MCP servers through the official SDK: one client each for the whole process, restarted when they end."""

import asyncio
import logging
import os
import random
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import httpx2
import orjson

from xiaozhi.settings.tools import McpServer
from xiaozhi.tools.plain_schema import ListedTool, SchemaRefused, listed_tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult, remote_tool
from xiaozhi.tools.wording import pick, shortened

if TYPE_CHECKING:
    from mcp import Client  # costs half a second: imported when the first server starts

_log = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 60.0  # `npx` fetches a server from the internet at its first start
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 300.0
_STEADY_S: Final = 60.0
"""A connection that held for so long makes the next failure count as the first."""
_ALIVE_EVERY_S: Final = 30.0
_MAX_PAGES: Final = 50
_MAX_TOOLS: Final = 200
_MAX_BODY_BYTES: Final = 1_048_576
"""Of one answer over HTTP; the SDK allows one event of a stream as much."""


class ServerState(Enum):
    """Where a server stands."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    """It failed or ended, and is tried again after a while."""
    STOPPED = "stopped"


class _Lost(Exception):
    """The connection is gone."""


class ExternalServer:
    """One server; a `ToolSource` of its tools, which are called `server_tool`.

    While it is away its tools stay offered, so that prompt caches hold, and a call says that it is away.

    Args:
        config: how to reach it.
        first_retry_s: pause before the first restart, doubled up to five minutes.
        alive_every_s: how often it is asked whether it is still there.
    """

    def __init__(
        self, config: McpServer, *, first_retry_s: float = _FIRST_RETRY_S, alive_every_s: float = _ALIVE_EVERY_S
    ) -> None:
        self.config = config
        self.state = ServerState.STOPPED
        self.problem = ""
        """Why it is away, in one line."""
        self.restarts = 0
        """Times it was started again."""
        self.version = 0
        self._first_retry_s = first_retry_s
        self._alive_every_s = alive_every_s
        self._client: Client | None = None
        self._tools: tuple[Tool, ...] = ()
        self._refused: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._check_now = asyncio.Event()
        self._moved = asyncio.Condition()

    def tools(self) -> Sequence[Tool]:
        """Its tools as last listed, by name."""
        return self._tools

    def start(self) -> None:
        """Begin to connect, in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=f"mcp-{self.config.name}")

    async def close(self) -> None:
        """End the connection and the process."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._move(ServerState.STOPPED)

    async def reached(self, *states: ServerState) -> ServerState:
        """Wait until it is in one of these states."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.state in states)
            return self.state

    async def call(self, name: str, arguments: dict[str, Any], language: str) -> ToolResult:
        """Call a tool by the name the server gave it.

        Raises:
            ToolError: the server is away, went away, or refused.
        """
        client = self._client
        if client is None:
            raise ToolError(self._away(language))
        from mcp import MCPError
        from mcp_types import (
            CONNECTION_CLOSED,
            REQUEST_TIMEOUT,
            CallToolRequest,
            CallToolRequestParams,
            CallToolResult,
        )

        # Not `client.call_tool`: it evaluates the schema that the server gives for its own results, which may take for
        # ever on the loop; here only the text of a result is used.
        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=arguments))
        asking = client.session.send_request(request, CallToolResult, self.config.timeout_s)
        calling = asyncio.ensure_future(asking)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({calling, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise ToolError(self._away(language))
            result = calling.result()
        except MCPError as error:
            if error.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
                self._suspect(error)
                raise ToolError(self._away(language)) from None
            raise ToolError(shortened(f"{self.config.name}: {error}", 300)) from None
        except (OSError, _Lost, RuntimeError, ValueError) as error:
            self._suspect(error)
            raise ToolError(self._away(language)) from None
        except Exception as error:
            if not _is_transport_error(error):
                raise
            self._suspect(error)
            raise ToolError(self._away(language)) from None
        finally:
            for task in (calling, lost):
                task.cancel()
            await asyncio.gather(calling, lost, return_exceptions=True)
        return ToolResult(_text(result), failed=bool(result.is_error))

    def _away(self, language: str) -> str:
        name = self.config.name
        return pick(language, f"服务{name}现在不可用。", f"The service {name} is not available right now.")

    def _suspect(self, error: BaseException) -> None:
        """A call failed as if the connection were gone: find out."""
        _log.debug("mcp server %s: a call failed: %s", self.config.name, type(error).__name__)
        self._check_now.set()

    async def _keep(self) -> None:
        """Connect, stay connected, and begin again after ever longer pauses."""
        pause_s = self._first_retry_s
        loop = asyncio.get_running_loop()
        while True:
            await self._move(ServerState.STARTING)
            began = loop.time()
            try:
                await self._stay()
            except Exception as error:  # noqa: BLE001 - the SDK fails in many ways; the server is tried again
                self.problem = _reason(error)
            if loop.time() - began > _STEADY_S:
                pause_s = self._first_retry_s
            _log.warning("mcp server %s is away (%s); next try in %.1f s", self.config.name, self.problem, pause_s)
            await self._move(ServerState.WAITING)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(_LAST_RETRY_S, pause_s * 2)
            self.restarts += 1

    async def _stay(self) -> None:
        """One connection, from its beginning to its end; always ends with an exception."""
        async with _connected(self.config) as client:
            async with asyncio.timeout(_START_TIMEOUT_S):
                listed = await _list(client)
            await self._take(listed)
            self._lost = asyncio.Event()
            self._check_now.clear()
            self._client = client
            self.problem = ""
            await self._move(ServerState.READY)
            _log.info("mcp server %s is ready with %d tools", self.config.name, len(self._tools))
            try:
                await self._watch(client)
            finally:
                self._client = None
                self._lost.set()

    async def _watch(self, client: "Client") -> None:
        """Ask every now and then whether it is still there; raises when it is not."""
        while True:
            try:
                async with asyncio.timeout(self._alive_every_s):
                    await self._check_now.wait()
            except TimeoutError:
                pass
            self._check_now.clear()
            async with asyncio.timeout(self.config.timeout_s):
                await self._take(await _list(client))

    async def _take(self, entries: Sequence[object]) -> None:
        """Offer what the server lists, as far as a model can be offered it; nothing changes when it is what it was."""
        offered: list[Tool] = []
        refused: list[str] = []
        for entry in entries:
            await asyncio.sleep(0)  # each may take milliseconds
            try:
                offered.append(self._tool(listed_tool(entry)))
            except SchemaRefused as error:
                refused.append(str(error))
        if refused and refused != self._refused:
            reasons = shortened("; ".join(refused), 500)
            _log.warning("mcp server %s: %d tools cannot be offered: %s", self.config.name, len(refused), reasons)
        self._refused = refused
        tools = tuple(sorted(offered, key=lambda each: each.name))
        if [(t.name, t.description, t.parameters) for t in tools] != [
            (t.name, t.description, t.parameters) for t in self._tools
        ]:
            self._tools = tools
            self.version += 1

    def _tool(self, listed: ListedTool) -> Tool:
        async def run(arguments: dict[str, Any], context: ToolContext) -> ToolResult:
            return await self.call(listed.name, arguments, context.language)

        return remote_tool(
            f"{self.config.name}_{listed.name}",
            listed.description,
            listed.schema,
            run,
            source=self.config.name,
            dangerous=any(fnmatchcase(listed.name, glob) for glob in self.config.dangerous),
            timeout_s=self.config.timeout_s + 1.0,  # the SDK's own limit comes first
        )

    async def _move(self, state: ServerState) -> None:
        async with self._moved:
            self.state = state
            self._moved.notify_all()


class ExternalServers:
    """All external servers of the process; a `ToolSource`.

    Args:
        configs: which there are.
    """

    def __init__(self, configs: Iterable[McpServer]) -> None:
        self.servers = [ExternalServer(config) for config in sorted(configs, key=lambda each: each.name)]

    @property
    def version(self) -> int:
        """Rises whenever the tools of any server change."""
        return sum(server.version for server in self.servers)

    def tools(self) -> Sequence[Tool]:
        """The tools of all servers."""
        return [each for server in self.servers for each in server.tools()]

    def start(self) -> None:
        """Begin to connect to all of them, in the background."""
        for server in self.servers:
            server.start()

    async def close(self) -> None:
        """End all connections and processes."""
        await asyncio.gather(*(server.close() for server in self.servers))


@asynccontextmanager
async def _connected(config: McpServer) -> AsyncIterator["Client"]:
    """A client that has said hello."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client

    async with AsyncExitStack() as stack:
        if config.command:
            parameters = StdioServerParameters(
                command=config.command, args=list(config.args), env=dict(config.env) or None, cwd=config.cwd or None
            )
            # What a server complains about belongs into our own log stream, the process's real standard error.
            server: Any = stdio_client(parameters, errlog=sys.__stderr__ or stack.enter_context(_nowhere()))
        else:
            headers = {name: value.get_secret_value() for name, value in config.headers.items()}
            # A server may hold a stream open for long; each request has its own limit below.
            timeout = httpx2.Timeout(config.timeout_s, read=None)
            http = httpx2.AsyncClient(
                headers={**headers, "Accept-Encoding": "identity"},
                timeout=timeout,
                event_hooks={"response": [_bound]},
            )
            await stack.enter_async_context(http)
            server = streamable_http_client(config.url, http_client=http)
        client = Client(server, read_timeout_seconds=config.timeout_s, cache=None)
        async with asyncio.timeout(_START_TIMEOUT_S):
            await stack.enter_async_context(client)
        yield client


class _BoundedBody(httpx2.AsyncByteStream):
    """A body of at most `_MAX_BODY_BYTES`; reading more of it raises `DecodingError`."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._body:
            size += len(piece)
            if size > _MAX_BODY_BYTES:
                raise httpx2.DecodingError(f"the server sent more than {_MAX_BODY_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Let no more of an answer in than there may be; the SDK itself bounds the events of a stream.

    Raises:
        httpx2.DecodingError: it is packed, which may be any number of bytes.
    """
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise httpx2.DecodingError("the server sent a packed body, which it was not asked for")
    streams = response.headers.get("Content-Type", "").startswith("text/event-stream")
    if not streams and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedBody(response.stream)


def _nowhere() -> TextIO:
    """Where complaints go in a process without a standard error."""
    return Path(os.devnull).open("w")


async def _list(client: "Client") -> list[object]:
    """What it lists, as far as so many are taken in."""
    listed: list[object] = []
    cursor: str | None = None
    seen = set[str]()
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for each in page.tools:
            if len(listed) == _MAX_TOOLS:
                return listed
            listed.append({"name": each.name, "description": each.description, "inputSchema": each.input_schema})
        cursor = page.next_cursor
        if not cursor or cursor in seen:
            break
        seen.add(cursor)
    return listed


def _text(result: Any) -> str:
    """The text of a result; pictures, sound and files are mentioned."""
    parts = []
    for item in result.content:
        text = getattr(item, "text", None) or getattr(getattr(item, "resource", None), "text", None)
        parts.append(text if isinstance(text, str) else f"({item.type} that cannot be shown here)")
    if not parts and result.structured_content is not None:
        parts.append(orjson.dumps(result.structured_content).decode())
    return "\n".join(parts) or "done"


def _is_transport_error(error: BaseException) -> bool:
    """Whether an error comes from the SDK's streams or HTTP client rather than from us."""
    return type(error).__module__.partition(".")[0] in {"anyio", "httpx", "httpx2", "httpcore", "mcp", "mcp_types"}


def _reason(error: BaseException) -> str:
    """The innermost error of a group in one line, without addresses that might hold keys."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError):
        return f"no such command: {error.filename}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    words = shortened(" ".join(str(error).split()), 160)
    return f"{type(error).__name__}: {words}" if words and "://" not in words else type(error).__name__
