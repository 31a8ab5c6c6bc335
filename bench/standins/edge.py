"""Microsoft's read-aloud service as the package `edge-tts` speaks to it: a WebSocket that answers SSML with MP3."""

import asyncio
import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import bytes_per_s, pack, tone
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt

_PIECE_S = 0.12  # the service sends 720 bytes a message
_TICKS_PER_S = 10_000_000
_REQUEST_ID = re.compile(r"X-RequestId:(\w+)")
_VOICE = re.compile(r"<voice name='([^']*)'")
_RATE = re.compile(r"rate='([^']*)'")
_TEXT = re.compile(r"<prosody[^>]*>(.*)</prosody>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EdgeRequest:
    """What was asked."""

    text: str
    voice: str
    rate: str
    config: str


class EdgeStandIn(StandIn):
    """The read-aloud WebSocket.

    Args:
        first_byte_ms: time until the first audio message.
        speed: how many times faster than real time the sound arrives; 0 for at once.
        sound: makes the sound of a text; a tone when left out.
        port: 0 for any.
    """

    FAULTS = frozenset(
        "refuse hang hang-midway reset reset-midway silence truncated garbage empty html unknown-path".split()
    )

    def __init__(
        self, first_byte_ms: float = 0.0, speed: float = 0.0, sound: Callable[[str], PcmInt] = tone, port: int = 0
    ) -> None:
        super().__init__(port)
        self.first_byte_ms = first_byte_ms
        self.speed = speed
        self.sound = sound
        self.handshakes = 0

    @property
    def ws_url(self) -> str:
        """What goes into `tts.edge.url`."""
        return f"{self.url}/consumer/speech/synthesize/readaloud/edge/v1".replace("http", "ws", 1)

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/consumer/speech/synthesize/readaloud/edge/v1", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        if self.fault == "refuse":
            return web.Response(status=403, text="forbidden")
        if self.fault == "html":
            return web.Response(text="<!DOCTYPE html><html>Please sign in.</html>", content_type="text/html")
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        config = ""
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            head, _, body = message.data.partition("\r\n\r\n")
            if "Path:speech.config" in head:
                config = json.loads(body)["context"]["synthesis"]["audio"]["outputFormat"]
            elif "Path:ssml" in head:
                identity = _found(_REQUEST_ID, head)
                asked = EdgeRequest(
                    html.unescape(_found(_TEXT, body)), _found(_VOICE, body), _found(_RATE, body), config
                )
                fault = self.fault
                await self.record(asked)
                await self._answer(request, socket, identity, asked.text, fault)
        return socket

    async def _answer(
        self, request: web.Request, socket: web.WebSocketResponse, identity: str, text: str, fault: str
    ) -> None:
        if fault == "hang":
            await self.hang()
        if fault == "reset":
            reset(request)
            return
        await socket.send_str(_text(identity, "turn.start", '{"context": {"serviceTag": "stand-in"}}'))
        await socket.send_str(_text(identity, "response", '{"context": {"serviceTag": "stand-in"}}'))
        if fault == "unknown-path":
            await socket.send_str(_text(identity, "turn.surprise", "{}"))
        pcm = self.sound(text)
        body = await asyncio.to_thread(pack, pcm * 0 if fault == "silence" else pcm, "mp3")
        if fault == "garbage":
            body = bytes(range(256)) * 20
        if fault == "truncated":
            body = body[: len(body) * 2 // 5 + 1]
        if self.first_byte_ms:
            await asyncio.sleep(self.first_byte_ms / 1000.0)
        if fault != "empty":
            await self._send(request, socket, identity, body, fault)
        if socket.closed:
            return
        ticks = len(pcm) * _TICKS_PER_S // DOWNLINK_RATE_HZ
        data = {"Offset": 0, "Duration": ticks, "text": {"Text": text, "Length": len(text), "BoundaryType": "Sentence"}}
        metadata = {"Metadata": [{"Type": "SentenceBoundary", "Data": data}]}
        await socket.send_str(_text(identity, "audio.metadata", json.dumps(metadata)))
        await socket.send_bytes(_binary(identity, "", b""))  # the service ends its sound with a message without a type
        await socket.send_str(_text(identity, "turn.end", "{}"))

    async def _send(
        self, request: web.Request, socket: web.WebSocketResponse, identity: str, body: bytes, fault: str
    ) -> None:
        piece = int(bytes_per_s("mp3") * _PIECE_S)
        for start in range(0, len(body), piece):
            if start * 2 >= len(body):
                if fault == "hang-midway":
                    await self.hang()
                if fault == "reset-midway":
                    reset(request)
                    await socket.close()
                    return
            await socket.send_bytes(_binary(identity, "audio/mpeg", body[start : start + piece]))
            if self.speed:
                await asyncio.sleep(_PIECE_S / self.speed)


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1) if match else ""


def _text(identity: str, path: str, body: str) -> str:
    return f"X-RequestId:{identity}\r\nContent-Type:application/json; charset=utf-8\r\nPath:{path}\r\n\r\n{body}"


def _binary(identity: str, kind: str, data: bytes) -> bytes:
    """Two bytes of header length, the header's lines (a type, unless empty), the sound."""
    lines = [f"X-RequestId:{identity}"] + ([f"Content-Type:{kind}"] if kind else []) + ["X-StreamId:1", "Path:audio"]
    header = "".join(f"{line}\r\n" for line in lines).encode()
    return len(header).to_bytes(2, "big") + header + data
