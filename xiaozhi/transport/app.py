"""The HTTP application: the WebSocket, OTA, and a page at the root."""

from aiohttp import web

from xiaozhi import __version__
from xiaozhi.transport.console import Console
from xiaozhi.transport.doors import Doors
from xiaozhi.transport.figures import METRICS_PATH, MetricsDesk
from xiaozhi.transport.health import HEALTH_PATH, HealthDesk
from xiaozhi.transport.http_log import quiet_bad_requests
from xiaozhi.transport.ota import OTA_PATH, WEBSOCKET_PATH, OtaDesk
from xiaozhi.transport.websocket import Devices

# OTA bodies are about 1 KB; boards with long partition tables send a little more.
_MOST_BODY_BYTES = 64 * 1024


def build_app(
    devices: Devices,
    ota: OtaDesk,
    metrics: MetricsDesk | None = None,
    console: Console | None = None,
    health: HealthDesk | None = None,
    doors: Doors | None = None,
) -> web.Application:
    """Put the routes together; every path answers with and without its last slash, because redirects are failures."""
    quiet_bad_requests()
    app = web.Application(client_max_size=_MOST_BODY_BYTES)
    for path in (WEBSOCKET_PATH, WEBSOCKET_PATH.rstrip("/")):
        app.router.add_get(path, devices.handle)
    for path in (OTA_PATH, OTA_PATH.rstrip("/")):
        app.router.add_post(path, ota.answer)
        app.router.add_get(path, ota.show)
        app.router.add_options(path, ota.preflight)
    for path in (OTA_PATH + "activate", OTA_PATH + "activate/"):
        app.router.add_post(path, ota.activated)
    app.router.add_get(OTA_PATH + "firmware/{board}/{file}", ota.download)
    if metrics is not None:
        app.router.add_get(METRICS_PATH, metrics.show)
    if health is not None:
        for path in (HEALTH_PATH, f"{HEALTH_PATH}/"):
            app.router.add_get(path, health.show)
        app.router.add_get(f"{HEALTH_PATH}/live", health.live)
        app.router.add_get(f"{HEALTH_PATH}/ready", health.ready)
    if console is not None:
        console.add_to(app)
    if doors is not None:
        doors.add_to(app)
    app.router.add_get("/", _root)
    return app


async def _root(_request: web.Request) -> web.Response:
    return web.Response(text=f"XiaoZhi server {__version__}. OTA address: {OTA_PATH}\n")
