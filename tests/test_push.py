"""What is said on devices from outside: announcements, reminders, alarms."""

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.house import House, house, question
from tests.test_missed_turns import break_recognition
from tests.test_tool_turns import call, in_pieces
from xiaozhi.access.own_token import PUSH_TOKEN, made_token, read_token
from xiaozhi.client.device import Device
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.settings import PushSettings, Settings
from xiaozhi.store.notes import Reminder
from xiaozhi.text.messages import message
from xiaozhi.tools.built_in.reminders import is_alarm
from xiaozhi.transport.announcer import Announcement, AnnouncementOutcome, Announcer, is_quiet

TOKEN = "a-token-of-sixteen-or-more"
ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"
LONG = "🙂 " + "".join(f"This is sentence number {n} of a long reply. " for n in range(1, 4))


def shown(device: Device) -> list[str]:
    """The subtitles so far."""
    return [message["text"] for _, message in device.received if message.get("state") == "sentence_start"]


def announcer(home: House, grace_s: float = 0.0) -> Announcer:
    bell = home.server.http.announcer
    bell._grace_s = grace_s
    return bell


@asynccontextmanager
async def home_with_push(folder: Path, answer: str = "🙂 Yes.", **push: Any) -> AsyncIterator[House]:
    async with house(folder, answer, push={"token": TOKEN, **push}) as home:
        announcer(home)
        yield home


async def announce(home: House, body: Any, token: str = TOKEN) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{home.server.port}/api/announce"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


# Announcements --------------------------------------------------------------------------------------------------------


async def test_one_several_or_all_connected_devices_say_it(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home, home.device() as one, home.device(2) as two:
        await home.server.services.store.devices.update(TWO, name="Kitchen")
        assert await announce(home, {"text": "Dinner is ready.", "all": True}) == (
            200,
            {"results": {ONE: "spoken", TWO: "spoken"}},
        )
        status, body = await announce(home, {"text": "Only you.", "devices": ["kitchen", ONE.upper(), "attic"]})
        assert (status, body["results"]) == (
            200,
            {"kitchen": "spoken", ONE.upper(): "spoken", "attic": "unknown device"},
        )
        assert shown(one) == shown(two) == ["Dinner is ready.", "Only you."]
        assert home.asked == [], "no model is asked"


async def test_a_device_that_is_known_but_away_is_told_apart(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home:
        await home.server.services.store.devices.seen(ONE)
        assert (await announce(home, {"text": "Hello.", "devices": [ONE]}))[1] == {"results": {ONE: "not connected"}}
        assert (await announce(home, {"text": "Hello.", "all": True}))[1] == {"results": {}}


REFUSED: list[tuple[Any, str, int]] = [
    ({"text": "x", "all": True}, "", 401),
    ({"text": "x", "all": True}, TOKEN + "!", 401),
    ({"text": " ", "all": True}, TOKEN, 400),
    ({"text": "x" * 501, "all": True}, TOKEN, 400),
    ({"text": "x"}, TOKEN, 400),
    ({"text": "x", "all": True, "devices": [ONE]}, TOKEN, 400),
    ({"text": "x", "all": True, "volume": 101}, TOKEN, 400),
    ({"text": "x", "all": True, "loud": True}, TOKEN, 400),
    ([1], TOKEN, 400),
    ({"text": "x", "devices": ["y" * 70_000]}, TOKEN, 413),
]


async def test_what_is_not_allowed_or_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home:
        for body, token, status in REFUSED:
            answered, answer = await announce(home, body, token)
            assert answered == status
            assert answer["error"]


async def test_whoever_tries_tokens_has_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with home_with_push(tmp_path) as home:
        monkeypatch.setattr("xiaozhi.access.rate_limits.is_loopback_address", lambda _address: False)
        tries = [(await announce(home, {}, f"wrong-{number}"))[0] for number in range(22)]
        assert tries[:20] == [401] * 20
        assert tries[-1] == 429
        assert (await announce(home, {"text": "Hello.", "all": True}))[0] == 200, "the right token is always heard"


async def test_an_announcement_waits_until_the_reply_is_over(tmp_path: Path) -> None:
    async with home_with_push(tmp_path, LONG) as home, home.device() as device:
        talking = asyncio.create_task(device.turn_text("tell me a lot"))
        await device.until(lambda: bool(shown(device)), 15)
        soon = await announcer(home).announce(Announcement("No patience.", patience_s=0.0))
        assert soon == {ONE: AnnouncementOutcome.BUSY}
        assert await announcer(home).announce(Announcement("Dinner is ready.")) == {ONE: AnnouncementOutcome.SPOKEN}
        assert (await talking).text.endswith("sentence number 3 of a long reply.")
        assert shown(device)[-1] == "Dinner is ready."
        assert shown(device).count("Dinner is ready.") == 1


async def test_several_wait_in_order_and_not_without_end(tmp_path: Path) -> None:
    async with home_with_push(tmp_path, max_waiting=2) as home, home.device() as device:
        said = [asyncio.create_task(announcer(home).announce(Announcement(f"Number {n}."))) for n in range(3)]
        outcomes = [(await one)[ONE] for one in said]
        assert outcomes == [AnnouncementOutcome.SPOKEN, AnnouncementOutcome.SPOKEN, AnnouncementOutcome.FULL]
        assert shown(device) == ["Number 0.", "Number 1."]
        assert not announcer(home)._waiting
        assert not announcer(home)._turns


async def test_the_volume_is_set_for_the_announcement_and_restored(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home, home.device() as device:
        tools: DeviceMcpServer = device.tools
        connection = home.server.devices.find(ONE)
        assert connection is not None
        async with asyncio.timeout(5):
            while not connection.tools.offers("self.audio_speaker.set_volume"):
                await home.server.services.store.devices.get(ONE)  # the device lists its tools meanwhile
        assert await announcer(home).announce(Announcement("Loud.", volume=90)) == {ONE: AnnouncementOutcome.SPOKEN}
        assert [call for call in tools.calls if call[0].endswith("set_volume")] == [
            ("self.audio_speaker.set_volume", {"volume": 90}),
            ("self.audio_speaker.set_volume", {"volume": 70}),
        ]
        assert tools.volume == 70


def test_quiet_hours_may_cross_midnight() -> None:
    night = "22:00-07:00"
    quiet = {hour: is_quiet(night, datetime(2026, 1, 1, hour, 30)) for hour in (21, 22, 3, 6, 7, 12)}
    assert quiet == {21: False, 22: True, 3: True, 6: True, 7: False, 12: False}
    assert is_quiet("13:00-14:30", datetime(2026, 1, 1, 14, 29))
    assert not is_quiet("", datetime(2026, 1, 1, 3))
    with pytest.raises(ValueError, match="span"):
        PushSettings(quiet_hours="late")


async def test_in_quiet_hours_only_what_is_urgent_is_said(tmp_path: Path) -> None:
    async with home_with_push(tmp_path, quiet_hours="00:00-23:59") as home, home.device() as device:
        assert (await announce(home, {"text": "Hello.", "all": True}))[1] == {"results": {ONE: "quiet hours"}}
        assert (await announce(home, {"text": "Fire!", "all": True, "urgent": True}))[1] == {"results": {ONE: "spoken"}}
        assert shown(device) == ["Fire!"]


def test_the_token_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    token = made_token(tmp_path / "data", PUSH_TOKEN)
    assert len(token) >= 32
    assert made_token(tmp_path / "data", PUSH_TOKEN) == token == read_token(tmp_path / "data", PUSH_TOKEN)
    assert stat.S_IMODE((tmp_path / "data" / PUSH_TOKEN).stat().st_mode) == 0o600
    (tmp_path / "data" / PUSH_TOKEN).write_text("short")
    assert made_token(tmp_path / "data", PUSH_TOKEN) != "short"
    assert read_token(tmp_path / "nowhere", PUSH_TOKEN) == ""
    assert token not in repr(Settings.model_validate({"push": {"token": token}}))
    with pytest.raises(ValueError, match="16"):
        PushSettings.model_validate({"token": "short"})


async def test_switched_off_there_is_no_way_in(tmp_path: Path) -> None:
    async with house(tmp_path, push={"enabled": False}) as home:
        url = f"http://127.0.0.1:{home.server.port}/api/announce"
        async with aiohttp.ClientSession() as session, session.post(url, json={}) as response:
            assert response.status == 404
    assert not (tmp_path / "data" / PUSH_TOKEN).exists()


# Reminders ------------------------------------------------------------------------------------------------------------


async def until_done(home: House, count: int = 0) -> None:
    """Wait until so many reminders are to come."""
    async with asyncio.timeout(10):
        while len(await home.server.services.store.reminders.list()) != count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


async def test_a_reminder_rings_on_its_connected_device_and_is_done_when_it_was_said(tmp_path: Path) -> None:
    async with home_with_push(tmp_path, LONG) as home, home.device() as device, home.device(2) as other:
        services = home.server.services
        talking = asyncio.create_task(device.turn_text("tell me a lot"))
        await device.until(lambda: bool(shown(device)), 15)
        await services.store.reminders.add(ONE, "call Anna", time.time())
        assert services.tools.reminders is not None
        services.tools.reminders.changed()
        assert len(await services.store.reminders.list()) == 1, "it is not done while somebody else talks"
        await talking
        await until_done(home)
        assert " ".join(shown(device)).endswith("Here is your reminder: call Anna.")
        assert shown(other) == []


async def test_a_reminder_set_before_a_restart_rings_at_the_next_connect_after_it(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home:
        await home.server.services.store.reminders.add(ONE, "take the cake out", time.time() - 1.0)
        reminders = home.server.services.tools.reminders
        assert reminders is not None
        reminders.changed()
    async with home_with_push(tmp_path) as home:
        async with home.device(2) as other:
            assert len(await home.server.services.store.reminders.list()) == 1
            async with home.device() as device:
                await until_done(home)
                assert " ".join(shown(device)) == "Here is your reminder: take the cake out."
            assert shown(other) == []
        async with home.device() as device:
            assert (await device.turn_text("hello")).text == "Yes."
            assert shown(device) == ["Yes."], "it is told once"


async def test_who_has_just_woken_a_device_is_not_cut_off_by_what_waits(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home:
        bell = announcer(home, grace_s=60.0)
        await home.server.services.store.reminders.add(ONE, "call Anna", time.time() - 1.0)
        async with home.device() as device:
            assert (await device.turn_text("hello")).text == "Yes."
            assert shown(device) == ["Yes."]
        bell._grace_s = 0.0


async def test_an_alarm_rings_again_until_somebody_says_something(tmp_path: Path) -> None:
    async with home_with_push(tmp_path, alarm_repeats=3, alarm_every_s=5.0) as home, home.device() as device:
        bell = announcer(home)
        push = home.server.services.settings.push.model_copy(update={"alarm_every_s": 0.2})
        home.server.services.use(home.server.services.settings.model_copy(update={"push": push}))
        assert await bell.ring(Reminder(1, ONE, "", time.time()))
        await device.until(lambda: shown(device).count("Your time is up.") >= 2, 15)
        assert (await device.turn_text("stop it")).answered
        assert not bell._alarms
        count = shown(device).count("Your time is up.")
        assert await announcer(home).announce(Announcement("Over.")) == {ONE: AnnouncementOutcome.SPOKEN}
        assert shown(device).count("Your time is up.") == count


async def test_an_alarm_that_nobody_hears_falls_silent(tmp_path: Path) -> None:
    async with home_with_push(tmp_path, alarm_repeats=2) as home, home.device() as device:
        push = home.server.services.settings.push.model_copy(update={"alarm_every_s": 0.1})
        home.server.services.use(home.server.services.settings.model_copy(update={"push": push}))
        assert await announcer(home).ring(Reminder(1, ONE, "", time.time()))
        (alarm,) = announcer(home)._alarms.values()
        await alarm
        assert shown(device) == ["Your time is up."] * 3


def test_timers_and_alarms_are_alarms_and_errands_are_not() -> None:
    texts = {"": True, "起床": True, "wake me up": True, "煮面的计时器": True, "call Anna": False, "交电费": False}
    assert {text: is_alarm(Reminder(1, ONE, text, 0.0)) for text in texts} == texts


async def test_a_device_that_only_waits_for_its_code_hears_no_announcements(tmp_path: Path) -> None:
    closed: dict[str, Any] = {"push": {"token": TOKEN}, "auth": {"mode": "activate"}}
    async with house(tmp_path, **closed) as home, home.device(connect=False) as device:
        reply = await device.boot(home.server.ota_url)
        await device.connect(home.url, reply.token)
        assert device.connected and home.server.devices.online() == frozenset()
        assert (await announce(home, {"text": "The key is under the mat.", "all": True}))[1] == {"results": {}}
        outcomes = (await announce(home, {"text": "The key is under the mat.", "devices": [ONE]}))[1]["results"]
        assert outcomes == {ONE: "not connected"}


async def test_an_agent_that_may_announces_on_another_device_when_asked_to(tmp_path: Path) -> None:
    def pieces(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        asked = messages[-1]["role"] == "user"
        return in_pieces((call("announce", text="Dinner is ready.", device="Kitchen"),)) if asked else []

    async with home_with_push(tmp_path, "🙂 Told.", tool=True) as home, home.device() as one, home.device(2) as two:
        await home.server.services.store.devices.update(TWO, name="Kitchen")
        home.chat.tool_pieces = pieces
        assert (await one.turn_text("tell the kitchen that dinner is ready")).answered
        assert shown(two) == ["Dinner is ready."]
        assert "Dinner is ready." not in shown(one)
        assert home.asked[-1][-1]["content"] == "Kitchen: spoken"


# The history ----------------------------------------------------------------------------------------------------------

LIGHTS = "Shall I turn off the lights?"


def told(home: House) -> list[tuple[str, str]]:
    """What the model was told of the conversation with the newest question, without the prompt."""
    return [(message["role"], message["content"]) for message in home.asked[-1] if message["role"] != "system"]


def said_before(home: House) -> str:
    """The newest thing that the model is told to have said itself."""
    roles = [role for role, _ in told(home)]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"], "both take turns, or templates refuse it"
    return told(home)[-2][1]


async def test_what_was_announced_is_known_to_the_model_that_is_asked_next(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home, home.device() as device:
        assert (await announce(home, {"text": LIGHTS, "all": True}))[1] == {"results": {ONE: "spoken"}}
        assert (await device.turn_text("turn them off then")).text == "Yes."
        assert said_before(home).endswith(LIGHTS)
        assert (await announce(home, {"text": "Dinner is ready.", "all": True}))[0] == 200
        assert (await device.turn_text("coming")).text == "Yes."
        assert said_before(home).splitlines() == ["🙂 Yes.", "😶 Dinner is ready."]
    async with home_with_push(tmp_path) as home:
        async with home.device() as device:
            assert (await announce(home, {"text": "The bath is ready.", "all": True}))[0] == 200
        async with home.device() as device:
            assert (await device.turn_text("thanks")).text == "Yes."
            assert said_before(home).splitlines() == ["🙂 Yes.", "😶 The bath is ready."], "also when it comes back"
            kept = " ".join(content for _, content in told(home))
            assert LIGHTS in kept and "Dinner is ready." in kept


async def test_of_an_announcement_that_is_broken_off_the_history_has_what_was_heard(tmp_path: Path) -> None:
    async with home_with_push(tmp_path) as home, home.device() as device:
        saying = asyncio.create_task(announce(home, {"text": LONG, "all": True}))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 2000, 20)
        device.abort()
        assert (await saying)[1] == {"results": {ONE: "interrupted"}}
        assert (await device.turn_text("hello")).text == "Yes."
        assert "number 1" in said_before(home) and "number 3" not in said_before(home)
        assert said_before(home).endswith("[interrupted]")


async def test_a_reminder_and_its_repetitions_are_in_the_history_once(tmp_path: Path) -> None:
    async with home_with_push(tmp_path, alarm_repeats=2) as home, home.device() as device:
        push = home.server.services.settings.push.model_copy(update={"alarm_every_s": 0.1})
        home.server.services.use(home.server.services.settings.model_copy(update={"push": push}))
        assert await announcer(home).ring(Reminder(1, ONE, "", time.time()))
        (alarm,) = announcer(home)._alarms.values()
        await alarm
        assert shown(device) == ["Your time is up."] * 3
        assert (await device.turn_text("which one?")).text == "Yes."
        assert said_before(home).endswith("Your time is up.")
        assert said_before(home).count("Your time is up.") == 1


async def test_a_greeting_and_the_answer_to_a_wake_word_are_known_and_a_goodbye_that_is_broken_off(
    tmp_path: Path,
) -> None:
    turn = {"greeting": "Good morning! Did you sleep well?", "wake_reply": "At your service."}
    async with house(tmp_path, turn=turn) as home:
        async with home.device() as device:
            device.listen()
            await device.until(lambda: bool(shown(device)) and device.turn_log.tts_stop_ms is not None)
            assert (await device.turn_text("yes, very well")).answered
            assert said_before(home).endswith(turn["greeting"])
            device.begin_turn()
            device.detect("小智")
            await device.until(lambda: device.turn_log.tts_stop_ms is not None)
            assert (await device.turn_text("what was that?")).answered
            assert said_before(home).splitlines()[-1].endswith(turn["wake_reply"])
            before = told(home)
            device.manners.speaker.new_record()
            assert home.session()._conversation.farewell()
            await device.until(lambda: device.manners.speaker.playback.heard_ms > 900)
            device.abort()
            assert (await device.turn_text("wait")).answered
            assert told(home)[: len(before)] == before, "upstreams find what they have computed"
            assert "Goodbye" in said_before(home) and said_before(home).endswith("[interrupted]")
            before = told(home)
        async with home.device() as device:
            assert (await device.turn_text("hello")).answered
            assert told(home)[: len(before)] == before, "to the letter, also after it has come back"


async def test_an_excuse_is_no_part_of_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as home, home.device() as device:
        with monkeypatch.context() as broken:
            break_recognition(home, broken)
            assert (await device.turn(question())).text == message("not_understood", "en")
        assert (await device.turn_text("hello")).answered
        assert [role for role, _ in told(home)] == ["user"]
