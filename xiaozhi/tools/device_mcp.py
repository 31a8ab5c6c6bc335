"""The connected device's own tools: asked for once, called by name, with time-outs. One per connection.

The device is the MCP server. Firmware 2.x takes only numbers as ids and only objects as `params`, stays silent about
everything else, sends errors without a code, and may send an error that is no valid JSON (its message is not escaped),
which then never arrives here. Desktop clients send full JSON-RPC errors, and failures as `isError`.
"""

import asyncio
import itertools
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from xiaozhi import __version__
from xiaozhi.concurrency.channel import ChannelClosed
from xiaozhi.settings.tools import DeviceToolSettings
from xiaozhi.tools.plain_schema import ListedTool, SchemaRefused, listed_tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult, remote_tool
from xiaozhi.tools.wording import shortened

_log = logging.getLogger(__name__)

_PROTOCOL_VERSION: Final = "2024-11-05"
_MAX_ID: Final = 2_000_000_000  # the firmware reads ids as int32
_MAX_ERROR_CHARS: Final = 300
_MAX_ITEMS: Final = 100  # of one result
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


@dataclass(frozen=True, slots=True)
class RpcReply:
    """An answer to request `id`: a result, or the text of an error."""

    id: int
    result: Mapping[str, Any] | None
    error: str = ""


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
        self._ids = itertools.cycle(range(1, _MAX_ID))
        self._waiting: dict[int, asyncio.Future[RpcReply]] = {}
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
        self.late = 0
        """Answers to requests that nobody waits for any more, or that were never made."""
        self.malformed = 0
        """Messages that are no JSON-RPC answers."""

    def receive(self, payload: object) -> None:
        """A message came from the device."""
        try:
            reply = _reply(payload)
        except ValueError:
            self.malformed += 1
            return
        if reply is None:
            return
        waiting = self._waiting.pop(reply.id, None)
        if waiting is None:
            self.late += 1
        elif not waiting.done():
            waiting.set_result(reply)

    async def start(self, vision_url: str = "", vision_token: str = "") -> None:
        """Say hello and take in the device's tools, page by page. Never raises for what a device does or leaves out.

        Args:
            vision_url: where its camera sends pictures; empty for nowhere.
            vision_token: what it shows there.
        """
        try:
            wait_s = min(_INITIALIZE_WAIT_S, self._settings.timeout_s)
            reply = await self._ask("initialize", _initialize_params(vision_url, vision_token), wait_s)
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
        for future in waiting.values():
            if not future.done():
                future.set_exception(_NoAnswer("The device is no longer connected."))

    async def _ask(self, method: str, params: Mapping[str, Any], timeout_s: float) -> RpcReply:
        if self._closed:
            raise _NoAnswer("The device is no longer connected.")
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)}
        future: asyncio.Future[RpcReply] = asyncio.get_running_loop().create_future()
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

    async def _list(self) -> None:
        """Take in every page; a cursor that comes back, too many pages or too many tools end it."""
        cursor, seen = "", set[str]()
        for _ in range(_MAX_PAGES):
            reply = await self._ask_again({"cursor": cursor, "withUserTools": False})
            if reply.result is None:
                _log.debug("the device ended its list: %s", reply.error)
                return
            entries, cursor = _tool_page(reply.result)
            await self._take(entries)
            if not cursor or cursor in seen or len(cursor) > _MAX_CURSOR_CHARS or self._full:
                return
            seen.add(cursor)

    async def _ask_again(self, params: Mapping[str, Any]) -> RpcReply:
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
            # A device is asked again after what was set has changed; each call is bounded by itself, and here only
            # what waits for the calls before it.
            repeats="get" in listed.name,
            timeout_s=self._timeout_s(listed.name) + 2 * self._settings.timeout_s,
        )

    def _timeout_s(self, name: str) -> float:
        return self._settings.camera_timeout_s if _CAMERA.search(name) else self._settings.timeout_s

    def _note_server(self, reply: RpcReply) -> None:
        info = (reply.result or {}).get("serverInfo")
        if isinstance(info, dict):
            self.server = f"{info.get('name', '')} {info.get('version', '')}".strip()[:100]


def _reply(payload: object) -> RpcReply | None:
    """What a message from the device answers; None for its notifications and requests, of which none is defined.

    Raises:
        ValueError: it is no JSON-RPC.
    """
    if not isinstance(payload, dict):
        raise ValueError("no object")
    if "method" in payload:
        return None
    number, error, result = payload.get("id"), payload.get("error"), payload.get("result")
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError("no number of a request")
    if error is not None:
        return RpcReply(number, None, _error_text(error))
    if not isinstance(result, dict):
        raise ValueError("no result")
    return RpcReply(number, result)


def _initialize_params(vision_url: str, vision_token: str) -> dict[str, Any]:
    """Parameters of `initialize`; the device's camera sends its pictures to the vision address.

    An empty address is sent too: cameras take it for none, and clients made with xiaozhi-sdk do not answer without.
    """
    return {
        "protocolVersion": _PROTOCOL_VERSION,
        "capabilities": {"vision": {"url": vision_url, "token": vision_token}},
        "clientInfo": {"name": "xiaozhi", "version": __version__},
    }


def _tool_page(result: Mapping[str, Any]) -> tuple[Sequence[object], str]:
    """The entries of one page of `tools/list`, and the cursor of the next; empty on the last."""
    entries, cursor = result.get("tools"), result.get("nextCursor")
    return entries if isinstance(entries, list) else (), cursor if isinstance(cursor, str) else ""


def call_text(result: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a call's result and whether the call failed; pictures are mentioned, not shown."""
    content = result.get("content")
    parts: list[str] = []
    for item in content[:_MAX_ITEMS] if isinstance(content, list) else ():
        if not isinstance(item, dict):
            continue
        match item.get("type"), item.get("text"):
            case "text", str(text):
                parts.append(text)
            case "image", _:
                parts.append("(a picture that cannot be shown here)")
            case kind, _:
                parts.append(f"({str(kind)[:20]} that cannot be shown here)")
    return "\n".join(parts), result.get("isError") is True


def _error_text(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message[:_MAX_ERROR_CHARS] if isinstance(message, str) and message else "the device refused"
