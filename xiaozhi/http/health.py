"""`/health/live` and `/health/ready` for load balancers, `/health` for those who may see figures."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from xiaozhi.http.metrics import Watchers

HEALTH_PATH: Final = "/health"

_FRESH: Final = {"Cache-Control": "no-store"}


class HealthRoutes:
    """Answers whether the process is well.

    Args:
        not_ready: why devices should go elsewhere now, in a word or two; empty when they are welcome.
        report: everything, as JSON values.
        watchers: who may see the report.
    """

    def __init__(
        self, not_ready: Callable[[], str], report: Callable[[], Mapping[str, Any]], watchers: Watchers
    ) -> None:
        self._not_ready = not_ready
        self._report = report
        self._watchers = watchers

    async def live(self, _request: web.Request) -> web.Response:
        """200 as long as the event loop turns; whoever gets no answer may restart the process."""
        return web.Response(text="ok\n", headers=_FRESH)

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when devices are welcome, else 503 and why."""
        why = self._not_ready()
        return web.Response(status=503 if why else 200, text=f"{why or 'ok'}\n", headers=_FRESH)

    async def show(self, request: web.Request) -> web.Response:
        """Everything as JSON; 200 also while not ready: whether it is, stands in it."""
        if not self._watchers.admit(request):
            return web.Response(status=403, text="not for this address; see [metrics] in settings.toml\n")
        body = orjson.dumps(self._report(), option=orjson.OPT_INDENT_2)
        return web.Response(body=body, content_type="application/json", headers=_FRESH)
