"""The tools of one connected device, whichever way it offers them: MCP, or the things of firmware before 1.8."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from xiaozhi.concurrency.channel import ChannelClosed
from xiaozhi.events import ToolSpec
from xiaozhi.settings.tools import DeviceToolSettings
from xiaozhi.tools.device_mcp import DeviceMcp
from xiaozhi.tools.iot import IotError, IotThings
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult, remote_tool

_STATUS: Final = "self.get_device_status"
# What MCP devices call it, and what the things of old firmware do: the tool, the thing, its property.
_ALIKE: Final[dict[str, tuple[str, str, str]]] = {
    "self.audio_speaker.set_volume": ("iot_Speaker_SetVolume", "Speaker", "volume"),
    "self.screen.set_brightness": ("iot_Screen_SetBrightness", "Screen", "brightness"),
}
_PLACES: Final = {"Speaker": "audio_speaker", "Screen": "screen"}  # of a thing's state in an MCP device's status
# Clients made with xiaozhi-sdk name the same tools without the firmware's prefix.
_SHORT: Final = {
    _STATUS: "get_device_status",
    "self.audio_speaker.set_volume": "set_volume",
    "self.screen.set_brightness": "set_brightness",
}
_VOLUME: Final = "self.audio_speaker.get_volume"  # what py-xiaozhi has instead of a status: a bare number


class DeviceTools:
    """A `ToolSource` and the `DeviceCalls` of one connection; a device that offers nothing has nothing.

    Args:
        send: puts a message on its way to the device; may raise OSError or ChannelClosed when it is gone.
        settings: time-outs and bounds.
    """

    def __init__(self, send: Callable[[Mapping[str, object]], None], settings: DeviceToolSettings) -> None:
        self._send = send
        self._settings = settings
        self._mcp: DeviceMcp | None = None
        self._starting: asyncio.Task[None] | None = None
        self._things = IotThings()
        self._changes = 0
        self._thing_tools: tuple[Tool, ...] | None = ()  # None until they are made again

    @property
    def mcp(self) -> DeviceMcp | None:
        """The device's MCP server; None where it has none."""
        return self._mcp

    @property
    def version(self) -> int:
        """Rises whenever the tools change."""
        return self._changes + (self._mcp.version if self._mcp is not None else 0)

    def tools(self) -> Sequence[Tool]:
        """What the device offers, as far as it is known by now."""
        if self._mcp is not None:
            return self._mcp.tools()
        if self._thing_tools is None:
            specs = self._things.tools()[: self._settings.max_tools]
            self._thing_tools = tuple(self._thing_tool(spec) for spec in specs)
        return self._thing_tools

    def start_mcp(self, vision_url: str = "", vision_token: str = "") -> None:
        """The device has said that it speaks MCP: ask for its tools, in the background.

        Args:
            vision_url: where its camera sends pictures; empty for nowhere.
            vision_token: what it shows there.
        """
        if self._mcp is None:
            self._mcp = DeviceMcp(self._send_mcp, self._settings)
            self._starting = asyncio.create_task(self._mcp.start(vision_url, vision_token), name="device-tools")

    def receive_mcp(self, payload: object) -> None:
        """A JSON-RPC message came from the device."""
        if self._mcp is not None:
            self._mcp.receive(payload)

    def receive_iot(self, message: Mapping[str, Any]) -> None:
        """An `iot` message came from the device. Things are ignored where it speaks MCP as well."""
        self._things.receive(message)
        if "descriptors" in message and self._mcp is None:
            self._thing_tools = (
                None  # made when they are asked for: all of them take 6 ms, and a message comes for each
            )
            self._changes += 1

    async def close(self) -> None:
        """The device is gone: whoever waits for it is told so."""
        if self._mcp is not None:
            self._mcp.close()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)

    # DeviceCalls --------------------------------------------------------------------------------------------------

    @property
    def listing(self) -> bool:
        """What the device offers is not known yet."""
        return self._mcp is not None and self._mcp.listing

    async def listed(self) -> None:
        """Wait until it is known, or has had its time."""
        if self._mcp is not None:
            await self._mcp.listed()

    def offers(self, name: str) -> bool:
        """Whether the device has this tool; other clients and old firmware have other names for the firmware's."""
        if self._mcp is not None:
            return bool(self._mcp_name(self._mcp, name))
        names = {tool.name for tool in self.tools()}
        if name == _STATUS:
            return any(tool in names for tool, _, _ in _ALIKE.values())
        return (_ALIKE[name][0] if name in _ALIKE else name) in names

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one.

        Raises:
            ToolError: it refused or failed, did not answer, or is gone.
        """
        if self._mcp is not None:
            own = self._mcp_name(self._mcp, name) or name
            result = await self._mcp.call(own, arguments)
            return _as_status(result) if (name, own) == (_STATUS, _VOLUME) else result
        if name == _STATUS:
            state = self._things.state()
            return ToolResult(orjson.dumps({_PLACES.get(thing, thing): state[thing] for thing in state}).decode())
        if name == "iot_get_state":
            return ToolResult(orjson.dumps(self._things.state()).decode())
        return self._command(_ALIKE[name][0] if name in _ALIKE else name, arguments)

    @staticmethod
    def _mcp_name(mcp: DeviceMcp, name: str) -> str:
        """What this client calls a tool of the firmware; empty where it has none like it."""
        names = (name, _SHORT.get(name, name), _VOLUME if name == _STATUS else name)
        return next((one for one in names if mcp.offers(one)), "")

    def _command(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Old firmware sends no answer; what it says next of its state tells."""
        try:
            self._send(self._things.command(name, arguments))
        except IotError as error:
            raise ToolError(f"Not done: {error}.") from None
        except (OSError, ChannelClosed):
            raise ToolError("The device is no longer connected.") from None
        return ToolResult("The device has been told; it does not say whether it did it.")

    def _thing_tool(self, spec: ToolSpec) -> Tool:
        async def run(arguments: dict[str, Any], context: ToolContext) -> ToolResult:
            return await self.call(spec.name, arguments)

        return remote_tool(
            spec.name, spec.description, spec.parameters, run, source="device", repeats=spec.name == "iot_get_state"
        )

    async def _send_mcp(self, message: dict[str, Any]) -> None:
        self._send({"type": "mcp", "payload": message})


def _as_status(volume: ToolResult) -> ToolResult:
    """A bare volume as the firmware's status says it; what is no number stays as it is."""
    if volume.failed or not volume.text.strip().isdecimal():
        return volume
    return ToolResult(orjson.dumps({"audio_speaker": {"volume": int(volume.text)}}).decode())
