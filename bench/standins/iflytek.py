"""iFlytek's online speech synthesis: a WebSocket with a signed address, whose signature and clock are checked.

Statuses and messages of a refused handshake are those of the table in iFlytek's WebAPI documents (the same for all).
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import numpy as np
from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.audio.resample import StreamResampler

_PATH = "/v2/tts"
_RATE_HZ = 16_000
_PIECE_BYTES = 5001  # odd on purpose: pieces of the real service end anywhere
_FIELD = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class IflytekRequest:
    """What was asked."""

    text: str
    voice: str
    speed: int


class IflytekStandIn(StandIn):
    """`/v2/tts`; faults `code-N` answer with an error code of the service.

    Args:
        app_id: the application that is taken.
        key: its key.
        secret: its secret.
        sound: makes the sound of a text, int16[n] at 24 kHz; a tone when left out.
        port: 0 for any.
    """

    WS_PATH = _PATH
    FAULTS = frozenset(
        "refuse hang hang-midway reset reset-midway error-500 garbage no-base64 silence empty".split()
        + "code-10005 code-10313 code-11200 code-10700".split()
    )

    def __init__(
        self,
        app_id: str = "app",
        key: str = "k-iflytek",
        secret: str = "s-iflytek",
        sound: Callable[[str], PcmInt] = tone,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.app_id, self.key, self.secret = app_id, key, secret
        self.sound = sound
        self.handshakes = 0

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        if self.fault == "refuse":
            return web.json_response({"message": "Your IP address is not allowed"}, status=403)
        if self.fault.startswith("error-"):
            return web.Response(status=500)
        refusal = refusal_of(request, _PATH, self.key, self.secret)
        if refusal is not None:
            return refusal
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        message = await socket.receive()
        if message.type is not WSMsgType.TEXT:
            return socket
        asked = json.loads(message.data)
        business, data = asked["business"], asked["data"]
        if asked["common"]["app_id"] != self.app_id:
            await socket.send_json({"code": 10313, "message": "invalid app_id", "sid": "tts1"})
            return socket
        if (business["aue"], business["auf"], business["tte"].lower(), data["status"]) != (
            "raw",
            "audio/L16;rate=16000",
            "utf8",
            2,
        ):
            await socket.send_json({"code": 10007, "message": "invalid parameter", "sid": "tts1"})
            return socket
        text = base64.b64decode(data["text"], validate=True).decode("utf-8")
        fault = self.fault
        await self.record(IflytekRequest(text, business["vcn"], business["speed"]))
        await self._answer(request, socket, text, fault)
        return socket

    async def _answer(self, request: web.Request, socket: web.WebSocketResponse, text: str, fault: str) -> None:
        if fault == "hang":
            await self.hang()
        if fault == "reset":
            reset(request)
            return
        if fault.startswith("code-"):
            await socket.send_json({"code": int(fault.removeprefix("code-")), "message": "no", "sid": "tts1"})
            return
        if fault == "garbage":
            await socket.send_str("<html>Please sign in.</html>")
            return
        if fault == "no-base64":
            await socket.send_json({"code": 0, "data": {"audio": "§§§", "status": 1}})
            return
        resampler = StreamResampler(DOWNLINK_RATE_HZ, _RATE_HZ)
        pcm = self.sound(text)
        pcm = np.concatenate([resampler.feed(pcm), resampler.flush()])
        body = (pcm * 0 if fault == "silence" else pcm[:0] if fault == "empty" else pcm).tobytes()
        for start in range(0, max(1, len(body)), _PIECE_BYTES):
            if start * 2 >= len(body) > 0:
                if fault == "hang-midway":
                    await self.hang()
                if fault == "reset-midway":
                    reset(request)
                    return
            audio = base64.b64encode(body[start : start + _PIECE_BYTES]).decode()
            status = 2 if start + _PIECE_BYTES >= len(body) else 1
            data = {"audio": audio, "status": status, "ced": str(start)}
            await socket.send_json({"code": 0, "message": "success", "sid": "tts1", "data": data})


def refusal_of(request: web.Request, path: str, key: str, secret: str) -> web.Response | None:
    """Judge the signature as the service does; None when it is good."""
    query = request.query
    if "authorization" not in query:
        return web.json_response({"message": "Unauthorized"}, status=401)
    fields = dict(_FIELD.findall(base64.b64decode(query["authorization"]).decode()))
    origin = f"host: {query['host']}\ndate: {query['date']}\nGET {path} HTTP/1.1"
    wanted = base64.b64encode(hmac.new(secret.encode(), origin.encode(), hashlib.sha256).digest()).decode()
    known = fields.get("api_key") == key and fields.get("algorithm") == "hmac-sha256"
    if not known or fields.get("headers") != "host date request-line" or query["host"] != request.host:
        return web.json_response({"message": "HMAC signature cannot be verified"}, status=401)
    if not hmac.compare_digest(fields.get("signature", ""), wanted):
        return web.json_response({"message": "HMAC signature does not match"}, status=401)
    if abs((datetime.now(UTC) - parsedate_to_datetime(query["date"])).total_seconds()) > 300:
        text = "HMAC signature cannot be verified, a valid date or x-date header is required"
        return web.json_response({"message": f"{text} for HMAC Authentication"}, status=403)
    return None
