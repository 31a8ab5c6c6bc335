"""The stand-ins of speech services, driven by the services' own libraries: both ends judged by somebody else's code.

The libraries pin others and are no part of the development environment: install `deepgram-sdk`, `cartesia[websockets]`,
`elevenlabs` and `openai[realtime]` beside it and run this file; what is missing is skipped.
"""

import asyncio
import base64
import os
from typing import Any

import numpy as np
import pytest

from bench.standins.cartesia import CartesiaStandIn
from bench.standins.deepgram import DeepgramStandIn
from bench.standins.elevenlabs import ElevenLabsStandIn
from bench.standins.openai_realtime import OpenAIRealtimeStandIn

SECOND_16K = bytes(32_000)
SECOND_24K = bytes(48_000)


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


async def test_deepgrams_library_gets_its_words() -> None:
    deepgram = pytest.importorskip("deepgram")
    environment = pytest.importorskip("deepgram.environment").DeepgramClientEnvironment
    finalize = pytest.importorskip("deepgram.listen.v1.types").ListenV1Finalize
    async with DeepgramStandIn() as server:
        base = server.url.replace("http", "ws")
        here = environment(base=server.url, production=base, agent=base, agent_rest=server.url)
        client = deepgram.AsyncDeepgramClient(api_key=server.key, environment=here)
        options = {"encoding": "linear16", "sample_rate": 16_000, "channels": 1, "endpointing": "false"}
        async with client.listen.v1.connect(model="nova-3", interim_results="true", **options) as socket:
            await socket.send_media(SECOND_16K)
            await socket.send_finalize(finalize(type="Finalize"))
            async with asyncio.timeout(5):
                while not (said := await socket.recv()).is_final:
                    assert said.type == "Results"
        assert said.from_finalize and said.channel.alternatives[0].transcript == "what time is it"


async def test_cartesias_library_gets_the_sound_of_each_flush() -> None:
    cartesia = pytest.importorskip("cartesia")
    async with CartesiaStandIn() as server:
        client = cartesia.AsyncCartesia(api_key=server.key, websocket_base_url=server.url.replace("http", "ws"))
        base: dict[str, Any] = {
            "model_id": "sonic-3",
            "voice": {"mode": "id", "id": "v"},
            "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000},
            "language": "zh",
            "context_id": "c1",
        }
        async with client.tts.websocket_connect() as connection:
            await connection.send({**base, "transcript": "一二三 ", "continue": True})
            await connection.send({**base, "transcript": "", "continue": True, "flush": True})
            await connection.send({**base, "transcript": "", "continue": False})
            kinds, sound = [], b""
            async with asyncio.timeout(5):
                async for event in connection:
                    kinds.append(event.type)
                    sound += event.audio or b"" if event.type == "chunk" else b""
                    if event.type == "done":
                        break
    assert kinds[-2:] == ["flush_done", "done"] and len(sound) == int(3 * 0.18 * 24_000) * 2


async def test_elevenlabs_library_gets_the_sound() -> None:
    pytest.importorskip("elevenlabs")
    client_module = pytest.importorskip("elevenlabs.client")
    async with ElevenLabsStandIn(voices=("voice1",)) as server:
        client = client_module.ElevenLabs(api_key=server.key, base_url=server.url)
        client.text_to_speech._ws_base_url = server.ws_url  # it knows TLS alone

        def speak() -> bytes:
            texts = iter(["Hello there. ", "How are you? "])
            pieces = client.text_to_speech.convert_realtime(
                voice_id="voice1", text=texts, model_id="eleven_flash_v2_5", output_format="pcm_24000"
            )
            return b"".join(pieces)

        sound = await asyncio.to_thread(speak)
    assert np.frombuffer(sound, "<i2").any() and len(sound) > 100_000


async def test_openais_library_gets_its_words() -> None:
    openai = pytest.importorskip("openai")
    pytest.importorskip("websockets")
    async with OpenAIRealtimeStandIn() as server:
        client = openai.AsyncOpenAI(api_key=server.key, websocket_base_url=server.url.replace("http", "ws") + "/v1")
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            sound = {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": None}
            sound["transcription"] = {"model": "gpt-live-transcribe"}
            await connection.session.update(session={"type": "transcription", "audio": {"input": sound}})
            await connection.input_audio_buffer.append(audio=base64.b64encode(SECOND_24K).decode())
            await connection.input_audio_buffer.commit()
            kinds = []
            async with asyncio.timeout(5):
                async for event in connection:
                    kinds.append(event.type.rpartition(".")[2])
                    assert event.type != "error", event
                    if kinds[-1] == "completed":
                        break
    assert event.transcript == "what time is it"
    assert [kinds[0], kinds[1], *kinds[-2:]] == ["created", "updated", "committed", "completed"]
