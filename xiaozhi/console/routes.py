"""`/console/`: the pages and their calls, put together; started and closed with the server."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from xiaozhi import __version__
from xiaozhi.access.addresses import Network
from xiaozhi.access.guests import Guests
from xiaozhi.console.access import ConsoleAccess
from xiaozhi.console.agent_routes import AgentRoutes
from xiaozhi.console.assets import Asset, load_assets
from xiaozhi.console.board import Board
from xiaozhi.console.device_routes import DeviceRoutes
from xiaozhi.console.live_routes import LiveRoutes
from xiaozhi.console.model_routes import ModelRoutes
from xiaozhi.console.overview import Alerts
from xiaozhi.console.password import password_path
from xiaozhi.console.request_guard import COOKIE, SESSION, Guard, Refused, answer, body_of, text_of
from xiaozhi.console.settings_file import Apply, SettingsFile
from xiaozhi.console.settings_routes import SettingsRoutes
from xiaozhi.console.trials import Trials
from xiaozhi.conversation.services import Services
from xiaozhi.http.openapi import takes
from xiaozhi.program import program
from xiaozhi.reload.model_pulls import Pulls
from xiaozhi.settings import Settings
from xiaozhi.settings.load import SettingsSource
from xiaozhi.transport.connected_devices import ConnectedDevices

CONSOLE_PATH: Final = "/console/"
_MAX_PASSWORD_CHARS: Final = 1000


class Console:
    """The console of one server. Made by `open`.

    Args:
        services: the shared engines.
        devices: who is connected.
        access: who is signed in.
        assets: the pages' files.
        guests: passes for the talk page; the access asks them.
        file: where changes of the settings are written.
        trusted: proxies whose word counts.
        alerts: what holds now.
        is_own_host: whether a request asks for this server by a name that no stranger can have.
        pulls: fetches models.
    """

    def __init__(
        self,
        services: Services,
        devices: ConnectedDevices,
        access: ConsoleAccess,
        assets: Mapping[str, Asset],
        guests: Guests,
        file: SettingsFile,
        trusted: tuple[Network, ...],
        alerts: Alerts,
        is_own_host: Callable[[str], bool],
        pulls: Pulls,
    ) -> None:
        self.access = access
        self.board = Board(services, devices, alerts, pulls.progress)
        self._pulls = pulls
        self._file = file
        self._services = services
        self._devices = devices
        self._assets = assets
        self._guests = guests
        self._guard = Guard(services.settings, access, trusted, is_own_host)
        self._trials = Trials(services, file)
        self.app = self._app()
        """Pages and calls, below `/console/`."""

    @classmethod
    async def open(
        cls,
        services: Services,
        devices: ConnectedDevices,
        guests: Guests,
        pulls: Pulls,
        *,
        is_own_host: Callable[[str], bool],
        source: SettingsSource | None = None,
        trusted: tuple[Network, ...] = (),
        alerts: Alerts = tuple,
        apply: Apply | None = None,
    ) -> "Console":
        """Read the pages and the password, make one where there is none, and begin to collect.

        Args:
            services: the shared engines.
            devices: who is connected.
            guests: passes for the talk page; the access asks them.
            is_own_host: whether a request asks for this server by a name that no stranger can have.
            pulls: fetches models.
            source: where the settings came from; without it they cannot be changed here.
            trusted: proxies whose word counts.
            alerts: what holds now.
            apply: takes new settings over while serving.

        Raises:
            PasswordError: the password's file cannot be used.
        """
        settings = services.settings.console
        path = password_path(services.settings.server.data_dir, settings.password_file)
        access = await ConsoleAccess.open(path, settings.session_hours * 3600.0, settings.idle_minutes * 60.0)
        assets = await asyncio.to_thread(load_assets)
        file = SettingsFile(source, lambda: services.settings, apply)
        await asyncio.to_thread(file.protect)
        console = cls(services, devices, access, assets, guests, file, trusted, alerts, is_own_host, pulls)
        console.board.start()
        return console

    @property
    def changes(self) -> int:
        """Changes of the settings that were written since the start."""
        return self._file.changes

    def add_to(self, app: web.Application) -> None:
        """Serve below `/console/`."""
        app.router.add_get(CONSOLE_PATH.rstrip("/"), _to_the_pages)
        app.add_subapp(CONSOLE_PATH, self.app)
        app.on_shutdown.append(self._end_streams)

    def retune(self, _settings: Settings) -> None:
        """Other settings hold: there may be new secrets that must not be shown."""
        self.board.settings_changed()

    async def close(self) -> None:
        """Collect no more."""
        await self.board.close()

    def address(self, base_url: str) -> str:
        """Where its pages are."""
        return f"{base_url}{CONSOLE_PATH}"

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard.middleware])
        app.on_response_prepare.append(self._guard.harden)
        router = app.router
        router.add_get("/api/session", self._session)
        router.add_post("/api/sign-in", self._sign_in)
        router.add_post("/api/sign-out", self._sign_out)
        router.add_post("/api/password", self._password)
        LiveRoutes(self.board, self.access.sessions).add_to(router)
        SettingsRoutes(self._services, self._file, self.board, self._trials).add_to(router)
        ModelRoutes(self._pulls, self.board).add_to(router)
        DeviceRoutes(self._services, self._devices, self.board).add_to(router)
        AgentRoutes(self._services, self._guests, self._guard).add_to(router)
        router.add_route("*", "/api/{tail:.*}", _no_such_call)
        router.add_get("/{path:.*}", self._page)
        return app

    async def _end_streams(self, _app: web.Application) -> None:
        self.board.hub.close()

    # Signing in ---------------------------------------------------------------------------------------------------

    async def _session(self, request: web.Request) -> web.Response:
        """Whether this browser is signed in, and the word that changes need."""
        session = request.get(SESSION)
        csrf = session.csrf if session is not None else None
        return answer(
            {"signed_in": session is not None, "csrf": csrf, "version": __version__, "program": _shown_program()}
        )

    @takes(password=(str, ...))
    async def _sign_in(self, request: web.Request) -> web.Response:
        """Sign in with the owner's password; answered with a cookie and the word that changes need."""
        password = text_of(await body_of(request), "password", _MAX_PASSWORD_CHARS)
        opened = await self.access.sign_in(password, self._guard.address(request))
        if opened is None:
            raise Refused(401, "wrong password")
        self.access.sessions.close(request.cookies.get(COOKIE, ""))  # a session of before ends with a new sign-in
        token, session = opened
        response = answer({"csrf": session.csrf})
        response.set_cookie(
            COOKIE,
            token,
            path=CONSOLE_PATH.rstrip("/"),
            httponly=True,
            samesite="Strict",
            secure=self._guard.secure(request),
            max_age=round(self._services.settings.console.session_hours * 3600.0),
        )
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        """Sign out; the talk page of this browser hangs up."""
        connection = self._devices.find(self._guests.withdraw(request[SESSION].name))
        if connection is not None:
            connection.end("signed out of the console")
        self.access.sessions.close(request.cookies.get(COOKIE, ""))
        response = answer({"signed_in": False})
        response.del_cookie(COOKIE, path=CONSOLE_PATH.rstrip("/"))
        return response

    @takes(old=(str, ...), new=(str, ...))
    async def _password(self, request: web.Request) -> web.Response:
        """Set another password; everybody else is signed out."""
        body = await body_of(request)
        old, new = text_of(body, "old", _MAX_PASSWORD_CHARS), text_of(body, "new", _MAX_PASSWORD_CHARS)
        if not await self.access.change(old, new, self._guard.address(request), request[SESSION]):
            raise Refused(403, "the old password is wrong")
        return answer({"changed": True})

    # Pages --------------------------------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.Response:
        asset = self._assets.get(request.match_info["path"])
        if asset is None:
            raise Refused(404, "there is no such page")
        headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if asset.etag in (
            tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")
        ):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = asset.content_type
        if asset.packed is not None and "gzip" in request.headers.get("Accept-Encoding", "").lower():
            return web.Response(body=asset.packed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=asset.body, headers=headers)


async def _no_such_call(_request: web.Request) -> web.Response:
    raise Refused(404, "there is no such call")


async def _to_the_pages(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPMovedPermanently(CONSOLE_PATH)


def _shown_program() -> str:
    """For whoever has forgotten the password. Strangers see it, so it never names a folder above ours."""
    name = program()
    return "xiaozhi" if name.lstrip("'").startswith("/") else name
