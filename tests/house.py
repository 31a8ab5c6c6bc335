"""A whole server with stand-in upstreams, for tests of whole turns through a real socket."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatStandIn
from bench.standins.sound import tone
from bench.standins.speech import SpeechStandIn
from tests.speech import say
from xiaozhi.app.server import Server, serving
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt, to_int16
from xiaozhi.client.device import Device
from xiaozhi.client.manners import Manners
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.client.microphone import SpeechMicrophone
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.settings import Settings
from xiaozhi.transport.session import DeviceSession
from xiaozhi.transport.websocket_writer import WebSocketWriter
from xiaozhi.turn.machine import ListeningMode

# The server decides in audio time, so tests speak faster than life; replies are paced in real time all the same.
SPEED = 3.0


@dataclass(slots=True)
class House:
    """A running server and what it talks to.

    Attributes:
        server: accepts devices on a free port of the loopback interface.
        chat, speech: its upstreams.
    """

    server: Server
    chat: ChatStandIn
    speech: SpeechStandIn

    @property
    def url(self) -> str:
        """The WebSocket address."""
        return f"ws://127.0.0.1:{self.server.port}/xiaozhi/v1/"

    @property
    def asked(self) -> list[list[dict[str, Any]]]:
        """The messages of every question put to the chat model."""
        return [request.body["messages"] for request in self.chat.requests if "messages" in request.body]

    def session(self, device_id: str = "") -> DeviceSession:
        """The session of a connected device; of the only one without an id."""
        online = [device_id] if device_id else sorted(self.server.devices.online())
        (found,) = map(self.server.devices.find, online)
        assert isinstance(found, DeviceSession)
        return found

    def writer(self, device_id: str = "") -> WebSocketWriter:
        """The way down to a device, of its session."""
        writer = self.session(device_id)._downlink
        assert isinstance(writer, WebSocketWriter)
        return writer

    @asynccontextmanager
    async def device(
        self,
        number: int = 1,
        *,
        mode: ListeningMode = ListeningMode.AUTO,
        version: int = 1,
        manners: Manners | None = None,
        microphone: SpeechMicrophone | None = None,
        speed: float = SPEED,
        connect: bool = True,
        tools: DeviceMcpServer | None = None,
    ) -> AsyncIterator[Device]:
        """A device that has connected."""
        identity = ClientIdentity.of(f"02:00:00:00:00:{number:02x}")
        async with Device(
            identity,
            mode=mode,
            version=version,
            manners=manners,
            microphone=microphone,
            speed=speed,
            trace=True,
            tools=tools,
        ) as device:
            if connect:
                await device.connect(self.url)
                session = self.server.devices.find(identity.device_id)
                if isinstance(session, DeviceSession):  # else it was only told why not
                    await session.recalled.wait()  # hello is answered before
            yield device


def settings_for(folder: Path, chat_url: str, speech_url: str, **tables: dict[str, Any]) -> Settings:
    """Settings of a server on a free port with the small SenseVoice-shaped model; `tables` override single values."""
    model = folder / "sense-voice"
    if not model.exists():
        build_tiny(model, "what time is it")
    values: dict[str, dict[str, Any]] = {
        "server": {"host": "127.0.0.1", "port": 0, "data_dir": folder / "data", "drain_s": 0.0},
        "auth": {"mode": "open"},
        "models": {"dir": folder / "models", "auto_pull": False},
        "asr": {"engine": "sense-voice", "model_dir": model, "language": "en", "workers": 1},
        "console": {"enabled": False},  # making its password takes a quarter of a second
        # Tests count what upstreams are asked; those of the caches switch them on.
        "cache": {"answers": False, "speech": False, "recognition": False},
        "memory": {"engine": "off"},
        "load": {"shed": False},  # other tests on the same cores are no load of this server
        "llm": {
            "endpoints": [{"name": "stand-in", "base_url": f"{chat_url}/v1", "model": "bench", "api_key": "none"}],
            "first_token_timeout_s": 2.0,
            "idle_timeout_s": 1.0,
        },
        "tts": {
            "engines": ["openai", "espeak"],
            "openai": {"base_url": f"{speech_url}/v1", "model": "tts-1", "voice": "alloy", "format": "pcm"},
        },
    }
    for table, overrides in tables.items():
        values[table] = {**values.get(table, {}), **overrides}
    return Settings.model_validate(values)


@asynccontextmanager
async def house(
    folder: Path, answer: str = "🙂 It is ten past nine.", **tables: dict[str, Any]
) -> AsyncIterator[House]:
    """A server with upstreams that answer `answer` at once."""
    async with AsyncExitStack() as stack:
        chat = await stack.enter_async_context(ChatStandIn(answer))
        speech = await stack.enter_async_context(SpeechStandIn(sound=brief))
        server = await stack.enter_async_context(serving(settings_for(folder, chat.url, speech.url, **tables)))
        yield House(server, chat, speech)


def brief(text: str) -> PcmInt:
    """A tone much shorter than the text would take to say: tests wait for every reply to be played."""
    length = max(int(0.6 * DOWNLINK_RATE_HZ), int(0.03 * DOWNLINK_RATE_HZ * len(text)))
    return np.resize(tone("."), length)


def question() -> PcmInt:
    """A short spoken question, int16[n] at 16 kHz."""
    return to_int16(say("what time is it"))


def noise(seconds: float, rms: float = 0.003) -> PcmInt:
    """Faint noise, int16[n] at 16 kHz."""
    return to_int16(np.random.default_rng(7).normal(0.0, rms, int(16_000 * seconds)).astype(np.float32))
