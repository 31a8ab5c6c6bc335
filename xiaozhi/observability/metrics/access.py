"""Figures of what happens at the doors: announcements, pictures, MCP, tokens, firmware, sign-ins."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from xiaozhi.access.access_control import AccessControl
from xiaozhi.console.routes import Console
from xiaozhi.http.services import HttpServices
from xiaozhi.observability.metrics.families import Figures, counter, counters
from xiaozhi.transport.announcer import Outcome


class AccessMetrics(Figures):
    """Reads what the doors of a server count at each scrape; parts that are switched off show nothing.

    Args:
        access: who comes in.
        doors: what is offered beside conversations.
        console: the pages for owners; None where they are switched off.
    """

    def __init__(self, access: AccessControl, doors: HttpServices, console: Console | None) -> None:
        self._access = access
        self._doors = doors
        self._console = console

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        yield from self._speaking()
        yield from self._programs()
        access = self._access
        yield counter("xiaozhi_tokens_issued", "Tokens given to devices.", access.token_auth.issued)
        yield counter("xiaozhi_devices_activated", "Devices that were found bound.", access.activation.activated)
        yield counter("xiaozhi_firmware_offered", "Updates offered to devices.", access.firmware.offered)
        if (console := self._console) is not None:
            yield counter("xiaozhi_console_sign_ins", "Sign-ins to the console.", console.access.sessions.opened)
            yield counter("xiaozhi_console_wrong_passwords", "Sign-ins that were refused.", console.access.failures)
            yield counter("xiaozhi_console_changes", "Changes of the settings from the console.", console.changes)

    def _speaking(self) -> Iterator[Metric]:
        announcer = self._doors.announcer
        yield counters(
            "xiaozhi_announcements",
            "Announcements, one for each device they were meant for, by what became of them.",
            ("outcome",),
            {outcome.name.lower(): announcer.outcomes[outcome] for outcome in Outcome},
        )
        yield counters(
            "xiaozhi_unasked",
            "Sentences said unasked, which are announcements, reminders and alarms, by whether they were heard.",
            ("outcome",),
            {"heard": announcer.spoken, "unheard": announcer.unspoken},
        )

    def _programs(self) -> Iterator[Metric]:
        if (vision := self._doors.vision) is not None:
            yield counters(
                "xiaozhi_pictures",
                "Pictures from devices, by outcome.",
                ("outcome",),
                {"answered": vision.answered, "refused": vision.refused, "failed": vision.failed},
            )
        if (mcp := self._doors.mcp) is not None:
            yield counter("xiaozhi_mcp_calls", "Calls of other programs to this server by MCP.", mcp.calls)
