"""Tiers: what is kept comes back, bounds hold, and a damaged disk costs nothing but what was on it."""

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.cache.disk import DiskTier
from xiaozhi.cache.disk_file import FILE_NAME, DiskFile
from xiaozhi.cache.memory import ENTRY_BYTES, MemoryTier
from xiaozhi.cache.packets import pack, unpack
from xiaozhi.cache.tier import Tiers


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_memory_forgets_what_was_not_used_for_longest() -> None:
    memory = MemoryTier(3 * (1 + 10 + ENTRY_BYTES), 60.0, Clock())
    for key in (b"a", b"b", b"c"):
        memory.keep(key, bytes(10), 60.0)
    assert memory.find(b"a") == bytes(10)
    memory.keep(b"d", bytes(10), 60.0)
    assert [memory.find(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert (memory.evicted, memory.hits, memory.misses) == (1, 4, 1)
    memory.keep(b"huge", bytes(5000), 60.0)
    assert memory.find(b"huge") is None and len(memory) == 3


def test_memory_lets_nothing_live_longer_than_it_may() -> None:
    clock = Clock()
    memory = MemoryTier(10_000, 60.0, clock)
    memory.keep(b"own", b"1", 3600.0)
    memory.keep(b"shorter", b"2", 10.0)
    clock.now += 11
    assert memory.find(b"shorter") is None
    clock.now += 50
    assert memory.find(b"own") is None
    assert memory.bytes == 0


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.binary(max_size=200)), max_size=60))
def test_memory_never_holds_more_than_its_bound(puts: list[tuple[bytes, bytes]]) -> None:
    memory = MemoryTier(2000, 60.0, Clock())
    for key, value in puts:
        memory.keep(key, value, 60.0)
        assert 0 <= memory.bytes <= 2000
    if puts:
        assert memory.find(puts[-1][0]) == puts[-1][1]


async def opened(path: Path, max_bytes: int = 100_000, ttl_s: float = 3600.0, clock: Clock | None = None) -> DiskTier:
    tier = DiskTier(path, max_bytes, ttl_s, clock or Clock())
    await tier.open()
    return tier


async def test_the_disk_survives_a_restart(tmp_path: Path) -> None:
    first = await opened(tmp_path / "deep" / FILE_NAME)
    await first.put(b"key", b"value", 60.0)
    await first.close()
    second = await opened(tmp_path / "deep" / FILE_NAME)
    assert await second.get(b"key") == b"value"
    assert await second.get(b"other") is None
    assert (second.hits, second.misses, second.bytes) == (1, 1, 5)
    await second.close()


async def test_the_disk_keeps_to_its_size_across_restarts(tmp_path: Path) -> None:
    tier = await opened(tmp_path / FILE_NAME, max_bytes=1000)
    for number in range(5):
        await tier.put(bytes([number]), bytes(300), 60.0)
    await tier.flush()
    assert (len(tier), tier.bytes, tier.evicted) == (3, 900, 2)
    assert await tier.get(b"\x00") is None and await tier.get(b"\x04") is not None
    await tier.put(b"huge", bytes(1001), 60.0)
    assert len(tier) == 3
    await tier.close()
    smaller = await opened(tmp_path / FILE_NAME, max_bytes=700)
    assert len(smaller) == 2
    await smaller.close()
    assert len(DiskFile(tmp_path / FILE_NAME).entries()) == 2


async def test_what_has_expired_is_gone_and_so_is_what_a_wrong_clock_wrote(tmp_path: Path) -> None:
    clock = Clock(10_000.0)
    tier = await opened(tmp_path / FILE_NAME, clock=clock)
    await tier.put(b"short", b"1", 10.0)
    await tier.put(b"long", b"2", 9999.0)
    clock.now += 11
    assert await tier.get(b"short") is None
    assert await tier.get(b"long") == b"2"
    await tier.close()
    early = await opened(tmp_path / FILE_NAME, clock=Clock(1.0))
    assert len(early) == 0
    await early.close()


async def test_what_was_said_at_home_can_be_read_by_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.touch(0o644)  # of an earlier version
    tier = await opened(path)
    await tier.put(b"k", b"value", 60.0)
    await tier.flush()
    files = [path, path.with_name(f"{FILE_NAME}-wal"), path.with_name(f"{FILE_NAME}-shm")]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
    await tier.close()


@pytest.mark.parametrize("damage", [b"not a database at all" * 500, None])
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / FILE_NAME
    tier = await opened(path)
    for number in range(40):
        await tier.put(bytes([number]), bytes([number]) * 2000, 60.0)
    await tier.close()
    if damage is None:  # pages in the middle are torn
        data = bytearray(path.read_bytes())
        data[4096:40960] = b"\xaa" * (40960 - 4096)
        damage = bytes(data)
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        tier = await opened(path)
    assert "is damaged" in caplog.text and f"{FILE_NAME}.damaged" in caplog.text
    assert path.with_name(f"{FILE_NAME}.damaged").read_bytes() == damage
    await tier.put(b"new", b"value", 60.0)
    await tier.flush()
    assert await tier.get(b"new") == b"value"
    await tier.close()


async def test_a_table_that_vanishes_under_a_running_server_is_a_miss(tmp_path: Path) -> None:
    tier = await opened(tmp_path / FILE_NAME)
    await tier.put(b"key", b"value", 60.0)
    await tier.flush()
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("DROP TABLE entries")
    other.commit()
    other.close()
    assert await tier.get(b"key") is None
    await tier.put(b"key", b"again", 60.0)
    await tier.flush()
    assert await tier.get(b"key") == b"again"
    await tier.close()


async def test_a_value_that_rotted_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tier = await opened(tmp_path / FILE_NAME)
    await tier.put(b"key", b"value", 60.0)
    await tier.flush()
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("UPDATE entries SET value = x'00'")
    other.commit()
    other.close()
    assert await tier.get(b"key") is None
    assert "damaged entry" in caplog.text
    await tier.close()


async def test_another_version_of_the_file_is_emptied(tmp_path: Path) -> None:
    tier = await opened(tmp_path / FILE_NAME)
    await tier.put(b"key", b"value", 60.0)
    await tier.close()
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("PRAGMA user_version = 99")
    other.commit()
    other.close()
    tier = await opened(tmp_path / FILE_NAME)
    assert len(tier) == 0
    await tier.close()


async def test_a_folder_that_cannot_be_used_leaves_a_cache_that_misses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    tier = await opened(tmp_path / "file" / FILE_NAME)
    assert "the speech cache on disk is off" in caplog.text
    await tier.put(b"key", b"value", 60.0)
    assert await tier.get(b"key") is None
    await tier.clear()
    await tier.close()


async def test_more_than_the_disk_can_take_is_dropped_and_counted(tmp_path: Path) -> None:
    tier = await opened(tmp_path / FILE_NAME, max_bytes=100 * 1024 * 1024)
    for number in range(6):
        await tier.put(bytes([number]), bytes(1024 * 1024), 60.0)
    assert tier.dropped == 2
    await tier.flush()
    assert len(tier) == 4
    await tier.close()


async def test_a_far_hit_is_kept_nearer(tmp_path: Path) -> None:
    disk = await opened(tmp_path / FILE_NAME)
    memory = MemoryTier(10_000, 60.0, Clock())
    tiers = Tiers([memory, disk], 60.0)
    await tiers.put(b"key", b"value")
    await memory.clear()
    assert await tiers.get(b"key") == b"value"
    assert await tiers.get(b"key") == b"value"
    assert (memory.hits, disk.hits) == (1, 1)
    await disk.flush()
    await tiers.clear()
    assert await tiers.get(b"key") is None
    await tiers.close()
    assert len(DiskFile(tmp_path / FILE_NAME).entries()) == 0


async def test_reads_and_writes_at_once_do_not_lose_anything(tmp_path: Path) -> None:
    tier = await opened(tmp_path / FILE_NAME, max_bytes=1_000_000)

    async def use(number: int) -> bool:
        key = bytes([number % 20])
        await tier.put(key, key * 100, 60.0)
        return await tier.get(key) == key * 100

    assert all(await asyncio.gather(*(use(number) for number in range(200))))
    await tier.close()


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=30))
def test_packets_come_back_as_they_were(packets: list[bytes]) -> None:
    assert unpack(pack(packets)) == packets


@given(st.binary(max_size=60))
def test_any_bytes_are_packets_or_nothing(value: bytes) -> None:
    for candidate in (value, pack([b"x"])[:4] + value):
        packets = unpack(candidate)
        assert packets is None or pack(packets) == candidate


@pytest.mark.parametrize("packet", [b"", bytes(65536)])
def test_what_is_no_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match="are no packet"):
        pack([packet])
