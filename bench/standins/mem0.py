"""A stand-in for mem0's self-hosted REST server: `/memories` in its wire format, each fact under its user."""

import itertools
import uuid
from typing import Any, Final

import orjson
from aiohttp import web

from bench.standins.base import StandIn, reset


class Mem0StandIn(StandIn):
    """Takes every sentence of a user that begins with "I" or "我" for a fact; records `(method, path, body, headers)`.

    Args:
        key: asked for as `X-API-Key`; empty for nothing.

    Faults: `500`, `hang`, `reset`, `html`, `odd` (JSON of another shape).
    """

    FAULTS = frozenset({"500", "hang", "reset", "html", "odd"})
    _STAMP: Final = "2026-01-01T00:00:00.000000-08:00"

    def __init__(self, key: str = "") -> None:
        super().__init__()
        self.key = key
        self.memories: dict[str, dict[str, Any]] = {}
        """Every fact by its id, as GET gives it."""
        self.replaces: dict[str, str] = {}
        """New facts that are told as an UPDATE of this one instead of an ADD."""
        self._numbers = itertools.count(1)

    def routes(self) -> list[web.RouteDef]:
        """Add, list, delete one, delete those of a user."""
        return [
            web.post("/memories", self._add),
            web.get("/memories", self._list),
            web.delete("/memories", self._delete_all),
            web.delete("/memories/{id}", self._delete),
        ]

    def of(self, user: str) -> list[str]:
        """The facts of a user."""
        return [entry["memory"] for entry in self.memories.values() if entry["user_id"] == user]

    async def _note(self, request: web.Request) -> Any:
        body = orjson.loads(await request.read() or b"null")
        await self.record((request.method, request.path_qs, body, dict(request.headers)))
        match self.fault:
            case "500":
                raise web.HTTPInternalServerError(text='{"detail":"boom"}', content_type="application/json")
            case "hang":
                await self.hang()
            case "reset":
                reset(request)
        if self.key and request.headers.get("X-API-Key") != self.key:
            raise web.HTTPUnauthorized(text='{"detail":"Invalid API key"}', content_type="application/json")
        return body

    async def _add(self, request: web.Request) -> web.Response:
        body = await self._note(request)
        if self.fault == "html":
            return web.Response(text="<html>login</html>", content_type="text/html")
        if self.fault == "odd":
            return web.json_response({"results": [{"event": "ADD"}, 7, {"memory": ["x"], "event": "ADD"}]})
        results = []
        for message in body["messages"]:
            text = message["content"]
            if message["role"] != "user" or not text.startswith(("I", "我")):
                continue
            entry = {"id": str(uuid.UUID(int=next(self._numbers))), "memory": text, "event": "ADD"}
            old = next((each for each in self.memories.values() if each["memory"] == self.replaces.get(text)), None)
            if old is not None:
                entry |= {"id": old["id"], "event": "UPDATE", "previous_memory": old["memory"]}
            self.memories[entry["id"]] = {
                "id": entry["id"],
                "memory": text,
                "hash": "0" * 32,
                "metadata": None,
                "created_at": self._STAMP,
                "updated_at": None,
                "user_id": body["user_id"],
            }
            results.append(entry)
        return web.json_response({"results": results})

    async def _list(self, request: web.Request) -> web.Response:
        await self._note(request)
        user = request.query["user_id"]
        return web.json_response({"results": [one for one in self.memories.values() if one["user_id"] == user]})

    async def _delete(self, request: web.Request) -> web.Response:
        await self._note(request)
        self.memories.pop(request.match_info["id"], None)
        return web.json_response({"message": "Memory deleted successfully"})

    async def _delete_all(self, request: web.Request) -> web.Response:
        await self._note(request)
        user = request.query["user_id"]
        self.memories = {key: one for key, one in self.memories.items() if one["user_id"] != user}
        return web.json_response({"message": "All relevant memories deleted"})
