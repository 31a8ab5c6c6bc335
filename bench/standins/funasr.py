"""A FunASR runtime's WebSocket: configuration, sound in pieces, the word at its end, texts in JSON."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset


@dataclass(frozen=True, slots=True)
class FunasrRequest:
    """What was asked."""

    seconds: float
    config: dict[str, Any]


class FunasrStandIn(StandIn):
    """The runtime, at any path.

    Args:
        parts: what is understood, a text for each part that the sound is cut into.
        port: 0 for any.
    """

    FAULTS = frozenset("refuse hang reset error-500 garbage no-text close".split())

    def __init__(self, *parts: str, port: int = 0) -> None:
        super().__init__(port)
        self.parts = parts or ("what time is it",)

    @property
    def ws_url(self) -> str:
        """What goes into `asr.funasr.url`."""
        return self.url.replace("http", "ws", 1)

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault in ("refuse", "error-500"):
            return web.Response(status=403 if self.fault == "refuse" else 500)
        if "binary" not in request.headers.get("Sec-WebSocket-Protocol", ""):
            return web.Response(status=400, text="the subprotocol is binary")
        socket = web.WebSocketResponse(protocols=("binary",))
        await socket.prepare(request)
        config: dict[str, Any] = {}
        received = 0
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                if not config.get("is_speaking"):
                    reset(request)  # sound before its configuration
                    break
                received += len(message.data)
            elif message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                if said.get("is_speaking") is not False:
                    config = said
                    continue
                await self.record(FunasrRequest(received / 2 / config["audio_fs"], config))
                await self._answer(request, socket, config)
        return socket

    async def _answer(self, request: web.Request, socket: web.WebSocketResponse, config: dict[str, Any]) -> None:
        match self.fault:
            case "hang":
                await self.hang()
            case "reset":
                reset(request)
                return
            case "garbage":
                await socket.send_str("<html>")
                return
            case "no-text":
                await socket.send_json({"mode": "offline", "is_final": True})
                return
            case "close":
                await socket.close()
                return
        two_pass = config["mode"] == "2pass"
        for number, text in enumerate(self.parts):
            last = number == len(self.parts) - 1
            if two_pass:
                early = {"mode": "2pass-online", "text": text[:4], "wav_name": config["wav_name"]}
                await socket.send_json({**early, "is_final": not last})
            mode = "2pass-offline" if two_pass else "offline"
            # As the server in Python says it: true while sound still came.
            await socket.send_json({"mode": mode, "text": text, "wav_name": config["wav_name"], "is_final": not last})
            await asyncio.sleep(0)
