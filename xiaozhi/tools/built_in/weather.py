"""The weather now and in the coming days, of any place.

By open-meteo (no key) or QWeather (和风天气, a key and an own API host).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

from pydantic import Field

from xiaozhi.settings.tools import WeatherSettings
from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.web import ServiceAnswers, WebClient, WebError
from xiaozhi.tools.wording import pick

_FORECAST_URL: Final = "https://api.open-meteo.com"
_GEOCODING_URL: Final = "https://geocoding-api.open-meteo.com"
_FORECAST_DAYS: Final = "7"

# WMO code table 4677 as open-meteo uses it: https://open-meteo.com/en/docs
_SKY: Final = {
    0: ("晴", "clear"),
    1: ("大部晴朗", "mainly clear"),
    2: ("多云", "partly cloudy"),
    3: ("阴", "overcast"),
    45: ("有雾", "fog"),
    48: ("雾凇", "freezing fog"),
    51: ("小毛毛雨", "light drizzle"),
    53: ("毛毛雨", "drizzle"),
    55: ("大毛毛雨", "heavy drizzle"),
    56: ("冻毛毛雨", "freezing drizzle"),
    57: ("冻毛毛雨", "freezing drizzle"),
    61: ("小雨", "light rain"),
    63: ("中雨", "rain"),
    65: ("大雨", "heavy rain"),
    66: ("冻雨", "freezing rain"),
    67: ("冻雨", "freezing rain"),
    71: ("小雪", "light snow"),
    73: ("中雪", "snow"),
    75: ("大雪", "heavy snow"),
    77: ("雪粒", "snow grains"),
    80: ("小阵雨", "light showers"),
    81: ("阵雨", "showers"),
    82: ("强阵雨", "violent showers"),
    85: ("小阵雪", "light snow showers"),
    86: ("阵雪", "snow showers"),
    95: ("雷阵雨", "thunderstorm"),
    96: ("雷阵雨伴有冰雹", "thunderstorm with hail"),
    99: ("强雷阵雨伴有冰雹", "heavy thunderstorm with hail"),
}


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


def tools(host: ToolHost) -> list[Tool]:
    """`get_weather`."""
    settings = host.settings.weather
    service = _service(settings, host.web)
    cache: ServiceAnswers[tuple[str, bool], Weather] = ServiceAnswers(settings.cache_s)
    usual = f" Empty for {settings.city}." if settings.city else ""

    @tool(describe={"city": f"Name of the city or town, without the province or country.{usual}"})
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


def _service(settings: WeatherSettings, web: WebClient) -> WeatherService:
    """The provider the settings name."""
    if settings.provider == "qweather":
        return QWeather(web, settings.url.rstrip("/"), settings.key())
    return OpenMeteo(web, settings.url or _FORECAST_URL, settings.geocoding_url or _GEOCODING_URL)


class OpenMeteo:
    """https://open-meteo.com: free for private use, no key.

    Args:
        web: how to get there.
        url: of the forecast.
        geocoding_url: of the search for places.
    """

    def __init__(self, web: WebClient, url: str, geocoding_url: str) -> None:
        self._web = web
        self._url = url.rstrip("/")
        self._geocoding_url = geocoding_url.rstrip("/")

    async def weather(self, city: str, chinese: bool) -> Weather:
        """The weather at a place."""
        query = {"name": city, "count": "1", "language": "zh" if chinese else "en", "format": "json"}
        found = await self._web.get_json(f"{self._geocoding_url}/v1/search", query)
        try:
            places = found.get("results") or []
            if not places:
                raise NoSuchPlace(city)
            place = places[0]
            query = {
                "latitude": f"{float(place['latitude']):.4f}",
                "longitude": f"{float(place['longitude']):.4f}",
                "current": "temperature_2m,relative_humidity_2m,apparent_temperature,weather_code,wind_speed_10m",
                "daily": "weather_code,temperature_2m_max,temperature_2m_min,precipitation_probability_max",
                "timezone": "auto",
                "forecast_days": _FORECAST_DAYS,
            }
            answer = await self._web.get_json(f"{self._url}/v1/forecast", query)
            return _open_meteo(str(place.get("name", city)), answer, chinese)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise WebError(f"open-meteo answered in a form that is not understood ({type(error).__name__})") from None


def _open_meteo(place: str, answer: Mapping[str, Any], chinese: bool) -> Weather:
    now, daily = answer["current"], answer["daily"]
    rain = daily.get("precipitation_probability_max") or [None] * len(daily["time"])
    return Weather(
        place=place,
        sky=_sky(now["weather_code"], chinese),
        temperature_c=float(now["temperature_2m"]),
        feels_c=float(now["apparent_temperature"]),
        humidity_percent=float(now["relative_humidity_2m"]),
        wind_kmh=float(now["wind_speed_10m"]),
        days=tuple(
            Day(
                str(day),
                _sky(daily["weather_code"][index], chinese),
                float(daily["temperature_2m_min"][index]),
                float(daily["temperature_2m_max"][index]),
                None if rain[index] is None else int(rain[index]),
            )
            for index, day in enumerate(daily["time"])
        ),
    )


def _sky(code: Any, chinese: bool) -> str:
    words = _SKY.get(int(code), ("天气不明", "unknown sky"))
    return words[0] if chinese else words[1]


class QWeather:
    """https://dev.qweather.com, reachable from mainland China; a key and the API host of the account are needed.

    Args:
        web: how to get there.
        url: `https://` and the API host.
        key: the API key.
    """

    def __init__(self, web: WebClient, url: str, key: str) -> None:
        self._web = web
        self._url = url
        self._headers = {"X-QW-Api-Key": key}

    async def weather(self, city: str, chinese: bool) -> Weather:
        """The weather at a place."""
        language = {"lang": "zh" if chinese else "en"}
        try:
            found = await self._get("/geo/v2/city/lookup", {"location": city, "number": "1", **language})
            places = found.get("location") or []
            if not places:
                raise NoSuchPlace(city)
            at = {"location": str(places[0]["id"]), **language}
            now = (await self._get("/v7/weather/now", at))["now"]
            days = (await self._get("/v7/weather/7d", at))["daily"]
            return Weather(
                place=str(places[0]["name"]),
                sky=str(now["text"]),
                temperature_c=float(now["temp"]),
                feels_c=float(now["feelsLike"]),
                humidity_percent=float(now["humidity"]),
                wind_kmh=float(now["windSpeed"]),
                days=tuple(
                    Day(str(day["fxDate"]), str(day["textDay"]), float(day["tempMin"]), float(day["tempMax"]))
                    for day in days
                ),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise WebError(f"QWeather answered in a form that is not understood ({type(error).__name__})") from None

    async def _get(self, path: str, query: Mapping[str, str]) -> Any:
        try:
            answer = await self._web.get_json(self._url + path, query, self._headers)
        except WebError as error:
            if error.status == 404:  # the search knows no such place
                return {}
            raise
        code = str(answer.get("code", "200"))
        if code == "404":
            return {}
        if code != "200":
            raise WebError(f"QWeather answered with code {code[:8]}")
        return answer
