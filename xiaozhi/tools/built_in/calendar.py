"""The Chinese calendar: lunar dates, solar terms, festivals, and the days off that the State Council announces.

Computed by `lunar_python` (pure Python, no network). Days off are known for the years it was released with.
"""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any, Final

from xiaozhi.text.language import is_chinese
from xiaozhi.tools.built_in.clock import day_text
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.wording import pick

_FIRST_YEAR: Final = 1900
_LAST_YEAR: Final = 2100
"""Years for which the calendar's astronomy is trusted."""
_MAX_LISTED: Final = 6
_ZODIAC_EN: Final = dict(
    zip(
        "鼠牛虎兔龙蛇马羊猴鸡狗猪",
        "rat ox tiger rabbit dragon snake horse goat monkey rooster dog pig".split(),
        strict=True,
    )
)
_FESTIVALS_EN: Final = {
    "春节": "Spring Festival",
    "元宵节": "Lantern Festival",
    "清明节": "Qingming",
    "清明": "Qingming",
    "端午节": "Dragon Boat Festival",
    "七夕节": "Qixi",
    "中元节": "Ghost Festival",
    "中秋节": "Mid-Autumn Festival",
    "重阳节": "Double Ninth Festival",
    "腊八节": "Laba Festival",
    "除夕": "New Year's Eve (lunar)",
    "元旦": "New Year's Day",
    "元旦节": "New Year's Day",
    "劳动节": "Labour Day",
    "国庆节": "National Day",
    "儿童节": "Children's Day",
    "妇女节": "Women's Day",
    "教师节": "Teachers' Day",
    "情人节": "Valentine's Day",
    "圣诞节": "Christmas",
    "平安夜": "Christmas Eve",
}


def describe_day(day: date, language: str) -> str:
    """Everything the calendar knows of a day, in one line.

    Raises:
        ToolError: the year is out of range.
    """
    solar = _solar(day, language)
    lunar = solar.getLunar()
    festivals = [*solar.getFestivals(), *lunar.getFestivals()]
    term = lunar.getJieQi()
    off = _day_off(day)
    at = datetime(day.year, day.month, day.day)
    if is_chinese(language):
        parts = [
            day_text(at, language),
            f"农历{lunar.getYearInGanZhi()}年（{lunar.getYearShengXiao()}年）"
            f"{lunar.getMonthInChinese()}月{lunar.getDayInChinese()}",
        ]
        parts += [f"节气：{term}"] if term else []
        parts += [f"节日：{'、'.join(festivals)}"] if festivals else []
        if off is not None:
            parts.append(f"{off.getName()}调休上班" if off.isWork() else f"法定假日：{off.getName()}")
        parts += [f"宜：{'、'.join(lunar.getDayYi()[:5])}", f"忌：{'、'.join(lunar.getDayJi()[:5])}"]
        return "；".join(parts) + "。"
    month = lunar.getMonth()
    parts = [
        day_text(at, language),
        f"day {lunar.getDay()} of {'leap ' if month < 0 else ''}month {abs(month)} of the lunar year {lunar.getYear()} "
        f"(year of the {_ZODIAC_EN.get(lunar.getYearShengXiao(), lunar.getYearShengXiao())})",
    ]
    parts += [f"solar term {term}"] if term else []
    parts += ["festival: " + ", ".join(_FESTIVALS_EN.get(each, each) for each in festivals)] if festivals else []
    if off is not None:
        name = _FESTIVALS_EN.get(off.getName(), off.getName())
        parts.append(f"a working day in exchange for {name}" if off.isWork() else f"public holiday in China: {name}")
    return "; ".join(parts) + "."


def coming_days(after: date, language: str) -> str:
    """The next festivals and days off, soonest first, within a year."""
    found: list[str] = []
    for ahead in range(1, 366):
        day = after + timedelta(days=ahead)
        if day.year > _LAST_YEAR or len(found) == _MAX_LISTED:
            break
        solar = _solar(day, language)
        names = [*solar.getLunar().getFestivals(), *(n for n in solar.getFestivals() if n in _FESTIVALS_EN)]
        off = _day_off(day)
        if off is not None and not off.isWork() and off.getTarget() == day.isoformat():
            names.append(off.getName())
        for name in dict.fromkeys(names):
            at = datetime(day.year, day.month, day.day)
            if is_chinese(language):
                found.append(f"{name}：{day_text(at, language)}，还有{ahead}天")
            else:
                found.append(f"{_FESTIVALS_EN.get(name, name)}: {day_text(at, language)}, in {ahead} days")
    return ("；" if is_chinese(language) else "; ").join(found[:_MAX_LISTED])


def from_lunar(year: int, month: int, day: int, language: str) -> date:
    """The solar date of a lunar one; a leap month is negative.

    Raises:
        ToolError: there is no such day.
    """
    from lunar_python import Lunar  # type: ignore[import-untyped]  # publishes no types; imported when it is needed

    try:
        if not _FIRST_YEAR <= year <= _LAST_YEAR:
            raise ValueError
        solar = Lunar.fromYmd(year, month, day).getSolar()
    except Exception as error:  # the library raises bare Exceptions for days that do not exist
        raise ToolError(
            pick(language, "没有这个农历日期。", f"There is no such lunar date ({year}-{month}-{day}).")
        ) from error
    return date(solar.getYear(), solar.getMonth(), solar.getDay())


def tools(host: ToolHost) -> list[Tool]:
    """`get_calendar`."""

    @tool(name="get_calendar")
    async def get_calendar(context: ToolContext, date: str = "", lunar_date: str = "", upcoming: bool = False) -> str:
        """Chinese calendar: lunar date, zodiac, solar term, festivals, public holidays, almanac of a day.

        Takes:
            date: the day as YYYY-MM-DD; empty for today.
            lunar_date: instead of date, a lunar day as YYYY-MM-DD, to learn its solar date; leap months have a minus
                before the month.
            upcoming: list the next festivals and holidays as well.
        """
        # 15 ms for a day, 200 ms for what is coming: pure Python, and not for the loop.
        return await asyncio.to_thread(
            _calendar, date, lunar_date, context.now().date(), context.language, upcoming=upcoming
        )

    return [get_calendar]


def _calendar(text: str, lunar: str, today: date, language: str, *, upcoming: bool) -> str:
    day = from_lunar(*_three(lunar, language), language) if lunar else _date(text, today, language)
    described = describe_day(day, language)
    if upcoming:
        described += pick(language, "接下来：", " Coming up: ") + coming_days(day, language)
    return described


def _date(text: str, today: date, language: str) -> date:
    if not text:
        return today
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise ToolError(pick(language, "日期要写成 YYYY-MM-DD。", "Write the date as YYYY-MM-DD.")) from None


def _three(text: str, language: str) -> tuple[int, int, int]:
    year, _, rest = text.strip().partition("-")
    sign = -1 if rest.startswith("-") else 1
    month, _, day = rest.lstrip("-").partition("-")
    try:
        return int(year), sign * int(month), int(day)
    except ValueError:
        raise ToolError(pick(language, "农历日期要写成 YYYY-MM-DD。", "Write the lunar date as YYYY-MM-DD.")) from None


def _solar(day: date, language: str) -> Any:
    from lunar_python import Solar  # as above

    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise ToolError(
            pick(
                language,
                "我只知道1900年到2100年的历法。",
                f"I know the calendar from {_FIRST_YEAR} to {_LAST_YEAR} only.",
            )
        )
    return Solar.fromYmd(day.year, day.month, day.day)


def _day_off(day: date) -> Any:
    """What the State Council said of this day; None when it said nothing."""
    from lunar_python.util import HolidayUtil  # type: ignore[import-untyped]  # as above

    return HolidayUtil.getHoliday(day.isoformat())
