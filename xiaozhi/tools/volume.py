"""Volume and brightness through the device's own tools, also for wishes that need no model."""

from typing import Annotated, Final

import orjson
from pydantic import Field

from xiaozhi.text import bounded_json
from xiaozhi.tools.declare import tool
from xiaozhi.tools.tool import DeviceCalls, Tool, ToolContext, ToolError
from xiaozhi.tools.volume_wish import Dial, Wish
from xiaozhi.tools.wording import pick

_STATUS: Final = "self.get_device_status"
_SET: Final[dict[Dial, str]] = {
    "volume": "self.audio_speaker.set_volume",
    "brightness": "self.screen.set_brightness",
}
_PLACE: Final[dict[Dial, tuple[str, str]]] = {
    "volume": ("audio_speaker", "volume"),
    "brightness": ("screen", "brightness"),
}


def dial_tool(dial: Dial) -> str:
    """The device's own tool that turns a dial."""
    return _SET[dial]


async def carry_out(wanted: Wish, device: DeviceCalls, language: str) -> str:
    """Turn the dial; returns what to say.

    Raises:
        ToolError: the device has no such dial, or did not do it.
    """
    setter = _SET[wanted.dial]
    if not device.offers(setter):
        raise ToolError(
            pick(language, "这个设备不能调节这个。", f"This device cannot change its {wanted.dial} by voice.")
        )
    percent = wanted.percent
    if percent is None:
        percent = min(100, max(0, await _now(wanted.dial, device, language) + wanted.change))
    result = await device.call(setter, {wanted.dial: percent})
    if result.failed:
        raise ToolError(result.text)
    name = "音量" if wanted.dial == "volume" else "亮度"
    return pick(language, f"好的，{name}调到{percent}了。", f"Okay, {wanted.dial} is at {percent} now.")


def volume_tools() -> list[Tool]:
    """`adjust_device`: relative changes, which devices have no tool for."""

    @tool(usable=lambda context: context.device is not None and context.device.offers(_STATUS))
    async def adjust_device(
        context: ToolContext, dial: Dial, change_percent: Annotated[int, Field(ge=-100, le=100)]
    ) -> str:
        """Make this device louder, quieter, brighter or darker by some percent of its range.

        Takes:
            dial: what to change.
            change_percent: negative for quieter or darker; 15 for "a bit".
        """
        if context.device is None:
            raise ToolError(pick(context.language, "设备没有连接。", "The device is not connected."))
        return await carry_out(Wish(dial, None, change_percent), context.device, context.language)

    return [adjust_device]


async def _now(dial: Dial, device: DeviceCalls, language: str) -> int:
    """Where a dial stands, by the device's status."""
    group, name = _PLACE[dial]
    try:
        status = bounded_json.loads((await device.call(_STATUS, {})).text)
        return int(status[group][name])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise ToolError(
            pick(language, "我读不到设备现在的状态。", f"The device does not say where its {dial} stands.")
        ) from None
