"""The connected device's own tools: asked for once, called by name, with time-outs. One per connection."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from xiaozhi.concurrency.channel import ChannelClosed
from xiaozhi.settings.tools import DeviceToolSettings
from xiaozhi.tools.device_rpc import DeviceRpc, Reply, call_text, initialize_params, tool_page
from xiaozhi.tools.listed import ListedTool, listed_tool
from xiaozhi.tools.plain_schema import SchemaRefused
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult, remote_tool
from xiaozhi.tools.wording import shortened

_log = logging.getLogger(__name__)

_INITIALIZE_WAIT_S: Final = 2.0
"""Tools do not need its answer, and answers can be lost: after this the list is asked for all the same."""
# A device lists its tools in 70 to 300 ms. Who speaks before is kept waiting, but never longer than this after hello.
_LISTING_S: Final = 1.5
_MAX_PAGES: Final = 32
_MAX_ENTRIES: Final = 500
"""Of one page; a page of the firmware holds some dozens."""
_LIST_TRIES: Final = 2
_MAX_CURSOR_CHARS: Final = 512  # the firmware's is the name of the next tool
_MAX_LISTED_BYTES: Final = 262_144
"""All names, descriptions and schemas of a device; the desktop client with the most tools has about 40 kB."""
_MAX_REASONS_CHARS: Final = 500
_CAMERA: Final = re.compile(r"camera|photo|screenshot|vision")


class _NoAnswer(Exception):
    """The device did not answer in time, or went away."""


class DeviceMcp:
    """Speaks MCP with one device; a `ToolSource` and the `DeviceCalls` of its conversation.

    Args:
        send: puts a JSON-RPC message on its way to the device (as the `payload` of an `mcp` message); may raise
            OSError or ChannelClosed when the device is gone.
        settings: time-outs and bounds.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]], settings: DeviceToolSettings) -> None:
        self._send = send
        self._settings = settings
        self._rpc = DeviceRpc()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        # The device carries out one call after the other on its main loop; the time of a call begins when it is sent.
        self._one_at_a_time = asyncio.Lock()
        self._listed: dict[str, ListedTool] = {}
        self._listed_bytes = 0
        self._full = False
        self._tools: tuple[Tool, ...] = ()
        self._refused: list[str] = []
        self._closed = False
        self._began_at = asyncio.get_running_loop().time()
        self._complete = asyncio.Event()
        self.version = 0
        self.server = ""
        """Name and version of the device's MCP server, as it says itself; empty until it has."""
        self.timeouts = 0
        """Requests that were never answered."""

    @property
    def rpc(self) -> DeviceRpc:
        """The protocol below, for its counters."""
        return self._rpc

    def receive(self, payload: object) -> None:
        """A message came from the device."""
        reply = self._rpc.receive(payload)
        if reply is None:
            return
        waiting = self._waiting.pop(reply.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    async def start(self, vision_url: str = "", vision_token: str = "") -> None:
        """Say hello and take in the device's tools, page by page. Never raises for what a device does or leaves out.

        Args:
            vision_url: where its camera sends pictures; empty for nowhere.
            vision_token: what it shows there.
        """
        try:
            wait_s = min(_INITIALIZE_WAIT_S, self._settings.timeout_s)
            reply = await self._ask("initialize", initialize_params(vision_url, vision_token), wait_s)
            self._note_server(reply)
        except _NoAnswer:
            _log.debug("the device did not answer initialize")
        try:
            await self._list()
        except _NoAnswer:
            _log.warning("the device did not list its tools; %d are known", len(self._listed))
        finally:
            self._complete.set()
        if self._refused:
            _log.warning(
                "%d tools of the device cannot be offered: %s",
                len(self._refused),
                shortened("; ".join(self._refused), _MAX_REASONS_CHARS),
            )

    def tools(self) -> tuple[Tool, ...]:
        """The device's tools as far as they are known, in the order it lists them."""
        return self._tools

    def offers(self, name: str) -> bool:
        """Whether the device has this tool."""
        return name in self._listed

    @property
    def listing(self) -> bool:
        """What it offers is not known yet."""
        return not self._complete.is_set()

    async def listed(self) -> None:
        """Wait until it is known, or has had its time."""
        try:
            async with asyncio.timeout_at(self._began_at + _LISTING_S):
                await self._complete.wait()
        except TimeoutError:
            _log.debug("the device is late with its tools")

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call a tool of the device by its own name; it must get the kinds of values its schema names.

        Raises:
            ToolError: it refused or failed, did not answer, or is gone; the text says which, in its own words.
        """
        timeout_s = self._timeout_s(name)
        async with self._one_at_a_time:
            try:
                reply = await self._ask("tools/call", {"name": name, "arguments": dict(arguments)}, timeout_s)
            except _NoAnswer as error:
                raise ToolError(str(error)) from None
        if reply.result is None:
            raise ToolError(f"The device says: {reply.error}")
        text, failed = call_text(reply.result)
        return ToolResult(text or "done", failed=failed)

    def close(self) -> None:
        """The device is gone: whoever waits for it is told so."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for number, future in waiting.items():
            self._rpc.forget(number)
            if not future.done():
                future.set_exception(_NoAnswer("The device is no longer connected."))

    async def _ask(self, method: str, params: Mapping[str, Any], timeout_s: float) -> Reply:
        if self._closed:
            raise _NoAnswer("The device is no longer connected.")
        number, message = self._rpc.request(method, params)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(message)
                return await future
        except TimeoutError:
            self.timeouts += 1
            raise _NoAnswer("The device did not answer in time.") from None
        except (OSError, ChannelClosed):
            raise _NoAnswer("The device is no longer connected.") from None
        finally:
            self._waiting.pop(number, None)
            self._rpc.forget(number)

    async def _list(self) -> None:
        """Take in every page; a cursor that comes back, too many pages or too many tools end it."""
        cursor, seen = "", set[str]()
        for _ in range(_MAX_PAGES):
            reply = await self._ask_again({"cursor": cursor, "withUserTools": False})
            if reply.result is None:
                _log.debug("the device ended its list: %s", reply.error)
                return
            entries, cursor = tool_page(reply.result)
            await self._take(entries)
            if not cursor or cursor in seen or len(cursor) > _MAX_CURSOR_CHARS or self._full:
                return
            seen.add(cursor)

    async def _ask_again(self, params: Mapping[str, Any]) -> Reply:
        for _ in range(_LIST_TRIES - 1):
            try:
                return await self._ask("tools/list", params, self._settings.timeout_s)
            except _NoAnswer:
                if self._closed:
                    raise
        return await self._ask("tools/list", params, self._settings.timeout_s)

    async def _take(self, entries: Sequence[object]) -> None:
        """Offer the tools of one page; those that cannot be offered are left out one by one."""
        new: dict[str, ListedTool] = {}
        for entry in entries[:_MAX_ENTRIES]:
            await asyncio.sleep(0)  # each may take milliseconds
            try:
                listed = listed_tool(entry)
            except SchemaRefused as error:
                self._refused.append(str(error))
                continue
            if listed.name in self._listed or listed.name in new:
                continue
            size = len(orjson.dumps([listed.name, listed.description, listed.schema]))
            most = self._settings.max_tools
            if len(self._listed) + len(new) >= most or self._listed_bytes + size > _MAX_LISTED_BYTES:
                _log.warning(
                    "the device has more tools than %d, or than %d bytes of them; the rest is left out",
                    most,
                    _MAX_LISTED_BYTES,
                )
                self._full = True
                break
            new[listed.name] = listed
            self._listed_bytes += size
        if new:
            self._listed |= new
            self._tools += tuple(self._tool(listed) for listed in new.values())
            self.version += 1

    def _tool(self, listed: ListedTool) -> Tool:
        async def run(arguments: dict[str, Any], context: ToolContext) -> ToolResult:
            return await self.call(listed.name, arguments)

        return remote_tool(
            listed.name,
            listed.description,
            listed.schema,
            run,
            source="device",
            user_only=listed.user_only,
            slow=bool(_CAMERA.search(listed.name)),
            # A device is asked again after what was set has changed; each call is bounded by itself, and here only
            # what waits for the calls before it.
            repeats="get" in listed.name,
            timeout_s=self._timeout_s(listed.name) + 2 * self._settings.timeout_s,
        )

    def _timeout_s(self, name: str) -> float:
        return self._settings.camera_timeout_s if _CAMERA.search(name) else self._settings.timeout_s

    def _note_server(self, reply: Reply) -> None:
        info = (reply.result or {}).get("serverInfo")
        if isinstance(info, dict):
            self.server = f"{info.get('name', '')} {info.get('version', '')}".strip()[:100]
