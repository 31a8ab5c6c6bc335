"""The console's live calls: overview, events, turns, logs."""

import asyncio
import time
from typing import Final

from aiohttp import web

from xiaozhi.console.board import Board
from xiaozhi.console.hub import TooManyClients, event
from xiaozhi.console.log_lines import LEVELS
from xiaozhi.console.request_guard import SESSION, Refused, answer, number_of
from xiaozhi.console.sessions import Sessions

# Proxies close a stream that is silent for 30 to 60 s as a rule; it is also how soon a session that is over is noticed.
_HEARTBEAT_S: Final = 15.0
_SEND_S: Final = 10.0
_MAX_TURNS: Final = 500
_MAX_LINES: Final = 50_000


class LiveRoutes:
    """Answers what the pages ask about now.

    Args:
        board: what is shown.
        sessions: who is signed in; a stream ends with its session.
    """

    def __init__(self, board: Board, sessions: Sessions) -> None:
        self._board = board
        self._sessions = sessions

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the calls."""
        router.add_get("/api/overview", self.overview)
        router.add_get("/api/events", self.events)
        router.add_get("/api/turns", self.turns)
        router.add_get("/api/logs", self.logs)

    async def overview(self, _request: web.Request) -> web.Response:
        """Figures and plots."""
        return answer({**self._board.overview(), "series": list(self._board.series.samples)})

    async def turns(self, request: web.Request) -> web.Response:
        """The newest turns, of one device where `device` is given, older than `before`."""
        limit, before = number_of(request, "limit", 50, _MAX_TURNS), number_of(request, "before", 0, 1 << 62)
        device = request.query.get("device", "")[:100]
        return answer({"turns": await self._board.turns(device, limit, before)})

    async def logs(self, request: web.Request) -> web.Response:
        """The newest log lines, the oldest first."""
        level = request.query.get("level", "info")
        if level not in LEVELS:
            raise Refused(400, f"level must be one of {', '.join(LEVELS)}")
        return answer({"lines": self._board.lines.lines(level, number_of(request, "limit", 500, _MAX_LINES))})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Events until the page goes away, does not read, or is no longer signed in. A page that is open is in use."""
        session = request[SESSION]
        try:
            client = self._board.hub.join()
        except TooManyClients:
            raise Refused(503, "too many pages listen already; close some") from None
        try:
            response = web.StreamResponse(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
            response.content_type = "text/event-stream"
            response.charset = "utf-8"
            await response.prepare(request)
            await response.write(b"retry: 3000\n\n" + event("overview", self._board.overview(), 0))
            while self._sessions.holds(session, time.monotonic()):
                session.used_s = time.monotonic()
                try:
                    async with asyncio.timeout(_HEARTBEAT_S):
                        piece = await client.next()
                except TimeoutError:
                    piece = b": still here\n\n"
                if piece is None:
                    break
                async with asyncio.timeout(_SEND_S):
                    await response.write(piece)
        except (TimeoutError, ConnectionError):
            pass  # the page does not read, or has gone: it asks again when it is back
        finally:
            self._board.hub.leave(client)
        return response
