"""The HTTP application: the WebSocket, OTA, and a page at the root."""

from aiohttp import web
from aiohttp.typedefs import Middleware

from xiaozhi.transport.bodies import refuse_packed
from xiaozhi.transport.console import CONSOLE_PATH, Console
from xiaozhi.transport.devices import Devices
from xiaozhi.transport.doors import Doors
from xiaozhi.transport.figures import METRICS_PATH, MetricsDesk
from xiaozhi.transport.headers import harden, name_nobodys_version
from xiaozhi.transport.health import HEALTH_PATH, HealthDesk
from xiaozhi.transport.http_log import quiet_bad_requests
from xiaozhi.transport.ota import OTA_PATH, WEBSOCKET_PATH, OtaDesk
from xiaozhi.transport.page_guard import PageGuard
from xiaozhi.transport.patience import Patience

# OTA bodies are about 1 KB; boards with long partition tables send a little more.
_MOST_BODY_BYTES = 64 * 1024


def build_app(
    devices: Devices,
    ota: OtaDesk,
    metrics: MetricsDesk | None = None,
    console: Console | None = None,
    health: HealthDesk | None = None,
    doors: Doors | None = None,
    patience: Patience | None = None,
    pages: PageGuard | None = None,
    proxies: Middleware | None = None,
) -> web.Application:
    """Put the routes together; every path answers with and without its last slash, because redirects are failures."""
    quiet_bad_requests()
    name_nobodys_version()
    middlewares: list[Middleware] = [patience.middleware, refuse_packed] if patience is not None else [refuse_packed]
    if pages is not None:
        middlewares.append(pages.middleware)
    if proxies is not None:
        middlewares.append(proxies)
    app = web.Application(client_max_size=_MOST_BODY_BYTES, middlewares=middlewares)
    app.on_response_prepare.append(harden)
    if pages is not None:
        app.on_response_prepare.append(pages.mark)
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

    async def root(request: web.Request) -> web.StreamResponse:
        # What people type into desktop clients is often `ws://host:port`; the rules are the same as on the full path.
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await devices.handle(request)
        if console is not None:  # devices that wait to be bound show no more of its address than fits their screens
            raise web.HTTPFound(CONSOLE_PATH)
        return web.Response(text=f"XiaoZhi server. OTA address: {OTA_PATH}\n")

    app.router.add_get("/", root)
    return app
