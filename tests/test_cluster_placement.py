"""Where devices go: balance, little movement, bounds, and what is no node."""

from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.cluster.node import node_name, pressure_of
from xiaozhi.cluster.placement import NodeView, place, ranked
from xiaozhi.cluster.registry import node_of
from xiaozhi.cluster.values import pack, unpack
from xiaozhi.overload.steps import Readings
from xiaozhi.settings import LoadStep
from xiaozhi.settings.cluster import ClusterSettings

DEVICES = [f"02:00:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(3000)]


def node(name: str, **values: object) -> NodeView:
    return NodeView(**{"name": name, "address": f"http://{name}:8000", "capacity": 200, **values})  # type: ignore[arg-type]


def favourites(nodes: list[NodeView]) -> dict[str, str]:
    return {device: ranked(device, nodes)[0].name for device in DEVICES}


def settled(nodes: list[NodeView], devices: list[str]) -> dict[str, str]:
    """Place devices one after another, each being counted before the next comes."""
    counts: Counter[str] = Counter()
    homes = {}
    for device in devices:
        chosen = place(device, nodes, just_placed=counts)[0]
        counts[chosen.name] += 1
        homes[device] = chosen.name
    return homes


def test_devices_spread_in_proportion_to_capacity() -> None:
    counts = Counter(favourites([node("a", capacity=100), node("b", capacity=100), node("c", capacity=400)]).values())
    assert counts["a"] == pytest.approx(500, rel=0.15)
    assert counts["b"] == pytest.approx(500, rel=0.15)
    assert counts["c"] == pytest.approx(2000, rel=0.05)


def test_when_a_node_goes_only_its_own_devices_move() -> None:
    nodes = [node(name) for name in "abcd"]
    before, after = favourites(nodes), favourites(nodes[:-1])
    moved = {device for device in DEVICES if before[device] != after[device]}
    assert moved == {device for device in DEVICES if before[device] == "d"}
    heirs = Counter(after[device] for device in moved)
    assert set(heirs) == {"a", "b", "c"}
    assert max(heirs.values()) < 1.4 * min(heirs.values())


def test_a_new_node_takes_its_share_and_nothing_else_moves() -> None:
    nodes = [node(name) for name in "abc"]
    before, after = favourites(nodes), favourites([*nodes, node("d")])
    moved = [device for device in DEVICES if before[device] != after[device]]
    assert {after[device] for device in moved} == {"d"}
    assert len(moved) == pytest.approx(len(DEVICES) / 4, rel=0.12)


def test_no_node_gets_much_more_than_its_share() -> None:
    counts = Counter(settled([node(name) for name in "abc"], DEVICES[:60]).values())
    assert sum(counts.values()) == 60
    assert max(counts.values()) <= 27  # ceil(1.25 * 20 + 1) + 1 at most


def test_the_bound_moves_few_devices_away_from_their_favourite() -> None:
    nodes = [node(name, capacity=400) for name in "abcd"]
    homes, wished = settled(nodes, DEVICES[:1000]), favourites(nodes)
    assert sum(homes[device] != wished[device] for device in DEVICES[:1000]) < 50


def test_draining_nodes_get_nobody_and_pressed_ones_only_when_there_is_no_other() -> None:
    nodes = [node("a", draining=True), node("b", pressure=0.95), node("c")]
    assert {place(device, nodes)[0].name for device in DEVICES[:100]} == {"c"}
    assert {place(device, nodes[:2])[0].name for device in DEVICES[:100]} == {"b"}
    assert place("x", nodes[:1]) == []


def test_full_nodes_come_last_the_emptiest_first() -> None:
    nodes = [node("a", devices=220), node("b", devices=201), node("c", devices=10)]
    assert [one.name for one in place("x", nodes)] == ["c", "b", "a"]


@given(
    st.lists(
        st.builds(
            NodeView,
            st.text(min_size=1, max_size=8),
            st.just("http://h"),
            st.integers(0, 1000),
            st.integers(0, 2000),
            st.floats(0, 5),
            st.just("cloud"),
            st.booleans(),
        ),
        max_size=8,
        unique_by=lambda one: one.name,
    ),
    st.text(max_size=30),
)
def test_every_healthy_node_is_named_once(nodes: list[NodeView], device: str) -> None:
    assert sorted(one.name for one in place(device, nodes)) == sorted(one.name for one in nodes if one.healthy)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b'{"v":2}',
        b'{"v":1,"name":"a","address":"nowhere","capacity":1}',
        b'{"v":1,"name":"a","address":"http://h","capacity":"many"}',
        b'{"v":1,"name":"a","address":"http://h","capacity":-1}',
        b'{"v":1,"name":"a","address":"http://h","capacity":1,"dead":"abc"}',
        b'{"v":1,"name":"a","address":"http://h","capacity":1,"dead":[1]}',
        b'{"v":1,"name":"a","address":"http://h","capacity":1,"dead":[' + b",".join([b'"x"'] * 200) + b"]}",
        b"\xff",
    ],
)
def test_what_is_no_node_is_none(value: bytes) -> None:
    assert node_of(value) is None


def test_a_heartbeat_of_a_newer_version_is_read_as_far_as_it_is_understood() -> None:
    value = orjson.dumps({"v": 1, "name": "a", "address": "http://h:1", "capacity": 5, "colour": "red"})
    found = node_of(value)
    assert found is not None
    assert (found.name, found.capacity, found.devices) == ("a", 5, 0)


def test_a_node_is_named_after_its_machine_and_port() -> None:
    assert node_name("box", "http://10.0.0.5:8000") == "box-8000"
    assert node_name("my box", "wss://node.example.org/") == "my-box"


def test_pressure_is_the_reading_nearest_to_its_threshold() -> None:
    limit = LoadStep(asr_wait_ms=4000, loop_lag_ms=600)
    assert pressure_of(Readings(asr_wait_ms=1000, loop_lag_ms=300, memory_percent=99), limit) == 0.5
    assert pressure_of(Readings(asr_wait_ms=1000), LoadStep()) == 0.0


@given(st.binary(max_size=3000), st.booleans())
def test_a_value_comes_back_as_it_was(value: bytes, compress: bool) -> None:
    assert unpack(pack(value, compress=compress), 3000) == value


@given(st.binary(max_size=200))
def test_what_is_no_value_is_none_or_bytes(stored: bytes) -> None:
    value = unpack(stored, 1000)
    assert value is None or len(value) <= 1000


def test_a_value_that_unfolds_beyond_the_limit_is_refused() -> None:
    assert unpack(pack(b"a" * 100_000), 1000) is None


def test_text_is_deflated_and_noise_is_not() -> None:
    assert len(pack(b"what is said twice is said twice " * 100)) < 500
    noise = bytes(hash((number, 7)) & 0xFF for number in range(2000))
    assert len(pack(noise)) == len(noise) + 2 or len(pack(noise)) < 0.9 * len(noise) + 3


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"url": "http://redis:secret@host"}, "must begin with"),
        ({"address": "10.0.0.5:8000"}, "must be an address"),
        ({"heartbeat_s": 4.0}, "twice heartbeat_s"),
        ({"prefix": "a b"}, "pattern"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, object], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        ClusterSettings.model_validate(values)


def test_the_address_of_redis_is_no_part_of_any_repr() -> None:
    settings = ClusterSettings.model_validate({"url": "redis://:hidden@host:6379/0", "password": "hidden"})
    assert "hidden" not in repr(settings)
    assert "hidden" not in settings.model_dump_json()
