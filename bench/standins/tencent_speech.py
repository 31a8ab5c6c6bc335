"""Tencent Cloud's speech with streamed text: signature, query and order of messages are checked."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt

_PATH = "/stream_wsv2"
_PIECE_BYTES = 5001  # odd on purpose


@dataclass(frozen=True, slots=True)
class TencentSpeechRequest:
    """A text that was to be spoken, with what, on which connection."""

    text: str
    query: dict[str, str]
    connection: int


class TencentSpeechStandIn(StandIn):
    """`/stream_wsv2`.

    Faults: `refuse` (403), `error-500`, `unready` (never ready), `hang`, `hang-midway`, `reset`, `reset-midway`,
    `garbage`, `silence`, `empty`, `code-N`, `impatient` (closes a connection that gets no text at once).

    Args:
        app_id: the application that is taken.
        secret_id: of the account.
        secret_key: of the account.
        sound: makes the sound of a text, int16[n] at 24 kHz; a tone when left out.
        port: 0 for any.
    """

    WS_PATH = _PATH
    FAULTS = frozenset(
        "refuse error-500 unready hang hang-midway reset reset-midway garbage silence empty".split()
        + "code-10004 impatient".split()
    )

    def __init__(
        self,
        app_id: str = "1259000000",
        secret_id: str = "id-tencent",
        secret_key: str = "k-tencent",
        sound: Callable[[str], PcmInt] = tone,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.app_id, self.secret_id, self.key = app_id, secret_id, secret_key
        self.sound = sound
        self.connections = 0
        self.session_ids: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault in ("refuse", "error-500"):
            return web.Response(status=403 if self.fault == "refuse" else 500)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        query = dict(pair.partition("=")[::2] for pair in request.rel_url.raw_query_string.split("&"))
        query = {name: unquote(value) for name, value in query.items()}
        why = self._judge(request, query)
        if why:
            await socket.send_json({"code": 10003, "message": why})
            return socket
        self.session_ids.add(query["SessionId"])
        self.connections += 1
        number, text = self.connections, ""
        if self.fault == "unready":
            await self.hang()
        await socket.send_json({"code": 0, "message": "success", "session_id": query["SessionId"], "ready": 1})
        if self.fault == "impatient":
            await socket.close()
            return socket
        async for message in socket:
            said = json.loads(message.data) if message.type is WSMsgType.TEXT else {}
            if said.get("session_id") != query["SessionId"] or not said.get("message_id"):
                await socket.send_json({"code": 10002, "message": "no such session"})
                break
            if said["action"] == "ACTION_SYNTHESIS" and said["data"]:
                text += said["data"]
            elif said["action"] == "ACTION_COMPLETE" and text:
                await self.record(TencentSpeechRequest(text, query, number))
                await self._speak(request, socket, text)
                break
            else:
                await socket.send_json({"code": 10002, "message": "unknown action, or nothing to speak"})
                break
        return socket

    def _judge(self, request: web.Request, query: dict[str, str]) -> str:
        """What is wrong with an address; empty where nothing is."""
        pairs = "&".join(f"{name}={query[name]}" for name in sorted(query) if name != "Signature")
        origin = f"GET{request.host}{request.path}?{pairs}"
        wanted = base64.b64encode(hmac.digest(self.key.encode(), origin.encode(), hashlib.sha1)).decode()
        if not hmac.compare_digest(wanted, query.get("Signature", "")) or query["SecretId"] != self.secret_id:
            return "signature"
        if query["AppId"] != self.app_id or query["SessionId"] in self.session_ids:
            return "application or session"
        at, until = int(query["Timestamp"]), int(query["Expired"])
        if abs(at - time.time()) > 300 or not at < until:
            return "expired"
        if (query["Action"], query["Codec"]) != ("TextToStreamAudioWSv2", "pcm") or not -2 <= float(
            query["Speed"]
        ) <= 6:
            return "parameter"
        return "" if query["SampleRate"] == str(DOWNLINK_RATE_HZ) and query["VoiceType"].isdigit() else "parameter"

    async def _speak(self, request: web.Request, socket: web.WebSocketResponse, text: str) -> None:
        fault, told = self.fault, {"code": 0, "message": "success"}
        if fault == "hang":
            await self.hang()
        if fault == "reset":
            return reset(request)
        if fault.startswith("code-"):
            return await socket.send_json({"code": int(fault[5:]), "message": "no"})
        if fault == "garbage":
            return await socket.send_str("<html>")
        pcm = self.sound(text)
        body = (pcm * 0 if fault == "silence" else pcm[:0] if fault == "empty" else pcm).tobytes()
        for at in range(0, len(body), _PIECE_BYTES):
            if at * 2 >= len(body):
                if fault == "hang-midway":
                    await self.hang()
                if fault == "reset-midway":
                    return reset(request)
            await socket.send_bytes(body[at : at + _PIECE_BYTES])
            extra: dict[str, Any] = {"heartbeat": 1} if at else {"result": {"subtitles": [{"Text": text[:1]}]}}
            await socket.send_json({**told, **extra})
        await socket.send_json({**told, "final": 1})
        return None
