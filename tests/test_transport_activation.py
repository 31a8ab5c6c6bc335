"""Whose a device is: lists, codes, challenges, against the real store."""

import hashlib
import hmac
from collections.abc import AsyncIterator

import pytest

from xiaozhi.settings import AuthSettings
from xiaozhi.store import Store
from xiaozhi.transport.activation import Activation, Poll, Standing, spoken_code
from xiaozhi.transport.identity import Identity

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


def activation(store: Store, clock: Clock, **settings: object) -> Activation:
    return Activation(AuthSettings.model_validate({"mode": "activate", **settings}), store.devices, clock)


async def test_a_device_waits_until_its_code_is_entered(store: Store, clock: Clock) -> None:
    desk = activation(store, clock)
    assert await desk.standing(MINE) is Standing.UNBOUND
    section = await desk.section(MINE, "192.168.1.10:8000")
    code = str(section["code"])
    assert len(code) == 6
    assert code.isdecimal()
    assert section["message"] == f"192.168.1.10:8000\n{code}"
    assert (await desk.section(MINE, ""))["code"] == code, "the same until it expires"
    assert await desk.poll(MINE, {}) is Poll.WAITING
    clock.now_s += 5
    assert (await store.devices.bind(code)) is not None
    assert await desk.poll(MINE, {}) is Poll.ACTIVE
    assert await desk.standing(MINE) is Standing.ADMITTED
    assert desk.activated == 1


async def test_a_device_that_does_not_poll_is_known_when_it_boots_again(store: Store, clock: Clock) -> None:
    desk = activation(store, clock)
    section = await desk.section(MINE, "")
    await store.devices.bind(str(section["code"]))
    restarted = activation(store, clock)
    assert await restarted.standing(MINE) is Standing.ADMITTED
    assert await restarted.standing(THIEF) is Standing.UNBOUND


async def test_who_only_knows_the_mac_address_of_a_bound_device_has_to_be_bound_as_well(
    store: Store, clock: Clock
) -> None:
    desk = activation(store, clock)
    await store.devices.bind(str((await desk.section(MINE, ""))["code"]))
    assert await desk.poll(MINE, {}) is Poll.ACTIVE
    clock.now_s += 60
    assert await desk.standing(THIEF) is Standing.UNBOUND
    code = str((await desk.section(THIEF, ""))["code"])
    assert await desk.poll(THIEF, {}) is Poll.WAITING
    assert await desk.standing(MINE) is Standing.ADMITTED, "asking for a code changes nothing"
    clock.now_s += 5
    await store.devices.bind(code)  # a device that was erased gets a new client id, and its owner binds it again
    assert await desk.poll(THIEF, {}) is Poll.ACTIVE
    assert await desk.standing(MINE) is Standing.UNBOUND


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("text_key", [False, True])
async def test_a_device_whose_key_is_known_must_answer_the_challenge(
    store: Store, clock: Clock, wrapped: bool, text_key: bool
) -> None:
    desk = activation(store, clock)
    key = bytes(range(32))
    section = await desk.section(MINE, "")
    await store.devices.update(MINE.device_id, serial="SN-1", hmac_key=key)
    await store.devices.bind(str(section["code"]))

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
    desk = activation(store, clock)
    await desk.section(MINE, "")
    await store.devices.update(MINE.device_id, hmac_key=bytes(32))
    assert await desk.poll(MINE, body) is Poll.REFUSED


@pytest.mark.parametrize("mode", ["open", "token", "activate"])
async def test_lists_count_in_every_mode(store: Store, clock: Clock, mode: str) -> None:
    listed = activation(store, clock, mode=mode, allow=["02-00-00-00-00-01"], block=["02:00:00:00:00:09"])
    assert await listed.standing(MINE) is Standing.ADMITTED
    assert await listed.standing(Identity("02:00:00:00:00:09", "", "")) is Standing.BLOCKED
    other = Identity("02:00:00:00:00:02", "", "")
    assert await listed.standing(other) is (Standing.UNBOUND if mode == "activate" else Standing.BLOCKED)
    await store.devices.allow(other.device_id)
    assert await listed.standing(other) is Standing.ADMITTED
    await store.devices.block(other.device_id)
    assert await listed.standing(other) is Standing.BLOCKED
    assert await listed.poll(other, {}) is Poll.REFUSED


async def test_without_lists_everybody_may_and_nothing_is_written(store: Store, clock: Clock) -> None:
    desk = activation(store, clock, mode="token")
    assert await desk.standing(MINE) is Standing.ADMITTED
    assert await desk.poll(MINE, {}) is Poll.ACTIVE
    assert await store.devices.list() == []


async def test_made_up_devices_do_not_fill_the_memory(store: Store, clock: Clock) -> None:
    desk = activation(store, clock)
    desk._pending.update({(str(number), ""): None for number in range(20_000)})  # type: ignore[misc]  # only counted
    await desk.section(MINE, "")
    assert len(desk._pending) == 10_000


def test_the_spoken_code_is_read_digit_by_digit_and_twice() -> None:
    assert spoken_code("120345", chinese=True).count("1，2，0，3，4，5") == 2
    assert spoken_code("120345", chinese=False).count("1, 2, 0, 3, 4, 5") == 2
