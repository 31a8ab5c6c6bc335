"""The console's calls about models that can be fetched."""

import asyncio

from aiohttp import web

from xiaozhi.console.board import Board
from xiaozhi.console.request_guard import Refused, answer
from xiaozhi.reload.model_pulls import Pulls


class ModelRoutes:
    """Lists published models and fetches them; how far they are comes with the live events.

    Args:
        pulls: fetches.
        board: is asked what is understood now.
    """

    def __init__(self, pulls: Pulls, board: Board) -> None:
        self._pulls = pulls
        self._board = board

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the calls."""
        router.add_get("/api/models", self.list)
        router.add_post("/api/models/{name}/pull", self.pull)

    async def list(self, _request: web.Request) -> web.Response:
        """Every known model, whether it is there, and what is on its way."""
        return answer({"models": await asyncio.to_thread(self._pulls.shown), **self._board.models()})

    async def pull(self, request: web.Request) -> web.Response:
        """Begin to fetch a model, or go on."""
        try:
            self._pulls.start(request.match_info["name"])
        except LookupError:
            raise Refused(404, "there is no such model") from None
        return answer(self._board.models(), status=202)
