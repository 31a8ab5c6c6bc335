"""A speech server that speaks OpenAI's `/v1/audio/speech`, well or badly."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bench.standins.base import StandIn, reset
from bench.standins.sound import SoundFormat, bytes_per_s, pack, tone
from xiaozhi.audio.pcm import PcmInt

_CONTENT_TYPES: dict[SoundFormat, str] = {
    "pcm": "application/octet-stream",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
}
_PIECE_S = 0.1


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """What was asked."""

    text: str
    voice: str
    model: str
    form: str
    key: str


class SpeechStandIn(StandIn):
    """`/v1/audio/speech` in pcm, wav, mp3 and opus, and `/v1/models`.

    Args:
        first_byte_ms: time until the first byte.
        speed: how many times faster than real time the sound arrives; 0 for at once.
        sound: makes the sound of a text; a tone when left out.
        pack_as: makes the body and its headers of a sound, whatever format was asked for; None for that format.
        port: 0 for any.
    """

    FAULTS = frozenset(
        "hang hang-midway reset reset-midway error-500 error-429 error-401".split()
        + "silence truncated html json empty odd".split()
    )

    def __init__(
        self,
        first_byte_ms: float = 0.0,
        speed: float = 0.0,
        sound: Callable[[str], PcmInt] = tone,
        pack_as: Callable[[PcmInt], tuple[bytes, dict[str, str]]] | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.first_byte_ms = first_byte_ms
        self.speed = speed
        self.sound = sound
        self.pack_as = pack_as
        self.model_lists = 0

    @property
    def base_url(self) -> str:
        """What goes into `tts.openai.base_url`."""
        return f"{self.url}/v1"

    def routes(self) -> list[web.RouteDef]:
        """Speech, and the list of models."""
        return [web.post("/v1/audio/speech", self._speech), web.get("/v1/models", self._models)]

    async def _models(self, request: web.Request) -> web.Response:
        self.model_lists += 1
        if self.fault == "error-401":
            return _error(401)
        return web.json_response({"object": "list", "data": [{"id": "tts-1", "object": "model"}]})

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        form: SoundFormat = asked.get("response_format", "mp3")
        fault = self.fault
        await self.record(
            SpeechRequest(
                asked["input"], asked["voice"], asked["model"], form, request.headers.get("Authorization", "")
            )
        )
        if fault == "hang":
            await self.hang()
        if fault == "reset":
            reset(request)
        if fault.startswith("error-"):
            return _error(int(fault.removeprefix("error-")))
        if fault == "html":
            return web.Response(
                text="<!DOCTYPE html><html><body>Please sign in.</body></html>", content_type="text/html"
            )
        if fault == "json":  # an error with the status and type of success, as some gateways send it
            return web.Response(body=b'{"error": {"message": "the voice is on holiday"}}', content_type="audio/mpeg")
        headers = {"Content-Type": _CONTENT_TYPES[form]}
        if self.pack_as is not None:
            body, headers = await asyncio.to_thread(self.pack_as, self.sound(asked["input"]))
        else:
            body = await asyncio.to_thread(self._body, asked["input"], form, fault)
        if self.first_byte_ms:
            await asyncio.sleep(self.first_byte_ms / 1000.0)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await self._send(request, response, body, form, fault)
        return response

    def _body(self, text: str, form: SoundFormat, fault: str) -> bytes:
        if fault == "empty":
            return b""
        pcm = self.sound(text)
        body = pack(pcm * 0 if fault == "silence" else pcm, form)
        return body[: len(body) * 2 // 5 + 1] if fault == "truncated" else body

    async def _send(
        self, request: web.Request, response: web.StreamResponse, body: bytes, form: SoundFormat, fault: str
    ) -> None:
        piece = 997 if fault == "odd" else int(bytes_per_s(form) * _PIECE_S)  # odd: samples are cut in two
        for start in range(0, len(body), piece):
            if start * 2 >= len(body):
                if fault == "hang-midway":
                    await self.hang()
                if fault == "reset-midway":
                    reset(request)
                    return
            await response.write(body[start : start + piece])
            if self.speed:
                await asyncio.sleep(_PIECE_S / self.speed)
        await response.write_eof()


def _error(status: int) -> web.Response:
    return web.json_response({"error": {"message": f"stand-in says {status}", "type": "server_error"}}, status=status)
