"""A FunASR runtime's WebSocket: configuration, sound in pieces, the word at its end, texts in JSON."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset

Dialect: TypeAlias = Literal["end", "python", "frames", "cpp"]
"""How the last text is told, see `xiaozhi.stages.asr.funasr`: by the server in Python since July 2026, before, in early
2026, and by the one in C++."""

DIALECTS: Final[tuple[Dialect, ...]] = ("end", "python", "frames", "cpp")


@dataclass(frozen=True, slots=True)
class FunasrRequest:
    """What was asked."""

    seconds: float
    config: dict[str, Any]


class FunasrStandIn(StandIn):
    """The runtime, at any path.

    Args:
        parts: what is understood, a text for each part that the sound is cut into; all but the last are told before
            the end of the sound is known.
        dialect: which of the servers it is.
        port: 0 for any.
    """

    FAULTS = frozenset("refuse hang reset error-500 garbage no-text close failed".split())

    def __init__(self, *parts: str, dialect: Dialect = "python", port: int = 0) -> None:
        super().__init__(port)
        self.parts = parts or ("what time is it",)
        self.dialect = dialect
        self.probes = 0
        """Connections that sent no sound."""

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
        socket = web.WebSocketResponse(protocols=("binary",))
        await socket.prepare(request)
        config: dict[str, Any] = {}
        received = 0
        waits = False  # the end has been told, and one more piece is wanted
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                if not config:
                    reset(request)  # sound before its configuration
                    break
                if waits:
                    waits = False
                    await self._texts(socket, config, self.parts[-1:], ends=True)
                    continue
                received += len(message.data)
            elif message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                if said.get("is_speaking") is not False:
                    config = said
                    continue
                if not received:
                    self.probes += 1
                else:
                    await self.record(FunasrRequest(received / 2 / config["audio_fs"], config))
                    if not await self._goes_well(request, socket, config):
                        return socket
                waits = self.dialect == "frames" and received > 0
                parts = self.parts if received else ()
                await self._texts(socket, config, parts[:-1] if waits else parts, ends=not waits)
                if self.dialect == "end" and said.get("is_end") is True:
                    told = {"mode": config["mode"], "wav_name": config["wav_name"]}
                    await socket.send_json({**told, "is_final": True, "is_end": True})
        return socket

    async def _goes_well(self, request: web.Request, socket: web.WebSocketResponse, config: dict[str, Any]) -> bool:
        """Go wrong as the fault says, or not."""
        match self.fault:
            case "hang":
                await self.hang()
            case "reset":
                reset(request)
            case "garbage":
                await socket.send_str("<html>")
            case "no-text":
                await socket.send_json({"mode": "offline", "is_final": True})
            case "close":
                await socket.close()
            case "failed":
                told = {"mode": config["mode"], "wav_name": config["wav_name"], "is_final": False, "is_end": True}
                await socket.send_json({**told, "error": "offline inference failed"})
            case _:
                return True
        return False

    async def _texts(
        self, socket: web.WebSocketResponse, config: dict[str, Any], parts: tuple[str, ...], *, ends: bool
    ) -> None:
        """Tell the texts; with `ends` the last of them is the last of all."""
        two_pass, cpp = config["mode"] == "2pass", self.dialect == "cpp"
        name = {"wav_name": config["wav_name"]}
        if cpp and not two_pass:
            parts = ("".join(parts),)
        for number, text in enumerate(parts):
            last = ends and number == len(parts) - 1
            # The server in Python says whether sound still comes, that in C++ whether this is the last.
            final = (last and two_pass) if cpp else not last
            if two_pass:
                await socket.send_json({"mode": "2pass-online", "text": text[:4], "is_final": False, **name})
            told: dict[str, Any] = {"mode": "2pass-offline" if two_pass else "offline", "text": text, **name}
            if cpp and two_pass and not text:
                del told["mode"]
            await socket.send_json({**told, "is_final": final})
            await asyncio.sleep(0)
