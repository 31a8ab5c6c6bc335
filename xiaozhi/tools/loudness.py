"""Another volume for a while, on devices that let theirs be read and set."""

import logging
from typing import Any, Final

import orjson

from xiaozhi.text import bounded_json
from xiaozhi.tools.tool import DeviceCalls, ToolError

_log = logging.getLogger(__name__)

_STATUS: Final = "self.get_device_status"
_SET_VOLUME: Final = "self.audio_speaker.set_volume"


async def turned(device: DeviceCalls, volume: int) -> int:
    """Set the volume; returns what it was, -1 where it cannot be set or read."""
    if not (device.offers(_STATUS) and device.offers(_SET_VOLUME)):
        return -1
    try:
        status: Any = bounded_json.loads((await device.call(_STATUS, {})).text)
        before = int(status["audio_speaker"]["volume"])
    except (ToolError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        _log.debug("the volume of a device cannot be read: %s", error)
        return -1
    if before == volume or not await set_volume(device, volume):
        return -1
    return before


async def set_volume(device: DeviceCalls, volume: int) -> bool:
    """Set the volume, 0 to 100; whether the device did it."""
    try:
        return not (await device.call(_SET_VOLUME, {"volume": volume})).failed
    except ToolError as error:
        _log.debug("the volume of a device cannot be set: %s", error)
        return False
