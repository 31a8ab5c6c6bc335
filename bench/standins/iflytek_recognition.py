"""iFlytek's dictation with its large model: signature, order and form of every message are checked."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.iflytek import refusal_of

_PATH = "/v1"
_STEP_BYTES = 32 * 200
_MAX_PIECE_BYTES = 1280 * 10
_MAX_BYTES = 32_000 * 60


@dataclass(slots=True)
class DictationRequest:
    """One connection.

    Attributes:
        parameter: of its first message.
        pcm: what it was sent.
        ended: the client has said that no sound follows.
    """

    parameter: dict[str, Any] = field(default_factory=dict)
    pcm: bytearray = field(default_factory=bytearray)
    ended: bool = False


class IflytekRecognitionStandIn(StandIn):
    """`/v1`; texts come as slots, the first of which are replaced (`rpl`) by the end.

    Faults: `refuse` (403), `error-500`, `code-N` after 0.4 s of sound, `stall` (takes sound, and says nothing), `hang`
    (no final text), `reset-midway` after 0.4 s, `close` instead of the final text, `garbage`, `empty`, `unasked`
    (a final text in the middle).

    Args:
        sentences: what is understood, a slot each.
        app_id: the application that is taken.
        key: its key.
        secret: its secret.
        port: 0 for any.
    """

    WS_PATH = _PATH
    FAULTS = frozenset(
        "refuse error-500 stall hang reset-midway close garbage empty unasked".split()
        + "code-10165 code-11201 code-10700".split()
    )

    def __init__(
        self,
        *sentences: str,
        app_id: str = "app",
        key: str = "k-iflytek",
        secret: str = "s-iflytek",
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.sentences = sentences or ("what time is it",)
        self.app_id, self.key, self.secret = app_id, key, secret

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault in ("refuse", "error-500"):
            return web.json_response({"message": "no"}, status=403 if self.fault == "refuse" else 500)
        refusal = refusal_of(request, _PATH, self.key, self.secret)
        if refusal is not None:
            return refusal
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        asked, frames = DictationRequest(), 0
        async for message in socket:
            said = json.loads(message.data) if message.type is WSMsgType.TEXT else {}
            code = self._judge(said, frames, asked)
            if code:
                await self._fail(socket, code)
                break
            frames += 1
            if frames == 1:
                asked.parameter = said["parameter"]
                await self.record(asked)
            before = len(asked.pcm) // _STEP_BYTES
            asked.pcm += base64.b64decode(said["payload"]["audio"]["audio"], validate=True)
            if said["header"]["status"] == 2:
                asked.ended = True
                await self._end(socket, replaced=before > 0)
                break
            steps = len(asked.pcm) // _STEP_BYTES
            if steps > before and not await self._goes_on(request, socket, steps):
                break
        return socket

    def _judge(self, said: dict[str, Any], frames: int, asked: DictationRequest) -> int:
        """The code of what is wrong with a message; 0 where nothing is."""
        try:
            header, audio = said["header"], said["payload"]["audio"]
            if header["app_id"] != self.app_id:
                return 10313
            data = base64.b64decode(audio["audio"], validate=True)
            first = frames == 0
            wanted = {0} if first else {1, 2}
            if header["status"] not in wanted or audio["status"] != header["status"] or first != ("parameter" in said):
                return 10165
            if (audio["encoding"], audio["sample_rate"]) != ("raw", 16_000) or audio["seq"] != frames + 1:
                return 10163
            if len(data) % 2 or len(data) > _MAX_PIECE_BYTES or len(asked.pcm) + len(data) > _MAX_BYTES:
                return 10163
            if first and (said["parameter"]["iat"]["domain"], said["parameter"]["iat"]["dwa"]) != ("slm", "wpgs"):
                return 10163
        except (KeyError, TypeError, ValueError):
            return 10160
        return 0

    async def _fail(self, socket: web.WebSocketResponse, code: int) -> None:
        await socket.send_json({"header": {"code": code, "message": "no", "sid": "iat1", "status": 2}})

    async def _goes_on(self, request: web.Request, socket: web.WebSocketResponse, steps: int) -> bool:
        """Say what is heard so far, or go wrong; False where nothing follows."""
        if self.fault == "garbage":
            await socket.send_str("<html>")
            return False
        if self.fault == "unasked":
            await self._end(socket, replaced=True)
            return False
        if steps >= 2 and self.fault == "reset-midway":
            reset(request)
            return False
        if steps >= 2 and self.fault.startswith("code-"):
            await self._fail(socket, int(self.fault[5:]))
            return False
        if self.fault != "stall":
            first = {"sn": steps, "ls": False, "pgs": "apd"}
            await self._say(socket, first, "what was said another time"[2 * steps - 2 : 2 * steps], 1)
        return True

    async def _end(self, socket: web.WebSocketResponse, *, replaced: bool) -> None:
        if self.fault in ("stall", "hang"):
            await self.hang()
        if self.fault == "close":
            await socket.close()
            return
        texts = [""] if self.fault == "empty" else list(self.sentences)
        for number, text in enumerate(texts):
            how: dict[str, Any] = {"pgs": "rpl", "rg": [1, 999]} if replaced and not number else {"pgs": "apd"}
            last = number == len(texts) - 1
            await self._say(socket, {"sn": 1000 + number, "ls": last, **how}, text, 2 if last else 1)

    async def _say(self, socket: web.WebSocketResponse, slot: dict[str, Any], text: str, status: int) -> None:
        words = [{"bg": 0, "cw": [{"w": text[:3]}]}, {"bg": 30, "cw": [{"w": text[3:]}, {"w": "another reading"}]}]
        body = base64.b64encode(json.dumps({**slot, "bg": 0, "ed": 0, "ws": words}).encode()).decode()
        header = {"code": 0, "message": "success", "sid": "iat1", "status": status}
        await socket.send_json({"header": header, "payload": {"result": {"text": body, "status": status}}})
