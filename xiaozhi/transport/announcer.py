"""Says on connected devices what nobody there has asked for now: announcements, reminders, alarms."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final
from zoneinfo import ZoneInfo

from xiaozhi.conversation.saying import Told
from xiaozhi.conversation.services import Services
from xiaozhi.settings.push import minutes_of
from xiaozhi.store import DeviceRecord
from xiaozhi.store.notes import Reminder
from xiaozhi.text.language import language_of
from xiaozhi.tools.built_in.reminders import is_alarm, spoken_reminder
from xiaozhi.tools.built_in.volume import set_volume, turned
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.transport.notifications import Notifications
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)

# Somebody who has just woken a device is about to speak: what waits for it must not take the microphone away.
GRACE_S: Final = 3.0
_TRY_AGAIN_S: Final = 0.5
# A voice that fails is given time to come back, and given up in the end.
_AFTER_DROP_S: Final = 2.0
_MAX_DROPS: Final = 5
_VOICE_BACK_S: Final = 60.0
# How long the first sound of a sentence may take; nobody waits for it.
_SOUND_S: Final = 10.0


class AnnouncementOutcome(Enum):
    """What became of an announcement on one device."""

    SPOKEN = "spoken"
    INTERRUPTED = "interrupted"
    SHOWN = "shown"  # on the screen of a device that sleeps, whose firmware plays nothing then
    BUSY = "busy"  # somebody was talking there all the time
    OFFLINE = "not connected"
    UNKNOWN = "unknown device"
    QUIET = "quiet hours"
    FULL = "too many announcements wait"
    FAILED = "no voice"


_HEARD: Final = frozenset({AnnouncementOutcome.SPOKEN, AnnouncementOutcome.INTERRUPTED})
_OUTCOMES: Final[Mapping[Told, AnnouncementOutcome]] = {
    Told.SPOKEN: AnnouncementOutcome.SPOKEN,
    Told.INTERRUPTED: AnnouncementOutcome.INTERRUPTED,
    Told.SHOWN: AnnouncementOutcome.SHOWN,
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """What to say where.

    Attributes:
        text: what to say; an emoji at its beginning is the face that goes with it.
        devices: ids or names; empty for every device that is connected.
        volume: 0 to 100 for this announcement, where the device lets its volume be set; None leaves it.
        language: of a text that does not show its own.
        urgent: in quiet hours, too.
        patience_s: how long to wait while somebody talks there; None for that of the settings.
        without: the id of a device that is left out.
    """

    text: str
    devices: Sequence[str] = ()
    volume: int | None = None
    language: str = ""
    urgent: bool = False
    patience_s: float | None = None
    without: str = ""


def is_quiet(span: str, now: datetime) -> bool:
    """Whether the time of day of `now` lies in a span such as `22:00-07:00`; never in an empty one. Pure."""
    minutes = minutes_of(span)
    if minutes is None:
        return False
    begin, end = minutes
    at = now.hour * 60 + now.minute
    return begin <= at < end if begin <= end else at >= begin or at < end


class Announcer:
    """One per process. What it says on one device is said in turn, when nobody talks there.

    Args:
        services: the settings, the store, the reminders.
        devices: the connected devices.
        notifications: speaks to those that sleep.
        grace_s: what waits for a device that connects is said no sooner than this after it has.
    """

    def __init__(
        self, services: Services, devices: ConnectedDevices, notifications: Notifications, *, grace_s: float = GRACE_S
    ) -> None:
        self._services = services
        self._devices = devices
        self._notifications = notifications
        self._grace_s = grace_s
        self._turns: dict[str, asyncio.Lock] = {}  # who speaks next, of devices where something waits
        self._waiting: dict[str, int] = {}
        self._alarms: dict[str, asyncio.Task[None]] = {}
        self.spoken = 0
        """Announcements and reminders that were heard, at least in part."""
        self.unspoken = 0
        """Those that were not."""
        self.outcomes: Counter[AnnouncementOutcome] = Counter()
        """What became of announcements, counted for each device they were meant for."""
        services.ring = self.ring
        services.announce = self.announce_for_tool
        services.on_turn.append(self._reacted)
        devices.on_connect.append(self._connected)

    async def close(self) -> None:
        """End alarms that ring again and again."""
        alarms = list(self._alarms.values())
        for task in alarms:
            task.cancel()
        await asyncio.gather(*alarms, return_exceptions=True)

    # Announcements ------------------------------------------------------------------------------------------------

    async def announce(self, announcement: Announcement) -> dict[str, AnnouncementOutcome]:
        """Say something on one, several or all connected devices; returns what became of it on each, by its id.

        Raises:
            StoreError: the names of devices cannot be read.
        """
        targets = await self._targets(announcement)
        told = await asyncio.gather(*(self._announce_on(device, announcement) for device in targets.values()))
        outcomes = dict(zip(targets, told, strict=True))
        self.outcomes.update(told)
        _log.info("announced on %d of %d devices", sum(one in _HEARD for one in told), len(told))
        return outcomes

    async def announce_for_tool(self, text: str, devices: Sequence[str], without: str) -> Mapping[str, str]:
        """As `announce`, by names; for `xiaozhi.tools.built_in.announce`."""
        outcomes = await self.announce(Announcement(text, devices, without=without))
        named = {device.id: device.label for device in await self._services.store.devices.list()}
        return {named.get(name, name): outcome.value for name, outcome in outcomes.items()}

    async def _targets(self, announcement: Announcement) -> dict[str, str | AnnouncementOutcome]:
        """The devices that are meant: their ids, or why not."""
        if not announcement.devices:
            return {name: name for name in sorted(self._devices.online()) if name != announcement.without}
        known = await self._services.store.devices.list()
        return {name: id_of(name, known, self._devices.online()) for name in announcement.devices}

    async def _announce_on(self, device: str | AnnouncementOutcome, announcement: Announcement) -> AnnouncementOutcome:
        if isinstance(device, AnnouncementOutcome):
            return device
        settings = self._services.settings
        zone = ZoneInfo(settings.server.timezone) if settings.server.timezone else None
        if not announcement.urgent and is_quiet(settings.push.quiet_hours, datetime.now(zone)):
            return AnnouncementOutcome.QUIET
        patience_s = settings.push.patience_s if announcement.patience_s is None else announcement.patience_s
        until = asyncio.get_running_loop().time() + patience_s
        return await self._speak(device, announcement.text, announcement.language, until, volume=announcement.volume)

    # Reminders ----------------------------------------------------------------------------------------------------

    async def ring(self, reminder: Reminder) -> bool:
        """Say a reminder on its device, as soon as nobody talks there; False when it was not heard.

        For `ReminderClock`: a reminder is done only when this says so, which is when it was heard; what a device could
        only show is said when somebody talks to it next. An alarm rings again until somebody says something.
        """
        if reminder.device not in self._devices.online():
            return False
        device = self._devices.find(reminder.device)
        if device is not None:
            await asyncio.sleep(max(0.0, self._grace_s - device.age_s))
            language = device.language
        else:
            usual = "en" if self._services.settings.asr.language == "en" else "zh"
            language = language_of(reminder.text, default=usual)
        text = spoken_reminder(reminder, time.time(), language)
        outcome = await self._speak(reminder.device, text, "", float("inf"), urgent=True)
        if outcome is AnnouncementOutcome.SPOKEN and is_alarm(reminder) and self._services.settings.push.alarm_repeats:
            self._again(reminder.device, text)
        _log.info("reminder: %s", outcome.value, extra={"device": reminder.device})
        if outcome is AnnouncementOutcome.FAILED:  # the device is there, only its voice is not: once more after a while
            asyncio.get_running_loop().call_later(_VOICE_BACK_S, self._connected, reminder.device)
        return outcome in _HEARD

    def _again(self, device_id: str, text: str) -> None:
        if (before := self._alarms.get(device_id)) is not None:
            before.cancel()
        task = asyncio.get_running_loop().create_task(self._ring_on(device_id, text), name=f"alarm-{device_id}")
        self._alarms[device_id] = task
        task.add_done_callback(lambda done: self._silent(device_id, done))

    def _silent(self, device_id: str, alarm: "asyncio.Task[None]") -> None:
        if self._alarms.get(device_id) is alarm:
            del self._alarms[device_id]

    async def _ring_on(self, device_id: str, text: str) -> None:
        push = self._services.settings.push
        for _ in range(push.alarm_repeats):
            await asyncio.sleep(push.alarm_every_s)
            until = asyncio.get_running_loop().time() + push.alarm_every_s
            if await self._speak(device_id, text, "", until, urgent=True) is not AnnouncementOutcome.SPOKEN:
                return  # somebody has pressed a key, talks there, or the device is gone

    def _reacted(self, device_id: str, _trace: TurnTrace) -> None:
        """Somebody has said something: they have heard the alarm."""
        if (alarm := self._alarms.get(device_id)) is not None:
            alarm.cancel()

    def _connected(self, device_id: str) -> None:
        if self._services.tools.reminders is not None:
            self._services.tools.reminders.connected(device_id)

    # Speaking -----------------------------------------------------------------------------------------------------

    async def _speak(
        self, device_id: str, text: str, language: str, until: float, *, volume: int | None = None, urgent: bool = False
    ) -> AnnouncementOutcome:
        """Say a text on one device, behind what waits there already, as soon as nobody talks.

        Args:
            device_id: where.
            text: what.
            language: of a text that does not show its own; the user's when empty.
            until: when to give up, on the loop's clock.
            volume: for this text.
            urgent: it waits however many wait already.
        """
        if not urgent and self._waiting.get(device_id, 0) >= self._services.settings.push.max_waiting:
            return AnnouncementOutcome.FULL
        turn = self._turns.setdefault(device_id, asyncio.Lock())
        self._waiting[device_id] = self._waiting.get(device_id, 0) + 1
        outcome = AnnouncementOutcome.BUSY
        try:
            async with turn:
                outcome = await self._speak_now(device_id, text, language, until, volume)
        finally:
            self._waiting[device_id] -= 1
            if not self._waiting[device_id]:
                del self._waiting[device_id], self._turns[device_id]
            self.spoken += outcome in _HEARD
            self.unspoken += outcome not in _HEARD
        return outcome

    async def _speak_now(
        self, device_id: str, text: str, language: str, until: float, volume: int | None
    ) -> AnnouncementOutcome:
        loop = asyncio.get_running_loop()
        drops = 0
        before: int | None = None
        try:
            while True:
                if device_id not in self._devices.online():
                    return AnnouncementOutcome.OFFLINE
                told = Told.REFUSED
                device, sleeper = self._devices.find(device_id), self._devices.asleep(device_id)
                free = sleeper if device is None or device.busy else device
                if free is not None and volume is not None and before is None:
                    before = await turned(free.tools, volume)
                if device is not None and not device.busy:
                    told = await device.say(text, _SOUND_S, language=language, interruptible=False)
                elif sleeper is not None:
                    told = await self._notifications.speak(sleeper, text, language)
                if told in _OUTCOMES:
                    return _OUTCOMES[told]
                drops += told is Told.DROPPED
                if drops >= _MAX_DROPS:
                    return AnnouncementOutcome.FAILED
                if loop.time() >= until:
                    return AnnouncementOutcome.BUSY
                await asyncio.sleep(_AFTER_DROP_S if told is Told.DROPPED else _TRY_AGAIN_S)
        finally:
            if before is not None and volume is not None and before >= 0:
                there = self._devices.find(device_id) or self._devices.asleep(device_id)
                if there is not None:
                    await set_volume(there.tools, before)


def id_of(name: str, known: Sequence[DeviceRecord], online: frozenset[str]) -> str | AnnouncementOutcome:
    """The id of a device that is called so; guests of the console have only an id."""
    wanted = name.strip().casefold()
    if wanted in online:
        return wanted
    found = [device for device in known if wanted and wanted in (device.id.casefold(), device.name.casefold())]
    found = found or [device for device in known if wanted and wanted == device.room.casefold()]
    if len(found) != 1:
        return AnnouncementOutcome.UNKNOWN
    return found[0].id if found[0].id in online else AnnouncementOutcome.OFFLINE
