"""Whole turns with long-term memory: what is told once is known the next time, on this device and no other."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.house import House, house
from tests.test_tool_turns import call, in_pieces
from xiaozhi.client.device import Device

ONE = "02:00:00:00:00:01"
FACTS = "From a spoken conversation"
ON: dict[str, Any] = {"memory": {"engine": "local"}, "llm": {}}


def prompt(home: House) -> str:
    """The system message of the newest question of a turn."""
    return str(next(asked[0]["content"] for asked in reversed(home.asked) if not asked[0]["content"].startswith(FACTS)))


def answers(messages: list[dict[str, Any]]) -> str:
    """The model: one new fact for each conversation, a short answer to everything else."""
    if not messages[0]["content"].startswith(FACTS):
        return "🙂 I see."
    talk = messages[1]["content"]
    facts = {"Momo": "Has a cat called Momo", "cello": "Plays the cello"}
    found = [text for word, text in facts.items() if word in talk.rpartition("Conversation:")[2]]
    return '```json\n{"facts": [' + ", ".join(f'{{"text": "{text}", "replaces": 0}}' for text in found) + "]}\n```"


async def say(home: House, *texts: str, number: int = 1) -> None:
    """One conversation, and what is learnt from it."""
    async with home.device(number) as device:
        for text in texts:
            assert (await device.turn_text(text)).answered
    await home.server.devices.empty()
    await home.server.services.memory.settled()


async def test_what_was_told_is_known_in_the_next_conversation_of_this_device_alone(tmp_path: Path) -> None:
    async with house(tmp_path, **ON) as home:
        home.chat.answer = answers
        await say(home, "my cat is called Momo", "she is asleep")
        await say(home, "good evening", number=2)
        assert "Momo" not in prompt(home)
        await say(home, "I play the cello", "every day")
        first = prompt(home)
        assert first.count("Has a cat called Momo") == 1
        await say(home, "good evening")
        second = prompt(home)
        assert "- Has a cat called Momo\n- Plays the cello" in second
        until = first.index("Has a cat called Momo") + len("Has a cat called Momo")
        assert second.startswith(first[:until]), "what is new comes behind what was there: prompts are cached by prefix"
    async with house(tmp_path, **ON) as home:
        home.chat.answer = answers
        await say(home, "good morning")
        assert "Has a cat called Momo" in prompt(home), "it survives a restart"


async def test_it_is_remembered_told_and_forgotten_by_voice(tmp_path: Path) -> None:
    calls = {
        "remember that I am left-handed": call("remember", fact="Is left-handed"),
        "what do you know about me": call("what_is_remembered"),
        "forget that I am left-handed": call("forget", about="left-handed"),
    }

    def pieces(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        wanted = calls.get(messages[-1]["content"]) if messages[-1]["role"] == "user" else None
        return in_pieces((wanted,)) if wanted else []

    def said(messages: list[dict[str, Any]]) -> str:
        return f"Result: {messages[-1]['content']}" if messages[-1]["role"] == "tool" else ""

    async with house(tmp_path, **ON) as home, home.device() as device:
        home.chat.answer, home.chat.tool_pieces = said, pieces
        heard = [(await device.turn_text(text)).text for text in calls]
        assert heard[:2] == ["Result: Remembered.", "Result: Is left-handed"]
        assert "Forgotten" in heard[2]
        assert await home.server.services.memory.known(ONE) == []


async def test_an_answer_with_a_name_of_this_user_is_not_kept_for_others(tmp_path: Path) -> None:
    cache = {"answers": True, "premake": False}

    async def twice(home: House, device: Device) -> int:
        before = len(home.asked)
        for _ in range(2):
            assert (await device.turn_text("why do cats purr")).answered
        return len(home.asked) - before

    async with house(tmp_path, "🙂 Cats like Momo purr when they are content.", cache=cache) as home:
        async with home.device(2) as device:
            assert await twice(home, device) == 1
        await home.server.services.store.devices.seen(ONE)
        await home.server.services.memory.remember(ONE, "Has a cat called Momo")
        async with home.device() as device:
            assert await twice(home, device) == 2


@pytest.mark.real_time
async def test_a_reminder_set_by_voice_rings_after_a_restart(tmp_path: Path) -> None:
    def pieces(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return in_pieces((call("set_reminder", text="feed Momo", in_seconds=1),)) if len(messages) == 2 else []

    async with house(tmp_path, "🙂 I will.") as home, home.device() as device:
        home.chat.tool_pieces = pieces
        assert (await device.turn_text("remind me in a second to feed Momo")).answered
        device.listen()  # somebody listens to the device when the time comes, and the server goes away
        set_at = (await home.server.services.store.reminders.list())[0].due_at
        home.server.services.ring = _away
    assert set_at < time.time() + 2.0
    async with house(tmp_path) as home:
        bell = home.server.http.announcer
        bell._grace_s = 0.0
        async with home.device() as device:
            await device.until(lambda: "feed Momo." in str([one for _, one in device.received]), 15)
            async with asyncio.timeout(10):
                while await home.server.services.store.reminders.list():  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.01)


async def _away(_reminder: object) -> bool:
    return False


async def test_how_long_a_user_pauses_is_known_in_the_next_conversation_and_on_no_other_device(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device(1) as device:
        pace = home.session()._conversation._machine.pace
        assert pace.habit_ms is None
        pace.paused_and_went_on(800.0)
        assert (await device.turn_text("hello")).answered
    async with house(tmp_path) as home:
        async with home.device(1):
            await home.session().recalled.wait()
            assert home.session()._conversation._machine.pace.habit_ms == pytest.approx(800.0)
        await home.server.devices.empty()
        async with home.device(2):
            await home.session().recalled.wait()
            assert home.session()._conversation._machine.pace.habit_ms is None
