"""A server with OpenAI's `/v1/audio/transcriptions`, well or badly behaved; form, sound and key are checked."""

import io
import wave
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from aiohttp import web

from bench.standins.base import StandIn, reset
from xiaozhi.audio.pcm import PcmInt


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """What was asked."""

    seconds: float
    model: str
    language: str
    connection: int
    """Which of the connections it came over."""


class TranscriptionStandIn(StandIn):
    """`/v1/audio/transcriptions` and `/v1/models`.

    Args:
        text: what is understood; or a function of the sound, int16[n] at the rate that was sent, that says so.
        key: the one that is taken.
        port: 0 for any.
    """

    FAULTS = frozenset("hang reset reset-midway error-401 error-429 error-500 garbage no-text endless empty".split())

    def __init__(
        self, text: str | Callable[[PcmInt], str] = "what time is it", key: str = "k-asr", port: int = 0
    ) -> None:
        super().__init__(port)
        self.text = text
        self.key = key
        self.model_lists = 0

    @property
    def base_url(self) -> str:
        """What goes into `asr.openai.base_url`."""
        return f"{self.url}/v1"

    def routes(self) -> list[web.RouteDef]:
        """Transcriptions, and the list of models."""
        return [web.post("/v1/audio/transcriptions", self._transcribe), web.get("/v1/models", self._models)]

    def _refuses(self, request: web.Request) -> bool:
        return self.fault == "error-401" or request.headers.get("Authorization") != f"Bearer {self.key}"

    async def _models(self, request: web.Request) -> web.Response:
        self.model_lists += 1
        if self._refuses(request):
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "whisper-1", "object": "model"}]})

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        upload = form["file"]
        if not isinstance(upload, web.FileField) or upload.content_type != "audio/wav" or not upload.filename:
            return web.json_response({"error": {"message": "file is wanted"}}, status=400)
        with wave.open(io.BytesIO(upload.file.read())) as sound:
            if (sound.getnchannels(), sound.getsampwidth()) != (1, 2):
                return web.json_response({"error": {"message": "16 bits, mono"}}, status=400)
            seconds = sound.getnframes() / sound.getframerate()
            heard = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        fault = self.fault
        asked = TranscriptionRequest(seconds, str(form["model"]), str(form.get("language", "")), id(request.transport))
        await self.record(asked)
        if self._refuses(request):
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        if fault == "hang":
            await self.hang()
        if fault == "reset":
            reset(request)
        if fault == "error-429":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "7"})
        if fault == "error-500":
            return web.Response(status=500, text="oops")
        if fault == "garbage":
            return web.Response(text="<html>Please sign in.</html>", content_type="text/html")
        if fault == "no-text":
            return web.json_response({"text": None})
        if fault == "endless":
            return web.json_response({"text": "a" * 3_000_000})
        if fault == "reset-midway":
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"text": "wh')
            reset(request)
            return response
        text = self.text(heard) if callable(self.text) else self.text
        return web.json_response({"text": "" if fault == "empty" else text})
