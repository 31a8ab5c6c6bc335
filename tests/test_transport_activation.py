"""Whose a device is: lists, codes, challenges, against the real store."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator

import pytest

from xiaozhi.access.activation import Activation, Crowded, Poll, Standing, spoken_code
from xiaozhi.access.identity import Identity
from xiaozhi.settings import AuthSettings
from xiaozhi.store import Store
from xiaozhi.store.pending import MAX_PER_ADDRESS, MAX_PER_DEVICE

MINE = Identity("02:00:00:00:00:01", "client-1", "")
THIEF = Identity(MINE.device_id, "client-2", "")


class Clock:
    """Wall time that tests move."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[Store]:
    store = await Store.open(":memory:", now_s=clock)
    yield store
    await store.close()


def activation(store: Store, **settings: object) -> Activation:
    return Activation(AuthSettings.model_validate({"mode": "activate", **settings}), store)


async def told(desk: Activation, identity: Identity) -> dict[str, object]:
    """What a client is told by the OTA address while it waits to be let in."""
    return await desk.section(identity, "10.0.0.1", "192.168.1.10:8000", chinese=False)


async def test_a_device_waits_until_its_code_is_entered(store: Store, clock: Clock) -> None:
    desk = activation(store)
    assert await desk.standing(MINE) is Standing.UNBOUND
    section = await told(desk, MINE)
    code = str(section["code"])
    assert len(code) == 6
    assert code.isdecimal()
    assert section["message"] == f"192.168.1.10:8000\n{code}"
    assert (await told(desk, MINE))["code"] == code, "the same until it expires"
    assert await desk.poll(MINE, {}) is Poll.WAITING
    clock.now_s += 5
    assert (await store.pending.bind(code)) is not None
    assert await desk.poll(MINE, {}) is Poll.ACTIVE
    assert await desk.standing(MINE) is Standing.ADMITTED
    assert desk.activated == 1


async def test_a_device_that_does_not_poll_is_known_when_it_boots_again(store: Store, clock: Clock) -> None:
    desk = activation(store)
    section = await told(desk, MINE)
    await store.pending.bind(str(section["code"]))
    restarted = activation(store)
    assert await restarted.standing(MINE) is Standing.ADMITTED
    assert await restarted.standing(THIEF) is Standing.UNBOUND


async def test_a_rival_has_a_code_of_its_own_and_the_owner_binds_the_one_that_shows_his(
    store: Store, clock: Clock
) -> None:
    desk = activation(store)
    code = str((await told(desk, MINE))["code"])
    theirs = str((await told(desk, THIEF))["code"])
    assert theirs != code
    await store.pending.bind(code)
    assert await desk.poll(THIEF, {}) is Poll.WAITING, "whoever polls first"
    assert await desk.poll(MINE, {}) is Poll.ACTIVE
    clock.now_s += 60
    again = await told(desk, THIEF)
    assert again["message"] == f"New client, let in at\n192.168.1.10:8000\n{again['code']}"
    assert await desk.standing(MINE) is Standing.ADMITTED, "asking for a code changes nothing"
    await store.pending.bind(str(again["code"]))  # a board that was erased has a new client id
    assert await desk.poll(THIEF, {}) is Poll.ACTIVE
    assert await desk.standing(MINE) is Standing.UNBOUND


async def test_whoever_asks_under_ever_new_names_pushes_nobody_out_but_himself(store: Store) -> None:
    desk = activation(store)
    mine = await desk.code_for(MINE, "10.0.0.1")
    for number in range(3 * MAX_PER_DEVICE):
        await desk.code_for(Identity(MINE.device_id, f"client-{number}", ""), f"2001:db8::{number}")
    waiting = await store.pending.list()
    assert len(waiting) == MAX_PER_DEVICE and mine in waiting
    with pytest.raises(Crowded):
        for number in range(MAX_PER_ADDRESS + 1):
            await desk.code_for(Identity(f"made-up-{number}", "", ""), f"2001:db8::{number}")
    assert len(await store.pending.list()) == MAX_PER_ADDRESS + 1, "a /64 is one address"
    assert await desk.code_for(MINE, "10.0.0.1") == mine, "who waits already goes on waiting"


async def test_the_first_client_is_the_device_until_another_one_is_let_in(store: Store) -> None:
    desk = activation(store, mode="token")
    assert await desk.enter(MINE, "10.0.0.1", configured=False) is Standing.ADMITTED
    assert await desk.enter(THIEF, "10.0.0.2", configured=False) is Standing.UNBOUND
    nameless = Identity(MINE.device_id, "", "")
    assert await desk.enter(nameless, "10.0.0.2", configured=False) is Standing.UNBOUND
    assert await desk.enter(THIEF, "10.0.0.2", configured=True) is Standing.ADMITTED, "by a token of auth.tokens"
    assert await desk.poll(THIEF, {}) is Poll.WAITING
    other = Identity("02:00:00:00:00:02", "client-2", "")
    assert await desk.enter(other, "10.0.0.2", configured=False) is Standing.ADMITTED, "no other device is affected"
    await store.devices.release(MINE.device_id)
    assert await desk.enter(THIEF, "10.0.0.2", configured=False) is Standing.ADMITTED
    assert await desk.enter(MINE, "10.0.0.1", configured=False) is Standing.UNBOUND


@pytest.mark.parametrize("configured", [False, True])
async def test_a_device_without_a_client_id_is_not_taken_over_by_one_that_has_one(
    store: Store, configured: bool
) -> None:
    desk = activation(store, mode="token")
    nameless = Identity(MINE.device_id, "", "")
    assert await desk.enter(nameless, "10.0.0.1", configured=configured) is Standing.ADMITTED
    assert await desk.enter(THIEF, "10.0.0.2", configured=False) is Standing.UNBOUND
    again = await desk.enter(nameless, "10.0.0.1", configured=False)
    assert again is (Standing.UNBOUND if configured else Standing.ADMITTED), "nor by one that gives none"


async def test_of_two_that_come_at_the_same_time_one_is_the_device(store: Store) -> None:
    desk = activation(store, mode="token")
    both = await asyncio.gather(*(desk.enter(one, "10.0.0.1", configured=False) for one in (MINE, THIEF)))
    assert sorted(one.value for one in both) == ["admitted", "unbound"]


async def test_new_devices_are_so_many_an_hour_from_one_address_and_ten_times_as_many_from_all(store: Store) -> None:
    desk = activation(store, mode="token", new_devices_per_hour=3)

    async def come(address: str, number: int) -> bool:
        try:
            return (
                await desk.enter(Identity(f"d-{address}-{number}", "c", ""), address, configured=False)
                is Standing.ADMITTED
            )
        except Crowded as error:
            assert 0 < error.wait_s < 3600
            return False

    assert [await come("10.0.0.1", number) for number in range(5)] == [True] * 3 + [False] * 2
    assert [await come("10.0.0.1", number) for number in range(3)] == [True] * 3, "known ones are not counted"
    assert [await come(f"2001:db8::{number}", number) for number in range(5)] == [True] * 3 + [False] * 2
    many = [await come(f"10.0.1.{number}", number) for number in range(30)]
    assert sum(many) == 30 - 2 * 3 and not many[-1]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("text_key", [False, True])
async def test_a_device_whose_key_is_known_must_answer_the_challenge(
    store: Store, clock: Clock, wrapped: bool, text_key: bool
) -> None:
    desk = activation(store)
    key = bytes(range(32))
    section = await told(desk, MINE)
    await store.devices.update(MINE.device_id, serial="SN-1", hmac_key=key)
    await store.pending.bind(str(section["code"]))

    def answer(with_key: bytes) -> dict[str, object]:
        digest = hmac.new(with_key, str(section["challenge"]).encode(), hashlib.sha256).hexdigest()
        body: dict[str, object] = {"algorithm": "hmac-sha256", "serial_number": "SN-1", "hmac": digest}
        return {"Payload": body} if wrapped else body

    assert await desk.standing(MINE) is Standing.UNBOUND
    assert await desk.poll(MINE, {}) is Poll.REFUSED
    assert await desk.poll(MINE, answer(b"another key")) is Poll.REFUSED
    assert desk.wrong_keys == 2
    assert await desk.poll(MINE, answer(key.hex().encode() if text_key else key)) is Poll.ACTIVE
    assert await desk.standing(MINE) is Standing.ADMITTED


@pytest.mark.parametrize("body", [{"Payload": 3}, {"hmac": 3}, {"hmac": "\ud800"}, {"Payload": {"hmac": None}}])
async def test_strange_answers_to_a_challenge_are_wrong_answers(
    store: Store, clock: Clock, body: dict[str, object]
) -> None:
    desk = activation(store)
    await told(desk, MINE)
    await store.devices.update(MINE.device_id, hmac_key=bytes(32))
    assert await desk.poll(MINE, body) is Poll.REFUSED


@pytest.mark.parametrize("mode", ["open", "token", "activate"])
async def test_lists_count_in_every_mode(store: Store, clock: Clock, mode: str) -> None:
    listed = activation(store, mode=mode, allow=["02-00-00-00-00-01"], block=["02:00:00:00:00:09"])
    assert await listed.standing(MINE) is Standing.ADMITTED
    assert await listed.standing(Identity("02:00:00:00:00:09", "", "")) is Standing.BLOCKED
    other = Identity("02:00:00:00:00:02", "", "")
    assert await listed.standing(other) is (Standing.UNBOUND if mode == "activate" else Standing.BLOCKED)
    await store.devices.allow(other.device_id)
    assert await listed.standing(other) is Standing.ADMITTED
    await store.devices.block(other.device_id)
    assert await listed.standing(other) is Standing.BLOCKED
    assert await listed.poll(other, {}) is Poll.REFUSED


async def test_whether_a_device_may_come_writes_nothing(store: Store, clock: Clock) -> None:
    desk = activation(store, mode="token")
    assert await desk.standing(MINE) is Standing.ADMITTED
    assert await desk.poll(MINE, {}) is Poll.ACTIVE
    assert await store.devices.list() == []


def test_the_spoken_code_is_read_digit_by_digit_and_twice() -> None:
    assert spoken_code("120345", chinese=True).count("1，2，0，3，4，5") == 2
    assert spoken_code("120345", chinese=False).count("1, 2, 0, 3, 4, 5") == 2
