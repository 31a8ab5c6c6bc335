"""Deepgram's `/v1/listen`: says a word of its script for each quarter of a second that it was sent.

Every rule is one of Deepgram's documents or SDK: the key in the handshake, parameters in the query, silence on the line
ends it (NET-0001), `Finalize` is answered with `from_finalize` only where there is something left to recognise.
"""

import json
from collections.abc import Sequence
from typing import Any

from aiohttp import WSMsgType, web
from multidict import MultiDict

from bench.standins.base import StandIn, reset

WORD_S = 0.25
_QUERY = {"encoding": "linear16", "sample_rate": "16000", "channels": "1", "endpointing": "false"}


def said_by(words: Sequence[str], seconds: float, since_s: float = 0.0) -> list[str]:
    """The words of a script that have been said between two times; each counts when it is over."""
    return list(words[int(since_s / WORD_S + 1e-6) : int(seconds / WORD_S + 1e-6)])


class DeepgramStandIn(StandIn):
    """`/v1/listen`; `requests` are the queries of connections.

    Interim words are in capitals, final ones as in the script: so the last partial is never the text.

    Args:
        words: the script.
        key: the key that is taken.
        final_every_s: how often what was said becomes final unasked.
        idle_s: a connection on which nothing comes for so long is closed.
        port: 0 for any.
    """

    WS_PATH = "/v1/listen"
    FAULTS = frozenset("error hang hang-at-question reset reset-midway close garbage no-text error-500".split())

    def __init__(
        self,
        words: str = "what time is it over there my friend",
        key: str = "k-deepgram",
        *,
        final_every_s: float = 1.5,
        idle_s: float = 10.0,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.words, self.key, self.final_every_s, self.idle_s = words.split(), key, final_every_s, idle_s
        self.received_s: list[float] = []
        """Sound of each connection, in seconds."""
        self.controls: list[str] = []
        """What was asked for, `KeepAlive` included."""

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/v1/listen", self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.fault == "error-500":
            return web.Response(status=500)
        if request.headers.get("Authorization") != f"Token {self.key}":
            body = {"err_code": "INVALID_AUTH", "err_msg": "Invalid credentials."}
            return web.json_response(body, status=401, headers={"dg-error": "Invalid credentials."})
        if any(request.query.get(name) != value for name, value in _QUERY.items()) or "model" not in request.query:
            return web.json_response({"err_code": "Bad Request"}, status=400, headers={"dg-error": "bad parameters"})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self.record(MultiDict(request.query))
        number = len(self.received_s)
        self.received_s.append(0.0)
        final_s = begun_s = 0.0  # begun: where the script begins, anew with each utterance that the connection serves
        while True:
            try:
                message = await socket.receive(self.idle_s)
            except TimeoutError:
                await socket.close(code=1011, message=b"NET-0001")
                return socket
            if message.type is WSMsgType.BINARY:
                if len(message.data) % 2 or not message.data:
                    await socket.close(code=1008, message=b"DATA-0000")
                    return socket
                now_s = self.received_s[number] = self.received_s[number] + len(message.data) / 32_000
                if self.fault and await self._goes_wrong(request, socket, now_s):
                    return socket
                while now_s - final_s >= self.final_every_s:
                    await self._result(socket, begun_s, final_s, final_s + self.final_every_s, is_final=True)
                    final_s += self.final_every_s
                await self._result(socket, begun_s, final_s, now_s)
            elif message.type is WSMsgType.TEXT:
                kind = json.loads(message.data)["type"]
                self.controls.append(kind)
                now_s = self.received_s[number]
                if kind == "Finalize":
                    if self.fault == "hang-at-question":
                        await self.hang()
                    if now_s - final_s > 0.05:
                        await self._result(socket, begun_s, final_s, now_s, is_final=True, from_finalize=True)
                        begun_s = final_s = now_s
                elif kind != "KeepAlive":
                    await socket.send_json({"type": "Error", "description": f"unknown {kind}"})
            else:
                return socket

    async def _goes_wrong(self, request: web.Request, socket: web.WebSocketResponse, now_s: float) -> bool:
        """Go wrong as the fault says; whether the connection is over."""
        if self.fault == "hang":
            await self.hang()
        elif self.fault == "reset" or (self.fault == "reset-midway" and now_s >= 0.5):
            reset(request)
            return True
        elif self.fault == "close" and now_s >= 0.5:
            await socket.close(code=1011, message=b"NET-0000")
            return True
        elif self.fault == "error":
            await socket.send_json({"type": "Error", "variant": "DATA-0000", "description": "cannot decode"})
        elif self.fault == "garbage":
            await socket.send_str("<html>")
        elif self.fault == "no-text":
            await socket.send_json({"type": "Results", "start": 0.0, "duration": 1.0, "channel": {"alternatives": []}})
        return False

    async def _result(
        self, socket: web.WebSocketResponse, begun_s: float, start_s: float, end_s: float, **marks: bool
    ) -> None:
        words = said_by(self.words, end_s - begun_s, start_s - begun_s)
        text = " ".join(words) if marks else " ".join(words).upper()
        told: dict[str, Any] = {"type": "Results", "channel_index": [0, 1], "start": start_s}
        told |= {"duration": end_s - start_s, "is_final": False, "speech_final": False, **marks}
        told["channel"] = {"alternatives": [{"transcript": text, "confidence": 0.9, "words": []}]}
        await socket.send_json(told)
