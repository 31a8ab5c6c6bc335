"""A service that takes sound while somebody speaks, as an engine of its own: the recognisers' protocol carries it.

The engine here is about what a real one is, without a vendor's frames; the service is a WebSocket on loopback.
"""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from tests.recognisers import RATE, Offline, noting, sound, until
from xiaozhi.audio.pcm import PcmFloat, to_int16
from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse
from xiaozhi.upstream.connections import Connections


class CloudStream(Recognizer):
    """Sends sound up as it comes, shows the texts that come down, and asks for the last one."""

    name = "cloud"

    def __init__(self, url: str, settings: RemoteAsrSettings) -> None:
        self.url = url
        self.connections = Connections(None)
        self.use = self.remote = RemoteUse(self.name, settings)

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        return CloudUtterance(self, decoding, say)

    async def disconnect(self) -> None:
        await self.connections.close()


class CloudUtterance:
    ready = False

    def __init__(self, engine: CloudStream, decoding: Decoding, say: Say | None) -> None:
        self._engine, self._partials, self._say = engine, decoding.partials, say
        self._up: Channel[bytes | None] = Channel(float("inf"))
        self._down: Channel[str] = Channel(100)
        self._samples = 0
        self._talking = asyncio.create_task(self._talk(), name="asr-cloud")

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        self._samples += len(pcm)
        self._up.put_nowait(to_int16(pcm).tobytes())

    async def transcribe(self, question: Question) -> Transcript:
        async with self._engine.use.request(self._samples):
            self._up.put_nowait(None)
            try:
                return Transcript(await self._down.get(), language="en")
            except ChannelClosed:
                raise RemoteError("cloud: the line was cut") from None

    async def _talk(self) -> None:
        try:
            async with self._engine.connections.session.ws_connect(self._engine.url) as socket:
                reading = asyncio.create_task(self._read(socket), name="asr-cloud-read")
                try:
                    async for data in self._up:
                        await (socket.send_str("end") if data is None else socket.send_bytes(data))
                finally:
                    reading.cancel()
        finally:
            self._down.close()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            said = message.json()
            if said["final"]:
                self._down.put_nowait(said["text"])
            elif self._say is not None and self._partials.on:
                self._say(said["text"])
        self._down.close()

    def close(self) -> None:
        self._say = None
        self._talking.cancel()


class Service:
    """Says how much it was sent, in tenths of a second: after every half second, and at the end. May cut the line."""

    def __init__(self) -> None:
        self.samples: list[int] = []  # of each connection
        self.cut_at = 1 << 60
        self.url = ""

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.samples.append(0)
        shown = 0
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.samples[-1] += len(message.data) // 2
                if self.samples[-1] >= self.cut_at:
                    await socket.close()
                elif self.samples[-1] - shown >= RATE // 2:
                    shown = self.samples[-1]
                    await socket.send_json({"text": f"so far {shown * 10 // RATE}", "final": False})
            else:
                await socket.send_json({"text": f"cloud {self.samples[-1] * 10 // RATE}", "final": True})
        return socket


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    service, app = Service(), web.Application()
    app.router.add_get("/", service.talk)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield service
    await runner.cleanup()


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "asr")
    yield pool
    pool.close()


async def over(utterance: Utterance) -> None:
    """The utterance is over, and what it has open closes."""
    utterance.close()
    assert isinstance(utterance, CloudUtterance)
    await asyncio.gather(utterance._talking, return_exceptions=True)


async def test_sound_goes_up_while_somebody_speaks_and_the_question_only_waits_for_the_last_text(
    service: Service, pool: WorkerPool
) -> None:
    cloud = CloudStream(service.url, RemoteAsrSettings())
    shown: list[str] = []
    utterance = Recognition(cloud, pool, AsrSettings(partials=True)).begin(noting(shown))
    for _ in range(10):
        utterance.feed(sound(0.1))
    await until(lambda: bool(service.samples) and service.samples[-1] == RATE)
    await until(lambda: shown == ["so far 5", "so far 10"])
    assert (await utterance.transcribe(Question())).text == "cloud 10"
    utterance.feed(sound(0.3))  # the user goes on
    assert (await utterance.transcribe(Question())).text == "cloud 13"
    assert (cloud.use.requests, cloud.use.failures) == (2, 0)
    await over(utterance)
    await cloud.disconnect()


async def test_a_line_that_is_cut_in_mid_utterance_loses_not_a_word(service: Service, pool: WorkerPool) -> None:
    service.cut_at = RATE // 2
    cloud, local = CloudStream(service.url, RemoteAsrSettings()), Offline()
    both = Fallback(cloud, cloud.use, local)
    utterance = Recognition(both, pool, AsrSettings(early_decode=False)).begin()
    for _ in range(10):
        utterance.feed(sound(0.1))
    await until(lambda: service.samples == [RATE // 2])
    assert (await utterance.transcribe(Question())).text == "10", "all of it, not what came behind the cut"
    np.testing.assert_array_equal(local.decoded[0], sound(1.0))
    utterance.feed(sound(0.5))
    assert (await utterance.transcribe(Question())).text == "15"
    assert (cloud.use.failures, cloud.use.fallbacks) == (1, 1)
    utterance.close()
    await asyncio.sleep(0)
    await both.disconnect()
