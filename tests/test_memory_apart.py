"""What one device has told is never given to another, whatever is said, asked, forgotten and interrupted in between.

Three devices with words of their own live through steps drawn by chance on one server: facts in talk and by tool,
questions, reconnections, restarts. Then everything that left the server is searched for words of the wrong device: what
each device heard, every question to the model, what the console and the server's own MCP endpoint show of each.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest

from tests.console_browser import CONSOLE, browser, set_password
from tests.house import House, house
from tests.test_memory_turns import FACTS
from tests.test_tool_turns import call, in_pieces
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.client.device import Device

TOKEN = "another-token-of-sixteen"
DEVICES = {
    1: ("Zanzibo", "Zeppelor", "Zucchari"),
    2: ("Quorvane", "Quillibet", "Quasimor"),
    3: ("Vexilar", "Vandoro", "Voltamir"),
}
OWNER = {word.lower(): number for number, words in DEVICES.items() for word in words}
WORD = re.compile("|".join(OWNER), re.IGNORECASE)
EVERYTHING_ON: dict[str, Any] = {
    "memory": {"engine": "local"},
    "cache": {"answers": True, "speech": True, "premake": False},
    "console": CONSOLE,
    "mcp_server": {"enabled": True, "token": TOKEN},
}


def owners(text: str) -> set[int]:
    """Whose words are in a text."""
    return {OWNER[word.lower()] for word in WORD.findall(text)}


def words_of(messages: list[dict[str, Any]]) -> list[str]:
    """Every secret word a model has been shown, in order, each once."""
    return list(dict.fromkeys(WORD.findall(orjson.dumps(messages).decode())))


def answer(messages: list[dict[str, Any]]) -> str:
    """A talkative model: it makes a fact of everything, and repeats all it knows to everybody."""
    if messages[0]["content"].startswith(FACTS):
        talk = messages[1]["content"].rpartition("Conversation:")[2]
        found = [f'{{"text": "Likes {word}", "replaces": 0}}' for word in dict.fromkeys(WORD.findall(talk))]
        return '{"facts": [' + ", ".join(found) + "]}"
    return "" if pieces(messages) else "🙂 You know " + " and ".join(words_of(messages) or ["nothing"]) + "."


def pieces(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Calls a memory tool when asked to."""
    said = str(messages[-1]["content"]) if messages[-1]["role"] == "user" else ""
    if said.startswith("please remember"):
        return in_pieces((call("remember", fact=said.removeprefix("please remember ")),))
    if said.startswith("what do you remember"):
        return in_pieces((call("what_is_remembered"),))
    if said.startswith("please forget"):
        return in_pieces((call("forget", about=said.removeprefix("please forget ")),))
    return []


STEPS = (
    "I like {word} very much",
    "please remember that I own a {word}",
    "what do you remember about me",
    "please forget {word}",
    "why do cats purr",
    "what do I like",
)


@asynccontextmanager
async def apart(folder: Path) -> AsyncIterator[House]:
    set_password(folder / "data")
    async with house(folder, **EVERYTHING_ON) as home:
        home.chat.answer, home.chat.tool_pieces = answer, pieces
        home.speech.sound = short
        yield home


def short(_text: str) -> PcmInt:
    """A reply that is over at once: this test waits for hundreds of clauses."""
    return np.full(1440, 1000, np.int16)


async def live(device: Device, number: int, dice: random.Random) -> str:
    """One conversation; returns everything the device was sent."""
    for _ in range(dice.randint(1, 3)):
        text = dice.choice(STEPS).format(word=dice.choice(DEVICES[number]))
        turn = asyncio.create_task(device.turn_text(text))
        if dice.random() < 0.2:
            await device.until(lambda: device.turn_log.tts_start_ms is not None, 15)
            device.abort()
        assert (await turn).outcome.value != "no answer"
    return orjson.dumps([message for _, message in device.received]).decode()


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_word_of_one_device_reaches_another(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    told = 0
    for _ in range(2):  # with a restart in between
        async with apart(tmp_path) as home:
            for _ in range(3):
                async with AsyncExitStack() as stack:
                    there = {
                        number: await stack.enter_async_context(home.device(number))
                        for number in sorted(dice.sample(list(DEVICES), dice.randint(2, 3)))
                    }
                    lives = (live(device, number, random.Random(dice.random())) for number, device in there.items())
                    for number, received in zip(there, await asyncio.gather(*lives), strict=True):
                        assert owners(received) <= {number}
                await home.server.devices.empty()
                await home.server.services.memory.settled()
            for messages in home.asked:
                assert len(owners(orjson.dumps(messages).decode())) <= 1, "a prompt holds words of two devices"
            told += await shown(home)
    assert told, "something was remembered, or this test shows nothing"


async def shown(home: House) -> int:
    """Search what people are shown of each device; returns how many memories there are."""
    memories = 0
    async with browser(home.server) as console, aiohttp.ClientSession() as session:
        for number in DEVICES:
            device_id = f"02:00:00:00:00:{number:02x}"
            kept = await console.get(f"devices/{device_id}/memories")
            turns = await console.get(f"devices/{device_id}/turns?limit=500")
            assert owners(orjson.dumps([kept, turns]).decode()) <= {number}
            memories += len(kept["memories"])
            known = await home.server.services.memory.known(device_id)
            assert owners(repr(known)) <= {number} and len(known) == len(kept["memories"])
            request = {"name": "read_history", "arguments": {"device": device_id, "turns": 50}}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": request}
            async with session.post(
                f"http://127.0.0.1:{home.server.port}/mcp", json=body, headers={"Authorization": f"Bearer {TOKEN}"}
            ) as response:
                history = await response.text()
            assert response.status == 200 and owners(history) <= {number}
    return memories
