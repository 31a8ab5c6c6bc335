"""Built-in tools that need no network: calendar, reminders, sums and units, the conversation."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tool_host import MemoryBook, never
from xiaozhi.events import ToolCall
from xiaozhi.settings import ToolsSettings
from xiaozhi.settings.tools import ReminderSettings
from xiaozhi.store.notes import Reminder
from xiaozhi.store.store import Store
from xiaozhi.tools import built_in
from xiaozhi.tools.built_in.calculator import asked_conversion, local_answer
from xiaozhi.tools.built_in.reminders import due_time, spoken_reminder
from xiaozhi.tools.reminder_clock import ReminderClock, next_due
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.tools.tool import ToolContext, ToolError
from xiaozhi.tools.toolbox import ToolAnswer

BEIJING = timezone(timedelta(hours=8))
NOW = datetime(2026, 2, 17, 9, 30, tzinfo=BEIJING)


class Talk:
    """A conversation that writes down what is asked of it."""

    def __init__(self) -> None:
        self.agent = ""
        self.facts: list[str] = []

    def agents(self) -> Sequence[str]:
        return ("小智", "英语老师")

    async def change_agent(self, name: str) -> None:
        self.agent = name

    async def remember(self, fact: str) -> None:
        self.facts.append(fact)

    async def known(self, about: str = "") -> Sequence[str]:
        return [fact for fact in self.facts if about in fact]

    async def forget(self, about: str) -> int:
        gone = [fact for fact in self.facts if about in fact]
        self.facts = [fact for fact in self.facts if fact not in gone]
        return len(gone)


async def use(name: str, language: str = "en", /, **arguments: Any) -> ToolAnswer:
    house = SharedTools(ToolsSettings())
    box = house.toolbox(ToolContext(language=language, now=lambda: NOW))
    (answer,) = await box.run([ToolCall("1", name, json.dumps(arguments))])
    await house.close()
    return answer


async def test_the_time_here_and_elsewhere() -> None:
    assert (await use("get_time")).result.text == "Tuesday, 2026-02-17 09:30"
    assert (await use("get_time", "zh")).result.text == "2026年2月17日，星期二 09:30"
    assert (await use("get_time", time_zone="UTC")).result.text == "Tuesday, 2026-02-17 01:30 (UTC)"
    assert (await use("get_time", time_zone="../etc/passwd")).result.failed


DICE = """\
from xiaozhi.tools.declare import tool

def tools(host):
    @tool()
    async def roll_die(context: "ToolContext", sides: int = 6) -> str:
        '''Roll a die.

        Takes:
            sides: how many it has.
        '''
        return f"{sides} at most"
    return [roll_die]
"""


async def test_a_tool_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dice.py").write_text("from xiaozhi.tools.tool import ToolContext\n" + DICE)
    monkeypatch.setattr(built_in, "__path__", [*built_in.__path__, str(tmp_path)])
    assert (await use("roll_die", sides=20)).result.text == "20 at most"
    assert not (await use("calculate", expression="1+1")).result.failed


async def test_the_lunar_calendar() -> None:
    today = (await use("get_calendar", "zh")).result.text
    assert "农历丙午年（马年）正月初一" in today and "春节" in today and "法定假日" in today
    english = (await use("get_calendar", "en")).result.text
    assert "year of the horse" in english and "Spring Festival" in english
    moon = (await use("get_calendar", "zh", lunar_date="2026-08-15")).result.text
    assert "2026年9月25日" in moon and "中秋节" in moon
    leap = (await use("get_calendar", "en", lunar_date="2025--06-01")).result.text
    assert "2025-07-25" in leap and "leap month 6" in leap
    coming = (await use("get_calendar", "zh", upcoming=True)).result.text
    assert "元宵节：2026年3月3日，星期二，还有14天" in coming


@pytest.mark.parametrize(
    "arguments", [{"date": "gestern"}, {"date": "1492-01-01"}, {"lunar_date": "2026-13-01"}, {"lunar_date": "x"}]
)
async def test_days_that_do_not_exist_are_said(arguments: dict[str, Any]) -> None:
    answer = await use("get_calendar", "zh", **arguments)
    assert answer.result.failed and answer.result.text.endswith("。")


@pytest.mark.parametrize(
    ("text", "zh", "en"),
    [
        ("3英里是多少公里", "3英里大约是4.83公里。", "3 miles is about 4.83 kilometres."),
        ("三斤等于多少克？", "3斤等于1500克。", "3 jin is 1500 grams."),
        ("零下十摄氏度等于多少华氏度", "-10摄氏度等于14华氏度。", "-10 degrees Celsius is 14 degrees Fahrenheit."),
        ("how many feet are in a mile", "1英里等于5280英尺。", "1 mile is 5280 feet."),
        ("Convert 2.5 kg to pounds.", "2.5公斤大约是5.51磅。", "2.5 kilograms is about 5.51 pounds."),
        ("三加五等于几", "等于8。", "That makes 8."),
        ("what is ten divided by three", "大约等于3.3333。", "That makes about 3.3333."),
        ("五除以零", "零不能做除数。", "Nothing can be divided by zero."),
    ],
)
def test_sums_and_units_need_no_model(text: str, zh: str, en: str) -> None:
    assert local_answer(text, "zh") == zh
    assert local_answer(text, "en") == en


@pytest.mark.parametrize(
    "text", ["今天天气怎么样", "三公斤等于多少米", "how are you", "", "5 apples to oranges", "x" * 5000]
)
def test_everything_else_is_left_to_the_model(text: str) -> None:
    assert local_answer(text, "zh") is None


@given(st.text(max_size=90))
def test_no_text_breaks_the_local_answer(text: str) -> None:
    local_answer(text, "zh")
    asked_conversion(text)


async def test_the_calculator_as_a_tool() -> None:
    assert (await use("calculate", expression="(3.5 + 2) * 12 / 7")).result.text == "9.4286"
    assert (await use("calculate", expression="2^9999")).result.failed
    assert (await use("calculate", expression="import os")).result.failed
    converted = await use("convert_units", value=100, from_unit="Fahrenheit", to_unit="摄氏度")
    assert converted.result.text == "100 degrees Fahrenheit is about 37.78 degrees Celsius."
    assert "not known" in (await use("convert_units", value=1, from_unit="parsec", to_unit="km")).result.text
    assert (await use("convert_units", value=1, from_unit="kg", to_unit="km")).result.failed


async def test_the_conversation_is_changed_through_its_hooks() -> None:
    house, talk = SharedTools(ToolsSettings()), Talk()
    box = house.toolbox(ToolContext(language="zh", conversation=talk))
    box.begin_turn("")
    answers = await box.run(
        [
            ToolCall("1", "change_agent", '{"name": "老师"}'),
            ToolCall("2", "change_agent", '{"name": "海盗"}'),
            ToolCall("3", "remember", '{"fact": " 他叫\\n小明 "}'),
            ToolCall("4", "remember", '{"fact": " "}'),
            ToolCall("5", "end_conversation", ""),
            ToolCall("6", "forget", "{}"),
        ]
    )
    assert talk.agent == "英语老师" and talk.facts == ["他叫 小明"]
    assert "小智、英语老师" in answers[1].result.text
    assert [each.result.failed for each in answers] == [False, True, False, True, False, True]
    assert answers[4].result.ends_conversation
    (gone,) = await box.run([ToolCall("7", "forget", '{"about": "小明"}')])
    assert gone.result.text == "忘掉了1件事。" and not talk.facts
    english = house.toolbox(ToolContext(language="en", conversation=talk))
    (kept,) = await english.run([ToolCall("8", "remember", '{"fact": "likes tea"}')])
    assert kept.result.text == "Remembered."
    assert "remember" not in [spec.name for spec in house.toolbox(ToolContext()).specs()]
    await house.close()


@pytest.mark.parametrize(
    ("at", "seconds", "due"),
    [
        ("", 90, NOW + timedelta(seconds=90)),
        ("07:30", 0, datetime(2026, 2, 18, 7, 30, tzinfo=BEIJING)),
        ("18:05", 0, datetime(2026, 2, 17, 18, 5, tzinfo=BEIJING)),
        ("2026-02-20T08:00", 0, datetime(2026, 2, 20, 8, 0, tzinfo=BEIJING)),
        ("2026-02-17T02:00:00+00:00", 0, datetime(2026, 2, 17, 2, 0, tzinfo=UTC)),
    ],
)
def test_when_a_reminder_is_due(at: str, seconds: int, due: datetime) -> None:
    assert due_time(at, seconds, NOW, "en") == due


@pytest.mark.parametrize(
    ("at", "seconds"),
    [("", 0), ("07:30", 5), ("2026-02-17T09:00", 0), ("tomorrow", 0), ("25:00", 0), ("2040-01-01T00:00", 0), (":", 0)],
)
def test_times_that_make_no_sense_are_said(at: str, seconds: int) -> None:
    with pytest.raises(ToolError):
        due_time(at, seconds, NOW, "zh")


def test_a_series_keeps_its_time_of_day() -> None:
    friday = datetime(2026, 2, 20, 7, 30)
    now = friday.timestamp() + 5
    assert datetime.fromtimestamp(next_due(friday.timestamp(), "daily", now)) == datetime(2026, 2, 21, 7, 30)
    assert datetime.fromtimestamp(next_due(friday.timestamp(), "weekdays", now)) == datetime(2026, 2, 23, 7, 30)
    assert datetime.fromtimestamp(next_due(friday.timestamp(), "weekly", now)) == datetime(2026, 2, 27, 7, 30)
    long_after = now + 86_400 * 10
    assert datetime.fromtimestamp(next_due(friday.timestamp(), "daily", long_after)) == datetime(2026, 3, 3, 7, 30)
    assert next_due(friday.timestamp(), "", now) == next_due(friday.timestamp(), "hourly", now) == 0


async def test_reminders_are_set_listed_and_cancelled_per_device() -> None:
    house = SharedTools(ToolsSettings(reminders=ReminderSettings(max_per_device=2)), book=MemoryBook(), ring=never)
    mine = house.toolbox(ToolContext(device_id="a", language="zh", now=lambda: NOW))
    other = house.toolbox(ToolContext(device_id="b", language="zh", now=lambda: NOW))

    async def use(name: str, **arguments: Any) -> str:
        mine.begin_turn("")
        (answer,) = await mine.run([ToolCall("1", name, json.dumps(arguments))])
        return answer.result.text

    assert await use("set_reminder", text="关火", in_seconds=600) == "已设好：#1 09:40 关火"
    assert await use("set_reminder", at="07:30", repeat="weekdays") == "已设好：#2 2026-02-18 07:30 工作日 计时器"
    assert "太多" in await use("set_reminder", in_seconds=60)
    assert await use("list_reminders") == "#1 09:40 关火\n#2 2026-02-18 07:30 工作日 计时器"
    assert "要取消哪一个" in await use("cancel_reminder")
    (foreign,) = await other.run([ToolCall("1", "cancel_reminder", '{"number": 1}')])
    assert foreign.result.text == "没有这个提醒。"
    assert await use("cancel_reminder", number=1) == "取消了1个提醒。"
    assert await use("cancel_reminder") == "取消了1个提醒。"
    assert await use("list_reminders") == "现在没有提醒。"
    await house.close()


class Bell:
    """Connected devices, and what they were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.away: set[str] = set()
        self.asked = asyncio.Condition()
        self.count = 0

    async def ring(self, reminder: Reminder) -> bool:
        self.count += 1
        there = reminder.device not in self.away
        if there:
            self.told.append((reminder.device, reminder.text))
        async with self.asked:
            self.asked.notify_all()
        return there

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10), self.asked:
            await self.asked.wait_for(lambda: self.count >= count)


class Running:
    """A reminder clock whose time stands still until it is set."""

    def __init__(self, book: Any, bell: Bell, now: float = 1000.0, late_s: float = 3600.0) -> None:
        self.now = now
        self.clock = ReminderClock(book, bell.ring, late_s=late_s, clock=lambda: self.now)

    async def __aenter__(self) -> "Running":
        self._task = asyncio.create_task(self.clock.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def at(self, now: float) -> None:
        self.now = now
        self.clock.changed()


async def test_a_reminder_rings_when_it_is_due_and_once() -> None:
    book, bell = MemoryBook(), Bell()
    await book.add("a", "tea", 1060.0)
    await book.add("a", "later", 2000.0)
    async with Running(book, bell) as running:
        running.at(1061.0)
        await bell.wait(1)
        running.at(1062.0)
    assert bell.told == [("a", "tea")]
    assert [each.text for each in await book.list()] == ["later"]
    assert running.clock.rung == 1


async def test_a_reminder_survives_a_restart_and_waits_for_its_device() -> None:
    book, bell = MemoryBook(), Bell()
    await book.add("a", "tea", 1060.0)
    await book.add("b", "milk", 1061.0)
    bell.away.add("a")
    async with Running(book, bell, now=2000.0) as running:
        await bell.wait(2)
        assert bell.told == [("b", "milk")]
        bell.away.clear()
        running.clock.connected("a")
        await bell.wait(3)
    assert bell.told == [("b", "milk"), ("a", "tea")]
    assert await book.list() == []


async def test_a_reminder_set_by_voice_rings_after_a_restart_from_the_real_store(tmp_path: Path) -> None:
    bell = Bell()
    store = await Store.open(tmp_path / "xiaozhi.db")
    house = SharedTools(ToolsSettings(), book=store.reminders, ring=bell.ring)
    box = house.toolbox(ToolContext(device_id="02:00:00:11:22:33", language="zh"))
    (answer,) = await box.run([ToolCall("1", "set_reminder", '{"text": "关火", "in_seconds": 600}')])
    assert "关火" in answer.result.text
    await house.close()
    await store.close()

    store = await Store.open(tmp_path / "xiaozhi.db")
    (kept,) = await store.reminders.list()
    async with Running(store.reminders, bell, now=kept.due_at + 1):
        await bell.wait(1)
    assert bell.told == [("02:00:00:11:22:33", "关火")]
    await store.close()


async def test_a_series_comes_again_and_what_is_far_too_late_is_dropped() -> None:
    book, bell = MemoryBook(), Bell()
    await book.add("a", "wake up", 1000.0, repeat="daily")
    await book.add("a", "long gone", 10.0)
    async with Running(book, bell, now=1001.0, late_s=60.0) as running:
        await bell.wait(1)
    assert bell.told == [("a", "wake up")] and running.clock.missed == 1
    (again,) = await book.list()
    assert again.due_at == pytest.approx(1000.0 + 86_400, abs=7200)


async def test_a_book_or_a_device_that_fails_does_not_end_the_clock() -> None:
    class Failing(MemoryBook):
        fails = True

        async def list(self, device_id: str = "", *, done: bool = False) -> list[Reminder]:
            if self.fails:
                raise OSError("disk")
            return await super().list(device_id, done=done)

    book, bell = Failing(), Bell()
    await book.add("a", "tea", 1.0)
    async with Running(book, bell) as running:
        await asyncio.sleep(0)
        book.fails = False
        running.at(1001.0)
        await bell.wait(1)
    assert bell.told == [("a", "tea")]


def test_what_a_device_says_when_a_reminder_is_due() -> None:
    reminder = Reminder(1, "a", "关火", 1000.0)
    assert spoken_reminder(reminder, 1001.0, "zh") == "提醒你：关火。"
    assert spoken_reminder(reminder, 9000.0, "zh").startswith("刚才你不在的时候")
    assert spoken_reminder(Reminder(1, "a", "", 1000.0), 1001.0, "en") == "Your time is up."
