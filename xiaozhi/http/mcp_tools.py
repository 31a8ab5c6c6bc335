"""What other programs may do here by MCP: say something, see devices, read the history and the reminders."""

from datetime import datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import orjson
from pydantic import Field

from xiaozhi.conversation.services import Services
from xiaozhi.store import DeviceRecord
from xiaozhi.tools.declare import tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult
from xiaozhi.transport.announcer import Announcement, Announcer
from xiaozhi.transport.connected_devices import ConnectedDevices

_MAX_TURNS: Final = 100


def server_tools(services: Services, devices: ConnectedDevices, announcer: Announcer) -> list[Tool]:
    """`say_on_device`, `list_devices`, `read_history`, `list_reminders`.

    Args:
        services: the store and the settings.
        devices: the connected devices.
        announcer: says what is to be said.
    """
    store = services.store

    def when(seconds: float) -> str | None:
        name = services.settings.server.timezone
        zone = ZoneInfo(name) if name else None
        return datetime.fromtimestamp(seconds, zone).astimezone(zone).isoformat("T", "seconds") if seconds else None

    async def called(name: str) -> DeviceRecord:
        wanted = name.strip().casefold()
        found = [one for one in await store.devices.list() if wanted in (one.id.casefold(), one.name.casefold())]
        if len(found) != 1 or not wanted:
            raise ToolError(f"There is no one device called {name[:64]!r}; list_devices shows them.")
        return found[0]

    @tool()
    async def say_on_device(
        context: ToolContext,
        text: str,
        devices: tuple[str, ...] = (),
        volume: Annotated[int | None, Field(ge=0, le=100)] = None,
        urgent: bool = False,
    ) -> ToolResult:
        """Say a text aloud on voice devices of this house. It waits while somebody talks there.

        Takes:
            text: what to say, as speech: no Markdown, no addresses.
            devices: ids or names; leave it out for every connected device.
            volume: 0 to 100, for this announcement only.
            urgent: also in quiet hours.
        """
        text = " ".join(text.split())
        if not text or len(text) > services.settings.push.max_chars:
            raise ToolError(f"text must have 1 to {services.settings.push.max_chars} characters.")
        outcomes = await announcer.announce(Announcement(text, devices, volume, urgent=urgent))
        told = {name: outcome.value for name, outcome in outcomes.items()}
        return ToolResult(
            _json(told) if told else "No device is connected.", failed=not {"spoken", "shown"} & set(told.values())
        )

    @tool(name="list_devices")
    async def list_all(context: ToolContext) -> str:
        """List the voice devices: id, name, room, agent, whether they are connected, and when they were last seen."""
        online = devices.online()
        known = await store.devices.list()
        return _json(
            [
                {
                    "id": device.id,
                    "name": device.name,
                    "room": device.room,
                    "agent": device.agent or services.roster.default.name,
                    "connected": device.id in online,
                    "last_seen": when(device.last_seen),
                }
                for device in known
            ]
        )

    @tool()
    async def read_history(
        context: ToolContext, device: str, turns: Annotated[int, Field(ge=1, le=_MAX_TURNS)] = 20
    ) -> str:
        """Read what was said at a device, the oldest turn first.

        Takes:
            device: its id or name.
            turns: how many of the newest turns.
        """
        kept = await store.turns.list((await called(device)).id, limit=turns)
        return _json(
            [
                {"at": when(turn.at), "heard": turn.heard, "said": turn.played, "agent": turn.agent}
                for turn in reversed(kept)
            ]
        )

    @tool()
    async def list_reminders(context: ToolContext, device: str = "") -> str:
        """List the timers, alarms and reminders that are to come.

        Takes:
            device: id or name; leave it out for all devices.
        """
        of = (await called(device)).id if device.strip() else ""
        return _json(
            [
                {
                    "number": one.id,
                    "device": one.device,
                    "due": when(one.due_at),
                    "repeat": one.repeat,
                    "text": one.text,
                }
                for one in await store.reminders.list(of)
            ]
        )

    return [say_on_device, list_all, read_history, list_reminders]


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
