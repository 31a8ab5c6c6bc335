"""Weather providers: open-meteo (no key) and QWeather (和风天气, a key and an own API host)."""

from collections.abc import Mapping
from typing import Any, Final

from xiaozhi.settings.tools import WeatherSettings
from xiaozhi.tools.weather import Day, NoSuchPlace, Weather, WeatherService
from xiaozhi.tools.web import WebClient, WebError

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


def build_weather(settings: WeatherSettings, web: WebClient) -> WeatherService:
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
