"""OpenAI's Realtime interface, transcription sessions: a word of its script for each quarter of a second committed.

Rules and names are those of the SDK `openai` 3.57 (`types/realtime`) and of the service: it speaks first, an event that
it does not know is an error and the session goes on, a commit needs 100 ms of sound.
"""

import base64
import binascii
import json
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.deepgram import said_by

_RATE_HZ = 24_000
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


class OpenAIRealtimeStandIn(StandIn):
    """`/v1/realtime`; `requests` are the `session.update` events.

    Deltas are in capitals, the completed text as in the script: so the last partial is never the text.

    Args:
        words: the script.
        key: the key that is taken.
        live: texts come while sound does, not only after a commit.
        port: 0 for any.
    """

    WS_PATH = "/v1/realtime?intent=transcription"
    FAULTS = frozenset("error hang hang-at-question reset-midway close garbage failed error-500".split())

    def __init__(
        self,
        words: str = "what time is it over there my friend",
        key: str = "k-realtime",
        *,
        live: bool = True,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.words, self.key, self.live = words.split(), key, live
        self.events: list[dict[str, Any]] = []
        """What clients sent, without the sound."""
        self.received_s: list[float] = []
        """Sound of each connection, in seconds."""
        self.items = 0
        self.late: list[dict[str, Any]] = []
        """Sent at the next sound of a connection: what comes late."""

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/v1/realtime", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault == "error-500":
            return web.Response(status=500)
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"code": "invalid_api_key", "message": "Incorrect API key"}}, status=401)
        if request.query.get("intent") != "transcription":
            return web.Response(status=400)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        session = _Session(self, request, socket)
        await session.tell("session.created", session={"type": "transcription", "id": "sess_1"})
        self.received_s.append(0.0)
        number = len(self.received_s) - 1
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            event = json.loads(message.data)
            if event["type"] != "input_audio_buffer.append":
                self.events.append(event)
            if not await session.take(event, number):
                break
        return socket


class _Session:
    def __init__(self, service: OpenAIRealtimeStandIn, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.service, self.request, self.socket = service, request, socket
        self.ready = False
        self.buffered = 0.0  # seconds
        self.begun_s = 0.0  # of the script, where the buffer begins
        self.item = ""
        self.shown = 0

    async def tell(self, kind: str, **fields: Any) -> None:
        await self.socket.send_json({"type": kind, "event_id": "event_1", **fields})

    async def error(self, code: str, message: str) -> None:
        await self.tell("error", error={"type": "invalid_request_error", "code": code, "message": message})

    async def take(self, event: dict[str, Any], number: int) -> bool:
        """Whether the session goes on."""
        match event["type"]:
            case "session.update":
                await self._update(event["session"])
            case "input_audio_buffer.append":
                return await self._append(event, number)
            case "input_audio_buffer.clear":
                self.buffered, self.begun_s, self.shown, self.item = 0.0, 0.0, 0, ""
                await self.tell("input_audio_buffer.cleared")
            case "input_audio_buffer.commit":
                await self._commit()
            case kind:
                await self.error("unknown_event", f"Invalid value: {kind}")
        return True

    async def _update(self, session: dict[str, Any]) -> None:
        sound = session["audio"]["input"]
        fits = session["type"] == "transcription" and sound["format"] == {"type": "audio/pcm", "rate": _RATE_HZ}
        model = sound["transcription"]["model"]
        if not fits or "turn_detection" not in sound or not isinstance(model, str):
            await self.error("invalid_value", "Invalid session")
            return
        self.ready = True
        await self.service.record(session)
        await self.tell("session.updated", session=session)

    async def _append(self, event: dict[str, Any], number: int) -> bool:
        service = self.service
        try:
            data = base64.b64decode(event["audio"], validate=True)
        except binascii.Error:
            data = b"?"
        if not self.ready or not data or len(data) % 2:
            await self.error("invalid_audio", "The audio could not be decoded")
            return True
        seconds = len(data) / 2 / _RATE_HZ
        self.buffered += seconds
        service.received_s[number] += seconds
        for late in service.late:
            await self.socket.send_json(late)
        service.late.clear()
        match service.fault:
            case "hang":
                await service.hang()
            case "error":
                await self.error("server_error", "The server had an error")
            case "garbage":
                await self.socket.send_str("[1, 2")
            case "reset-midway" if service.received_s[number] >= 0.5:
                reset(self.request)
                return False
            case "close" if service.received_s[number] >= 0.5:
                await self.socket.close(code=1001, message=b"session expired")
                return False
        if service.live:
            await self._deltas()
        return True

    def _item(self) -> str:
        if not self.item:
            self.service.items += 1
            self.item = f"item_{self.service.items}"
        return self.item

    def _said(self) -> list[str]:
        return said_by(self.service.words, self.begun_s + self.buffered, self.begun_s)

    async def _deltas(self) -> None:
        for word in self._said()[self.shown :]:
            self.shown += 1
            await self.tell(f"{_TRANSCRIPTION}.delta", item_id=self._item(), content_index=0, delta=f"{word.upper()} ")

    async def _commit(self) -> None:
        if self.buffered < 0.1 - 1e-9:
            text = "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio"
            await self.error("input_audio_buffer_commit_empty", text)
            return
        item, words = self._item(), self._said()
        await self.tell("input_audio_buffer.committed", item_id=item, previous_item_id=None)
        if self.service.fault == "hang-at-question":
            await self.service.hang()
        await self._deltas()
        if self.service.fault == "failed":
            error = {"type": "server_error", "code": "audio_unintelligible", "message": "could not be transcribed"}
            await self.tell(f"{_TRANSCRIPTION}.failed", item_id=item, content_index=0, error=error)
        else:
            usage = {"type": "duration", "seconds": self.buffered}
            fields = {"content_index": 0, "transcript": " ".join(words), "usage": usage}
            await self.tell(f"{_TRANSCRIPTION}.completed", item_id=item, **fields)
        self.begun_s, self.buffered, self.shown, self.item = self.begun_s + self.buffered, 0.0, 0, ""
