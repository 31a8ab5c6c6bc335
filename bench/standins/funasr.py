"""A FunASR runtime's WebSocket: configuration, sound in pieces, the word at its end, texts in JSON."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset

Dialect: TypeAlias = Literal["end", "python", "frames", "cpp"]
"""How the last text is told, see `xiaozhi.stages.asr.funasr`: by the server in Python since July 2026, before, in early
2026, and by the one in C++."""

DIALECTS: Final[tuple[Dialect, ...]] = ("end", "python", "frames", "cpp")


@dataclass(frozen=True, slots=True)
class FunasrRequest:
    """What was asked, once its end has come."""

    seconds: float
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Live:
    """How a runtime in mode 2pass talks while it is talked to.

    Attributes:
        drafts: what its first pass hears of each part; the parts themselves when left out.
        cut_s: it finds a pause after every so many seconds of sound, and tells a part; 0 for never.
        silent_end: nothing is left at the end, so that it says nothing then.
        ends_at_s: with the faults `cut` and `stall`: where that happens, in seconds of sound.
    """

    drafts: tuple[str, ...] = ()
    cut_s: float = 0.0
    silent_end: bool = False
    ends_at_s: float = 1.0


_STEP_BYTES: Final = 10 * 1920  # the first pass runs once in `chunk_interval` messages
_STEP_CHARS: Final = 2


class FunasrStandIn(StandIn):
    """The runtime, at any path.

    Args:
        parts: what is understood, a text for each part that the sound is cut into; all but the last are told before
            the end of the sound is known.
        dialect: which of the servers it is.
        live: it talks while it is talked to; None for one that tells everything at the end.
        port: 0 for any.
    """

    FAULTS = frozenset("refuse hang reset error-500 garbage no-text close failed cut stall".split())

    def __init__(self, *parts: str, dialect: Dialect = "python", live: Live | None = None, port: int = 0) -> None:
        super().__init__(port)
        self.parts = parts or ("what time is it",)
        self.dialect = dialect
        self.live = live
        self.bytes_up: list[int] = []
        """Of each connection, how much sound has come up so far."""
        self.uneven = 0
        """Messages of another size than 60 ms that were not the last of their connection."""
        self.probes = 0
        """Connections that sent no sound."""

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault in ("refuse", "error-500"):
            return web.Response(status=403 if self.fault == "refuse" else 500)
        socket = web.WebSocketResponse(protocols=("binary",))
        await socket.prepare(request)
        config: dict[str, Any] = {}
        received, parts_told, ragged = 0, 0, False
        connection = len(self.bytes_up)
        self.bytes_up.append(0)
        waits = False  # the end has been told, and one more piece is wanted
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                if not config:
                    reset(request)  # sound before its configuration
                    break
                if waits:
                    waits = False
                    await self._texts(socket, config, self.parts[-1:], ends=True)
                    continue
                self.uneven += ragged
                ragged = len(message.data) != 1920
                received += len(message.data)
                self.bytes_up[connection] = received
                if self.live is not None and config["mode"] == "2pass":
                    if self.fault in ("cut", "stall") and received >= self.live.ends_at_s * 32_000:
                        if self.fault == "stall":
                            await self.hang()
                        await socket.close()
                        break
                    parts_told = await self._while_sound_comes(socket, config, received, parts_told)
            elif message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                if said.get("is_speaking") is not False:
                    config = said
                    continue
                if not received:
                    self.probes += 1
                else:
                    await self.record(FunasrRequest(received / 2 / config["audio_fs"], config))
                    if not await self._goes_well(request, socket, config):
                        return socket
                waits = self.dialect == "frames" and received > 0
                parts = self.parts[parts_told:] if received else ()
                if self.live is not None and self.live.silent_end:
                    parts = ()
                await self._texts(socket, config, parts[:-1] if waits else parts, ends=not waits)
                if self.dialect == "end" and said.get("is_end") is True:
                    told = {"mode": config["mode"], "wav_name": config["wav_name"]}
                    await socket.send_json({**told, "is_final": True, "is_end": True})
        return socket

    async def _while_sound_comes(
        self, socket: web.WebSocketResponse, config: dict[str, Any], received: int, told: int
    ) -> int:
        """Tell what the first pass has heard, and parts that end at a pause; returns how many of these were told."""
        assert self.live is not None
        drafts = self.live.drafts or self.parts
        name = {"wav_name": config["wav_name"], "is_final": self.dialect != "cpp"}
        cut_bytes = round(self.live.cut_s * 32_000)
        if received % _STEP_BYTES == 0 and told < len(drafts):
            at = ((received - told * cut_bytes) // _STEP_BYTES - 1) * _STEP_CHARS
            if more := drafts[told][max(0, at) : at + _STEP_CHARS]:
                await socket.send_json({"mode": "2pass-online", "text": more, **name})
        last = len(self.parts) - (0 if self.live.silent_end else 1)
        if cut_bytes and told < last and received >= (told + 1) * cut_bytes:
            await socket.send_json({"mode": "2pass-offline", "text": self.parts[told], **name})
            return told + 1
        return told

    async def _goes_well(self, request: web.Request, socket: web.WebSocketResponse, config: dict[str, Any]) -> bool:
        """Go wrong as the fault says, or not."""
        match self.fault:
            case "hang":
                await self.hang()
                return True
            case "reset":
                reset(request)
            case "garbage":
                await socket.send_str("<html>")
            case "no-text":
                await socket.send_json({"mode": "offline", "is_final": True})
            case "close":
                await socket.close()
            case "failed":
                told = {"mode": config["mode"], "wav_name": config["wav_name"], "is_final": False, "is_end": True}
                await socket.send_json({**told, "error": "offline inference failed"})
            case _:
                return True
        return False

    async def _texts(
        self, socket: web.WebSocketResponse, config: dict[str, Any], parts: tuple[str, ...], *, ends: bool
    ) -> None:
        """Tell the texts; with `ends` the last of them is the last of all."""
        two_pass, cpp = config["mode"] == "2pass", self.dialect == "cpp"
        name = {"wav_name": config["wav_name"]}
        if cpp and not two_pass:
            parts = ("".join(parts),)
        for number, text in enumerate(parts):
            last = ends and number == len(parts) - 1
            # The server in Python says whether sound still comes, that in C++ whether this is the last.
            final = (last and two_pass) if cpp else not last
            if two_pass and self.live is None:
                await socket.send_json({"mode": "2pass-online", "text": text[:4], "is_final": False, **name})
            told: dict[str, Any] = {"mode": "2pass-offline" if two_pass else "offline", "text": text, **name}
            if cpp and two_pass and not text:
                del told["mode"]
            await socket.send_json({**told, "is_final": final})
            await asyncio.sleep(0)
