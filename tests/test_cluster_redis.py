"""Every use of a real Redis: while it is there, while it hangs, when it is gone, and when it is back."""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.redis_server import RedisServer, needs_redis
from xiaozhi.access.activation import Activation, Poll, Standing
from xiaozhi.access.identity import Identity
from xiaozhi.access.shared_keys import SharedKeys
from xiaozhi.access.shared_rate_limits import SharedLimiter
from xiaozhi.access.token_keys import load_keys, rotate_keys
from xiaozhi.cache.redis_answers import SharedAnswers
from xiaozhi.cache.redis_tier import RedisTier
from xiaozhi.cache.speech import SpeechCache
from xiaozhi.cache.tier import Tiers
from xiaozhi.cluster.conversations import ConversationMirror
from xiaozhi.cluster.link import ClusterError, Gone, RedisLink, Use
from xiaozhi.cluster.placement import NodeView
from xiaozhi.cluster.registry import NodeRegistry
from xiaozhi.cluster.shared import Shared, join_shared
from xiaozhi.cluster.values import pack
from xiaozhi.settings import AuthSettings
from xiaozhi.settings.cluster import ClusterSettings
from xiaozhi.store import Store
from xiaozhi.store.turns import Past, TurnRecord
from xiaozhi.text.tool_note import MAX_NOTE_CHARS

pytestmark = [needs_redis, pytest.mark.real_time]  # a real Redis

DEVICE = "02:00:00:00:00:01"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may kill."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def settings(server: RedisServer, prefix: str, **values: object) -> ClusterSettings:
    # A busy test machine is no slow network: only tests that wait for a Redis that hangs make the time short.
    return ClusterSettings.model_validate(
        {"url": server.url, "prefix": prefix, "timeout_ms": 5000, "retry_s": 0.1, **values}
    )


@pytest.fixture
async def link(running: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[RedisLink]:
    made = RedisLink(settings(running, str(abs(hash(request.node.name)))))
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def node(server: RedisServer, prefix: str, **values: object) -> AsyncIterator[tuple[Store, Shared]]:
    """A node's store, shared."""
    store = await Store.open(":memory:")
    shared = await join_shared(settings(server, prefix, **values), store)
    assert shared is not None
    try:
        yield store, shared
    finally:
        await shared.close()
        await store.close()


def turn(store: Store, conversation: int, at: float, heard: str, note: str = "") -> TurnRecord:
    reply = f"answer to {heard}"
    record = TurnRecord(store.turns.next_id(), DEVICE, conversation, "xiaozhi", at, heard, "said", reply, note=note)
    store.turns.add(record)
    return record


# The link -------------------------------------------------------------------------------------------------------------


async def test_a_redis_that_hangs_costs_its_timeout_a_few_times_and_then_nothing(own: RedisServer) -> None:
    link = RedisLink(settings(own, "p", timeout_ms=1500, retry_s=60.0))
    await link.put(Use.ANSWERS, link.key("a"), b"1", 10.0)
    own.freeze()
    for _ in range(6):
        with pytest.raises(Gone):
            await link.get(Use.ANSWERS, link.key("a"))
    assert (link.failed, link.spared) == (3, 3)
    assert link.well(Use.SPEECH)  # every use finds out for itself
    own.thaw()
    link.recovered()
    assert await link.get(Use.ANSWERS, link.key("a")) == b"1"
    await link.close()


async def test_a_redis_that_dies_and_comes_back_empty_is_used_again(own: RedisServer) -> None:
    link = RedisLink(settings(own, "p"))
    await link.put(Use.ANSWERS, link.key("a"), b"1", 10.0)
    own.kill()
    with pytest.raises(Gone):
        await link.get(Use.ANSWERS, link.key("a"))
    own.start()
    async with asyncio.timeout(60.0):
        while True:
            with contextlib.suppress(Gone):
                assert await link.get(Use.ANSWERS, link.key("a")) is None
                break
            await asyncio.sleep(0.01)
    assert await link.put(Use.ANSWERS, link.key("a"), b"2", 10.0)
    assert await link.get(Use.ANSWERS, link.key("a")) == b"2"
    await link.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_that_asks_again_and_again_ends_also_where_its_cancellation_is_swallowed(
    link: RedisLink, fails: bool
) -> None:
    begun = asyncio.Event()

    async def swallowing(_redis: Any) -> None:  # as the client does on Python 3.11, now and then
        begun.set()
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            if fails:
                raise ConnectionError from None

    async def again_and_again() -> None:
        while True:
            with contextlib.suppress(Gone):
                await link.ask(Use.NODES, swallowing)

    task = asyncio.create_task(again_and_again())
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(60.0):
        await asyncio.wait([task])
    assert task.cancelled()


async def test_the_password_is_used_and_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(tmp_path, password="opensesame")
    server.start()
    right = RedisLink(settings(server, "p", password="opensesame"))
    wrong = RedisLink(settings(server, "p", url=server.url.replace("//", "//:openbarley@")))
    assert await right.put(Use.ANSWERS, right.key("a"), b"1", 10.0)
    with pytest.raises(Gone):
        await wrong.get(Use.ANSWERS, wrong.key("a"))
    server.kill()
    with pytest.raises(Gone):
        await right.get(Use.ANSWERS, right.key("a"))
    for one in (right, wrong):
        await one.close()
    assert "redis does not answer" in caplog.text
    assert not any(word in caplog.text for word in ("opensesame", "openbarley", str(server.port)))


def test_an_address_that_is_none_is_said_in_one_line() -> None:
    with pytest.raises(ClusterError, match=r"cluster\.url"):
        RedisLink(ClusterSettings.model_validate({"url": "redis://host:port/0"}))


async def test_values_that_are_too_long_are_not_written(link: RedisLink) -> None:
    assert not await link.put(Use.SPEECH, link.key("long"), b"x" * (link.max_bytes + 1), 10.0)
    assert await link.get(Use.SPEECH, link.key("long")) is None


# Caches ---------------------------------------------------------------------------------------------------------------


async def test_one_node_finds_the_answer_another_has_kept_to_the_same_words(link: RedisLink) -> None:
    one, other = SharedAnswers(link, 60.0), SharedAnswers(link, 60.0)
    one.keep("What's the capital of France?", "🙂 Paris.", "scope")
    await one.close()
    assert await other.find("what's the capital of france", "scope") == "🙂 Paris."
    assert await other.find("what's the capital of france", "another agent") is None
    assert (other.hits, other.misses) == (1, 1)


async def test_without_redis_answers_and_speech_are_only_misses(own: RedisServer) -> None:
    link = RedisLink(settings(own, "p"))
    own.kill()
    answers, tier = SharedAnswers(link, 60.0), RedisTier(link, 60.0)
    answers.keep("question", "answer", "scope")
    await tier.put(b"key", b"value", 60.0)
    assert await answers.find("question", "scope") is None
    assert await tier.get(b"key") is None
    await answers.close()
    await tier.close()
    assert (answers.dropped, tier.dropped) == (1, 1)
    await link.close()


class Maker:
    """Makes a clause in two packets, the second one when told."""

    def __init__(self) -> None:
        self.made = 0
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()

    async def packets(self) -> AsyncGenerator[bytes, None]:
        self.made += 1
        yield b"one"
        self.begun.set()
        await self.go_on.wait()
        yield b"two"


async def follow(cache: SpeechCache, maker: Maker, wait_s: float) -> list[bytes]:
    return [packet async for packet in cache.follow(b"key", maker.packets, lambda: b"key", wait_s)]


async def test_a_clause_that_two_nodes_want_at_once_is_made_once(link: RedisLink) -> None:
    caches = [SpeechCache(Tiers([RedisTier(link, 60.0)], 60.0)) for _ in range(2)]
    maker = Maker()
    first = asyncio.create_task(follow(caches[0], maker, 5.0))
    await maker.begun.wait()
    second = asyncio.create_task(follow(caches[1], maker, 5.0))
    maker.go_on.set()
    assert await first == await second == [b"one", b"two"]
    assert maker.made == 1
    assert caches[1].made_elsewhere == 1
    assert await caches[1].find([b"key"]) == [b"one", b"two"]
    for cache in caches:
        await cache.close()


async def test_whoever_has_waited_long_enough_makes_it_as_well(link: RedisLink) -> None:
    caches = [SpeechCache(Tiers([RedisTier(link, 60.0)], 60.0)) for _ in range(2)]
    slow, quick = Maker(), Maker()
    first = asyncio.create_task(follow(caches[0], slow, 0.0))
    await slow.begun.wait()
    quick.go_on.set()
    assert await follow(caches[1], quick, 0.0) == [b"one", b"two"]
    slow.go_on.set()
    await first
    assert (slow.made, quick.made) == (1, 1)
    for cache in caches:
        await cache.close()


async def test_a_maker_that_fails_lets_the_next_one_try(link: RedisLink) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"one"
        raise ValueError("no voice")

    cache = SpeechCache(Tiers([RedisTier(link, 60.0)], 60.0))
    with pytest.raises(ValueError, match="no voice"):
        _ = [packet async for packet in cache.follow(b"key", broken, lambda: b"key")]
    maker = Maker()
    maker.go_on.set()
    assert await follow(cache, maker, 5.0) == [b"one", b"two"]
    await cache.close()


async def test_without_redis_a_clause_is_simply_made(own: RedisServer) -> None:
    link = RedisLink(settings(own, "p"))
    own.kill()
    cache = SpeechCache(Tiers([RedisTier(link, 60.0)], 60.0))
    maker = Maker()
    maker.go_on.set()
    assert await follow(cache, maker, 5.0) == [b"one", b"two"]
    await cache.close()
    await link.close()


# Conversations --------------------------------------------------------------------------------------------------------


async def test_another_node_goes_on_where_the_first_left_it(running: RedisServer) -> None:
    async with node(running, "talk1") as (here, shared), node(running, "talk1") as (there, others):
        past = await here.turns.begin(DEVICE, "xiaozhi", 10)
        turn(here, past.conversation, 1000.0, "my dog is called Bello")
        here.turns.summarise(DEVICE, "xiaozhi", "They talk about animals.", 0)
        turn(here, past.conversation, 1010.0, "he is brown")
        shared.conversations.keep(DEVICE, "xiaozhi", 10)
        await shared.conversations.close()
        begun = await there.turns.begin(DEVICE, "xiaozhi", 10)
        found = await others.conversations.catch_up(DEVICE, "xiaozhi", begun, 10)
        assert [one.heard for one in found.turns] == ["my dog is called Bello", "he is brown"]
        assert found.summary == "They talk about animals."
        # They are in its own file now, so the next time nothing is fetched, and it goes back with one turn more.
        again = await there.turns.past(DEVICE, "xiaozhi", 10)
        assert [one.heard for one in again.turns] == ["my dog is called Bello", "he is brown"]
        assert again.summary == found.summary
        turn(there, begun.conversation, 1020.0, "and old")
        others.conversations.keep(DEVICE, "xiaozhi", 10)
        await others.conversations.close()
        back = await shared.conversations.catch_up(DEVICE, "xiaozhi", await here.turns.begin(DEVICE, "xiaozhi", 10), 10)
        assert [one.heard for one in back.turns] == ["my dog is called Bello", "he is brown", "and old"]
        assert others.conversations.taken_over == shared.conversations.taken_over == 1


async def test_the_notes_on_tools_go_along_to_the_next_node_and_stay_there(running: RedisServer) -> None:
    note = "（旁注：为了回答这句话调用过工具。calculate: 42。）"
    async with node(running, "talk5") as (here, shared), node(running, "talk5") as (there, others):
        past = await here.turns.begin(DEVICE, "xiaozhi", 10)
        turn(here, past.conversation, 1000.0, "六乘以七", note)
        turn(here, past.conversation, 1010.0, "谢谢", "x" * 100_000)
        shared.conversations.keep(DEVICE, "xiaozhi", 10)
        await shared.conversations.close()
        begun = await there.turns.begin(DEVICE, "xiaozhi", 10)
        found = await others.conversations.catch_up(DEVICE, "xiaozhi", begun, 10)
        kept = await there.turns.past(DEVICE, "xiaozhi", 10)
        assert [one.note for one in found.turns] == [one.note for one in kept.turns]
        assert found.turns[0].note == note
        assert len(found.turns[1].note) == MAX_NOTE_CHARS


async def test_what_a_node_without_notes_has_written_is_read_and_a_note_that_is_too_long_is_cut(
    link: RedisLink,
) -> None:
    row = {"at": 1000.0, "heard": "hello", "said": "a", "played": "b", "cut": False}
    for told, note in ((row, ""), ({**row, "note": "n" * 5000}, "n" * MAX_NOTE_CHARS)):
        store = await Store.open(":memory:")
        document = orjson.dumps({"v": 1, "summary": "", "turns": [told]})

        async def write(redis: Any, document: bytes = document) -> Any:
            return await redis.hset(link.key("talk", DEVICE), "xiaozhi", pack(document))

        await link.ask(Use.CONVERSATIONS, write)
        found = await ConversationMirror(link, store.turns).catch_up(DEVICE, "xiaozhi", Past(), 10)
        assert [(one.heard, one.note) for one in found.turns] == [("hello", note)]
        await store.close()


async def test_an_older_end_of_a_conversation_never_replaces_a_newer_one(running: RedisServer) -> None:
    async with node(running, "talk2") as (here, shared), node(running, "talk2") as (there, others):
        for store, mirror, at in ((here, shared, 2000.0), (there, others, 1000.0)):
            past = await store.turns.begin(DEVICE, "xiaozhi", 10)
            turn(store, past.conversation, at, f"said at {at:.0f}")
            mirror.conversations.keep(DEVICE, "xiaozhi", 10)
            await mirror.conversations.close()
        found = await others.conversations.catch_up(DEVICE, "xiaozhi", Past(), 10)
        assert [one.heard for one in found.turns] == ["said at 2000"]
        other_agent = await others.conversations.catch_up(DEVICE, "teacher", Past(), 10)
        assert other_agent.turns == ()


async def test_without_redis_a_conversation_goes_on_from_the_own_file(own: RedisServer) -> None:
    async with node(own, "talk3") as (store, shared):
        past = await store.turns.begin(DEVICE, "xiaozhi", 10)
        own.kill()
        turn(store, past.conversation, 1000.0, "hello")
        shared.conversations.keep(DEVICE, "xiaozhi", 10)
        await shared.conversations.close()
        past = await store.turns.past(DEVICE, "xiaozhi", 10)
        assert await shared.conversations.catch_up(DEVICE, "xiaozhi", past, 10) is past
        assert shared.conversations.dropped == 1


async def test_a_document_of_another_version_is_left_alone(link: RedisLink) -> None:
    store = await Store.open(":memory:")
    mirror = ConversationMirror(link, store.turns)
    for value in (b"", b"\x02\x00{}", b'\x01\x00{"v":9}', b"\x01\x00nonsense"):
        await link.ask(Use.CONVERSATIONS, _setting(link.key("talk", DEVICE), value))
        assert (await mirror.catch_up(DEVICE, "x", Past(), 10)).turns == ()
    await store.close()


# Devices --------------------------------------------------------------------------------------------------------------


async def test_a_code_from_one_node_binds_on_another_and_all_know(running: RedisServer) -> None:
    async with (
        node(running, "dev1") as (here, _),
        node(running, "dev1") as (there, _),
        node(running, "dev1") as (
            third,
            _,
        ),
    ):
        await here.devices.seen(DEVICE, client_id="before", board="box")
        code = (await here.pending.ask(DEVICE, "client")).code
        assert (await there.pending.ask(DEVICE, "client")).code == code  # the same words on whichever node it asks
        assert (await there.pending.ask(DEVICE, "rival")).code != code
        bound = await there.pending.bind(f"{code[:3]} {code[3:]}", owner="Anna")
        assert bound is not None
        for store in (here, there, third):
            device = await store.devices.get(DEVICE)
            assert device is not None
            assert device.bound
            assert (device.owner, device.client_id, device.board) == ("Anna", "client", "box")
        assert await there.pending.bind(code) is None  # used up


async def test_the_first_client_of_a_device_is_pinned_on_all_nodes(running: RedisServer) -> None:
    async with node(running, "pin") as (here, _), node(running, "pin") as (there, _):
        assert (await here.devices.pin(DEVICE, "mine")).client_id == "mine"
        assert (await there.devices.pin(DEVICE, "rival")).client_id == "mine"
        await there.devices.release(DEVICE)
        assert (await here.devices.pin(DEVICE, "another")).client_id == "another"


async def test_the_newest_change_of_a_device_counts_also_one_made_while_redis_was_away(own: RedisServer) -> None:
    async with node(own, "dev2") as (here, shared), node(own, "dev2") as (there, others):
        await here.devices.update(DEVICE, name="kitchen", room="downstairs")
        assert (await there.devices.seen(DEVICE)).name == "kitchen"
        own.kill()
        await here.devices.update(DEVICE, name="bedroom")
        own.start()
        for one in (shared, others):
            one.link.recovered()
        await shared.link.ask(Use.NODES, lambda redis: redis.ping())
        assert (await here.devices.get(DEVICE)).name == "bedroom"  # type: ignore[union-attr]
        found = await there.devices.get(DEVICE)
        assert found is not None
        assert (found.name, found.room) == ("bedroom", "downstairs")


async def test_a_device_that_is_removed_goes_from_every_node_and_from_redis(running: RedisServer) -> None:
    async with node(running, "dev3") as (here, shared), node(running, "dev3") as (there, others):
        past = await here.turns.begin(DEVICE, "xiaozhi", 10)
        turn(here, past.conversation, 1000.0, "a secret")
        await here.devices.update(DEVICE, name="kitchen")
        await here.memories.add(DEVICE, "likes tea")
        await here.memories.list(DEVICE)
        shared.conversations.keep(DEVICE, "xiaozhi", 10)
        await shared.conversations.close()
        begun = await there.turns.begin(DEVICE, "xiaozhi", 10)
        await others.conversations.catch_up(DEVICE, "xiaozhi", begun, 10)
        assert [memory.text for memory in await there.memories.list(DEVICE)] == ["likes tea"]
        assert await there.devices.get(DEVICE) is not None
        await here.devices.remove(DEVICE)
        assert await there.devices.get(DEVICE) is not None  # not told yet, so it writes down what it holds
        await others.look()
        for store in (here, there):
            assert await store.devices.get(DEVICE) is None
        assert await there.turns.list(DEVICE) == []
        keys = await shared.link.ask(Use.NODES, lambda redis: redis.keys("{dev3}:*"))
        assert [key for key in keys if DEVICE.encode() in key] == []


async def test_what_was_deleted_while_redis_was_away_is_told_later(own: RedisServer) -> None:
    async with node(own, "dev4") as (here, shared), node(own, "dev4") as (there, others):
        await here.devices.update(DEVICE, name="kitchen")
        await there.devices.seen(DEVICE)
        own.kill()
        await here.devices.remove(DEVICE)
        own.start()
        for one in (shared, others):
            one.link.recovered()
            await one.link.ask(Use.NODES, lambda redis: redis.ping())
        await there.devices.get(DEVICE)
        assert await here.devices.get(DEVICE) is None  # what is to be deleted does not come back
        await shared.look()
        await others.look()
        assert await there.devices.get(DEVICE) is None
        assert shared.deletions.told == 1


async def test_what_is_remembered_and_forgotten_on_one_node_holds_on_the_other(running: RedisServer) -> None:
    async with node(running, "mem1") as (here, _), node(running, "mem1") as (there, _):
        for store in (here, there):
            await store.devices.seen(DEVICE)
        await here.memories.add(DEVICE, "likes tea")
        await here.memories.add(DEVICE, "has a dog")
        await here.memories.list(DEVICE)
        assert {memory.text for memory in await there.memories.list(DEVICE)} == {"likes tea", "has a dog"}
        await there.memories.forget(DEVICE, "tea")
        await there.memories.list(DEVICE)
        assert [memory.text for memory in await here.memories.list(DEVICE)] == ["has a dog"]


async def test_a_challenge_given_by_one_node_is_answered_at_another(running: RedisServer) -> None:
    identity = Identity(DEVICE, "client", "")
    settings_ = AuthSettings(mode="activate")
    async with node(running, "pend") as (here, _), node(running, "pend") as (there, _):
        first, second = Activation(settings_, here), Activation(settings_, there)
        await here.devices.update(DEVICE, serial="SN1", hmac_key=b"k" * 32)
        section = await first.section(identity, "10.0.0.1", "", chinese=True)
        assert (await second.section(identity, "10.0.0.1", "", chinese=True)) == section
        challenge = str(section["challenge"])
        body = {"hmac": hmac.new(b"k" * 32, challenge.encode(), "sha256").hexdigest()}
        assert await second.poll(identity, body) is Poll.WAITING
        assert await second.poll(identity, {"hmac": "wrong"}) is Poll.REFUSED
        assert await first.poll(identity, body) is Poll.WAITING
        assert await here.pending.bind(str(section["code"])) is not None
        assert await second.poll(identity, body) is Poll.ACTIVE
        assert await first.standing(identity) is Standing.ADMITTED


# Limits, keys, nodes --------------------------------------------------------------------------------------------------


async def test_an_address_has_one_bucket_for_all_nodes(running: RedisServer, own: RedisServer) -> None:
    link = RedisLink(settings(running, "lim1"))
    limiters = [SharedLimiter(3, link, "ota") for _ in range(2)]
    waits = [await limiters[number % 2].take("192.0.2.1", 0.0) for number in range(4)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert 15.0 < waits[3] <= 20.0
    assert await limiters[0].take("192.0.2.2", 0.0) == 0.0
    assert await limiters[0].take("127.0.0.1", 0.0) == 0.0
    await link.close()
    gone = RedisLink(settings(own, "lim1"))
    own.kill()
    alone = SharedLimiter(2, gone, "ota")
    assert [await alone.take("192.0.2.1", 0.0) > 0.0 for _ in range(3)] == [False, False, True]
    await gone.close()


async def test_all_nodes_sign_with_the_same_keys_and_follow_a_rotation(own: RedisServer, tmp_path: Path) -> None:
    link = RedisLink(settings(own, "keys"))
    folders = [tmp_path / name for name in ("a", "b")]
    nodes = [SharedKeys(link, folder) for folder in folders]
    rings = [await one.agree(100.0) for one in nodes]
    assert rings[0] == rings[1] == load_keys(folders[1], 100.0)
    own.kill()
    rotated = rotate_keys(folders[1], 200.0, 1000.0)
    assert await nodes[1].agree(201.0) is None
    own.start()
    link.recovered()
    await link.ask(Use.NODES, lambda redis: redis.ping())
    assert await nodes[0].agree(202.0) == rings[0]  # Redis came back empty: it is given what holds here
    assert [await nodes[number].agree(203.0) for number in (1, 0)] == [rotated, rotated]
    newer = rotate_keys(folders[0], 300.0, 1000.0)
    assert [await one.agree(301.0) for one in nodes] == [newer, newer]
    assert "secret" not in repr(newer)
    await link.close()


def registry_of(link: RedisLink, me: NodeView, **others: Any) -> NodeRegistry:
    return NodeRegistry(link, lambda: me, **others)


def _setting(key: str, value: bytes) -> Callable[[Any], Awaitable[Any]]:
    return lambda redis: redis.hset(key, "x", value)


def view(name: str, **values: object) -> NodeView:
    return NodeView(**{"name": name, "address": f"http://127.0.0.1:{ord(name)}", "capacity": 100, **values})  # type: ignore[arg-type]


async def test_nodes_see_each_other_and_one_that_stops_is_gone(running: RedisServer) -> None:
    link = RedisLink(settings(running, "reg1"))
    registries = [registry_of(link, view(name)) for name in "ab"]
    for registry in (*registries, *registries):
        assert await registry.beat()
    assert [[node.name for node in registry.nodes] for registry in registries] == [["a", "b"], ["b", "a"]]
    homes = {(await registry.place(DEVICE)).name for registry in registries}
    assert len(homes) == 1  # whoever is asked
    await registries[0].leave()
    await registries[1].beat()
    assert [node.name for node in registries[1].nodes] == ["b"]
    await link.close()


async def test_a_node_without_a_heartbeat_expires(running: RedisServer) -> None:
    link = RedisLink(settings(running, "reg2", heartbeat_s=0.1, expiry_s=0.3))
    dead, alive = (registry_of(link, view(name)) for name in "ab")
    async with asyncio.timeout(60.0):
        while len(alive.nodes) < 2:  # a busy machine may take longer than a node has
            await dead.beat()
            await alive.beat()
        while len(alive.nodes) == 2:
            await asyncio.sleep(0.05)
            await alive.beat()
    assert [node.name for node in alive.nodes] == ["b"]
    await link.close()


async def test_without_redis_devices_go_to_nodes_that_can_be_reached(own: RedisServer) -> None:
    link = RedisLink(settings(own, "reg3", heartbeat_s=0.1, expiry_s=0.3))
    listener = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    now = [0.0]
    me = view("m", draining=True)
    registry = NodeRegistry(link, lambda: me, lambda: now[0])
    others = [view("x", address=f"http://127.0.0.1:{port}"), view("y", address="http://127.0.0.1:9")]
    async with asyncio.timeout(60.0):
        while len(registry.nodes) < 3:  # a busy machine may take longer than a node has
            for other in others:
                await registry_of(link, other).beat()
            await registry.beat()
    own.kill()
    now[0] = 100.0
    assert not await registry.beat()
    assert {(await registry.place(f"device {number}")).name for number in range(20)} == {"x"}
    listener.close()
    now[0] = 200.0
    assert (await registry.place(DEVICE)).name == "m"  # nobody else is there
    await link.close()


async def test_an_endpoint_that_one_node_found_dead_is_suspect_to_the_others_once(link: RedisLink) -> None:
    heard: list[str] = []
    dead: list[str] = []
    first = NodeRegistry(link, lambda: view("a", dead=tuple(dead)), suspect=lambda _endpoint: pytest.fail("its own"))
    second = registry_of(link, view("b"), suspect=heard.append)
    await first.beat()
    await second.beat()
    dead.append("1234")
    for registry in (first, second, first, second):
        await registry.beat()
    assert heard == ["1234"]
    dead.clear()  # it was mended, and breaks again
    await first.beat()
    await second.beat()
    dead.append("1234")
    await first.beat()
    await second.beat()
    assert heard == ["1234", "1234"]
