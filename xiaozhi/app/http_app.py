"""The HTTP application: the WebSocket, OTA, and a page at the root."""

from aiohttp import web
from aiohttp.typedefs import Middleware

from xiaozhi.access.idle_connections import Patience
from xiaozhi.access.page_guard import PageGuard
from xiaozhi.console.routes import CONSOLE_PATH, Console
from xiaozhi.http.bodies import refuse_packed
from xiaozhi.http.headers import harden, name_nobodys_version
from xiaozhi.http.health import HEALTH_PATH, HealthRoutes
from xiaozhi.http.log import quiet_bad_requests
from xiaozhi.http.metrics import METRICS_PATH, MetricsRoutes
from xiaozhi.http.openapi import OPENAPI_PATH, OpenApiRoutes
from xiaozhi.http.ota import OTA_PATH, WEBSOCKET_PATH, OtaRoutes
from xiaozhi.http.services import HttpServices
from xiaozhi.transport.websocket import WebSocketEndpoint

# OTA bodies are about 1 KB; boards with long partition tables send a little more.
_MAX_BODY_BYTES = 64 * 1024


def build_app(
    sockets: WebSocketEndpoint,
    ota: OtaRoutes,
    metrics: MetricsRoutes | None = None,
    console: Console | None = None,
    health: HealthRoutes | None = None,
    doors: HttpServices | None = None,
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
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=middlewares)
    app.on_response_prepare.append(harden)
    if pages is not None:
        app.on_response_prepare.append(pages.mark)
    for path in (WEBSOCKET_PATH, WEBSOCKET_PATH.rstrip("/")):
        app.router.add_get(path, sockets.handle)
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
            return await sockets.handle(request)
        if console is not None:  # devices that wait to be bound show no more of its address than fits their screens
            raise web.HTTPFound(CONSOLE_PATH)
        return web.Response(text=f"XiaoZhi server. OTA address: {OTA_PATH}\n")

    app.router.add_get("/", root)
    app.router.add_get(OPENAPI_PATH, OpenApiRoutes(app).show)
    return app
