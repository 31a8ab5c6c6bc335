"""Services of the internet that tools ask: weather, news, search and a smart home, in their real wire formats."""

from typing import Any, Final

from aiohttp import web

from bench.standins.base import StandIn, reset

RSS: Final = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0"><channel><title>News</title><link>http://example.org</link><description>x</description>
<item><title>Moon rises &amp; shines</title>
<description>&lt;p&gt;It was &lt;b&gt;bright&lt;/b&gt;.&lt;/p&gt;</description>
</item><item><title>月亮升起</title><description>月亮升起</description></item>
<item><title></title></item>
</channel></rss>"""

STATES: Final[list[dict[str, Any]]] = [
    {"entity_id": "light.kitchen", "state": "off", "attributes": {"friendly_name": "厨房灯"}},
    {"entity_id": "light.bedroom", "state": "on", "attributes": {"friendly_name": "Bedroom light", "brightness": 128}},
    {"entity_id": "light.bedroom_desk", "state": "on", "attributes": {"friendly_name": "Bedroom desk light"}},
    {
        "entity_id": "sensor.outside",
        "state": "12.5",
        "attributes": {"friendly_name": "Outside temperature", "unit_of_measurement": "°C"},
    },
    {"entity_id": "lock.door", "state": "locked", "attributes": {"friendly_name": "Front door"}},
    {"entity_id": "cover.blind", "state": "open", "attributes": {"friendly_name": "Blind"}},
    {"entity_id": "person.me", "state": "home", "attributes": {"friendly_name": "Me"}},
]


class WebServices(StandIn):
    """Records `(method, path, query, body, headers)`; `redirect` is where `/redirect` leads."""

    FAULTS = frozenset({"500", "401", "html", "odd", "hang", "reset", "huge"})
    TOKEN: Final = "long-lived"

    def __init__(self) -> None:
        super().__init__()
        self.redirect = ""

    def routes(self) -> list[web.RouteDef]:
        """One path for each service."""
        return [
            web.get("/v1/search", self._geocode),
            web.get("/v1/forecast", self._forecast),
            web.get("/geo/v2/city/lookup", self._qweather_place),
            web.get("/v7/weather/now", self._qweather_now),
            web.get("/v7/weather/7d", self._qweather_days),
            web.get("/rss", self._rss),
            web.get("/redirect", self._redirected),
            web.get("/search", self._searxng),
            web.post("/search", self._tavily),
            web.get("/api/states", self._states),
            web.post("/api/services/{domain}/{service}", self._service),
        ]

    async def _note(self, request: web.Request) -> web.StreamResponse | None:
        """Record a request; the answer, when it is to go wrong."""
        body = await request.json() if request.can_read_body else None
        await self.record((request.method, request.path, dict(request.query), body, dict(request.headers)))
        match self.fault:
            case "500" | "401":
                return web.Response(status=int(self.fault))
            case "html":
                return web.Response(text="<html>login</html>", content_type="text/html")
            case "odd":
                return web.json_response({"results": [{}], "location": [{}], "now": 3})
            case "huge":
                return web.Response(body=b" " * 3_000_000)
            case "hang":
                await self.hang()
            case "reset":
                reset(request)
        return None

    async def _geocode(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        if request.query["name"] == "Nowhere":
            return web.json_response({"generationtime_ms": 0.5})
        place = {"id": 1, "name": request.query["name"], "latitude": 31.22, "longitude": 121.46, "country_code": "CN"}
        return web.json_response({"results": [place], "generationtime_ms": 0.5})

    async def _forecast(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        current = {
            "time": "2026-02-17T09:00",
            "temperature_2m": 7.6,
            "relative_humidity_2m": 81,
            "apparent_temperature": 4.2,
            "weather_code": 61,
            "wind_speed_10m": 14.4,
        }
        daily = {
            "time": ["2026-02-17", "2026-02-18"],
            "weather_code": [61, 0],
            "temperature_2m_max": [9.1, 12.0],
            "temperature_2m_min": [3.4, 2.0],
            "precipitation_probability_max": [80, None],
        }
        return web.json_response({"latitude": 31.25, "longitude": 121.5, "current": current, "daily": daily})

    async def _qweather_place(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        if request.query["location"] == "Nowhere":
            return web.json_response({"error": {"status": 404, "title": "No Such Location"}}, status=404)
        return web.json_response({"code": "200", "location": [{"name": "北京", "id": "101010100", "lat": "39.9"}]})

    async def _qweather_now(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        now = {"temp": "24", "feelsLike": "26", "text": "多云", "humidity": "72", "windSpeed": "3", "windDir": "东南风"}
        return web.json_response({"code": "200", "now": now})

    async def _qweather_days(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        day = {"fxDate": "2026-02-17", "tempMax": "28", "tempMin": "19", "textDay": "晴"}
        return web.json_response({"code": "200", "daily": [day]})

    async def _rss(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        return web.Response(text=RSS, content_type="application/rss+xml")

    async def _redirected(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        return web.Response(status=302, headers={"Location": self.redirect})

    async def _searxng(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        hit = {"title": "Moon", "url": "http://example.org/moon", "content": "The  moon\nis round.", "engine": "x"}
        return web.json_response({"query": request.query["q"], "results": [hit, "odd", {**hit, "content": None}]})

    async def _tavily(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        hit = {"title": "Moon", "url": "http://example.org/moon", "content": "Round.", "score": 0.9}
        return web.json_response({"query": "x", "answer": "It is round.", "results": [hit], "response_time": 1.0})

    async def _states(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        if request.headers.get("Authorization") != f"Bearer {self.TOKEN}":
            return web.Response(status=401)
        return web.json_response(STATES)

    async def _service(self, request: web.Request) -> web.StreamResponse:
        if wrong := await self._note(request):
            return wrong
        return web.json_response([])
