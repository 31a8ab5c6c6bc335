"""The server's process is killed in the middle of a reply, without any warning; started again, the talk goes on."""

import asyncio
import contextlib
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bench.harness import free_port, server_process
from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatMessages, ChatStandIn
from bench.standins.sound import tone
from bench.standins.speech import SpeechStandIn
from bench.standins.tables import chat_table, voice_table
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.report import TurnOutcome

pytestmark = pytest.mark.real_time  # a server in a process of its own

STORY = "🙂 " + " ".join(f"This is sentence number {n} of a long story." for n in range(1, 16))


def answer(messages: ChatMessages) -> str:
    """A story where one is wanted, otherwise a number that rises: answers are told apart."""
    talk = [message for message in messages if message["role"] == "user"]
    return STORY if "story" in str(talk[-1]["content"]) else f"🙂 Yes, number {len(talk)}."


def said(messages: ChatMessages) -> list[str]:
    return [str(message["content"]) for message in messages if message["role"] != "system"]


def settings(folder: Path, chat_url: str, speech_url: str) -> str:
    """Of a server whose every reply is asked for, with the small recogniser."""
    return f"""
[server]
data_dir = "{folder / "data"}"
drain_s = 0.0
[models]
auto_pull = false
[console]
enabled = false
[cache]
answers = false
speech = false
[memory]
engine = "off"
[asr]
engine = "sense-voice"
model_dir = "{build_tiny(folder / "model", "nothing")}"
[load]
shed = false
{chat_table(chat_url)}{voice_table(speech_url)}"""


def look(folder: Path) -> tuple[str, list[tuple[str, str]]]:
    """What SQLite thinks of the file, and its turns. Blocking."""
    with contextlib.closing(sqlite3.connect(folder / "data" / "xiaozhi.db")) as connection:
        (health,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return str(health), connection.execute("SELECT heard, played FROM turns ORDER BY id").fetchall()


async def test_after_kill_9_in_the_middle_of_a_reply_the_conversation_goes_on(tmp_path: Path) -> None:
    def short(text: str) -> Any:
        return tone("." * max(2, len(text) // 10))

    identity, port = ClientIdentity.of("02:00:00:00:00:01"), free_port()
    async with (
        ChatStandIn(answer) as chat,
        SpeechStandIn(sound=short) as speech,
        Device(identity, trace=True) as device,
    ):
        toml = settings(tmp_path, chat.url, speech.url)
        async with server_process(toml, port=port) as server:
            ota = await device.boot(f"{server.base_url}/xiaozhi/ota/")
            await device.connect(ota.url, ota.token)
            for text in ("my cat is called Momo", "she is asleep"):
                assert (await device.turn_text(text)).answered
            story = asyncio.create_task(device.turn_text("tell me a story"))
            await device.until(lambda: device.manners.speaker.playback.heard_ms > 400, 15)
            os.kill(server.pid, signal.SIGKILL)
            assert (await story).outcome is TurnOutcome.LOST
            assert await server.process.wait() == -signal.SIGKILL

        # As the power cut left it, before anybody mends anything: a committed turn is never lost.
        health, turns = await asyncio.to_thread(look, tmp_path)
        assert health == "ok"
        assert [heard for heard, _ in turns[:2]] == ["my cat is called Momo", "she is asleep"]
        assert len(turns) <= 3, "at most the running turn is missing, and nothing is there twice"

        async with server_process(toml, port=port):
            await device.connect(ota.url, ota.token)  # the token of before: keys survive as well
            assert (await device.turn_text("what is she called")).answered
            asked = said(chat.requests[-1].body["messages"])
            assert asked[:4] == ["my cat is called Momo", "🙂 Yes, number 1.", "she is asleep", "🙂 Yes, number 2."]
            assert asked[-1] == "what is she called"
        health, after = await asyncio.to_thread(look, tmp_path)
    assert health == "ok"
    assert after[: len(turns)] == turns
