"""Alibaba's DashScope over its realtime WebSocket: Qwen's recognition and voices, as strict as the service.

Written from Model Studio's pages and from what the official SDK (PyPI `dashscope` 2.0.2) sends and reads.
"""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import PcmInt

_PATH = "/api-ws/v1/realtime"
_SOUND_PIECE_BYTES = 4801  # odd on purpose: pieces of the real service end anywhere
_TEXT = "conversation.item.input_audio_transcription."


@dataclass(slots=True)
class RealtimeSession:
    """What one connection was asked.

    Attributes:
        model: of the address.
        session: of the last `session.update`.
        sound: what was sent to a recogniser.
        finished: `session.finish` has come.
        texts: what was committed to a voice.
        buffer: what was not committed yet.
        speaking: the response that is under way.
    """

    model: str
    session: dict[str, Any] = field(default_factory=dict)
    sound: bytearray = field(default_factory=bytearray)
    finished: bool = False
    texts: list[str] = field(default_factory=list)
    buffer: str = ""
    speaking: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """Of 16 bits at 16 kHz."""
        return len(self.sound) / 32_000


class _Wrong(Exception):
    """An event that the service does not take; it says so and stays."""


class _Realtime(StandIn):
    """`/api-ws/v1/realtime`. `requests` are the sessions, oldest first.

    Args:
        key: of the account.
        port: 0 for any.
    """

    def __init__(self, key: str = "sk-dash", port: int = 0) -> None:
        super().__init__(port)
        self.key = key
        self.sockets: list[web.WebSocketResponse] = []

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.key}" or self.fault == "refuse":
            return web.json_response({"code": "InvalidApiKey", "message": "Invalid API-key provided."}, status=401)
        socket = web.WebSocketResponse(max_msg_size=1024 * 1024)
        await socket.prepare(request)
        self.sockets.append(socket)
        if self.fault == "hang-start":
            await self.hang()
        session = RealtimeSession(request.query["model"])
        await socket.send_json({"type": "session.created", "session": {"id": "sess_1", "model": session.model}})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                await self._event(request, socket, session, json.loads(message.data))
            except _Wrong as wrong:
                about = {"type": "invalid_request_error", "code": "invalid_value", "message": str(wrong)}
                await socket.send_json({"type": "error", "error": about})
            if session.finished and self.fault != "hang":
                break
        return socket

    async def _event(
        self, request: web.Request, socket: web.WebSocketResponse, session: RealtimeSession, event: dict[str, Any]
    ) -> None:
        raise NotImplementedError


class QwenAsrStandIn(_Realtime):
    """Recognition.

    Attributes:
        words: what is recognised: its sentences, the last of which is over with the session.
    """

    WS_PATH = "/api-ws/v1/inference"  # that of the other protocol, as people have it
    FAULTS = frozenset("refuse hang-start fail-midway error-midway reset-midway hang garbage binary empty".split())

    def __init__(self, key: str = "sk-dash", port: int = 0) -> None:
        super().__init__(key, port)
        self.words: list[str] = ["what time is it"]

    async def _event(
        self, request: web.Request, socket: web.WebSocketResponse, session: RealtimeSession, event: dict[str, Any]
    ) -> None:
        if not event["event_id"].startswith("event_"):
            raise _Wrong("event_id is missing")
        if event["type"] == "session.update":
            given = event["session"]
            if (given["input_audio_format"], given["sample_rate"]) != ("pcm", 16_000):
                raise _Wrong("input_audio_format or sample_rate is invalid")
            if not 200 <= given["turn_detection"]["silence_duration_ms"] <= 6000:
                raise _Wrong("silence_duration_ms is invalid")
            session.session = given
            await self.record(session)
            await socket.send_json({"type": "session.updated", "session": given})
        elif event["type"] == "input_audio_buffer.append" and session.session:
            data = base64.b64decode(event["audio"], validate=True)
            if not data or len(data) % 2:
                raise _Wrong(f"{len(data)} bytes of audio")
            before = session.seconds
            session.sound += data
            if before < 0.5 <= session.seconds:
                await self._midway(request, socket)
        elif event["type"] == "session.finish" and session.session:
            session.finished = True
            if self.fault == "hang":
                return
            for index, sentence in enumerate([] if self.fault == "empty" else self.words):
                await socket.send_json(
                    {
                        "type": f"{_TEXT}completed",
                        "item_id": f"item_{index}",
                        "content_index": 0,
                        "transcript": sentence,
                    }
                )
            await socket.send_json({"type": "session.finished"})
        else:
            raise _Wrong(f"{event['type']} is not expected here")

    async def _midway(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "input_audio_buffer.speech_started", "item_id": "item_0"})
        half = len(self.words[0]) // 2
        text = {"item_id": "item_0", "language": "en", "emotion": "neutral", "text": self.words[0][:half], "stash": "…"}
        await socket.send_json({"type": f"{_TEXT}text", **text})
        match self.fault:
            case "fail-midway":
                about = {"code": "asr_failed", "message": "no\nsuch luck"}
                await socket.send_json({"type": f"{_TEXT}failed", "item_id": "item_0", "error": about})
            case "error-midway":
                await socket.send_json({"type": "error", "error": {"message": "internal\nerror"}})
            case "reset-midway":
                reset(request)
            case "garbage":
                await socket.send_str("<html>Please sign in.</html>")
            case "binary":
                await socket.send_bytes(b"12")


class QwenTtsStandIn(_Realtime):
    """A voice in the mode `commit`.

    Args:
        key: of the account.
        sound: makes the sound of a text, int16[n] at 24 kHz; a tone when left out.
        port: 0 for any.
    """

    FAULTS = frozenset("refuse hang-start error-midway reset-midway hang garbage no-base64 failed silence".split())

    def __init__(self, key: str = "sk-dash", sound: Callable[[str], PcmInt] = tone, port: int = 0) -> None:
        super().__init__(key, port)
        self.sound = sound

    async def _event(
        self, request: web.Request, socket: web.WebSocketResponse, session: RealtimeSession, event: dict[str, Any]
    ) -> None:
        if not event["event_id"].startswith("event_"):
            raise _Wrong("event_id is missing")
        if event["type"] == "session.update":
            given = event["session"]
            if (given["mode"], given["response_format"], given["sample_rate"]) != ("commit", "pcm", 24_000):
                raise _Wrong("mode, response_format or sample_rate is invalid")
            if not given["voice"] or not 0.5 <= given["speech_rate"] <= 2.0:
                raise _Wrong("voice or speech_rate is invalid")
            session.session = given
            await self.record(session)
            await socket.send_json({"type": "session.updated", "session": given})
        elif event["type"] == "input_text_buffer.append" and session.session and event["text"]:
            session.buffer += event["text"]
        elif event["type"] == "input_text_buffer.commit" and session.buffer:
            if session.speaking is not None and not session.speaking.done():
                raise _Wrong("a response is under way")
            session.texts.append(session.buffer)
            session.speaking = asyncio.create_task(self._speak(request, socket, session.buffer, len(session.texts)))
            session.buffer = ""
        else:
            raise _Wrong(f"{event['type']} is not expected here")

    async def _speak(self, request: web.Request, socket: web.WebSocketResponse, text: str, number: int) -> None:
        which, fault = f"resp_{number}", self.fault
        await socket.send_json({"type": "response.created", "response": {"id": which, "status": "in_progress"}})
        if fault == "hang":
            await self.hang()
        if fault == "garbage":
            await socket.send_str("<html>Please sign in.</html>")
            return
        # What came too late of the response before is nobody's.
        late = base64.b64encode(bytes(4800)).decode()
        await socket.send_json({"type": "response.audio.delta", "response_id": f"resp_{number - 1}", "delta": late})
        pcm = self.sound(text)
        data = (pcm * 0 if fault == "silence" else pcm).tobytes()
        for start in range(0, len(data), _SOUND_PIECE_BYTES):
            if start and fault == "reset-midway":
                reset(request)
                return
            if start and fault == "error-midway":
                await socket.send_json({"type": "error", "error": {"message": "internal\nerror"}})
                return
            piece = base64.b64encode(data[start : start + _SOUND_PIECE_BYTES]).decode()
            delta = "§§§" if fault == "no-base64" else piece
            await socket.send_json({"type": "response.audio.delta", "response_id": which, "delta": delta})
            if fault == "failed":
                break
        await socket.send_json({"type": "response.audio.done", "response_id": which})
        status = "failed" if fault == "failed" else "completed"
        await socket.send_json({"type": "response.done", "response": {"id": which, "status": status}})
