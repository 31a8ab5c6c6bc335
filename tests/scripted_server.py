"""A server on a real socket that says hello and otherwise only what a test tells it to say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType, web

HELLO = {
    "type": "hello",
    "transport": "websocket",
    "session_id": "S1",
    "audio_params": {"format": "opus", "sample_rate": 24_000, "channels": 1, "frame_duration": 60},
}


TTS_START = {"type": "tts", "state": "start"}
TTS_STOP = {"type": "tts", "state": "stop"}


class Script:
    """A server that says hello and otherwise only what it is told."""

    def __init__(self) -> None:
        self.hello: dict[str, Any] | None = HELLO
        self.requests: list[web.Request] = []
        self.texts: list[dict[str, Any]] = []
        self.audio: list[bytes] = []
        self.url = ""
        self.status = 0
        self.ota_url = ""
        self.ota: Any = None
        self.ota_body: dict[str, Any] = {}
        self.socket: web.WebSocketResponse | None = None
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Condition()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.status:
            return web.Response(status=self.status)
        socket = web.WebSocketResponse(autoclose=False)
        await socket.prepare(request)
        self.socket = socket
        if self.hello is not None:
            await self.say(self.hello)
        async for message in socket:
            async with self._news:
                if message.type is WSMsgType.TEXT:
                    self.texts.append(orjson.loads(message.data))
                elif message.type is WSMsgType.BINARY:
                    self.audio.append(message.data)
                self._news.notify_all()
        if not self.ended.done():
            self.ended.set_result(socket.close_code)
        return socket

    async def answer_ota(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        self.ota_body = orjson.loads(await request.read())
        if isinstance(self.ota, web.Response):
            return self.ota
        return web.json_response(self.ota)

    async def say(self, *messages: dict[str, Any] | bytes | str) -> None:
        assert self.socket is not None
        for message in messages:
            if isinstance(message, bytes):
                await self.socket.send_bytes(message)
            else:
                await self.socket.send_str(message if isinstance(message, str) else orjson.dumps(message).decode())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(condition)

    async def heard(self, **fields: Any) -> None:
        await self.until(lambda: any(fields.items() <= text.items() for text in self.texts))

    def count(self, **fields: Any) -> int:
        return sum(1 for text in self.texts if fields.items() <= text.items())


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    script = Script()
    app = web.Application()
    app.router.add_get("/xiaozhi/v1/", script.handle)
    app.router.add_post("/ota/", script.answer_ota)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    script.url = f"ws://127.0.0.1:{port}/xiaozhi/v1/"
    script.ota_url = f"http://127.0.0.1:{port}/ota/"
    yield script
    await runner.cleanup()
