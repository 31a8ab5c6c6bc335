"""Volume and brightness through the device's own tools; also for wishes that need no model, and for a while."""

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import Field

from xiaozhi.text import bounded_json
from xiaozhi.text.numbers import chinese_number, english_number
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import DeviceCalls, Tool, ToolContext, ToolError
from xiaozhi.tools.wording import pick

_log = logging.getLogger(__name__)

Dial: TypeAlias = Literal["volume", "brightness"]

_STEP: Final = 15
"""What "a bit louder" means, in percent: six steps from silent to full."""
_MAX_CHARS: Final = 60
_STATUS: Final = "self.get_device_status"
_SET: Final[dict[Dial, str]] = {
    "volume": "self.audio_speaker.set_volume",
    "brightness": "self.screen.set_brightness",
}
_PLACE: Final[dict[Dial, tuple[str, str]]] = {
    "volume": ("audio_speaker", "volume"),
    "brightness": ("screen", "brightness"),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """Turn a dial to `percent`, or by `change` percent when that is None."""

    dial: Dial
    percent: int | None
    change: int = 0


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


def tools(host: ToolHost) -> list[Tool]:
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


# For a while, by the server itself ------------------------------------------------------------------------------


async def turned(device: DeviceCalls, volume: int) -> int:
    """Set the volume; returns what it was, -1 where it cannot be set or read."""
    if not (device.offers(_STATUS) and device.offers(_SET["volume"])):
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
        return not (await device.call(_SET["volume"], {"volume": volume})).failed
    except ToolError as error:
        _log.debug("the volume of a device cannot be set: %s", error)
        return False


# Wishes that need no model ----------------------------------------------------------------------------------------


_HAN: Final = re.compile("[一-鿿]")
_TO_ZH: Final = re.compile(
    r"^(?:请|帮我)?(?:把|将)?(?P<dial>音量|声音|屏幕亮度|亮度|屏幕)(?:调|设|开|改)(?:整|置)?(?:到|成|为|至)"
    r"(?:百分之)?(?P<number>\d{1,3}|[零一二两三四五六七八九十百]{1,5})(?:%|格)?$"
)
_TO_EN: Final = re.compile(
    r"^(?:please )?(?:set |turn |change )?(?:the )?(?P<dial>volume|brightness)(?: up| down)?(?: to| at)? "
    r"(?P<number>\d{1,3}|[a-z][a-z -]{1,24}?)(?: ?%| percent)?$"
)
_BIT: Final = "(?:一?点儿?)?"
_LOUDER: Final = (
    "(?:声音|音量)?再?(?:大|响|高)声?一?点儿?声?",
    f"(?:声音|音量)(?:调|开)(?:大|高|响){_BIT}",
    "大声一?点儿?",
    "(?:声音|音量)太(?:小|轻)了?",
    "(?:speak )?louder",
    "(?:turn )?(?:the )?(?:volume|it) up(?: a (?:bit|little))?",
    "turn up (?:the )?volume",
    "a bit louder",
)
_QUIETER: Final = (
    "(?:声音|音量)?再?(?:小|轻|低)声?一?点儿?声?",
    f"(?:声音|音量)(?:调|开)(?:小|低|轻){_BIT}",
    "小声一?点儿?",
    "(?:声音|音量)?太(?:大声|响|吵)了?",
    "(?:声音|音量)太大了?",
    "(?:speak )?(?:quieter|softer)",
    "(?:turn )?(?:the )?(?:volume|it) down(?: a (?:bit|little))?",
    "turn down (?:the )?volume",
    "a bit quieter",
)
_SILENT: Final = ("静音", "(?:声音|音量)关掉?了?", "mute(?: yourself)?", "(?:turn )?(?:the )?volume off")
_LOUDEST: Final = (
    "(?:声音|音量)(?:调|开)?到?最(?:大|高)",
    "(?:full|maximum|max) volume",
    "(?:turn )?the volume (?:all the way up|to the max)",
)
_BRIGHTER: Final = (
    "(?:屏幕|亮度)再?调?(?:亮|高)一?点儿?",
    "亮度调(?:亮|高)",
    "(?:make )?(?:the )?screen brighter",
    "brighter",
    "(?:turn )?(?:the )?brightness up",
)
_DARKER: Final = (
    "(?:屏幕|亮度)再?调?(?:暗|低)一?点儿?",
    "亮度调(?:暗|低)",
    "(?:make )?(?:the )?screen darker",
    "darker",
    "dim the screen",
    "(?:turn )?(?:the )?brightness down",
)


def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"^(?:请|帮我|把|please )*(?:{'|'.join(patterns)})(?:吧|啊|呀| please)?$")


_WISHES: Final[tuple[tuple[re.Pattern[str], Wish], ...]] = (
    (_any_of(_LOUDER), Wish("volume", None, _STEP)),
    (_any_of(_QUIETER), Wish("volume", None, -_STEP)),
    (_any_of(_SILENT), Wish("volume", 0)),
    (_any_of(_LOUDEST), Wish("volume", 100)),
    (_any_of(_BRIGHTER), Wish("brightness", None, _STEP)),
    (_any_of(_DARKER), Wish("brightness", None, -_STEP)),
)


def wish(text: str) -> Wish | None:
    """The dial a user wants turned; None when the text is anything else. For use before any model."""
    plain = re.sub(r"[\s，。,.!！?？]+", " ", text.lower()).strip()
    if not plain or len(plain) > _MAX_CHARS:
        return None
    if _HAN.search(plain):
        plain = plain.replace(" ", "")
    if match := _TO_ZH.match(plain) or _TO_EN.match(plain):
        percent = _percent(match["number"])
        if percent is not None:
            return Wish("volume" if match["dial"] in ("音量", "声音", "volume") else "brightness", percent)
    return next((wanted for pattern, wanted in _WISHES if pattern.match(plain)), None)


def _percent(text: str) -> int | None:
    try:
        if text.isascii() and text.isdigit():
            number = Fraction(text)
        elif text.isascii():
            number = english_number(text.replace("-", " ").split())
        else:
            number = chinese_number(text)
    except (ValueError, KeyError):
        return None
    return int(number) if number.denominator == 1 and 0 <= number <= 100 else None
