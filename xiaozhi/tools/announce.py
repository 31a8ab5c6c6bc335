"""Saying something on other devices, for agents that may."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from xiaozhi.settings import PushSettings
from xiaozhi.tools.declare import tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult
from xiaozhi.tools.wording import pick, shortened

Announce = Callable[[str, Sequence[str], str], Awaitable[Mapping[str, str]]]
"""Says a text on devices called so (none: on all others but the one that is given last); what became of it on each."""


Call = Callable[[str, str, str], Awaitable[str]]
"""Rings, from a device, on another one that is called so; why not, in the language given last, empty when it rings."""


def announce_tools(settings: PushSettings, announce: Announce, call: Call) -> list[Tool]:
    """`announce` and `call_device`, as far as the settings want them.

    Args:
        settings: the table `push`.
        announce: carries it out.
        call: carries it out.
    """

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

    @tool(name="call_device")
    async def call_elsewhere(context: ToolContext, device: str) -> ToolResult:
        """Call another device of this house when the user asks for it: the two then talk with each other.

        Takes:
            device: the name of the device or its room.
        """
        if why := await call(context.device_id, device.strip(), context.language):
            raise ToolError(why)
        return ToolResult(pick(context.language, "正在呼叫，请稍等。", "It rings; the user has to wait a moment."))

    wanted = ((settings.tool, announce_elsewhere), (settings.calls, call_elsewhere))
    return [one for on, one in wanted if on and settings.enabled]
