"""Tools that ask services of the internet, against stand-ins that speak their formats and against broken ones."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from bench.standins.web_services import WebServices
from xiaozhi.events import ToolCall
from xiaozhi.settings import ToolsSettings
from xiaozhi.settings.tools import HomeAssistantSettings, NewsSettings, SearchSettings, WeatherSettings
from xiaozhi.tools.built_in.home_assistant import entities, meant
from xiaozhi.tools.built_in.news import NoFeed, headlines_in
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.tools.tool import ToolContext
from xiaozhi.tools.toolbox import ToolAnswer, Toolbox
from xiaozhi.tools.web import WebClient, WebError, is_private


@pytest.fixture
async def services() -> AsyncIterator[WebServices]:
    async with WebServices() as running:
        yield running


class Asked:
    """A tool house whose services are the stand-in."""

    def __init__(self, services: WebServices, **settings: Any) -> None:
        url = services.url
        values: dict[str, Any] = {
            "http_timeout_s": 2.0,
            "weather": WeatherSettings(url=url, geocoding_url=url, city="Shanghai"),
            "news": NewsSettings(feeds=(f"{url}/rss",), feeds_en=(f"{url}/rss",)),
            "search": SearchSettings(provider="searxng", url=url),
            "home_assistant": HomeAssistantSettings(url=url, token=SecretStr(services.TOKEN)),
        }
        self.house = SharedTools(ToolsSettings(**(values | settings)))

    async def __aenter__(self) -> "Asked":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.house.close()

    def box(self, language: str = "en") -> Toolbox:
        box = self.house.toolbox(ToolContext(language=language))
        box.begin_turn("")
        return box

    async def call(self, name: str, language: str = "en", /, **arguments: Any) -> ToolAnswer:
        (answer,) = await self.box(language).run([ToolCall("1", name, json.dumps(arguments))])
        return answer


async def test_the_weather_of_a_place_is_asked_for_once_in_ten_minutes(services: WebServices) -> None:
    async with Asked(services) as asked:
        first = await asked.call("get_weather", "en", city="Shanghai", days=2)
        again = await asked.call("get_weather", "en", days=1)
        chinese = await asked.call("get_weather", "zh", days=1)
    assert first.result.text == (
        "Shanghai now: light rain, 8 °C, feels like 4 °C, humidity 81 %, wind 14 km/h. "
        "2026-02-17 light rain, 3 to 9 °C, chance of rain 80 %; 2026-02-18 clear, 2 to 12 °C."
    )
    assert again.result.text.endswith("chance of rain 80 %.")
    assert "现在小雨" in chinese.result.text and "降水概率80%" in chinese.result.text
    assert len(services.requests) == 4  # a search and a forecast in each language
    assert services.requests[1][2]["latitude"] == "31.2200"


async def test_a_service_that_fails_is_asked_once_by_all_who_want_the_same_and_again_by_the_next(
    services: WebServices,
) -> None:
    services.fault = "500"
    async with Asked(services) as asked:
        answers = await asyncio.gather(*(asked.call("get_weather") for _ in range(3)))
        assert all(answer.result.failed for answer in answers)
        assert len(services.requests) == 1
        services.fault = ""
        assert not (await asked.call("get_weather")).result.failed


async def test_a_place_that_does_not_exist_is_said(services: WebServices) -> None:
    async with Asked(services) as asked:
        answer = await asked.call("get_weather", "zh", city="Nowhere")
    assert answer.result.failed and answer.result.text == "我没有找到Nowhere这个地方。"


async def test_without_any_place_the_user_is_asked(services: WebServices) -> None:
    async with Asked(services, weather=WeatherSettings(url=services.url)) as asked:
        answer = await asked.call("get_weather")
    assert answer.result.text == "Which city's weather should I look up?" and not services.requests


async def test_qweather_is_asked_with_its_key(services: WebServices) -> None:
    weather = WeatherSettings(provider="qweather", url=services.url, api_key=SecretStr("k-1"))
    async with Asked(services, weather=weather) as asked:
        answer = await asked.call("get_weather", "zh", city="北京")
        nowhere = await asked.call("get_weather", "zh", city="Nowhere")
    assert answer.result.text == "北京现在多云，24度，体感26度，湿度72%，风速每小时3公里。2026-02-17 晴，19到28度。"
    assert services.requests[0][4]["X-QW-Api-Key"] == "k-1"
    assert "没有找到" in nowhere.result.text


@pytest.mark.parametrize("fault", ["500", "401", "html", "odd", "reset", "huge"])
@pytest.mark.parametrize("name", ["get_weather", "get_news", "search_web", "home_states"])
async def test_a_broken_service_is_one_clear_sentence(services: WebServices, fault: str, name: str) -> None:
    arguments = {"query": "moon"} if name == "search_web" else {}
    services.fault = fault
    async with Asked(services) as asked:
        answer = await asked.call(name, "zh", **arguments)
    if fault == "odd" and name in ("search_web", "home_states"):
        return  # what makes no sense there is left out
    assert answer.result.failed
    assert answer.result.text.endswith("。") and len(answer.result.text) < 40
    assert "出错" not in answer.result.text


async def test_a_service_that_hangs_is_given_up(services: WebServices) -> None:
    services.fault = "hang"
    async with Asked(services, http_timeout_s=0.1) as asked:
        answer = await asked.call("get_weather")
        assert answer.result.text == "I can't get the weather right now, the service does not answer."
        assert asked.house.web.failures == 1


async def test_headlines_come_without_markup_and_once(services: WebServices) -> None:
    async with Asked(services) as asked:
        answer = await asked.call("get_news")
        about = await asked.call("get_news", "zh", about="月亮")
        none = await asked.call("get_news", "en", about="cheese")
    assert answer.result.text == "1. Moon rises & shines — It was bright .\n2. 月亮升起"
    assert about.result.text == "1. 月亮升起"
    assert "no news about cheese" in none.result.text
    assert len(services.requests) == 1


def test_what_is_no_feed_is_refused_and_never_fetched() -> None:
    for body in (b"<html></html>", b"", b"http://127.0.0.1:1/feed", b"\xff\xfe\x00"):
        with pytest.raises(NoFeed):
            headlines_in(body)


async def test_searxng_is_asked_in_json(services: WebServices) -> None:
    async with Asked(services) as asked:
        answer = await asked.call("search_web", "en", query="moon")
    assert answer.result.text.splitlines()[0] == "1. Moon (http://example.org/moon) The moon is round."
    assert services.requests[0][2] == {"q": "moon", "format": "json", "language": "en"}


async def test_tavily_is_asked_with_its_key(services: WebServices) -> None:
    search = SearchSettings(provider="tavily", url=services.url, api_key=SecretStr("t-1"))
    async with Asked(services, search=search) as asked:
        answer = await asked.call("search_web", "en", query="moon")
        services.fault = "401"
        refused = await asked.call("search_web", "en", query="sun")
    assert answer.result.text == "It is round.\n1. Moon (http://example.org/moon) Round."
    assert services.requests[0][3]["query"] == "moon"
    assert services.requests[0][4]["Authorization"] == "Bearer t-1"
    assert refused.result.text == "The search service refuses its key."


async def test_without_a_provider_there_is_no_search_and_no_smart_home() -> None:
    house = SharedTools(ToolsSettings())
    names = {each.name for each in house.registry.tools()}
    assert not names & {"search_web", "home_states", "home_control", "play_music", "set_reminder"}
    await house.close()


async def test_things_of_the_house_are_found_and_switched(services: WebServices) -> None:
    async with Asked(services) as asked:
        everything = await asked.call("home_states")
        sensor = await asked.call("home_states", "en", name="outside temperature")
        done = await asked.call("home_control", "zh", name="厨房灯", action="turn_on")
        dimmed = await asked.call("home_control", "en", name="light.bedroom", action="set_brightness", value=30)
        which = await asked.call("home_control", "en", name="light", action="turn_off")
        unknown = await asked.call("home_control", "en", name="rocket", action="turn_on")
        cannot = await asked.call("home_control", "en", name="Outside temperature", action="turn_on")
        no_value = await asked.call("home_control", "en", name="Blind", action="set_position")
    assert "person.me" not in everything.result.text and len(everything.result.text.splitlines()) == 6
    assert sensor.result.text == "Outside temperature (sensor.outside): 12.5°C"
    assert done.result.text == "好的，厨房灯：turn_on。"
    posted = [(path, body) for method, path, _, body, _ in services.requests if method == "POST"]
    assert posted == [
        ("/api/services/light/turn_on", {"entity_id": "light.kitchen"}),
        ("/api/services/light/turn_on", {"entity_id": "light.bedroom", "brightness_pct": 30}),
    ]
    assert not dimmed.result.failed
    assert "Bedroom light" in which.result.text and which.result.failed
    assert unknown.result.failed and cannot.result.failed and no_value.result.failed


async def test_the_lock_needs_the_users_yes(services: WebServices) -> None:
    async with Asked(services) as asked:
        box = asked.box()
        call = ToolCall("1", "home_control_guarded", '{"name": "Front door", "action": "unlock"}')
        (plain,) = await box.run([ToolCall("1", "home_control", '{"name": "Front door", "action": "unlock"}')])
        (first,) = await box.run([call])
        box.begin_turn("yes")
        (second,) = await box.run([call])
    assert plain.result.failed and "home_control_guarded" in plain.result.text
    assert first.result.failed and "consent" in first.result.text
    assert second.result.text == "Done: Front door, unlock."
    assert [path for method, path, *_ in services.requests if method == "POST"] == ["/api/services/lock/unlock"]


async def test_a_wrong_token_is_said_and_never_shown(services: WebServices) -> None:
    home = HomeAssistantSettings(url=services.url, token=SecretStr("wrong-token"))
    async with Asked(services, home_assistant=home) as asked:
        answer = await asked.call("home_states")
    assert answer.result.text == "Home Assistant refuses its token; check the settings."
    assert "wrong-token" not in repr(home)


def test_names_are_matched_loosely_but_not_wildly() -> None:
    found = entities(
        [
            {"entity_id": "light.a", "state": "on", "attributes": {"friendly_name": "客厅吊灯"}},
            {"entity_id": "light.b", "state": "on", "attributes": {"friendly_name": "卧室台灯"}},
            {"entity_id": 5},
            "odd",
        ],
        ["light"],
    )
    assert [each.id for each in meant(found, "客厅的吊灯")] == ["light.a"]
    assert [each.id for each in meant(found, "台灯")] == ["light.b"]
    assert meant(found, "洗衣机") == [] and meant(found, "") == []


async def test_redirects_into_a_private_network_are_not_followed(services: WebServices) -> None:
    async with WebServices() as inside:
        for target in (
            f"{inside.url}/rss",
            inside.url.replace("127.0.0.1", "localhost") + "/rss",
            "file:///etc/passwd",
        ):
            services.redirect = target
            web = WebClient(ToolsSettings(http_timeout_s=2))
            with pytest.raises(WebError):
                await web.fetch("GET", f"{services.url}/redirect")
            await web.close()
        assert inside.requests == []
        services.redirect = f"{inside.url}/rss"
        allowed = WebClient(ToolsSettings(private_redirects=True))
        body = await allowed.fetch("GET", f"{services.url}/redirect", headers={"X-Key": "secret"})
        await allowed.close()
        assert body.startswith(b"<?xml")
        assert "X-Key" not in inside.requests[0][4]


async def test_redirects_on_the_same_host_are_followed_and_circles_end(services: WebServices) -> None:
    web = WebClient(ToolsSettings())
    services.redirect = "/rss"
    assert (await web.fetch("GET", f"{services.url}/redirect")).startswith(b"<?xml")
    services.redirect = "/redirect"
    with pytest.raises(WebError, match="on and on"):
        await web.fetch("GET", f"{services.url}/redirect")
    await web.close()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "0.0.0.0"]
)
def test_private_addresses_are_known(address: str) -> None:
    assert is_private(address)


def test_public_addresses_are_public() -> None:
    assert not is_private("1.1.1.1") and not is_private("2606:4700:4700::1111")
