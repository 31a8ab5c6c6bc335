"""A reminder outlives the process: the server is killed, another one starts on the same data, the device hears it."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.harness import server_process
from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatMessages, ChatStandIn
from bench.standins.speech import SpeechStandIn
from bench.standins.tables import chat_table, voice_table
from tests.house import brief
from tests.test_tool_turns import call, in_pieces
from xiaozhi.client.device import Device
from xiaozhi.client.errors import ChannelLost
from xiaozhi.client.ota import ClientIdentity

pytestmark = pytest.mark.real_time  # a server in a process of its own

WISH = "remind me to feed Momo in two seconds"


def settings(folder: Path, chat_url: str, speech_url: str) -> str:
    """Of a server with the small recogniser and everything that costs time switched off."""
    return f"""
[server]
data_dir = "{folder / "data"}"
drain_s = 0.0
[auth]
mode = "open"
[console]
enabled = false
[cache]
premake = false
[asr]
engine = "sense-voice"
model_dir = "{folder / "model"}"
language = "en"
[models]
auto_pull = false
[load]
shed = false
{chat_table(chat_url)}{voice_table(speech_url)}"""


def pieces(messages: ChatMessages) -> Sequence[list[dict[str, Any]]]:
    wish = call("set_reminder", text="feed Momo", in_seconds=2)
    return in_pieces((wish,)) if messages[-1] == {"role": "user", "content": WISH} else []


def said(messages: ChatMessages) -> str:
    return "" if pieces(messages) else "🙂 I will."


def texts(device: Device) -> list[str]:
    return [message["text"] for _, message in device.received if message.get("state") == "sentence_start"]


async def test_a_reminder_set_by_voice_rings_once_after_the_process_was_killed_and_another_started(
    tmp_path: Path,
) -> None:
    build_tiny(tmp_path / "model", WISH)
    async with ChatStandIn(said, tool_pieces=pieces) as chat, SpeechStandIn(sound=brief) as speech:
        toml = settings(tmp_path, chat.url, speech.url)
        async with server_process(toml) as server, Device(ClientIdentity.numbered(1)) as device:
            await device.connect(server.url)
            assert (await device.turn_text(WISH)).text == "I will."
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(ChannelLost):
                await device.until(lambda: False)
        async with server_process(toml) as server:
            async with Device(ClientIdentity.numbered(2)) as other, Device(ClientIdentity.numbered(1)) as device:
                await other.connect(server.url)
                await device.connect(server.url)
                await device.until(lambda: any("feed Momo" in text for text in texts(device)), 30.0)
                await device.until(lambda: not device.manners.replying and device.manners.settled, 30.0)
                assert (await other.turn_text("will you come along")).text == "I will."
                assert texts(other) == ["I will."]
            async with Device(ClientIdentity.numbered(1)) as device:
                await device.connect(server.url)
                assert (await device.turn_text("will you come along")).answered
                assert not any("Momo" in text for text in texts(device)), "it rings once"
