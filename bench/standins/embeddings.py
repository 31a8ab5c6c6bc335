"""An endpoint with OpenAI's `/embeddings`: words are axes, so texts of the same words have the same vector."""

import re
import zlib
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from bench.standins.base import StandIn, reset

DIMENSIONS = 256


class EmbeddingsStandIn(StandIn):
    """Answers with vectors of words; `meanings` makes phrases the same word.

    Records the JSON body of every request.

    Args:
        meanings: phrases and the word they stand for.
        port: to listen on; a free one when 0.

    Faults:
        refuse, hang, 500: the connection is reset; no answer; a server error.
        wrong-json, empty: JSON of another shape; no vector in it.
    """

    FAULTS = frozenset("refuse hang 500 wrong-json empty".split())

    def __init__(self, meanings: Mapping[str, str], port: int = 0) -> None:
        super().__init__(port)
        self._meanings = meanings

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.post("/v1/embeddings", self._embed)]

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = orjson.loads(await request.read())
        await self.record(body)
        match self.fault:
            case "refuse":
                reset(request)
            case "hang":
                await self.hang()
            case "500":
                error = {"message": "The server had an error", "type": "server_error", "param": None, "code": None}
                return web.json_response({"error": error}, status=500)
            case "wrong-json":
                return web.json_response({"object": "list", "data": [{"embedding": "none"}], "model": "bench"})
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [
            {"object": "embedding", "index": index, "embedding": [] if self.fault == "empty" else self.vector(text)}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})

    def vector(self, text: str) -> list[float]:
        """The vector of a text, not of length 1."""
        for phrase, word in self._meanings.items():
            text = text.replace(phrase, word)
        values = [0.0] * DIMENSIONS
        for word in re.findall(r"[a-z]+|[\u3400-\u9fff]", text.lower()):
            if word not in {"is", "the", "what", "a", "of"}:
                values[zlib.crc32(word.encode()) % DIMENSIONS] += 2.0
        return values
