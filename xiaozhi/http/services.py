"""What this server offers beside conversations, put together: pictures, announcements, MCP for other programs."""

import asyncio
from pathlib import Path

from aiohttp import web
from pydantic import SecretStr

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.addresses import VISION_PATH
from xiaozhi.access.own_token import MCP_TOKEN, PUSH_TOKEN, made_token
from xiaozhi.conversation.services import Services
from xiaozhi.http.mcp_endpoint import MCP_PATH, McpEndpoint
from xiaozhi.http.mcp_tools import server_tools
from xiaozhi.http.push import ANNOUNCE_PATH, AnnounceRoutes
from xiaozhi.http.vision import VisionRoutes
from xiaozhi.transport.announcer import Announcer
from xiaozhi.transport.calls import Calls
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.transport.notifications import NOTIFY_PATH, Notifications


class HttpServices:
    """Made by `open`; each part is None where it is switched off."""

    def __init__(
        self,
        announcer: Announcer,
        notifications: Notifications,
        calls: Calls,
        vision: VisionRoutes | None,
        push: AnnounceRoutes | None,
        mcp: McpEndpoint | None,
    ) -> None:
        self.announcer = announcer
        self._notifications = notifications
        self.calls = calls
        self.vision = vision
        self.push = push
        self.mcp = mcp

    @classmethod
    async def open(
        cls, services: Services, devices: ConnectedDevices, access: AccessControl, lan_host: str
    ) -> "HttpServices":
        """Build what the settings want.

        Raises:
            OSError: a token cannot be written to `server.data_dir`.
        """
        settings = services.settings
        data_dir, trusted = settings.server.data_dir, access.trusted
        push_token = await _token(settings.push.token, data_dir, PUSH_TOKEN) if settings.push.enabled else ""
        mcp_token = await _token(settings.mcp_server.token, data_dir, MCP_TOKEN) if settings.mcp_server.enabled else ""
        notifications = Notifications(services)
        announcer = Announcer(services, devices, notifications)
        calls = Calls(services, devices, notifications)
        push = AnnounceRoutes(settings.push, announcer, push_token, trusted) if settings.push.enabled else None
        mcp = None
        if settings.mcp_server.enabled:
            tools = server_tools(services, devices, announcer)
            mcp = McpEndpoint(settings.mcp_server, tools, mcp_token, trusted)
        vision = None
        if settings.vision.enabled:
            vision = VisionRoutes(services, access.token_auth, lan_host, trusted)
        return cls(announcer, notifications, calls, vision, push, mcp)

    def add_to(self, app: web.Application) -> None:
        """Register the paths."""
        router = app.router
        router.add_get(NOTIFY_PATH + "{token}.ogg", self._notifications.fetch)
        if self.vision is not None:
            for path in (VISION_PATH, VISION_PATH + "/"):
                router.add_post(path, self.vision.explain)
                router.add_get(path, self.vision.show)
        if self.push is not None:
            for path in (ANNOUNCE_PATH, ANNOUNCE_PATH + "/"):
                router.add_post(path, self.push.announce)
        if self.mcp is not None:
            for path in (MCP_PATH, MCP_PATH + "/"):
                router.add_post(path, self.mcp.post)
                router.add_get(path, self.mcp.other)
                router.add_delete(path, self.mcp.other)

    async def close(self) -> None:
        """End what is under way."""
        await self.announcer.close()
        await self.calls.close()
        if self.vision is not None:
            self.vision.close()


async def _token(given: SecretStr, data_dir: Path, name: str) -> str:
    return given.get_secret_value() or await asyncio.to_thread(made_token, data_dir, name)
