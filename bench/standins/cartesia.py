"""Cartesia's `/tts/websocket`: contexts over one connection, each text spoken when it is flushed."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import PcmInt

_PIECE_BYTES = 4801  # odd on purpose


class CartesiaStandIn(StandIn):
    """`/tts/websocket`; `requests` are the texts, each with its context, voice, language and speed.

    Args:
        key: the key that is taken.
        sound: makes the sound of a text, int16[n] at 24 kHz; a tone when left out.
        port: 0 for any.
    """

    WS_PATH = "/tts/websocket"
    FAULTS = frozenset("hang hang-midway reset reset-midway error garbage no-base64 silence error-500 close".split())

    def __init__(self, key: str = "k-cartesia", sound: Callable[[str], PcmInt] = tone, port: int = 0) -> None:
        super().__init__(port)
        self.key, self.sound = key, sound
        self.handshakes = 0
        self.events: list[dict[str, Any]] = []
        """All that clients sent."""
        self.cancelled: list[str] = []
        """Contexts."""
        self.done: list[str] = []
        """Contexts that came to their end."""

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/tts/websocket", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        if self.fault == "error-500":
            return web.Response(status=500)
        given = request.headers.get("X-API-Key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given != self.key or "Cartesia-Version" not in request.headers:
            return web.Response(status=401, text="Unauthorized")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        contexts: dict[str, dict[str, Any]] = {}
        speaking: set[asyncio.Task[None]] = set()
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                event = json.loads(message.data)
                self.events.append(event)
                name = event["context_id"]
                if event.get("cancel"):
                    self.cancelled.append(name)
                    if name in contexts:
                        await socket.send_json(self._chunk(name, 1, bytes(2400)))  # it was on its way
                        contexts.pop(name)["queue"].put_nowait(None)
                    continue
                if name not in contexts:
                    contexts[name] = {"queue": asyncio.Queue(), "text": "", "flushes": 0, "base": event["voice"]}
                    task = asyncio.create_task(self._context(request, socket, name, contexts))
                    speaking.add(task)
                context = contexts[name]
                if event["output_format"] != {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000}:
                    await self._error(socket, name, 400, "output_format")
                elif event["voice"] != context["base"] or "language" not in event or "model_id" not in event:
                    await self._error(socket, name, 400, "a context keeps its voice")
                else:
                    context["queue"].put_nowait(event)
        finally:
            for task in speaking:
                task.cancel()
        return socket

    async def _context(
        self, request: web.Request, socket: web.WebSocketResponse, name: str, contexts: dict[str, dict[str, Any]]
    ) -> None:
        context = contexts[name]
        while (event := await context["queue"].get()) is not None:
            context["text"] += event["transcript"]
            if event.get("flush") or not event["continue"]:
                text, context["text"] = context["text"].strip(), ""
                context["flushes"] += 1
                if text:
                    config = event.get("generation_config", {})
                    asked = (text, name, event["voice"]["id"], event["language"], config.get("speed", 1))
                    await self.record(asked)
                    if not await self._speak(request, socket, name, context["flushes"], text):
                        return
            if event.get("flush"):
                told = {"type": "flush_done", "flush_done": True, "flush_id": context["flushes"]}
                await socket.send_json({**told, "context_id": name, "done": False, "status_code": 206})
            if not event["continue"]:
                contexts.pop(name, None)
                self.done.append(name)
                await socket.send_json({"type": "done", "done": True, "context_id": name, "status_code": 200})
                return

    def _chunk(self, name: str, flush: int, data: bytes) -> dict[str, Any]:
        audio = base64.b64encode(data).decode()
        told = {"type": "chunk", "data": audio, "done": False, "status_code": 206, "step_time": 3.0}
        return {**told, "context_id": name, "flush_id": flush}

    async def _error(self, socket: web.WebSocketResponse, name: str, status: int, why: str) -> None:
        told = {"type": "error", "title": "Bad request", "message": why, "status_code": status, "done": True}
        await socket.send_json({**told, "context_id": name})

    async def _speak(
        self, request: web.Request, socket: web.WebSocketResponse, name: str, flush: int, text: str
    ) -> bool:
        """Whether the context goes on."""
        match self.fault:
            case "hang":
                await self.hang()
            case "reset":
                reset(request)
                return False
            case "close":
                await socket.close(code=1011, message=b"going away")
                return False
            case "error":
                await self._error(socket, name, 402, "no credits")
                return False
            case "garbage":
                await socket.send_str("<html>")
                return False
            case "no-base64":
                await socket.send_json({**self._chunk(name, flush, b""), "data": "§§§"})
                return False
        pcm = self.sound(text)
        body = (pcm * 0 if self.fault == "silence" else pcm).astype("<i2").tobytes()
        for start in range(0, len(body), _PIECE_BYTES):
            if start * 2 >= len(body) and self.fault == "hang-midway":
                await self.hang()
            if start * 2 >= len(body) and self.fault == "reset-midway":
                reset(request)
                return False
            await socket.send_json(self._chunk(name, flush, body[start : start + _PIECE_BYTES]))
        return True
