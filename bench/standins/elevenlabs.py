"""ElevenLabs' `/v1/text-to-speech/{voice}/stream-input`: sound in pieces with the times of its characters."""

import base64
import json
import math
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import PcmInt

_PIECE_BYTES = 6001  # odd on purpose


class ElevenLabsStandIn(StandIn):
    """`stream-input`; `requests` are pairs of a voice and a text.

    Args:
        key: the key that is taken.
        voices: the ids that are known.
        sound: makes the sound of a text, int16[n] at 24 kHz; a tone when left out.
        timed: every piece of sound tells its characters.
        joined: pieces of sound go across texts, as with a model that hears a text late.
        says_final: the end is told; otherwise the connection is closed.
        port: 0 for any.
    """

    FAULTS = frozenset("hang hang-midway reset reset-midway error garbage no-base64 silence error-500 close".split())

    def __init__(
        self,
        key: str = "k-eleven",
        voices: tuple[str, ...] = ("EXAVITQu4vr4xnSDxMaL", "JBFqnCBsd6RMkjVDRZzb"),
        sound: Callable[[str], PcmInt] = tone,
        *,
        timed: bool = True,
        joined: bool = False,
        says_final: bool = True,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.key, self.voices, self.sound = key, voices, sound
        self.timed, self.joined, self.says_final = timed, joined, says_final
        self.handshakes = 0
        self.first: list[dict[str, Any]] = []
        """The first message of each session."""

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/v1/text-to-speech/{voice}/stream-input", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        voice = request.match_info["voice"]
        if self.fault == "error-500":
            return web.Response(status=500)
        if request.headers.get("xi-api-key") != self.key:
            return web.json_response({"detail": {"status": "invalid_api_key"}}, status=401)
        if voice not in self.voices:
            return web.json_response({"detail": {"status": "voice_not_found"}}, status=404)
        if request.query.get("output_format") != "pcm_24000" or "model_id" not in request.query:
            return web.Response(status=400)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        begun, kept = False, ""
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            text = said["text"]
            if not begun:
                if text != " ":
                    await socket.send_json({"message": "the first text must be a blank", "error": "bad", "code": 1008})
                    break
                begun = True
                self.first.append(said)
            elif text == "":
                if not kept or await self._speak(request, socket, voice, kept):
                    if self.says_final:
                        await socket.send_json({"audio": None, "isFinal": True, "alignment": None})
                    await socket.close(code=1000)
                break
            elif not text.endswith(" "):
                await socket.send_json({"message": "a text must end with a blank", "error": "bad", "code": 1008})
            elif self.joined:
                kept += text
            elif not await self._speak(request, socket, voice, text):
                break
        return socket

    async def _speak(self, request: web.Request, socket: web.WebSocketResponse, voice: str, text: str) -> bool:
        """Whether the session goes on."""
        await self.record((voice, text.strip()))
        match self.fault:
            case "hang":
                await self.hang()
            case "reset":
                reset(request)
                return False
            case "close":
                await socket.close(code=1008, message=b"quota exceeded")
                return False
            case "error":
                told = {"message": "This request exceeds your quota", "error": "quota_exceeded", "code": 1008}
                await socket.send_json(told)
                return False
            case "garbage":
                await socket.send_str("<html>")
                return False
            case "no-base64":
                await socket.send_json({"audio": "§§§", "isFinal": None})
                return False
        parts = text.split() if self.joined else [text.strip()]
        body = b"".join(self.sound(part).astype("<i2").tobytes() for part in parts)
        text = "".join(parts) if self.joined else text
        if self.fault == "silence":
            body = bytes(len(body))
        ms_per_char = len(body) / 48 / len(text)
        told_chars = 0
        for start in range(0, len(body), _PIECE_BYTES):
            if start * 2 >= len(body) and self.fault == "hang-midway":
                await self.hang()
            if start * 2 >= len(body) and self.fault == "reset-midway":
                reset(request)
                return False
            piece = body[start : start + _PIECE_BYTES]
            last = start + _PIECE_BYTES >= len(body)
            until = len(text) if last else math.ceil((start + len(piece)) / 48 / ms_per_char - 1e-6)  # begun in it
            chars, first = list(text[told_chars:until]), told_chars
            told_chars = until
            alignment = {
                "chars": chars,
                "charStartTimesMs": [round((first + n) * ms_per_char - start / 48) for n in range(len(chars))],
                "charDurationsMs": [round(ms_per_char)] * len(chars),
            }
            told = {"audio": base64.b64encode(piece).decode(), "isFinal": None}
            await socket.send_json({**told, "alignment": alignment if self.timed else None})
        return True
