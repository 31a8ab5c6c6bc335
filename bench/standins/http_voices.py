"""Speech servers that are asked by one HTTP request a clause: SiliconFlow, GPT-SoVITS, CosyVoice, IndexTTS, Fish.

Each is as strict about its fields as the real one, and answers in its own format at its own rate. Another one answers
in JSON, as many private gateways do.
"""

import base64
import io
import json
import wave
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from aiohttp import web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.audio.resample import StreamResampler

Service: TypeAlias = Literal["siliconflow", "gpt-sovits", "cosyvoice", "indextts", "fish-speech"]
SERVICES: Final[tuple[Service, ...]] = ("siliconflow", "gpt-sovits", "cosyvoice", "indextts", "fish-speech")

_PATHS: Final[dict[Service, str]] = {
    "siliconflow": "/v1/audio/speech", "gpt-sovits": "/tts", "cosyvoice": "/inference_sft", "indextts": "/tts",
    "fish-speech": "/v1/tts",
}  # fmt: skip
_LANGUAGES: Final = ("auto", "zh", "en", "ja", "ko", "yue", "all_zh", "all_ja", "auto_yue")
_RATES: Final = (8000, 16_000, 24_000, 32_000, 44_100)
_PIECE_BYTES: Final = 997  # odd on purpose: samples are cut in two


class _Refused(Exception):
    """A field that the real server refuses, with its status and what it says."""


@dataclass(frozen=True, slots=True)
class HttpVoiceRequest:
    """What was asked."""

    text: str
    voice: str
    fields: dict[str, Any]
    headers: dict[str, str]
    connection: int


class HttpVoicesStandIn(StandIn):
    """One of the services.

    Args:
        service: which.
        key: that is taken; empty where none is asked for.
        sound: makes the sound of a text, int16[n] at 24 kHz.
        samples: of CosyVoice: "f32" as a copy of it that sends floats and says their rate.
        whole: of IndexTTS: False as an older server, which streams bare samples.
        answer: of `/json`, which takes any fields: a place for the sound in base64, and what is around it.
    """

    FAULTS = frozenset(
        "hang hang-midway reset reset-midway error-500 error-401 garbage json empty silence redirect echo huge".split()
    )

    def __init__(
        self,
        service: Service = "siliconflow",
        key: str = "",
        sound: Callable[[str], PcmInt] = tone,
        samples: Literal["s16", "f32"] = "s16",
        rate_hz: int = 0,
        *,
        whole: bool = True,
        answer: Callable[[str], Any] | None = None,
    ) -> None:
        super().__init__()
        self.service: Service = service
        self.key, self.sound, self.samples, self.rate_hz, self.whole = key, sound, samples, rate_hz, whole
        self.answer = answer or (lambda coded: {"code": 0, "data": [{"audio": coded}]})
        self.fetched: list[str] = []
        """Files that were asked for."""
        self.options = 0

    @property
    def service_url(self) -> str:
        """What goes into `tts.http.url`."""
        return self.url + _PATHS[self.service]

    def routes(self) -> list[web.RouteDef]:
        """The service's path, and those of a gateway."""
        return [
            web.post(_PATHS[self.service], self._speak),
            web.options("/{path:.*}", self._options),
            web.route("*", "/json", self._json),
            web.get("/files/{name}", self._file),
            web.get("/get", self._get),
        ]

    async def _options(self, request: web.Request) -> web.Response:
        self.options += 1
        return web.Response(status=401 if self._keyless(request) else 405)

    def _keyless(self, request: web.Request) -> bool:
        return self.fault == "error-401" or (
            bool(self.key) and request.headers.get("Authorization") != f"Bearer {self.key}"
        )

    async def _record(self, request: web.Request, text: str, voice: str, fields: dict[str, Any]) -> None:
        await self.record(HttpVoiceRequest(text, voice, fields, dict(request.headers), id(request.transport)))

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        if self._keyless(request):
            return web.json_response({"message": "Api key is invalid"}, status=401)
        read = {
            "siliconflow": self._siliconflow, "gpt-sovits": self._gpt_sovits, "cosyvoice": self._cosyvoice,
            "indextts": self._indextts, "fish-speech": self._fish_speech,
        }[self.service]  # fmt: skip
        if self.service == "cosyvoice":
            if request.content_type not in ("application/x-www-form-urlencoded", "multipart/form-data"):
                return web.json_response({"detail": [{"type": "missing", "loc": ["body", "tts_text"]}]}, status=422)
            fields: dict[str, Any] = dict(await request.post())
        else:
            fields = json.loads(await request.text())
        try:
            text, voice, rate_hz, head = read(fields)
        except _Refused as refused:
            status, said = refused.args
            return web.json_response(said, status=status)
        await self._record(request, text, voice, fields)
        return await self._answer(request, text, rate_hz, head)

    # The services -------------------------------------------------------------------------------------------------

    def _siliconflow(self, fields: dict[str, Any]) -> tuple[str, str, int, bytes]:
        model, voice = fields["model"], fields["voice"]
        if not voice.startswith((f"{model}:", "speech:")):
            raise _Refused(400, {"code": 20047, "message": "Invalid voice.", "data": None})
        if fields["response_format"] != "pcm" or fields["sample_rate"] not in _RATES or fields["stream"] is not True:
            raise _Refused(400, {"code": 20015, "message": "The parameter is invalid.", "data": None})
        if type(fields["speed"]) not in (int, float) or not 0.25 <= fields["speed"] <= 4:
            raise _Refused(400, {"code": 20015, "message": "speed", "data": None})
        return fields["input"], voice, fields["sample_rate"], b""

    def _gpt_sovits(self, fields: dict[str, Any]) -> tuple[str, str, int, bytes]:
        for name in ("ref_audio_path", "text", "text_lang", "prompt_lang"):
            if not fields.get(name):
                raise _Refused(400, {"message": f"{name} is required"})
        for name in ("text_lang", "prompt_lang"):
            if fields[name].lower() not in _LANGUAGES:
                raise _Refused(400, {"message": f"{name}: {fields[name]} is not supported in version v2"})
        if fields["media_type"] not in ("wav", "raw", "ogg", "aac") or fields["streaming_mode"] not in (True, 1, 2, 3):
            raise _Refused(400, {"message": "not streamed"})
        return fields["text"], fields["ref_audio_path"], 32_000, _header(32_000)

    def _cosyvoice(self, fields: dict[str, Any]) -> tuple[str, str, int, bytes]:
        if set(fields) != {"tts_text", "spk_id"}:
            raise _Refused(422, {"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required"}]})
        return fields["tts_text"], fields["spk_id"], self.rate_hz or 24_000, b""

    def _indextts(self, fields: dict[str, Any]) -> tuple[str, str, int, bytes]:
        if "text" not in fields or "character" not in fields:
            raise _Refused(500, {"status": "error", "error": "KeyError: 'character'"})
        return fields["text"], fields["character"], 22_050 if self.whole else 24_000, b""

    def _fish_speech(self, fields: dict[str, Any]) -> tuple[str, str, int, bytes]:
        if fields["streaming"] and fields["format"] != "wav":
            raise _Refused(400, {"statusCode": 400, "message": "Streaming only supports WAV format"})
        if fields.get("reference_id") == "":
            raise _Refused(400, {"statusCode": 400, "message": "reference_id is empty"})
        return fields["text"], fields.get("reference_id") or "", 44_100, _header(44_100)

    # Answers ------------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request, text: str, rate_hz: int, head: bytes) -> web.StreamResponse:
        fault = self.fault
        match fault:
            case "hang":
                await self.hang()
            case "reset":
                reset(request)
            case "error-500":
                return web.json_response({"message": "out of memory"}, status=500)
            case "garbage":
                return web.Response(text="<html>Please sign in.</html>", content_type="text/html")
            case "json":  # an error with the status of success
                return web.json_response({"code": 50508, "message": "system is busy"})
            case "redirect":
                raise web.HTTPTemporaryRedirect("http://127.0.0.1:9/elsewhere")
            case "echo":
                return web.Response(status=403, text=f"forbidden for {request.headers.get('Authorization', '')}")
        pcm = resampled(self.sound(text), rate_hz)
        pcm = pcm[:0] if fault == "empty" else pcm * 0 if fault == "silence" else pcm
        body = head + pcm.astype("<i2").tobytes() if len(pcm) else b""
        response = web.StreamResponse()
        if self.samples == "f32":
            body = (pcm.astype(np.float32) / 32768).astype("<f4").tobytes()
            response.headers["X-Custom-Header-sampleRate"] = str(rate_hz)
        if self.service == "indextts" and self.whole:
            body = _header(rate_hz, pcm)
            response.content_type = "audio/wav"
        await response.prepare(request)
        for start in range(0, len(body), _PIECE_BYTES):
            if start * 2 >= len(body):
                if fault == "hang-midway":
                    await self.hang()
                if fault == "reset-midway":
                    reset(request)
                    return response
            await response.write(body[start : start + _PIECE_BYTES])
        await response.write_eof()
        return response

    async def _json(self, request: web.Request) -> web.StreamResponse:
        """A gateway that takes any fields."""
        fields = json.loads(await request.text())
        await self._record(request, fields["text"], fields.get("voice", ""), fields)
        if self.fault == "huge":
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            while True:
                await response.write(b" " * 1_000_000)
        wav = _header(16_000, resampled(self.sound(fields["text"]), 16_000))
        return web.json_response(self.answer(base64.b64encode(wav).decode()))

    async def _file(self, request: web.Request) -> web.Response:
        """The sound of the name, for whoever has the key."""
        self.fetched.append(request.match_info["name"])
        pcm = self.sound(self.requests[-1].text)
        if self._keyless(request):
            return web.Response(status=401)
        return web.Response(body=_header(16_000, resampled(pcm, 16_000)), content_type="audio/wav")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        fields = dict(request.query)
        await self._record(request, fields["text"], fields.get("voice", ""), fields)
        return await self._answer(request, fields["text"], 24_000, b"")


def resampled(pcm: PcmInt, rate_hz: int) -> PcmInt:
    """int16[n] at 24 kHz at another rate."""
    if rate_hz == DOWNLINK_RATE_HZ:
        return pcm
    resampler = StreamResampler(DOWNLINK_RATE_HZ, rate_hz)
    return np.concatenate([resampler.feed(pcm), resampler.flush()])


def _header(rate_hz: int, pcm: PcmInt | None = None) -> bytes:
    """A WAV file, or its header as streaming servers make it: of a file without a sample."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(b"" if pcm is None else pcm.astype("<i2").tobytes())
    return file.getvalue()
