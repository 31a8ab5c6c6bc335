"""The time and the date, here and elsewhere."""

import zoneinfo
from datetime import datetime, tzinfo
from typing import Final

from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.wording import pick

ZH_WEEKDAYS: Final = "一二三四五六日"
_MAX_NAME_CHARS: Final = 64  # the longest has 32; the library takes each part of a name for a folder, recursively
_EN_WEEKDAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def day_text(day: datetime, language: str) -> str:
    """`2026年2月17日，星期二` or `Tuesday, 2026-02-17`."""
    if is_chinese(language):
        return f"{day.year}年{day.month}月{day.day}日，星期{ZH_WEEKDAYS[day.weekday()]}"
    return f"{_EN_WEEKDAYS[day.weekday()]}, {day:%Y-%m-%d}"


def zone(name: str, language: str) -> tzinfo:
    """A time zone by its IANA name.

    Raises:
        ToolError: there is no such zone.
    """
    try:
        return zoneinfo.ZoneInfo(name[:_MAX_NAME_CHARS])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ToolError(
            pick(
                language,
                f"没有叫 {name[:40]!r} 的时区。",
                f"There is no time zone {name[:40]!r}; use a name like Asia/Tokyo.",
            )
        ) from None


def tools(host: ToolHost) -> list[Tool]:
    """`get_time`."""

    @tool(repeats=True)
    async def get_time(context: ToolContext, time_zone: str = "") -> str:
        """The time, date and weekday now; call it whenever an answer depends on what time or day it is.

        Takes:
            time_zone: IANA name such as Asia/Tokyo for another place; empty for where the user is.
        """
        now = context.now()
        if time_zone:
            now = now.astimezone(zone(time_zone, context.language))
        where = f" ({time_zone})" if time_zone else ""
        return f"{day_text(now, context.language)} {now:%H:%M}{where}"

    return [get_time]
