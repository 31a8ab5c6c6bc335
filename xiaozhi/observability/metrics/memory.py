"""What is kept in mind about users, reminders, external MCP servers and requests of tools to the internet."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from xiaozhi.conversation.services import Services
from xiaozhi.observability.metrics.families import Figures, counter, counters, gauges
from xiaozhi.tools.external import ServerState


class MemoryMetrics(Figures):
    """Reads memory and tools at each scrape; names of external servers come from the settings, so there are few.

    Args:
        services: of the process.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        yield from self._memory()
        yield from self._tools()
        yield from self._servers()

    def _memory(self) -> Iterator[Metric]:
        memory = self._services.memory
        yield counters(
            "xiaozhi_memory_conversations",
            "Conversations that were to be read for facts, by outcome.",
            ("outcome",),
            {"read": memory.read, "failed": memory.failed},
        )
        yield counters(
            "xiaozhi_memory_facts",
            "Facts about users: added, replaced by newer ones, handed to a conversation (recalled), erased by wish.",
            ("what",),
            {
                "added": memory.added,
                "replaced": memory.replaced,
                "recalled": memory.recalled,
                "erased": memory.erased,
            },
        )
        yield counter("xiaozhi_memory_refused", "Wishes to remember that held nothing to keep.", memory.refused)
        yield counter(
            "xiaozhi_memory_service_failures", "Requests that mem0 did not answer well.", memory.service_failed
        )

    def _tools(self) -> Iterator[Metric]:
        tools = self._services.tools
        yield counter("xiaozhi_web_requests", "Requests of built-in tools to the internet.", tools.web.requests)
        yield counter("xiaozhi_web_failures", "Of these, requests that did not work out.", tools.web.failures)
        if (clock := tools.reminders) is not None:
            yield counters(
                "xiaozhi_reminders",
                "Reminders, timers and alarms that were due, by outcome.",
                ("outcome",),
                {"told": clock.rung, "missed": clock.missed},
            )

    def _servers(self) -> Iterator[Metric]:
        servers = self._services.tools.external.servers
        if not servers:
            return
        one = ("server",)
        yield gauges(
            "xiaozhi_mcp_server_state",
            "1 for the state of the external MCP server: a ready one can be called.",
            ("server", "state"),
            {(s.config.name, state.value): float(state is s.state) for s in servers for state in ServerState},
        )
        yield counters(
            "xiaozhi_mcp_server_restarts",
            "Times it was started again.",
            one,
            {s.config.name: s.restarts for s in servers},
        )
        yield gauges(
            "xiaozhi_mcp_server_tools", "Tools it offers.", one, {s.config.name: float(len(s.tools())) for s in servers}
        )
