"""MiniMax's speech over its WebSocket: key, order of events and what they hold are checked; sound is hex in JSON."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt

_PATH = "/ws/v1/t2a_v2"
_PIECE_BYTES = 5001  # odd on purpose
_RATES = (8000, 16_000, 22_050, 24_000, 32_000, 44_100)


@dataclass(frozen=True, slots=True)
class MinimaxRequest:
    """A text that was to be spoken, on which connection, with what."""

    text: str
    start: dict[str, Any]
    connection: int


class MinimaxStandIn(StandIn):
    """`/ws/v1/t2a_v2`; one session on a connection, one text at a time.

    Faults: `refuse` (401), `refuse-inside` (code 1004 behind the handshake), `error-500`; for a text: `hang`,
    `hang-midway`, `reset`, `reset-midway`, `garbage`, `no-hex`, `silence`, `empty`, `code-N`, `twice` (its last message
    has all its sound once more), `leaves` (closes the connection behind it).

    Args:
        key: the key that is taken.
        sound: makes the sound of a text, int16[n] at 24 kHz; a tone when left out.
        port: 0 for any.
    """

    WS_PATH = _PATH
    FAULTS = frozenset(
        "refuse refuse-inside error-500 hang hang-midway reset reset-midway garbage no-hex silence empty twice".split()
        + "leaves code-1002 code-1008 code-1042 code-2013 code-1000".split()
    )

    def __init__(self, key: str = "k-minimax", sound: Callable[[str], PcmInt] = tone, port: int = 0) -> None:
        super().__init__(port)
        self.key = key
        self.sound = sound
        self.connections = 0
        self.sessions = 0

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault == "error-500":
            return web.Response(status=500)
        known = request.headers.get("Authorization") == f"Bearer {self.key}"
        if self.fault == "refuse" or (not known and self.fault != "refuse-inside"):
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if self.fault == "refuse-inside":
            await self._fail(socket, 1004)
            return socket
        self.connections += 1
        number = self.connections
        ok = {"status_code": 0, "status_msg": "success"}
        await socket.send_json({"event": "connected_success", "session_id": f"s{number}", "base_resp": ok})
        start: dict[str, Any] = {}
        async for message in socket:
            said = json.loads(message.data) if message.type is WSMsgType.TEXT else {}
            match said.get("event"):
                case "task_start" if not start and _complete(said):
                    start = said
                    self.sessions += 1
                    await socket.send_json({"event": "task_started", "session_id": f"s{number}", "base_resp": ok})
                case "task_continue" if start and said.get("text"):
                    await self.record(MinimaxRequest(said["text"], start, number))
                    if not await self._speak(request, socket, said["text"]):
                        break
                case "task_finish" if start:
                    await socket.send_json({"event": "task_finished", "base_resp": ok})
                    break
                case _:
                    await self._fail(socket, 2013)
                    break
        return socket

    async def _fail(self, socket: web.WebSocketResponse, code: int) -> None:
        answer = {"status_code": code, "status_msg": "no"}
        await socket.send_json({"event": "task_failed", "trace_id": "t1", "base_resp": answer})

    async def _speak(self, request: web.Request, socket: web.WebSocketResponse, text: str) -> bool:
        """Send the sound of a text; False where nothing follows on this connection."""
        fault = self.fault
        if fault == "hang":
            await self.hang()
        if fault == "reset":
            reset(request)
            return False
        if fault.startswith("code-"):
            await self._fail(socket, int(fault.removeprefix("code-")))
            return False
        if fault == "garbage":
            await socket.send_str("<html>Please sign in.</html>")
            return False
        if fault == "no-hex":
            await self._sound(socket, "§§§", final=False)
            return False
        pcm = self.sound(text)
        body = (pcm * 0 if fault == "silence" else pcm[:0] if fault == "empty" else pcm).tobytes()
        for at in range(0, len(body), _PIECE_BYTES):
            if at * 2 >= len(body):
                if fault == "hang-midway":
                    await self.hang()
                if fault == "reset-midway":
                    reset(request)
                    return False
            await self._sound(socket, body[at : at + _PIECE_BYTES].hex(), final=False)
        await self._sound(socket, body.hex() if fault == "twice" else "", final=True)
        if fault == "leaves":
            await socket.close()
            return False
        return True

    async def _sound(self, socket: web.WebSocketResponse, sound: str, *, final: bool) -> None:
        extra = {"usage_characters": 10, "audio_sample_rate": DOWNLINK_RATE_HZ} if final else {}
        told = {"event": "task_continued", "data": {"audio": sound}, "is_final": final, "extra_info": extra}
        await socket.send_json({**told, "trace_id": "t1", "base_resp": {"status_code": 0, "status_msg": ""}})


def _complete(start: dict[str, Any]) -> bool:
    """Whether a session can begin with this."""
    voice, audio = start.get("voice_setting", {}), start.get("audio_setting", {})
    return bool(
        start.get("model")
        and voice.get("voice_id")
        and 0.5 <= voice.get("speed", 1.0) <= 2.0
        and audio.get("format") == "pcm"
        and audio.get("sample_rate") in _RATES
        and audio.get("channel") == 1
        and "text" not in start
    )
