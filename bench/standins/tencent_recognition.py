"""Tencent Cloud's realtime recognition: signature, order, pace and sizes of what it is sent are checked.

What it checks is in Tencent's page 1093/48982: the signature of the sorted query as it was before it was encoded, a new
`voice_id` for every connection, no sound before the first answer, at most 3 s of sound in a second, an end.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset

_REQUIRED = "secretid timestamp expired nonce engine_model_type voice_id signature".split()
_STEP_BYTES = 32 * 200  # a changed text after so much sound
_MAX_BYTES_A_SECOND = 32_000 * 3


@dataclass(slots=True)
class TencentRequest:
    """One connection.

    Attributes:
        query: of its address.
        pcm: what it was sent.
        ended: the client has asked for the final text.
    """

    query: dict[str, str]
    pcm: bytearray = field(default_factory=bytearray)
    ended: bool = False


class TencentRecognitionStandIn(StandIn):
    """`/asr/v2/APPID`.

    Faults: `refuse` (403), `error-500`, `code-N` after 0.4 s of sound, `stall` (takes sound, and says nothing), `hang`
    (no final text), `reset-midway` after 0.4 s, `close` instead of the final text, `garbage`, `empty`, `unasked`
    (a final text in the middle), `slow` (0.2 s to the first answer).

    Args:
        sentences: what is understood; the first letters of a text that is another are shown while sound comes.
        app_id: the application that is taken.
        secret_id: of the account.
        secret_key: of the account.
        port: 0 for any.
    """

    WS_PATH = "/asr/v2"
    FAULTS = frozenset(
        "refuse error-500 stall hang reset-midway close garbage empty unasked slow".split()
        + "code-4003 code-4008 code-5000".split()
    )

    def __init__(
        self,
        *sentences: str,
        app_id: str = "1259000000",
        secret_id: str = "id-tencent",
        secret_key: str = "k-tencent",
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.sentences = sentences or ("what time is it",)
        self.app_id, self.secret_id, self.key = app_id, secret_id, secret_key
        self.voice_ids: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/asr/v2/{app_id}", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault in ("refuse", "error-500"):
            return web.Response(status=403 if self.fault == "refuse" else 500)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        query = dict(pair.partition("=")[::2] for pair in request.rel_url.raw_query_string.split("&"))
        query = {name: unquote(value) for name, value in query.items()}
        code, why = self._judge(request, query)
        if code:
            await socket.send_json({"code": code, "message": why})
            return socket
        self.voice_ids.add(query["voice_id"])
        asked = TencentRequest(query)
        await self.record(asked)
        reading = asyncio.create_task(socket.receive())
        try:
            if self.fault == "slow" and (await asyncio.wait([reading], timeout=0.2))[0]:
                await socket.send_json({"code": 4001, "message": "sound before the first answer"})
                return socket
            await socket.send_json({"code": 0, "message": "success", "voice_id": query["voice_id"]})
            await self._hear(request, socket, asked, reading)
        finally:
            reading.cancel()
        return socket

    def _judge(self, request: web.Request, query: dict[str, str]) -> tuple[int, str]:
        missing = [name for name in _REQUIRED if not query.get(name)]
        if missing:
            return 4001, f"missing {missing}"
        pairs = "&".join(f"{name}={query[name]}" for name in sorted(query) if name != "signature")
        text = f"{request.host}{request.path}?{pairs}"
        wanted = base64.b64encode(hmac.digest(self.key.encode(), text.encode(), hashlib.sha1)).decode()
        if not hmac.compare_digest(wanted, query["signature"]) or query["secretid"] != self.secret_id:
            return 4002, "auth failed"
        if request.match_info["app_id"] != self.app_id:
            return 4003, "not enabled"
        at, until = int(query["timestamp"]), int(query["expired"])
        if abs(at - time.time()) > 300 or not at < until < at + 90 * 86_400:
            return 4002, "expired"
        if query.get("voice_format") != "1" or len(query["nonce"]) > 10 or query["voice_id"] in self.voice_ids:
            return 4001, "voice_format, nonce or voice_id"
        return 0, ""

    async def _hear(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        asked: TencentRequest,
        reading: "asyncio.Task[object]",
    ) -> None:
        recent: deque[tuple[float, int]] = deque()
        message = await reading
        voice_id = asked.query["voice_id"]
        while message.type is WSMsgType.BINARY:  # type: ignore[attr-defined]  # what `receive` gives
            data: bytes = message.data  # type: ignore[attr-defined]
            now_s = time.monotonic()
            recent.append((now_s, len(data)))
            while recent[0][0] < now_s - 1.0:
                recent.popleft()
            if sum(size for _, size in recent) > _MAX_BYTES_A_SECOND:
                await socket.send_json({"code": 4000, "message": "too fast", "voice_id": voice_id})
                return
            if len(data) % 2 or not data:
                await socket.send_json({"code": 4007, "message": "cannot be decoded", "voice_id": voice_id})
                return
            before = len(asked.pcm) // _STEP_BYTES
            asked.pcm += data
            steps = len(asked.pcm) // _STEP_BYTES
            if steps > before and not await self._goes_on(request, socket, steps, voice_id):
                return
            try:
                message = await asyncio.wait_for(socket.receive(), 15.0)
            except TimeoutError:
                await socket.send_json({"code": 4008, "message": "no sound for 15 s", "voice_id": voice_id})
                return
        if message.type is not WSMsgType.TEXT:  # type: ignore[attr-defined]
            return
        if json.loads(message.data) != {"type": "end"}:  # type: ignore[attr-defined]
            await socket.send_json({"code": 4010, "message": "unknown text", "voice_id": voice_id})
            return
        asked.ended = True
        await self._end(socket, voice_id)

    async def _goes_on(self, request: web.Request, socket: web.WebSocketResponse, steps: int, voice_id: str) -> bool:
        """Say what is heard so far, or go wrong; False where nothing follows."""
        if self.fault == "garbage":
            await socket.send_str("<html>")
            return False
        if self.fault == "unasked":
            await self._end(socket, voice_id)
            return False
        if steps >= 2 and self.fault == "reset-midway":
            reset(request)
            return False
        if steps >= 2 and self.fault.startswith("code-"):
            await socket.send_json({"code": int(self.fault[5:]), "message": "no", "voice_id": voice_id})
            return False
        if self.fault != "stall":
            kind = 0 if steps == 1 else 1
            await socket.send_json(self._said(voice_id, 0, kind, "what was said another time"[: 2 * steps]))
        return True

    async def _end(self, socket: web.WebSocketResponse, voice_id: str) -> None:
        if self.fault in ("stall", "hang"):
            await self.hang()
        if self.fault == "close":
            await socket.close()
            return
        for index, text in enumerate(() if self.fault == "empty" else self.sentences):
            await socket.send_json(self._said(voice_id, index, 2, text))
        await socket.send_json({"code": 0, "message": "success", "voice_id": voice_id, "final": 1})

    def _said(self, voice_id: str, index: int, kind: int, text: str) -> dict[str, object]:
        result = {
            "slice_type": kind,
            "index": index,
            "start_time": 0,
            "end_time": 1240,
            "voice_text_str": text,
            "word_size": 0,
            "word_list": [],
        }
        message_id = f"{voice_id}_11_0"
        return {"code": 0, "message": "success", "voice_id": voice_id, "message_id": message_id, "result": result}
