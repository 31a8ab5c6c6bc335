"""What survives a restart, a power cut, a damaged file and a full disk."""

import asyncio
import errno
import io
import itertools
import logging
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xiaozhi.store import DeviceAccess, NoRoom, Store, StoreError, TooManyTries, private_file
from xiaozhi.store import devices as devices_module
from xiaozhi.store.backup import BackupError, export_store, import_store
from xiaozhi.store.migrations import VERSION, migrate, version_of
from xiaozhi.store.notes import MAX_MEMORIES
from xiaozhi.store.pending import CODE_TTL_S, MAX_WRONG_CODES, WRONG_CODES_WINDOW_S
from xiaozhi.store.turns import TurnRecord
from xiaozhi.text.feelings import side_note
from xiaozhi.text.tool_note import MAX_NOTE_CHARS, tool_note, with_note


@asynccontextmanager
async def store_at(path: Path | str = ":memory:", now_s: Callable[[], float] = lambda: 1000.0) -> AsyncIterator[Store]:
    store = await Store.open(path, now_s=now_s)
    try:
        yield store
    finally:
        await store.close()


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def writing_child(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)


async def say(
    store: Store, device: str, heard: str, agent: str = "", conversation: int = 0, at: float = 1000.0, note: str = ""
) -> int:
    number = conversation or (await store.turns.begin(device, agent, 10)).conversation
    reply = f"re {heard}"
    store.turns.add(TurnRecord(store.turns.next_id(), device, number, agent, at, heard, reply, reply, note=note))
    return number


async def code_of(store: Store, device: str, now: float | None = None, client: str = "c") -> str:
    return (await store.pending.ask(device, client, now=now)).code


# Devices and codes ----------------------------------------------------------------------------------------------------


async def test_a_device_is_known_after_it_was_seen_and_keeps_what_people_say_of_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.db"
    async with store_at(path) as store:
        assert await store.devices.get("aa") is None
        await store.devices.seen("aa", client_id="c", board="esp", firmware="1.0")
        await store.devices.update("aa", name="客厅", owner="小明", hmac_key=b"\x01\x02")
    async with store_at(path, lambda: 2000.0) as store:
        seen = await store.devices.seen("aa", firmware="1.1")
    assert (seen.name, seen.owner, seen.board, seen.firmware) == ("客厅", "小明", "esp", "1.1")
    assert (seen.created_at, seen.last_seen, seen.hmac_key) == (1000.0, 2000.0, b"\x01\x02")
    assert "x01" not in repr(seen), "a key is no part of what is printed"


async def test_a_code_binds_its_device_once_and_not_after_it_expired() -> None:
    async with store_at() as store:
        code = await code_of(store, "aa", 1000.0)
        assert len(code) == 6
        assert code.isdecimal()
        assert await code_of(store, "aa", 1000.0 + CODE_TTL_S - 1) == code
        assert await store.pending.bind(code, now=1000.0 + CODE_TTL_S) is None
        newer = await code_of(store, "aa", 1000.0 + CODE_TTL_S)
        bound = await store.pending.bind(f"{newer[:3]} {newer[3:]}", owner="me", now=1001.0 + CODE_TTL_S)
        assert bound is not None
        assert bound.bound
        assert (bound.id, bound.owner) == ("aa", "me")
        assert await store.pending.bind(newer, now=1002.0 + CODE_TTL_S) is None


async def test_codes_that_are_pending_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([7, 7, 7, 8, 9])
    monkeypatch.setattr("xiaozhi.store.pending.secrets.randbelow", lambda _n: next(numbers))
    async with store_at() as store:
        codes = [await code_of(store, name, 0.0) for name in ("a", "b")]
    assert codes == ["000007", "000008"]


async def test_guessing_codes_is_stopped_and_opens_again_later() -> None:
    async with store_at() as store:
        code = await code_of(store, "aa", 0.0)
        wrong = f"{(int(code) + 1) % 1_000_000:06d}"
        for second in range(MAX_WRONG_CODES):
            assert await store.pending.bind(wrong, now=float(second)) is None
        with pytest.raises(TooManyTries, match="minutes"):
            await store.pending.bind(code, now=20.0)
        later = await code_of(store, "aa", WRONG_CODES_WINDOW_S + 20.0)
        assert await store.pending.bind(later, now=WRONG_CODES_WINDOW_S + 21.0) is not None


async def test_allowing_and_blocking_are_kept() -> None:
    async with store_at() as store:
        assert (await store.devices.allow("aa")).bound
        assert (await store.devices.block("aa")).access is DeviceAccess.BLOCKED
        assert not (await store.devices.unlist("aa")).bound
        with pytest.raises(ValueError, match="colour"):
            await store.devices.update("aa", colour="red")


async def test_removing_a_device_removes_everything_of_it_and_overwrites_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with store_at(path) as store:
        for device in ("aa", "bb"):
            await say(store, device, f"the secret of {device}")
            store.turns.summarise(device, "", f"summary of {device}", 0)
            await store.memories.add(device, f"memory of {device}")
            await store.reminders.add(device, f"reminder of {device}", 5000.0)
        assert await store.devices.remove("aa")
        assert not await store.devices.remove("aa")
        counts = await store.database.read(
            lambda connection: {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("devices", "conversations", "turns", "summaries", "memories", "reminders")
            }
        )
    assert set(counts.values()) == {1}
    left = b"".join(path.read_bytes() for path in files_in(tmp_path))
    assert b"of bb" in left
    assert b"of aa" not in left


async def test_made_up_devices_make_room_for_each_other_and_push_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "MAX_DEVICES", 12)
    clock = itertools.count(1)
    async with store_at(now_s=lambda: float(next(clock))) as store:
        await store.devices.allow("allowed")
        for field in ("name", "room", "agent", "language", "priority", "serial"):
            await store.devices.update(f"has a {field}", **{field: "x"})
        await store.devices.pin("pinned", "client-1")
        await say(store, "talked", "hello", at=0.0)
        await store.memories.add("remembers", "likes tea")
        await store.reminders.add("reminds", "tea", 5000.0)
        kept = {device.id for device in await store.devices.list()}
        for number in range(30):
            await store.devices.seen(f"fake-{number}")
        assert len(await store.devices.list()) == 12
        assert {device.id for device in await store.devices.list()} == {*kept, "fake-29"}
        await store.devices.pin("fake-29", "client-2")
        with pytest.raises(NoRoom, match="xiaozhi devices remove"):
            await store.devices.pin("one too many", "client-3")
        with pytest.raises(NoRoom):
            await code_of(store, "one too many")
        assert (await store.devices.seen("one too many")).id == "one too many", "it is served, and not kept"
        assert (await store.turns.begin("one too many", "", 5)).conversation == 0
        assert (await store.devices.seen("talked")).talked
    assert len(kept) == 11


async def test_the_first_client_of_a_device_stays_it_until_it_is_released_or_another_is_bound() -> None:
    async with store_at() as store:
        assert (await store.devices.pin("aa", "one")).client_id == "one"
        assert (await store.devices.pin("aa", "two")).client_id == "one"
        code, other = await code_of(store, "aa", client="two"), await code_of(store, "aa", client="three")
        assert code != other
        bound = await store.pending.bind(code)
        assert bound is not None and bound.client_id == "two"
        assert [one.client_id for one in await store.pending.list()] == ["three"]
        await store.devices.release("aa")
        assert (await store.devices.pin("aa", "four")).client_id == "four"
        assert (await store.devices.unbind("aa")).client_id == ""


async def test_a_code_that_was_made_while_the_clock_was_ahead_binds_nothing() -> None:
    async with store_at() as store:
        ahead = await code_of(store, "aa", 2_000_000_000.0)
        assert await store.pending.bind(ahead, now=1000.0) is None
        assert await store.pending.list() == []
        now = await code_of(store, "aa", 1000.0)
        assert await store.pending.bind(now, now=1001.0) is not None


# Turns ----------------------------------------------------------------------------------------------------------------


async def test_a_conversation_goes_on_where_it_ended_with_each_agent_its_own(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with store_at(path) as store:
        await say(store, "aa", "one", "chef")
        await say(store, "aa", "two", "coach")
        await say(store, "bb", "three", "chef")
    async with store_at(path) as store:
        past = await store.turns.begin("aa", "chef", 10)
        assert [turn.heard for turn in past.turns] == ["one"]
        last = past.turns[-1].id
        await say(store, "aa", "four", "chef", past.conversation)
        store.turns.summarise("aa", "chef", "they said one", last)
        past = await store.turns.past("aa", "chef", 10)
    assert (past.summary, [turn.heard for turn in past.turns]) == ("they said one", ["four"])


async def test_what_was_said_unasked_takes_no_turn_of_the_past_away() -> None:
    async with store_at() as store:
        number = 0
        for heard in ("one", "", "two", "", "", "three", "", ""):
            number = await say(store, "aa", heard, conversation=number)
        past = await store.turns.past("aa", "", 2)
        assert [turn.heard for turn in past.turns] == ["", "three", "", ""], "as many unasked as turns, at the most"
        past = await store.turns.past("aa", "", 3)
        assert [turn.heard for turn in past.turns] == ["two", "", "", "three", "", ""]
        past = await store.turns.past("aa", "", 10)
        assert len(past.turns) == 8


async def test_a_removed_device_that_is_still_connected_leaves_nothing_behind() -> None:
    async with store_at() as store:
        conversation = await say(store, "aa", "before")
        await store.devices.remove("aa")
        await say(store, "aa", "after", conversation=conversation)
        store.turns.summarise("aa", "", "summary", 1)
        assert await store.turns.list() == []
        assert await store.devices.get("aa") is None


async def test_strangers_whose_code_ran_out_are_swept_and_nobody_else() -> None:
    now = 10 * 86_400.0
    async with store_at(now_s=lambda: now) as store:
        for stranger in ("s1", "s2"):
            await code_of(store, stranger)
        await store.pending.bind(await code_of(store, "bound"))
        await code_of(store, "named")
        await store.devices.update("named", name="kitchen")
        await code_of(store, "talked")
        await say(store, "talked", "hello")
        await store.devices.seen("never asked for a code")
        await store.devices.pin("pinned", "client")
        assert await store.devices.sweep(now + 3600.0) == 0
        assert await store.devices.sweep(now + 2 * 86_400.0) == 2
        assert {device.id for device in await store.devices.list()} == {
            "bound",
            "named",
            "talked",
            "never asked for a code",
            "pinned",
        }
        assert await store.devices.sweep(now + 31 * 86_400.0) == 2, "those that have never said anything for a month"


async def test_old_and_surplus_turns_are_swept() -> None:
    async with store_at(now_s=lambda: 10 * 86_400.0) as store:
        for number in range(6):
            await say(store, "aa", str(number), at=number * 86_400.0)
            await say(store, "bb", str(number), at=9 * 86_400.0)
        assert await store.turns.sweep(keep_days=7.0, keep_turns_per_device=4) == 3 + 2
        assert [turn.heard for turn in await store.turns.list("aa")] == ["5", "4", "3"]
        assert [turn.heard for turn in await store.turns.list("bb")] == ["5", "4", "3", "2"]
        assert await store.turns.sweep(keep_days=0.0, keep_turns_per_device=100) == 0


@pytest.mark.parametrize("how", ["clear", "sweep", "many", "remove"])
async def test_the_note_of_a_turn_goes_with_it_and_leaves_nothing_in_the_file(tmp_path: Path, how: str) -> None:
    path = tmp_path / "store.db"
    async with store_at(path, lambda: 10 * 86_400.0) as store:
        await say(store, "aa", "what do you know", at=1.0, note="what_is_remembered: afraid of platypuses")
        await say(store, "aa", "thanks", at=9 * 86_400.0)
        assert (await store.turns.past("aa", "", 10)).turns[0].note.endswith("platypuses")
        match how:
            case "clear":
                await store.turns.clear("aa")
            case "sweep":
                await store.turns.sweep(keep_days=7.0, keep_turns_per_device=10)
            case "many":
                await store.turns.sweep(keep_days=0.0, keep_turns_per_device=1)
            case "remove":
                await store.devices.remove("aa")
    assert b"platypus" not in b"".join(file.read_bytes() for file in files_in(tmp_path))


@pytest.mark.parametrize("chinese", [True, False])
async def test_a_note_is_kept_to_the_letter_and_never_longer_than_in_a_prompt(chinese: bool) -> None:
    sounds = ("laughter", "crying", "cough", "sneeze", "applause")
    feeling = max((side_note(name, sounds, chinese=chinese) for name in ("disgusted", "fearful")), key=len)
    longest = "\n".join((feeling, tool_note([("n" * 64, "r" * 200, True)] * 30, chinese=chinese)))
    assert len(longest) <= MAX_NOTE_CHARS, "what is written here is never cut"
    async with store_at() as store:
        await say(store, "aa", "one", note=longest)
        await say(store, "aa", "two", note="x" * 100_000)
        first, second = (await store.turns.past("aa", "", 10)).turns
    assert with_note("one", first.note) == f"one\n{longest}"
    assert len(second.note) == MAX_NOTE_CHARS
    assert with_note("two", "x" * 100_000) == with_note("two", second.note)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["say", "connect", "remember", "summarise", "clear", "remove"])
        ),
        max_size=40,
    )
)
def test_devices_never_share_a_word_in_whatever_order_things_happen(steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        conversations: dict[str, int] = {}
        async with store_at() as store:
            for device, step in steps:
                match step:
                    case "say":
                        conversations[device] = await say(
                            store, device, f"word of {device}", conversation=conversations.get(device, 0)
                        )
                    case "connect":
                        conversations[device] = (await store.turns.begin(device, "", 10)).conversation
                    case "remember":
                        await store.memories.add(device, f"memory of {device}")
                    case "summarise":
                        store.turns.summarise(device, "", f"summary of {device}", 0)
                    case "clear":
                        await store.turns.clear(device)
                    case "remove":
                        await store.devices.remove(device)
            for device in "abc":
                past = await store.turns.past(device, "", 50)
                words = [turn.heard for turn in past.turns] + [past.summary] * bool(past.summary)
                words += [memory.text for memory in await store.memories.list(device)]
                assert all(word.endswith(f"of {device}") for word in words)

    asyncio.run(play())


# Memories, reminders, values ------------------------------------------------------------------------------------------


async def test_memories_are_not_doubled_bounded_and_forgotten_by_subject() -> None:
    async with store_at() as store:
        first = await store.memories.add("aa", "likes  Cats")
        assert (await store.memories.add("aa", "likes cats")).id == first.id
        await store.memories.add("aa", "is called Ming")
        assert await store.memories.forget("aa", "CATS") == 1
        assert not await store.memories.remove("bb", 2)
        assert [memory.text for memory in await store.memories.list("aa")] == ["is called Ming"]
        for number in range(MAX_MEMORIES + 5):
            await store.memories.add("aa", f"fact {number}")
        assert len(await store.memories.list("aa")) == MAX_MEMORIES
        with pytest.raises(ValueError, match="nothing"):
            await store.memories.add("aa", " \n ")


async def test_reminders_come_due_in_order_and_repeat() -> None:
    async with store_at() as store:
        later = await store.reminders.add("aa", "later", 3000.0)
        sooner = await store.reminders.add("bb", "sooner", 2000.0, repeat="daily")
        assert [due.text for due in await store.reminders.due(2500.0)] == ["sooner"]
        await store.reminders.done(sooner.id, next_at=88_400.0)
        await store.reminders.done(later.id)
        assert await store.reminders.due(5000.0) == []
        assert [item.text for item in await store.reminders.list()] == ["sooner"]
        assert len(await store.reminders.list(done=True)) == 2
        assert not await store.reminders.remove("aa", sooner.id)


async def test_single_values_are_kept() -> None:
    async with store_at() as store:
        assert await store.meta.get("generation") is None
        await store.meta.put("generation", "1")
        await store.meta.put("generation", "2")
        assert await store.meta.get("generation") == "2"
        await store.meta.remove("generation")
        assert await store.meta.get("generation") is None


# The file -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(VERSION + 1))
async def test_files_of_every_older_version_are_brought_up_to_date_with_what_they_hold(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "store.db"
    old = sqlite3.connect(path, isolation_level=None)
    migrate(old, version)
    if version >= 1:
        old.execute("INSERT INTO devices (id, name, created_at) VALUES ('aa', 'kept', 1)")
    if version >= 3:
        old.execute("INSERT INTO conversations (id, device, began_at) VALUES (1, 'aa', 1)")
        old.execute(
            "INSERT INTO turns (id, device, conversation, at, heard, said, played)"
            " VALUES (1, 'aa', 1, 1, 'hi', 'a', 'b')"
        )
    old.close()
    async with store_at(path) as store:
        assert await store.database.read(version_of) == VERSION
        device = await store.devices.get("aa")
        assert (device.name if device else "") == ("kept" if version >= 1 else "")
        before = [turn.heard for turn in await store.turns.list("aa")]
        assert before == (["hi"] if version >= 3 else [])
        await say(store, "aa", "works", note="calculate: 42")
        notes = [turn.note for turn in await store.turns.list("aa")]
        assert notes == ["calculate: 42", *("" for _ in before)]
    copy = tmp_path / f"store.db.version-{version}"
    assert copy.exists() == (0 < version < VERSION)
    if copy.exists():  # the program of then takes it as it is
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        former = sqlite3.connect(copy)
        assert version_of(former) == version
        assert former.execute("SELECT name FROM devices").fetchall() == [("kept",)]
        former.close()


async def test_a_newer_file_is_refused_by_naming_the_copy_that_was_made_of_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    (tmp_path / f"store.db.version-{VERSION}").touch()
    with pytest.raises(StoreError, match=f"put store.db.version-{VERSION} in its place"):
        await Store.open(path)


async def test_a_store_is_brought_up_to_date_where_no_copy_can_be_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    old = sqlite3.connect(path, isolation_level=None)
    migrate(old, VERSION - 1)
    old.close()
    whole = private_file.make

    def full(target: Path) -> None:
        if "version" in target.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(target)

    monkeypatch.setattr(private_file, "make", full)
    async with store_at(path) as store:
        assert await store.database.read(version_of) == VERSION
    assert "without a copy" in caplog.text
    assert [file.name for file in files_in(tmp_path) if "version" in file.name] == []


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    with pytest.raises(StoreError, match="newer"):
        await Store.open(path)
    assert [file.name for file in files_in(tmp_path)] == ["store.db"]


_WRITER = """
import asyncio, sys
from pathlib import Path
from xiaozhi.store import Store
from xiaozhi.store.turns import TurnRecord

async def main():
    store = await Store.open(Path(sys.argv[1]))
    past = await store.turns.begin("aa", "", 10)
    for number in range(100000):
        store.turns.add(TurnRecord(store.turns.next_id(), "aa", past.conversation, "", 1.0, str(number), "s", "p"))
        await store.meta.put("n", str(number))
        print(number, flush=True)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_while_it_writes_loses_at_most_the_running_turn(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    dice = random.Random(5)
    for _ in range(3):
        child = writing_child(path)
        assert child.stdout is not None
        last = [int(child.stdout.readline()) for _ in range(dice.randint(5, 60))][-1]
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split()
        child.stdout.close()
        child.wait()
        last = max([last, *(int(number) for number in rest[:-1])])
        async with store_at(path) as store:
            assert store.database.set_aside == 0
            turns = await store.turns.list("aa", limit=100_000)
            numbers = [int(turn.heard) for turn in turns]
            assert numbers == list(range(numbers[0], -1, -1)), "whole, in order, without a gap"
            assert numbers[0] >= last, "what was acknowledged is there"
            await store.turns.clear("aa")


@pytest.mark.parametrize("damage", ["cut", "middle"])
async def test_a_damaged_file_is_set_aside_and_serving_goes_on_with_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "store.db"
    async with store_at(path) as store:
        for number in range(300):
            await say(store, "aa", f"turn {number} " * 20)
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 8192) + whole[-4096:])
    async with store_at(path) as store:
        assert store.database.set_aside == 1
        assert await store.devices.list() == []
        await say(store, "aa", "new")
        assert len(await store.turns.list("aa")) == 1
    aside = [file.name for file in files_in(tmp_path) if ".damaged-" in file.name]
    assert len(aside) >= 1
    assert "is damaged" in caplog.text
    assert "xiaozhi import" in caplog.text


@pytest.mark.parametrize("content", [b"root:x:0:0:root:/root:/bin/bash\n", b"\x00\xff" * 5000, b"SQLite"])
async def test_a_file_that_is_no_database_is_neither_written_nor_renamed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "passwd"
    path.write_bytes(content)
    path.chmod(0o644)
    async with store_at(path) as store:
        assert not store.database.keeps and store.database.set_aside == 0
        await store.devices.update("bb", name="for now")
    assert path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in files_in(tmp_path)] == ["passwd"]
    assert "it is no database, and is left as it is" in caplog.text and "store.file" in caplog.text


async def test_a_store_is_its_owners_alone_also_where_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch(0o644)
    async with store_at(path) as store:
        await store.devices.update("bb", name="private")
        assert {file.stat().st_mode & 0o777 for file in files_in(tmp_path)} == {0o600}


async def test_damage_found_while_serving_costs_no_write(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with store_at(path) as store:
        for number in range(300):
            await say(store, "aa", f"turn {number} " * 20)
        await store.turns.list("aa", limit=1)  # everything before is written now
        await store.database.read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
        await store.database.read(lambda connection: connection.execute("PRAGMA shrink_memory").fetchall())
        await store.devices.update("bb", name="kept")
        assert store.database.set_aside == 1
        device = await store.devices.get("bb")
        assert device is not None
        assert device.name == "kept"


async def test_a_full_disk_is_said_once_and_serving_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with store_at(tmp_path / "store.db") as store:
        await store.devices.seen("aa", board="known")
        pages = await store.database.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        await store.database.read(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        conversation = (await store.turns.begin("aa", "", 5)).conversation
        for number in range(30):
            await say(store, "aa", f"{number} " * 3000, conversation=conversation or 1)
        with pytest.raises(StoreError, match="full"):
            await store.agents.put("big", "x" * 1_000_000)
        seen = await store.devices.seen("aa", firmware="2")
        assert (seen.board, seen.firmware) == ("known", "2")
        assert store.database.failed > 5
        assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
        await store.database.read(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
        await store.agents.put("small", "{}")
        assert store.database.trouble == ""
        assert "writes again" in caplog.text


async def test_a_folder_that_cannot_be_written_is_replaced_by_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store.db").mkdir()  # no file can be opened under this name, for root neither
    async with store_at(tmp_path / "store.db") as store:
        assert not store.database.keeps
        await store.devices.seen("aa")
        assert len(await store.devices.list()) == 1
    assert "cannot be used" in caplog.text


async def test_one_failing_job_of_a_batch_undoes_nothing_of_the_others(tmp_path: Path) -> None:
    async with store_at(tmp_path / "store.db") as store:

        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO meta VALUES ('half', '1')")
            raise LookupError("on purpose")

        done = await asyncio.gather(
            store.meta.put("a", "1"), store.database.write(fail), store.meta.put("b", "2"), return_exceptions=True
        )
        assert isinstance(done[1], LookupError)
        values = [await store.meta.get(key) for key in ("a", "half", "b")]
    assert values == ["1", None, "2"]


async def test_many_writes_share_few_commits_and_a_closed_store_says_so(tmp_path: Path) -> None:
    async with store_at(tmp_path / "store.db") as store:
        before = store.database.commits
        await asyncio.gather(*(store.meta.put(str(number), "x") for number in range(200)))
        assert store.database.commits - before < 100
    with pytest.raises(StoreError, match="closed"):
        await store.meta.get("1")


# Export and import ----------------------------------------------------------------------------------------------------


async def full_store(store: Store) -> None:
    await store.devices.update("aa", name="客厅", hmac_key=b"\x00\xff")
    await say(store, "aa", "hello", note="calculate: 42")
    store.turns.summarise("aa", "", "summary", 0)
    await store.agents.put("uncle", '{"name": "uncle"}')
    await store.memories.add("aa", "likes tea")
    await store.reminders.add("aa", "tea", 99.0)


async def test_an_export_comes_back_whole() -> None:
    file, again = io.BytesIO(), io.BytesIO()
    async with store_at() as store:
        await full_store(store)
        counts = await export_store(store.database, file)
    async with store_at() as store:
        assert await import_store(store.database, file, replace=False) == counts
        with pytest.raises(BackupError, match="--replace"):
            await import_store(store.database, file, replace=False)
        await store.devices.seen("bb")
        await import_store(store.database, file, replace=True)
        assert [device.hmac_key for device in await store.devices.list()] == [b"\x00\xff"]
        await export_store(store.database, again)
    assert file.getvalue().splitlines()[1:-1] == again.getvalue().splitlines()[1:-1]


async def test_an_export_carries_the_notes_and_one_of_a_version_without_them_is_taken_as_well() -> None:
    file = io.BytesIO()
    async with store_at() as store:
        await full_store(store)
        await export_store(store.database, file)
    lines = [orjson.loads(line) for line in file.getvalue().splitlines()][:-1]
    for line in lines:
        if line.get("table") == "turns":
            assert line["row"].pop("note") == "calculate: 42"
    lines[0]["version"] = 5
    written = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    end = orjson.dumps({"end": len(lines) - 1, "crc32": zlib.crc32(written)}) + b"\n"
    for content, note in ((file.getvalue(), "calculate: 42"), (written + end, "")):
        async with store_at() as store:
            await import_store(store.database, io.BytesIO(content), replace=False)
            assert [(turn.heard, turn.note) for turn in await store.turns.list()] == [("hello", note)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_export_changes_nothing(data: st.DataObject) -> None:
    async def play() -> None:
        file = io.BytesIO()
        async with store_at() as store:
            await full_store(store)
            await export_store(store.database, file)
        content = file.getvalue()
        at = int(data.draw(st.floats(0, 0.999)) * len(content))
        how = data.draw(st.sampled_from(["cut", "flip", "more", "line"]))
        if how == "cut":
            content = content[:at]
        elif how == "flip":
            content = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
        elif how == "more":
            content += b"{}\n"
        else:
            lines = content.splitlines(keepends=True)
            del lines[int(data.draw(st.floats(0, 0.999)) * len(lines))]
            content = b"".join(lines)
        async with store_at() as store:
            await store.devices.seen("there")
            with pytest.raises(BackupError):
                await import_store(store.database, io.BytesIO(content), replace=True)
            assert [device.id for device in await store.devices.list()] == ["there"]

    asyncio.run(play())
