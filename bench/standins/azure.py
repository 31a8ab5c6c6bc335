"""Azure's speech service: SSML in, raw samples at 24 kHz out, with the key, the headers and the SSML checked."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

from aiohttp import web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import PcmInt

_SPEAK = "{http://www.w3.org/2001/10/synthesis}"
_MSTTS = "{https://www.w3.org/2001/mstts}"
_PIECE_BYTES = 4800  # 0.1 s


@dataclass(frozen=True, slots=True)
class AzureRequest:
    """What was asked."""

    text: str
    voice: str
    rate: str
    style: str
    connection: int
    """Which of the connections it came over."""


class AzureStandIn(StandIn):
    """`/cognitiveservices/v1`.

    Args:
        key: the one that is taken.
        sound: makes the sound of a text; a tone when left out.
        port: 0 for any.
    """

    FAULTS = frozenset(
        "hang hang-midway reset reset-midway error-400 error-429 error-500 garbage silence empty".split()
    )

    def __init__(self, key: str = "k-azure", sound: Callable[[str], PcmInt] = tone, port: int = 0) -> None:
        super().__init__(port)
        self.key = key
        self.sound = sound
        self.warmed = 0

    def routes(self) -> list[web.RouteDef]:
        """Speech."""
        return [web.post("/cognitiveservices/v1", self._speech)]

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        if request.headers.get("Ocp-Apim-Subscription-Key") != self.key:
            return web.json_response({"error": {"code": "401", "message": "Access denied"}}, status=401)
        if not body:
            self.warmed += 1
            return web.Response(status=400, text="SSML is empty")
        if (
            request.headers.get("X-Microsoft-OutputFormat") != "raw-24khz-16bit-mono-pcm"
            or request.content_type != "application/ssml+xml"
            or not request.headers.get("User-Agent")
        ):
            return web.Response(status=415, text="Unsupported Media Type")
        try:
            asked = _read(body, id(request.transport))
        except (ElementTree.ParseError, AttributeError) as error:
            return web.Response(status=400, text=f"SSML is not valid: {error}")
        fault = self.fault
        await self.record(asked)
        if fault == "hang":
            await self.hang()
        if fault == "reset":
            reset(request)
        if fault.startswith("error-"):
            return web.Response(status=int(fault.removeprefix("error-")), text="the stand-in says no")
        if fault == "garbage":
            return web.Response(text="<html>Please sign in.</html>", content_type="text/html")
        pcm = await asyncio.to_thread(self.sound, asked.text)
        data = (pcm * 0 if fault == "silence" else pcm[:0] if fault == "empty" else pcm).tobytes()
        response = web.StreamResponse(headers={"Content-Type": "audio/basic"})
        await response.prepare(request)
        for start in range(0, len(data), _PIECE_BYTES):
            if start * 2 >= len(data):
                if fault == "hang-midway":
                    await self.hang()
                if fault == "reset-midway":
                    reset(request)
                    return response
            await response.write(data[start : start + _PIECE_BYTES])
        await response.write_eof()
        return response


def _read(body: str, connection: int) -> AzureRequest:
    root = ElementTree.fromstring(body)
    voice = root.find(f"{_SPEAK}voice")
    style = root.find(f".//{_MSTTS}express-as")
    prosody = root.find(f".//{_SPEAK}prosody")
    if root.tag != f"{_SPEAK}speak" or voice is None or prosody is None or len(prosody):
        raise AttributeError("speak, voice and prosody with nothing but text are wanted")
    name = voice.get("name", "")
    said = prosody.text or ""
    return AzureRequest(
        said, name, prosody.get("rate", ""), "" if style is None else style.get("style", ""), connection
    )
