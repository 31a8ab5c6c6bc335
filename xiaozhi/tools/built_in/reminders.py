"""Timers, alarms and reminders by voice; the model works out the time, here it is checked and written down."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import Field

from xiaozhi.store.notes import Reminder
from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.reminder_clock import Repeat
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.wording import pick, shortened

_MAX_AHEAD: Final = timedelta(days=366 * 5)
_MAX_TEXT_CHARS: Final = 200
_ALARM: Final = re.compile(r"闹钟|起床|叫醒|醒来|计时|倒计时|\b(?:alarm|timer|wake|get up)", re.IGNORECASE)


def due_time(at: str, in_seconds: int, now: datetime, language: str) -> datetime:
    """When a reminder is due.

    Args:
        at: ISO date and time, or only a time (`07:30`, the next one is meant); without a zone in that of `now`.
        in_seconds: from now, when `at` is empty.
        now: the user's time, with its zone.
        language: of the sentences of errors.

    Raises:
        ToolError: neither or both are given, it makes no sense, has passed, or is years away.
    """
    if bool(at) == bool(in_seconds):
        raise ToolError(pick(language, "请说明什么时候提醒。", "Give either `at` or `in_seconds`."))
    due = now + timedelta(seconds=in_seconds) if in_seconds else _parsed(at.strip(), now, language)
    if due <= now:
        raise ToolError(
            pick(language, "这个时间已经过去了。", f"That time has passed; it is {now:%Y-%m-%dT%H:%M} now.")
        )
    if due - now > _MAX_AHEAD:
        raise ToolError(pick(language, "这个时间太远了。", "That is too many years ahead."))
    return due


def tools(host: ToolHost) -> list[Tool]:
    """`set_reminder`, `list_reminders`, `cancel_reminder`; none where nothing could ring."""
    if host.reminders is None:
        return []
    clock, book, max_reminders = host.reminders, host.reminders.book, host.settings.reminders.max_per_device

    @tool()
    async def set_reminder(
        context: ToolContext,
        text: str = "",
        in_seconds: Annotated[int, Field(ge=0, le=int(_MAX_AHEAD.total_seconds()))] = 0,
        at: str = "",
        repeat: Repeat = "",
    ) -> str:
        """Set a timer, an alarm or a reminder; it is spoken on this device when it is due.

        Takes:
            text: what to be reminded of, in the user's words; empty for a plain timer or alarm.
            in_seconds: time from now, for timers.
            at: instead of in_seconds, local date and time as YYYY-MM-DDTHH:MM, or HH:MM for the next such time.
            repeat: daily, weekdays (Monday to Friday) or weekly; empty for once.
        """
        language = context.language
        now = context.now()
        due = due_time(at, in_seconds, now, language)
        if len(await book.list(context.device_id)) >= max_reminders:
            raise ToolError(
                pick(language, "提醒太多了，请先取消几个。", "There are too many reminders already; cancel some first.")
            )
        kept = await book.add(
            context.device_id, shortened(text.strip(), _MAX_TEXT_CHARS), due.timestamp(), repeat=repeat
        )
        clock.changed()
        return pick(language, "已设好：", "Set: ") + reminder_text(kept, now, language)

    @tool(repeats=True)
    async def list_reminders(context: ToolContext) -> str:
        """List the timers, alarms and reminders that are to come on this device, with their numbers."""
        kept = await book.list(context.device_id)
        if not kept:
            return pick(context.language, "现在没有提醒。", "There are no reminders.")
        now = context.now()
        return "\n".join(reminder_text(each, now, context.language) for each in kept)

    @tool()
    async def cancel_reminder(context: ToolContext, number: int = 0, all: bool = False) -> str:
        """Cancel one timer, alarm or reminder, or all of them.

        Takes:
            number: as list_reminders gives it; 0 when there is only one.
            all: cancel every one.
        """
        language = context.language
        kept = await book.list(context.device_id)
        wanted = [each for each in kept if all or each.id == number or (not number and len(kept) == 1)]
        if not wanted:
            if kept and not number:
                choice = "\n".join(reminder_text(each, context.now(), language) for each in kept)
                raise ToolError(pick(language, "要取消哪一个？", "Which one? ") + choice)
            raise ToolError(pick(language, "没有这个提醒。", "There is no such reminder."))
        gone = [each for each in wanted if await book.remove(context.device_id, each.id)]
        clock.changed()
        return pick(language, f"取消了{len(gone)}个提醒。", f"Cancelled {len(gone)} of them.")

    return [set_reminder, list_reminders, cancel_reminder]


def reminder_text(reminder: Reminder, now: datetime, language: str) -> str:
    """One reminder in a line: number, time, what."""
    due = datetime.fromtimestamp(reminder.due_at, now.tzinfo)
    when = f"{due:%H:%M}" if due.date() == now.date() else f"{due:%Y-%m-%d %H:%M}"
    if (due - now).total_seconds() < 120:
        when = f"{due:%H:%M:%S}"
    chinese = is_chinese(language)
    again = {"daily": "每天", "weekdays": "工作日", "weekly": "每周"} if chinese else {}
    repeat = again.get(reminder.repeat, reminder.repeat)
    parts = [f"#{reminder.id}", when, repeat, reminder.text or pick(language, "计时器", "timer")]
    return " ".join(part for part in parts if part)


def is_alarm(reminder: Reminder) -> bool:
    """Whether it is to wake or to fetch somebody, so that it should ring until they react: a timer, an alarm."""
    return not reminder.text or _ALARM.search(reminder.text) is not None


def spoken_reminder(reminder: Reminder, now: float, language: str) -> str:
    """What a device says when a reminder is due, or was due while it was away (`now` in seconds since 1970)."""
    late = now - reminder.due_at > 120
    if is_chinese(language):
        what = f"提醒你：{reminder.text}。" if reminder.text else "时间到了。"
        return (
            f"刚才你不在的时候，有一个{datetime.fromtimestamp(reminder.due_at):%H:%M}的提醒。{what}" if late else what
        )
    what = f"Here is your reminder: {reminder.text}." if reminder.text else "Your time is up."
    return f"While you were away, at {datetime.fromtimestamp(reminder.due_at):%H:%M}: {what}" if late else what


def _parsed(at: str, now: datetime, language: str) -> datetime:
    try:
        if "-" not in at and ":" in at:
            hour, minute, *seconds = (int(part) for part in at.split(":"))
            due = now.replace(hour=hour, minute=minute, second=seconds[0] if seconds else 0, microsecond=0)
            return due if due > now else due + timedelta(days=1)
        due = datetime.fromisoformat(at)
    except ValueError:
        raise ToolError(
            pick(language, "我没听懂这个时间。", f"{at[:40]!r} is no time; write YYYY-MM-DDTHH:MM or HH:MM.")
        ) from None
    return due if due.tzinfo else due.replace(tzinfo=now.tzinfo)
