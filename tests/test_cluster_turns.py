"""Two whole servers that share a Redis: a device moves from one to the other and the conversation goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.mqtt_device import MqttCredentials, MqttDevice
from bench.standins.chat import ChatStandIn
from tests.house import House, house, question
from tests.redis_server import RedisServer, needs_redis
from xiaozhi.client.device import Device
from xiaozhi.client.errors import ConnectFailed
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.stages.llm.chat import Chat, offline_notice
from xiaozhi.stages.llm.engine import ChatRequest, Message
from xiaozhi.stages.llm.registry import build_chat
from xiaozhi.text.messages import message
from xiaozhi.transport.announcer import Announcement, AnnouncementOutcome

pytestmark = pytest.mark.real_time  # a real Redis

ANSWER = "🙂 Bello is a fine name for a dog."


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@contextlib.asynccontextmanager
async def two_houses(
    redis: RedisServer, folder: Path, timeout_ms: int = 5000, **tables: dict[str, Any]
) -> AsyncIterator[list[House]]:
    # A busy test machine is no slow network and no dead node: only a Redis that hangs makes the time short.
    cluster = {"url": redis.url, "heartbeat_s": 0.2, "expiry_s": 60.0, "timeout_ms": timeout_ms, "retry_s": 2.0}
    async with AsyncExitStack() as stack:
        houses = []
        for name in "ab":
            values = {"auth": {"mode": "token"}, **tables, "cluster": {**cluster, "node": name}}
            houses.append(await stack.enter_async_context(house(folder / name, ANSWER, **values)))
        await know_each_other(houses)
        yield houses


async def know_each_other(houses: list[House]) -> None:
    """Beat until every node sees all of them."""
    registries = [one.server.node.registry for one in houses if one.server.node is not None]
    assert len(registries) == len(houses)
    async with asyncio.timeout(60.0):
        while not all(len(registry.nodes) == len(houses) for registry in registries):
            for registry in registries:
                await registry.beat()


def home_of(houses: list[House], device: Device, url: str) -> House:
    found = [one for one in houses if f":{one.server.port}/" in url]
    assert len(found) == 1
    return found[0]


@needs_redis
async def test_a_device_goes_on_at_another_node_where_the_first_left_it(redis: RedisServer, tmp_path: Path) -> None:
    async with two_houses(redis, tmp_path) as houses, houses[0].device(connect=False) as device:
        told = {(await device.boot(one.server.ota_url)).url for one in houses}
        assert len(told) == 1  # whichever node is asked
        reply = await device.boot(houses[1].server.ota_url)
        first = home_of(houses, device, reply.url)
        second = next(one for one in houses if one is not first)
        await device.connect(reply.url, reply.token)  # a token of one node opens the door of the other
        report = await device.turn_text("My dog is called Bello")
        assert report.answered
        await conversation_is_shared(first)
        assert first.server.node is not None
        await first.server.node.drain()
        await know_each_other(houses)
        await device.close()
        reply = await device.boot(first.server.ota_url)
        assert home_of(houses, device, reply.url) is second
        await device.connect(reply.url, reply.token)
        report = await device.turn_text("What is his name?")
        assert report.answered
        said = [message["content"] for message in second.asked[-1]]
        assert "My dog is called Bello" in said
        assert any("Bello is a fine name" in text for text in said)
        assert said[-1] == "What is his name?"


async def conversation_is_shared(one: House) -> None:
    shared = one.server.services.shared
    assert shared is not None
    async with asyncio.timeout(60.0):
        while not shared.conversations.written:  # noqa: ASYNC110 - a counter of another part, and nobody tells
            await asyncio.sleep(0.01)


@needs_redis
async def test_turns_are_answered_while_redis_hangs_is_gone_and_is_back(redis: RedisServer, tmp_path: Path) -> None:
    async with two_houses(redis, tmp_path, 250) as houses, houses[0].device(connect=False) as device:
        for one in houses:
            assert one.server.services.shared is not None
        for step in (redis.thaw, redis.freeze, redis.kill, redis.start):
            step()
            reply = await device.boot(houses[0].server.ota_url)
            await device.connect(reply.url, reply.token)
            assert (await device.turn_text("Hello there")).answered
            await device.close()
        await know_each_other(houses)


@needs_redis
async def test_a_node_that_is_gone_loses_its_devices_to_the_other(redis: RedisServer, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        houses = await stack.enter_async_context(two_houses(redis, tmp_path))
        survivor, lost = houses
        assert survivor.server.node is not None
        assert lost.server.node is not None
        devices = [await stack.enter_async_context(survivor.device(number, connect=False)) for number in range(1, 9)]
        urls = [(await device.boot(survivor.server.ota_url)).url for device in devices]
        assert any(f":{lost.server.port}/" in url for url in urls)
        await lost.server.node.stop()
        await survivor.server.node.registry.beat()
        urls = [(await device.boot(survivor.server.ota_url)).url for device in devices]
        assert all(f":{survivor.server.port}/" in url for url in urls)


@needs_redis
async def test_a_device_bound_at_one_node_is_bound_at_the_other(redis: RedisServer, tmp_path: Path) -> None:
    activate = {"mode": "activate"}
    async with two_houses(redis, tmp_path, auth=activate) as houses, houses[0].device(connect=False) as device:
        code = (await device.boot(houses[0].server.ota_url)).body["activation"]["code"]
        assert (await device.boot(houses[1].server.ota_url)).body["activation"]["code"] == code
        assert await houses[1].server.services.store.pending.bind(code, owner="Anna") is not None
        for one in houses:
            assert "activation" not in (await device.boot(one.server.ota_url)).body


async def test_a_node_alone_loads_no_redis_and_places_nobody(tmp_path: Path) -> None:
    async with house(tmp_path, ANSWER) as one, one.device(connect=False) as device:
        assert one.server.services.shared is None
        assert one.server.node is None
        reply = await device.boot(one.server.ota_url)
        assert f":{one.server.port}/" in reply.url


@needs_redis
async def test_a_token_of_nobody_is_refused_by_all(redis: RedisServer, tmp_path: Path) -> None:
    async with two_houses(redis, tmp_path) as houses, houses[0].device(connect=False) as device:
        for one in houses:
            with pytest.raises(ConnectFailed):
                await device.connect(one.url, "1.9999999999.forged")


# Edge -----------------------------------------------------------------------------------------------------------------


def endpoints(edge: ChatStandIn, cloud_url: str) -> LlmSettings:
    return LlmSettings(
        endpoints=(
            LlmEndpoint(name="near", base_url=f"{edge.url}/v1", model="small", tier="edge"),
            LlmEndpoint(name="far", base_url=f"{cloud_url}/v1", model="large", tier="cloud"),
        )
    )


async def ask(chat: Chat, text: str, before: list[Message], language: str = "en") -> tuple[str, bool]:
    deltas = [delta async for delta in chat.stream(ChatRequest([*before, Message("user", text)], language))]
    return "".join(delta.text for delta in deltas), any(delta.aside for delta in deltas)


async def test_an_edge_node_keeps_what_it_can_and_sends_the_rest_to_the_cloud() -> None:
    async with ChatStandIn("🙂 from here") as near, ChatStandIn("🙂 from afar") as far:
        chat = build_chat(endpoints(near, far.url), edge=True).chat
        assert await ask(chat, "tell me of your day " * 30, []) == ("🙂 from here", False)
        assert await ask(chat, "explain the theory of relativity", []) == ("🙂 from afar", False)
        await chat.close()


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_an_edge_node_answers_when_its_uplink_is_cut_and_says_so_once(language: str) -> None:
    notice = message("offline", language)
    async with ChatStandIn("🙂 from here") as near:
        chat = build_chat(endpoints(near, "http://127.0.0.1:9"), edge=True).chat  # nobody listens there
        answer, aside = await ask(chat, "explain rain", [], language)
        assert answer == f"🙂 from here {notice}"
        assert aside
        before = [Message("user", "explain rain"), Message("assistant", answer)]
        for _ in range(3):
            assert await ask(chat, "explain snow", before, language) == ("🙂 from here", False)
        assert await ask(chat, "hello", []) == ("🙂 from here", False)  # that was never for the cloud
        assert chat.offline == 4
        await chat.close()


async def test_a_cloud_node_says_nothing_when_another_tier_helps_out() -> None:
    async with ChatStandIn("🙂 from here") as near:
        chat = build_chat(endpoints(near, "http://127.0.0.1:9")).chat
        assert await ask(chat, "explain rain", []) == ("🙂 from here", False)
        await chat.close()


def test_the_notice_counts_as_said_however_its_blanks_were_heard() -> None:
    notice = message("offline", "en")
    request = ChatRequest([Message("assistant", notice.replace(" ", "  ")), Message("user", "x")], "en")
    assert offline_notice(request) == ""
    assert offline_notice(ChatRequest([Message("user", notice)], "en")) == notice


async def test_an_endpoint_another_node_found_dead_gets_one_careful_request() -> None:
    async with ChatStandIn("🙂 well") as near:
        chat = build_chat(endpoints(near, near.url)).chat
        assert chat.pool.suspect("near")
        assert not chat.pool.suspect("near")
        assert not chat.pool.suspect("unknown")
        assert chat.pool.is_well("cloud")
        assert not chat.pool.is_well("edge")
        for _ in range(3):
            await ask(chat, "hello", [])
        assert chat.pool.is_well("cloud")
        await chat.close()


@needs_redis
async def test_a_device_by_mqtt_is_let_in_by_every_node_and_hears_from_the_one_it_came_to(
    redis: RedisServer, tmp_path: Path
) -> None:
    ports = {"enabled": True, "port": 0, "udp_port": 0}
    async with two_houses(redis, tmp_path, mqtt=ports) as houses:
        for one, other in (houses, houses[::-1]):
            async with MqttDevice(ClientIdentity.numbered(1), trace=True) as device:
                section = (await device.boot(one.server.ota_url)).body["mqtt"]
                assert other.server.mqtt is not None
                endpoint = f"127.0.0.1:{other.server.mqtt.offer.port}"
                await device.connect_mqtt(MqttCredentials.read({**section, "endpoint": endpoint}))
                await device.open_channel()
                assert (await device.turn(question())).answered
                await device.close_channel()
                await other.server.devices.empty()
                announcement = Announcement("Dinner is ready.")
                told = await other.server.http.announcer.announce(announcement)
                assert list(told.values()) == [AnnouncementOutcome.SPOKEN]
                assert device.notifications[0].played
