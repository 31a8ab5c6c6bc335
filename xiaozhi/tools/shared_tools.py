"""The tools of the process: everything conversations share, and the way to a conversation's own `Toolbox`."""

import asyncio
import logging
from collections.abc import Sequence

from xiaozhi.settings import ToolsSettings
from xiaozhi.tools.clock import clock_tools
from xiaozhi.tools.conversation import conversation_tools
from xiaozhi.tools.external import ExternalServers
from xiaozhi.tools.external_config import configured_servers
from xiaozhi.tools.home_assistant import home_tools
from xiaozhi.tools.local_answer import calculator_tools
from xiaozhi.tools.lunar import lunar_tools
from xiaozhi.tools.music import MusicBox, music_tools
from xiaozhi.tools.news import news_tools
from xiaozhi.tools.registry import Registry, ToolSource
from xiaozhi.tools.reminder_book import MemoryBook, ReminderBook
from xiaozhi.tools.reminder_clock import ReminderClock, Ring
from xiaozhi.tools.reminders import reminder_tools
from xiaozhi.tools.search import search_tools
from xiaozhi.tools.tool import Tool, ToolContext
from xiaozhi.tools.toolbox import Toolbox, ToolCounters
from xiaozhi.tools.volume import volume_tools
from xiaozhi.tools.weather import weather_tools
from xiaozhi.tools.weather_services import build_weather
from xiaozhi.tools.web import WebClient

_log = logging.getLogger(__name__)


class SharedTools:
    """One per process, built and used on its loop.

    Args:
        settings: the table `tools`.
        book: where reminders are kept; in memory when left out.
        ring: says a reminder on its device; without it none can be set.
        extra: further tools of the process.

    Raises:
        McpConfigError: the file `tools.mcp_config` cannot be used.
    """

    def __init__(
        self,
        settings: ToolsSettings,
        *,
        book: ReminderBook | None = None,
        ring: Ring | None = None,
        extra: Sequence[Tool] = (),
    ) -> None:
        self.settings = settings
        self.web = WebClient(settings)
        self.external = ExternalServers(configured_servers(settings) if settings.enabled else ())
        self.music = MusicBox(settings.music.folder, settings.music) if settings.music.folder else None
        self.counters = ToolCounters()
        self.reminders: ReminderClock | None = None
        builtin = [
            *clock_tools(),
            *lunar_tools(),
            *calculator_tools(),
            *weather_tools(settings.weather, build_weather(settings.weather, self.web)),
            *news_tools(settings.news, self.web),
            *search_tools(settings.search, self.web),
            *home_tools(settings.home_assistant, self.web),
            *volume_tools(),
            *conversation_tools(),
            *extra,
        ]
        if ring is not None:
            kept = book if book is not None else MemoryBook()
            self.reminders = ReminderClock(kept, ring, late_s=settings.reminders.late_s)
            builtin += reminder_tools(settings.reminders, kept, self.reminders.changed)
        if self.music is not None:
            builtin += music_tools(self.music)
        self.registry = Registry(builtin, [self.external])
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect to external servers and to watch the reminders, in the background."""
        if not self.settings.enabled:
            return
        self.external.start()
        if self.reminders is not None and self._ticking is None:
            self._ticking = asyncio.create_task(self.reminders.run(), name="reminders")

    def toolbox(
        self,
        context: ToolContext,
        *,
        device: ToolSource | None = None,
        allow: Sequence[str] = ("*",),
        deny: Sequence[str] = (),
    ) -> Toolbox:
        """The tools of one conversation.

        Args:
            context: who calls; its `device` should be the same object as `device`.
            device: the connected device's own tools (`DeviceMcp`).
            allow: globs of the conversation's agent.
            deny: likewise.
        """
        return Toolbox(
            self.registry, context, self.settings, device=device, allow=allow, deny=deny, counters=self.counters
        )

    async def close(self) -> None:
        """End servers, threads and connections."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
            self._ticking = None
        await self.external.close()
        if self.music is not None:
            await self.music.close()
        await self.web.close()
