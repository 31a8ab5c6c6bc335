"""What reaches a device that sleeps: announcements and reminders by way of a file that it fetches."""

import asyncio
import time
from pathlib import Path

import aiohttp

from bench.mqtt_device import MqttDevice
from tests.console_browser import CONSOLE, browser, set_password
from tests.house import House, question
from tests.test_mqtt_devices import kinds, mqtt_house, sleeping
from tests.test_push import ONE, TOKEN, announce, announcer
from tests.test_tool_turns import call, in_pieces
from xiaozhi.client.manners import DeviceState
from xiaozhi.transport.announcer import Announcement, AnnouncementOutcome

PUSH = {"token": TOKEN}
WISH = "remind me to feed Momo in ten seconds"


def old_firmware(device: MqttDevice) -> None:
    """Firmware that knows no `notify`."""
    device.notified = lambda message: None  # type: ignore[method-assign] # an older one


async def test_a_sleeping_device_says_an_announcement_and_its_words_are_shown(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, push=PUSH) as home, sleeping(home) as device:
        await home.server.services.store.devices.update(ONE, name="Kitchen")
        body = {"text": "🙂 Dinner is ready. Come down.", "devices": ["kitchen"]}
        assert await announce(home, body) == (200, {"results": {"kitchen": "spoken"}})
        (notification,) = device.notifications
        assert notification.played
        assert notification.text == "Dinner is ready. Come down."
        assert notification.subtitles[0][0] == 0.0
        assert not kinds(device, "tts"), "without a channel it would be stranded"
        assert device.manners.state is DeviceState.IDLE
        assert home.asked == [], "no model is asked"


async def test_announcements_wait_for_each_other_and_reach_the_awake_and_the_sleeping(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, push=PUSH) as home, sleeping(home) as device, home.device(2) as awake:
        saying = [asyncio.create_task(announce(home, {"text": f"Number {n}.", "all": True})) for n in range(3)]
        for status, body in await asyncio.gather(*saying):
            assert status == 200
            assert set(body["results"].values()) == {"spoken"}
        assert [one.text for one in device.notifications] == ["Number 0.", "Number 1.", "Number 2."]
        assert all(one.played for one in device.notifications)
        assert len(kinds(awake, "tts")) > 3


async def test_older_firmware_is_shown_what_it_cannot_play_and_the_answer_says_so(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, push=PUSH) as home, sleeping(home) as device:
        old_firmware(device)
        assert (await announce(home, {"text": "Dinner is ready.", "all": True}))[1] == {"results": {ONE: "shown"}}
        (alert,) = kinds(device, "alert")
        assert alert == {
            "type": "alert",
            "status": "Notice",
            "message": "Dinner is ready.",
            "emotion": "neutral",
        }


async def test_a_file_is_there_once_and_for_nobody_who_guesses(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, push=PUSH) as home, sleeping(home) as device:
        await announce(home, {"text": "Dinner is ready.", "all": True})
        url = device.notifications[0].url
        async with aiohttp.ClientSession() as session:
            for address in (url, url.replace(".ogg", "x.ogg")):
                async with session.get(address) as response:
                    assert response.status == 404


async def test_who_wakes_the_device_meanwhile_interrupts_it(tmp_path: Path) -> None:
    text = "This is a long announcement. " * 10
    async with mqtt_house(tmp_path, push=PUSH) as home, sleeping(home) as device:
        told = asyncio.create_task(announcer(home).announce(Announcement(text)))
        await asyncio.sleep(3.0)
        assert device.manners.state is DeviceState.NOTIFYING
        await device.open_channel()
        assert await told == {ONE: AnnouncementOutcome.INTERRUPTED}


async def test_a_device_that_is_asleep_lets_its_volume_be_set(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, push=PUSH) as home, sleeping(home) as device:
        await asyncio.sleep(31.0)  # by then it was asked for its tools
        assert await announcer(home).announce(Announcement("Loud.", volume=90)) == {ONE: AnnouncementOutcome.SPOKEN}
        assert [one for one in device.tools.calls if one[0].endswith("set_volume")] == [
            ("self.audio_speaker.set_volume", {"volume": 90}),
            ("self.audio_speaker.set_volume", {"volume": 70}),
        ]


# Reminders ------------------------------------------------------------------------------------------------------------


async def set_reminder(home: House, device: MqttDevice) -> None:
    """By voice, in a conversation; then the device sleeps."""
    home.chat.tool_pieces = lambda messages: (
        in_pieces((call("set_reminder", text="feed Momo", in_seconds=10),)) if messages[-1]["role"] == "user" else []
    )
    await device.open_channel()
    assert (await device.turn(question())).answered
    await device.close_channel()


async def test_a_reminder_set_by_voice_rings_on_the_sleeping_device(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, sleeping(home) as device:
        await set_reminder(home, device)
        await asyncio.sleep(20.0)
        (notification,) = device.notifications
        assert "feed Momo" in notification.text
        assert notification.played
        assert not await home.server.services.store.reminders.list()


async def test_a_reminder_rings_on_a_sleeping_device_after_the_server_was_started_again(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, sleeping(home) as device:
        await set_reminder(home, device)
    async with mqtt_house(tmp_path) as home:
        await asyncio.sleep(15.0)
        async with sleeping(home) as device:
            await asyncio.sleep(15.0)
            (notification,) = device.notifications
            assert notification.played
            assert "feed Momo" in notification.text
            assert not await home.server.services.store.reminders.list()


async def test_a_reminder_that_was_only_shown_is_said_when_somebody_talks_to_the_device(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, sleeping(home) as device:
        old_firmware(device)
        await home.server.services.store.reminders.add(ONE, "feed Momo", time.time() + 1.0)
        clock = home.server.services.tools.reminders
        assert clock is not None
        clock.changed()
        await asyncio.sleep(40.0)
        (alert,) = kinds(device, "alert")
        assert "feed Momo" in alert["message"]
        assert await home.server.services.store.reminders.list()
        await device.open_channel()
        device.listen()
        await device.until(lambda: any("feed Momo" in str(one.get("text")) for one in kinds(device, "tts")), 30)
        await asyncio.sleep(20.0)
        assert not await home.server.services.store.reminders.list()


async def test_the_console_has_a_sleeping_device_say_something_and_hangs_it_up(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with mqtt_house(tmp_path, console=CONSOLE) as home, sleeping(home) as device, browser(home.server) as page:
        assert await page.call("POST", f"devices/{ONE}/say", {"text": "Dinner is ready."}) == (200, {"told": "spoken"})
        assert device.notifications[0].played
        await home.server.services.store.devices.seen(ONE)
        assert (await page.call("PATCH", f"devices/{ONE}", {"blocked": True}))[0] == 200
        await asyncio.sleep(0.5)
        assert not device.online
