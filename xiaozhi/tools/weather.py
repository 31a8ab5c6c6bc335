"""The weather now and in the coming days, of any place, by whichever service is set up."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from xiaozhi.settings.tools import WeatherSettings
from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.web import ServiceAnswers, WebError
from xiaozhi.tools.wording import pick


@dataclass(frozen=True, slots=True)
class Day:
    """One day: `date` as YYYY-MM-DD, temperatures in degrees Celsius, chance of rain in percent or None."""

    date: str
    sky: str
    low_c: float
    high_c: float
    rain_percent: int | None = None


@dataclass(frozen=True, slots=True)
class Weather:
    """The weather at a place; temperatures in degrees Celsius, humidity in percent, wind in km/h."""

    place: str
    sky: str
    temperature_c: float
    feels_c: float
    humidity_percent: float
    wind_kmh: float
    days: tuple[Day, ...]


class NoSuchPlace(Exception):
    """The service knows no place of that name."""


class WeatherService(Protocol):
    """A provider; raises `NoSuchPlace` and `WebError`."""

    async def weather(self, city: str, chinese: bool) -> Weather:
        """The weather at a place named by a user, in words of that language."""
        ...


def weather_tools(settings: WeatherSettings, service: WeatherService) -> list[Tool]:
    """`get_weather`."""
    cache: ServiceAnswers[tuple[str, bool], Weather] = ServiceAnswers(settings.cache_s)
    usual = f" Empty for {settings.city}." if settings.city else ""

    @tool(slow=True, describe={"city": f"Name of the city or town, without the province or country.{usual}"})
    async def get_weather(context: ToolContext, city: str = "", days: Annotated[int, Field(ge=1, le=7)] = 3) -> str:
        """Weather now and forecast for the coming days.

        Takes:
            days: how many days of forecast, today included.
        """
        language = context.language
        wanted = (city or settings.city).strip()[:80]
        if not wanted:
            raise ToolError(pick(language, "要查哪个城市的天气呢？", "Which city's weather should I look up?"))
        chinese = is_chinese(language)
        try:
            found = await cache.get((wanted.casefold(), chinese), lambda: service.weather(wanted, chinese))
        except NoSuchPlace:
            raise ToolError(
                pick(language, f"我没有找到{wanted}这个地方。", f"I found no place called {wanted}.")
            ) from None
        except WebError as error:
            raise ToolError(
                pick(
                    language,
                    "现在查不到天气，网络好像不通。",
                    "I can't get the weather right now, the service does not answer.",
                )
            ) from error
        return spoken(found, days, language)

    return [get_weather]


def spoken(weather: Weather, days: int, language: str) -> str:
    """The weather in one short paragraph."""
    if is_chinese(language):
        now = (
            f"{weather.place}现在{weather.sky}，{weather.temperature_c:.0f}度，体感{weather.feels_c:.0f}度，"
            f"湿度{weather.humidity_percent:.0f}%，风速每小时{weather.wind_kmh:.0f}公里。"
        )
        later = "；".join(
            f"{day.date} {day.sky}，{day.low_c:.0f}到{day.high_c:.0f}度"
            + (f"，降水概率{day.rain_percent}%" if day.rain_percent is not None else "")
            for day in weather.days[:days]
        )
        return f"{now}{later}。" if later else now
    now = (
        f"{weather.place} now: {weather.sky}, {weather.temperature_c:.0f} °C, feels like {weather.feels_c:.0f} °C, "
        f"humidity {weather.humidity_percent:.0f} %, wind {weather.wind_kmh:.0f} km/h."
    )
    later = "; ".join(
        f"{day.date} {day.sky}, {day.low_c:.0f} to {day.high_c:.0f} °C"
        + (f", chance of rain {day.rain_percent} %" if day.rain_percent is not None else "")
        for day in weather.days[:days]
    )
    return f"{now} {later}." if later else now
