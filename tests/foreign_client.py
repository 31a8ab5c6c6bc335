"""The client of `xiaozhi-sdk`, which other people wrote, unmodified, for tests.

It is a client library and command of its own (PyPI, MIT), and brings recordings, a picture and its libopus. It is not
among the packages for developers, because its command is called `xiaozhi` as well; `HOW` says how to get it.
"""

import asyncio
import ctypes.util
import importlib
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.house import SPEED, House
from tests.test_tool_turns import come_true

FOLDER: Final = Path(os.environ.get("XIAOZHI_CLIENTS", Path(__file__).parent.parent / "build" / "clients"))
HOW: Final = (
    "xiaozhi-sdk is not there; get it with: python -m pip install --no-deps --target build/clients "
    "xiaozhi-sdk==0.5.1 opuslib==3.0.1 py-machineid==1.0.0 'websockets>=15.0.1,<18'"
)
MAC: Final = "02:00:00:00:00:01"
FRAME_MS: Final = 60


def _found() -> Any:
    """The client library; None where it is not installed."""
    sys.path.append(str(FOLDER))  # last: what both need comes from this environment
    find_library = ctypes.util.find_library
    try:
        return importlib.import_module("xiaozhi_sdk")
    except ImportError:
        return None
    finally:
        ctypes.util.find_library = find_library  # it has put its own there, and is done with it
        sys.path.remove(str(FOLDER))


SDK = _found()
with_sdk = pytest.mark.skipif(SDK is None, reason=HOW)


@dataclass(slots=True)
class Client:
    """A client of the library and all that it was told."""

    sdk: Any
    told: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self, start: int = 0) -> list[str]:
        """What came, by type and state."""
        return [f"{message['type']} {message.get('state', '')}".strip() for message in self.told[start:]]

    def words(self, start: int = 0) -> str:
        """The reply as it was shown."""
        return " ".join(message["text"] for message in self.told[start:] if message.get("state") == "sentence_start")

    async def until(self, kind: str, start: int = 0) -> None:
        """Wait for a message."""
        await come_true(lambda: kind in self.kinds(start))

    async def speak(self, recording: str) -> None:
        """Say one of the library's own recordings, as its microphone would, and be silent."""
        utils = importlib.import_module("xiaozhi_sdk.utils")
        rate_hz = self.sdk.audio_opus.input_sample_rate
        silence = b"\0\0" * (rate_hz * FRAME_MS // 1000)
        path = utils.sdk_dir / "file" / "audio" / recording
        assert utils.get_wav_info(str(path)) == (rate_hz, 1)
        for pcm in [*utils.read_audio_file(str(path), rate_hz, FRAME_MS), *[silence] * 20]:
            if len(pcm) < len(silence):
                continue  # a sound card's frames are whole
            assert await self.sdk.send_audio(pcm)
            await asyncio.sleep(FRAME_MS / 1000 / SPEED)  # a microphone's pace

    async def ask(self, text: str) -> str:
        """Type something, and wait for the end of the reply."""
        start = len(self.told)
        assert await self.sdk.send_text(text)
        await self.until("tts stop", start)
        return self.words(start)


@asynccontextmanager
async def client(
    home: House, mac: str = MAC, *, tools: list[dict[str, Any]] | None = None, connect: bool = True, **sdk: Any
) -> AsyncIterator[Client]:
    """The library's client; connected by its own code, from the OTA address to `listen`."""
    mine: Client

    async def on_message(message: dict[str, Any]) -> None:
        mine.told.append(message)

    given = {"ota_url": home.server.ota_url, "audio_sample_rate": 16_000, **sdk}
    mine = Client(SDK.XiaoZhiWebsocket(on_message, **given))
    await mine.sdk.set_mcp_tool(tools or [])
    try:
        if connect:
            assert await mine.sdk.init_connection(mac)
        yield mine
    finally:
        waiting = [task for task in (mine.sdk.message_handler_task, mine.sdk.ota_task) if task is not None]
        await mine.sdk.close()
        await asyncio.gather(*waiting, return_exceptions=True)


def client_id_of(mac: str) -> str:
    """The client id that the library makes of a MAC address."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, mac))
