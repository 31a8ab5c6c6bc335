"""Saying something on other devices, for agents that may."""

from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult
from xiaozhi.tools.wording import pick, shortened


def tools(host: ToolHost) -> list[Tool]:
    """`announce` and `call_device`, as far as the settings want them and there is somebody to reach."""
    settings, announce, call = host.push, host.announce, host.call
    if announce is None or call is None or settings is None or not settings.enabled:
        return []

    @tool(name="announce", timeout_s=settings.patience_s + 30.0)
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
    return [one for on, one in wanted if on]
