"""The tools of the process: everything conversations share, and the way to a conversation's own `Toolbox`."""

import asyncio
import importlib
import pkgutil
from collections.abc import Sequence

from xiaozhi.settings import PushSettings, ToolsSettings
from xiaozhi.store.notes import Reminders
from xiaozhi.tools import built_in
from xiaozhi.tools.external import ExternalServers
from xiaozhi.tools.external_config import configured_servers
from xiaozhi.tools.host import Announce, Call, ToolHost
from xiaozhi.tools.reminder_clock import ReminderClock, Ring
from xiaozhi.tools.tool import Tool, ToolContext
from xiaozhi.tools.toolbox import Registry, Toolbox, ToolCounters, ToolSource
from xiaozhi.tools.web import WebClient


class SharedTools:
    """One per process, built and used on its loop.

    Args:
        settings: the table `tools`.
        book: where reminders are kept; without it, or without `ring`, none can be set.
        ring: says a reminder on its device.
        push: the table `push`; None where nothing is announced.
        announce: says something on other devices; None where there are none.
        call: rings on another device; None where there are none.

    Raises:
        McpConfigError: the file `tools.mcp_config` cannot be used.
    """

    def __init__(
        self,
        settings: ToolsSettings,
        *,
        book: Reminders | None = None,
        ring: Ring | None = None,
        push: PushSettings | None = None,
        announce: Announce | None = None,
        call: Call | None = None,
    ) -> None:
        self.settings = settings
        self.web = WebClient(settings)
        self.external = ExternalServers(configured_servers(settings) if settings.enabled else ())
        self.counters = ToolCounters()
        self.reminders: ReminderClock | None = None
        if ring is not None and book is not None:
            self.reminders = ReminderClock(book, ring, late_s=settings.reminders.late_s)
        self._host = ToolHost(settings, self.web, push, announce, call, self.reminders)
        self.registry = Registry(built_in_tools(self._host), [self.external])
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
        for close in self._host.on_close:
            await close()
        await self.web.close()


def built_in_tools(host: ToolHost) -> list[Tool]:
    """The tools of every file of `xiaozhi.tools.built_in`."""
    names = [module.name for module in pkgutil.iter_modules(built_in.__path__)]
    modules = [importlib.import_module(f"{built_in.__name__}.{name}") for name in names]
    return [each for module in modules for each in module.tools(host)]
