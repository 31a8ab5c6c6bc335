"""Saying something on other devices, for agents that may."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from xiaozhi.settings import PushSettings
from xiaozhi.tools.declare import tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult
from xiaozhi.tools.wording import pick, shortened

Announce = Callable[[str, Sequence[str], str], Awaitable[Mapping[str, str]]]
"""Says a text on devices called so (none: on all others but the one that is given last); what became of it on each."""


def announce_tools(settings: PushSettings, announce: Announce) -> list[Tool]:
    """`announce`; nothing where the settings do not want it.

    Args:
        settings: the table `push`.
        announce: carries it out.
    """
    if not settings.enabled or not settings.tool:
        return []

    @tool(name="announce", slow=True, timeout_s=settings.patience_s + 30.0)
    async def announce_elsewhere(context: ToolContext, text: str, device: str = "") -> ToolResult:
        """Say something aloud on another device of this house, or on all others, when the user asks for it.

        Takes:
            text: what is said there, as one or two sentences to whoever is near.
            device: the name of the device; empty for all others.
        """
        text = shortened(" ".join(text.split()), settings.max_chars)
        if not text:
            raise ToolError(pick(context.language, "要说什么呢？", "What should be said?"))
        outcomes = await announce(text, [device.strip()] if device.strip() else [], context.device_id)
        if not outcomes:
            raise ToolError(pick(context.language, "没有别的设备连着。", "No other device is connected."))
        lines = [f"{name}: {outcome}" for name, outcome in outcomes.items()]
        return ToolResult("\n".join(lines), failed=not {"spoken", "shown"} & set(outcomes.values()))

    return [announce_elsewhere]
