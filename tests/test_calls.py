"""Calls from one device to another, through real sockets: one by WebSocket, one by MQTT."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.mqtt_device import MqttDevice
from bench.sense_voice_model import build_tiny
from tests.house import House, question
from tests.test_mqtt_devices import kinds, mqtt_house, sleeping
from tests.test_tool_turns import call, in_pieces
from xiaozhi.client.device import Device
from xiaozhi.client.manners import DeviceState
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.transport.calls import _HANG_UP, _NO, _YES, says

ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"
WISH = "call the kitchen"
SPEECH = SpokenUtterance.encode(question(), 60)


@asynccontextmanager
async def calling_house(folder: Path, heard: str, **push: Any) -> AsyncIterator[House]:
    """Whatever is said there is understood as `heard`; the model calls the kitchen when it is asked to."""
    build_tiny(folder / "sense-voice", heard)
    async with mqtt_house(folder, "🙂 It rings.", push={"calls": True, **push}) as home:
        home.chat.tool_pieces = lambda messages: (
            in_pieces((call("call_device", device="kitchen"),)) if messages[-1].get("content") == WISH else []
        )
        await home.server.services.store.devices.update(ONE, name="Hall")
        await home.server.services.store.devices.update(TWO, name="Kitchen")
        yield home


def shown(device: Device) -> list[str]:
    return [message["text"] for message in kinds(device, "tts") if message["state"] == "sentence_start"]


async def until_shown(device: Device, text: str) -> None:
    await device.until(lambda: any(text in one for one in shown(device)), 60)


async def until_listening(device: Device) -> None:
    await device.until(lambda: device.manners.state is DeviceState.LISTENING and device.manners.settled, 60)


async def connected(caller: Device, callee: MqttDevice) -> None:
    """Have the call asked for, and taken by voice."""
    callee.listen()
    assert (await caller.turn_text(WISH)).answered
    await until_shown(callee, "Hall is calling.")
    await until_shown(callee, "Will you take it?")
    await until_listening(callee)
    callee.say(SPEECH)
    for device in (caller, callee):
        await until_shown(device, "You are connected.")
        await until_listening(device)


async def says_to(speaker: Device, listener: Device) -> None:
    """What one says is heard by the other: the very packets."""
    before = len(listener.manners.speaker.playback.heard)
    speaker.say(SPEECH)
    await listener.until(lambda: listener.manners.state is DeviceState.SPEAKING, 20)
    await until_listening(listener)
    heard = [one.packet for one in listener.manners.speaker.playback.heard[before:]]
    said = SPEECH.packets
    assert len([opus for opus in heard if opus in said]) > 0.7 * len(said)


async def test_who_is_called_takes_it_and_both_hear_each_other_until_a_key_is_pressed(tmp_path: Path) -> None:
    async with calling_house(tmp_path, "yes please") as home, home.device() as caller, sleeping(home, 2) as callee:
        await callee.open_channel()
        await connected(caller, callee)
        await says_to(caller, callee)
        await says_to(callee, caller)
        await says_to(caller, callee)
        assert len(home.asked) <= 2, "no model hears what is said in a call"
        callee.say(SPEECH)
        await caller.until(lambda: caller.manners.state is DeviceState.SPEAKING, 20)
        caller.abort()
        for device in (caller, callee):
            await until_shown(device, "The call is over.")
            await until_listening(device)
        assert (await caller.turn(question())).text == "It rings."


async def test_saying_goodbye_hangs_up(tmp_path: Path) -> None:
    async with calling_house(tmp_path, "yes goodbye") as home, home.device() as caller, sleeping(home, 2) as callee:
        await callee.open_channel()
        await connected(caller, callee)
        caller.say(SPEECH)
        await until_shown(callee, "The call is over.")
        assert caller.connected


async def test_a_device_that_goes_away_ends_the_call(tmp_path: Path) -> None:
    async with calling_house(tmp_path, "yes") as home, home.device() as caller, sleeping(home, 2) as callee:
        await callee.open_channel()
        await connected(caller, callee)
        await callee.close_channel()
        await until_shown(caller, "The call is over.")
        await until_listening(caller)
        assert not home.server.http.calls._calling


@pytest.mark.parametrize("heard", ["no not now", "what time is it"])
async def test_who_does_not_say_yes_is_left_in_peace(tmp_path: Path, heard: str) -> None:
    async with calling_house(tmp_path, heard) as home, home.device() as caller, home.device(2) as callee:
        callee.listen()
        assert (await caller.turn_text(WISH)).answered
        await until_shown(callee, "Will you take it?")
        await until_listening(callee)
        callee.say(SPEECH)
        await asyncio.sleep(8.0)
        callee.say(SPEECH)
        await until_shown(caller, "The call was not taken.")
        assert not home.server.http.calls.taken
        assert "You are connected." not in shown(callee)


async def test_a_sleeping_device_rings_and_takes_the_call_when_it_is_woken(tmp_path: Path) -> None:
    async with calling_house(tmp_path, "yes") as home, home.device() as caller, sleeping(home, 2) as callee:
        assert (await caller.turn_text(WISH)).answered
        await asyncio.sleep(8.0)
        (ringing,) = callee.notifications
        assert ringing.text == "Hall is calling. Wake me to answer."
        await callee.open_channel()
        callee.listen()
        await until_shown(callee, "Will you take it?")
        await until_listening(callee)
        callee.say(SPEECH)
        await until_shown(caller, "You are connected.")


async def test_nobody_is_called_in_quiet_hours_or_under_a_wrong_name(tmp_path: Path) -> None:
    now = datetime.now()
    span = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    async with calling_house(tmp_path, "yes", quiet_hours=span) as home, home.device(), home.device(2):
        calls = home.server.http.calls
        assert await calls.call(ONE, "kitchen", "en") == "These are quiet hours."
        assert await calls.call(ONE, "cellar", "en") == "No connected device is called so."
        assert await calls.call(ONE, "hall", "zh") == "不能呼叫自己。"
        assert not calls._calling


@pytest.mark.parametrize("name", ["kitchen", TWO])
async def test_only_devices_of_one_owner_call_each_other(tmp_path: Path, name: str) -> None:
    async with calling_house(tmp_path, "yes") as home, home.device(), home.device(2):
        calls, devices = home.server.http.calls, home.server.services.store.devices
        for caller, callee in (("Lin", "Wu"), ("", "Wu"), ("Lin", ""), ("Wu", "Wu")):
            await devices.update(ONE, owner=caller)
            await devices.update(TWO, owner=callee)
            refusal = await calls.call(ONE, name, "en")
            assert refusal == ("" if caller == callee else "No connected device is called so.")


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("Yes, please!", _YES, True),
        ("I know", _NO, False),
        ("No.", _NO, True),
        ("好的，接吧", _YES, True),
        ("不接", _NO, True),
        ("Hang up, please.", _HANG_UP, True),
        ("帮我挂断电话", _HANG_UP, True),
        ("the change", _HANG_UP, False),
    ],
)
def test_words_are_found_in_what_was_said(text: str, words: tuple[str, ...], found: bool) -> None:
    assert says(text, words) is found
