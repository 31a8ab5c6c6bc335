"""One server put together: load, warm, serve while a context is open, drain."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.idle_connections import Patience
from xiaozhi.access.lan import reachable_host
from xiaozhi.access.mqtt import http_base
from xiaozhi.access.proxies import proxy_watch
from xiaozhi.access.tls import TlsError, TlsFiles, distrusted_because
from xiaozhi.access.token_keys import load_keys
from xiaozhi.agents import AgentError
from xiaozhi.app.cluster_membership import Membership
from xiaozhi.app.http_app import build_app
from xiaozhi.app.mqtt import MqttPorts, MqttServer
from xiaozhi.app.observability import health_routes, metrics_routes, tracer_of
from xiaozhi.app.ports import BoundPort, CannotServe
from xiaozhi.app.services import running_services
from xiaozhi.cluster.link import ClusterError
from xiaozhi.cluster.node import ClusterNode
from xiaozhi.console.password import PasswordError
from xiaozhi.console.routes import Console
from xiaozhi.conversation.services import Services
from xiaozhi.http.headers import read_as_text
from xiaozhi.http.ota import OTA_PATH, WEBSOCKET_PATH, OtaRoutes
from xiaozhi.http.services import HttpServices
from xiaozhi.observability.health.alerts import Alerts
from xiaozhi.observability.metrics.tables import Sources
from xiaozhi.observability.tracing import TracingError
from xiaozhi.reload.model_pulls import Pulls
from xiaozhi.reload.reloader import Reloader
from xiaozhi.settings import Settings
from xiaozhi.settings.load import SettingsSource
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.vad.silero import VadError
from xiaozhi.store import StoreError
from xiaozhi.text import numbers
from xiaozhi.tools.external_config import McpConfigError
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.transport.websocket import WebSocketEndpoint
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)


# Who has got an answer, and goes on sending a body that nobody reads, is hung up after this time.
_LINGERING_S: Final = 2.0


@dataclass(slots=True)
class Server:
    """A server that accepts devices.

    Attributes:
        port: the port it listens on (the real one where the settings say 0).
        host: an address to reach it: loopback if it listens only there, else this machine's on the network.
        services: the shared engines and pools.
        devices: the connected devices.
        reloader: takes new settings.
        pulls: fetches models.
        secure: that port speaks TLS.
        tls_port: another port that speaks TLS; 0 for none.
        http: what is offered beside conversations.
        console: the pages for owners; None where they are switched off.
    """

    port: int
    host: str
    services: Services
    devices: ConnectedDevices
    reloader: Reloader
    pulls: Pulls
    http: HttpServices
    secure: bool = False
    tls_port: int = 0
    console: Console | None = None
    node: ClusterNode | None = None
    """This server among others; None when it is alone."""
    mqtt: MqttServer | None = None
    """Devices by MQTT; None where that is switched off."""
    turns: int = 0
    """Turns that were answered since the start."""

    def count_turn(self, _device_id: str, _trace: TurnTrace) -> None:
        """A turn is over."""
        self.turns += 1

    @property
    def base_url(self) -> str:
        """Where browsers reach it, without a path."""
        return f"http{'s' if self.secure else ''}://{self.host}:{self.port}"

    @property
    def ota_url(self) -> str:
        """What to type into a device."""
        return f"http{'s' if self.secure else ''}://{self.host}:{self.port}{OTA_PATH}"

    @property
    def websocket_url(self) -> str:
        """Where devices connect."""
        return f"ws{'s' if self.secure else ''}://{self.host}:{self.port}{WEBSOCKET_PATH}"


@asynccontextmanager
async def serving(settings: Settings, origin: SettingsSource | None = None) -> AsyncIterator[Server]:
    """Serve while the context is open; on leaving it, drain and close.

    Args:
        settings: what to serve with.
        origin: where they came from, so that the console can change them; without it, it only shows them.

    Raises:
        CannotServe: a port that is taken, a folder that cannot be written, an engine that cannot be used.
    """
    with ExitStack() as stack:
        ports = [stack.enter_context(port) for port in await asyncio.to_thread(_bound, settings)]
        mqtt = await asyncio.to_thread(MqttPorts, settings) if settings.mqtt.enabled else None
        if mqtt is not None:
            stack.enter_context(mqtt)
        async with _serving(settings, origin, ports, mqtt) as server:
            yield server


@asynccontextmanager
async def _serving(
    settings: Settings, origin: SettingsSource | None, bound: list[BoundPort], mqtt_ports: MqttPorts | None
) -> AsyncIterator[Server]:
    """`serving` on ports that are bound already."""
    try:
        ring = await asyncio.to_thread(load_keys, settings.server.data_dir, time.time())
        tls = await asyncio.to_thread(_certificate, settings)
    except OSError as error:
        raise CannotServe(f"server.data_dir: {settings.server.data_dir} cannot be used: {error.strerror}") from error
    except TlsError as error:
        raise CannotServe(str(error)) from error
    try:
        async with running_services(settings) as services:
            link = services.shared.link if services.shared is not None else None
            access = AccessControl(settings, services.store, ring, tls, link)
            await access.refresh()
            devices = ConnectedDevices(services, access)
            membership = Membership(services, lambda: len(devices))
            reloader = Reloader(services)
            reloader.on_settings += [access.retune, _set_log_level]
            host = reachable_host(settings.server.host)
            tracer = tracer_of(services)
            alerts = Alerts(services)
            services.on_turn.append(alerts.count)
            reloader.on_settings.append(alerts.retune)
            pulls = Pulls(services, reloader)
            console = await _console(services, devices, access, reloader, origin, alerts, pulls)
            if console is not None:
                reloader.on_settings.append(console.retune)
            doors = await _doors(services, devices, access, host)
            mqtt = None
            if mqtt_ports is not None:
                place = doors.vision.place if doors.vision is not None else None
                mqtt = MqttServer(
                    services,
                    access,
                    devices,
                    mqtt_ports,
                    place,
                    lambda: http_base(membership.node.address) if membership.node is not None else "",
                )
            patience = Patience(access.trusted)
            runner = web.AppRunner(
                build_app(
                    WebSocketEndpoint(services, access, devices, doors.vision.address if doors.vision else None),
                    OtaRoutes(
                        settings.server,
                        access,
                        host,
                        membership.place if membership.shared else None,
                        console=console is not None,
                        mqtt=mqtt.offer if mqtt is not None else None,
                    ),
                    metrics_routes(
                        Sources(
                            services,
                            devices,
                            access,
                            doors,
                            alerts,
                            reloader,
                            console,
                            lambda: membership.node,
                            mqtt.listener if mqtt is not None else None,
                            mqtt.udp if mqtt is not None else None,
                        )
                    ),
                    console,
                    health_routes(services, devices, access, alerts),
                    doors,
                    patience,
                    access.pages,
                    proxy_watch(access.trusted),
                ),
                access_log=None,
                auto_decompress=False,  # see refuse_packed
                lingering_time=_LINGERING_S,
                handler_cancellation=True,
                shutdown_timeout=1.0,
            )
            await runner.setup()
            if runner.server is not None:  # since setup() it is there
                read_as_text(runner.server)
            watching: list[asyncio.Task[None]] = []
            try:
                if mqtt is not None:  # before anybody is told of it
                    await mqtt.start(tls)
                ports = await _listen(runner, bound, tls)
                # Not before: a loop that is busy with starting says nothing about load.
                watching.append(asyncio.create_task(services.load_shedder.watch(), name="watch-load"))
                watching.append(asyncio.create_task(devices.watch(), name="watch-devices"))
                watching.append(asyncio.create_task(access.watch(), name="watch-access"))
                watching.append(asyncio.create_task(alerts.watch(), name="watch-alerts"))
                watching.append(asyncio.create_task(asyncio.to_thread(numbers.load), name="load-numbers"))
                if runner.server is not None:  # since setup() it is there
                    watching.append(asyncio.create_task(patience.watch(runner.server), name="watch-connections"))
                secure = tls is not None and len(ports) == 1
                tls_port = ports[1] if len(ports) > 1 else 0
                await membership.join(f"http{'s' * secure}://{host}:{ports[0]}")
                node = membership.node
                server = Server(ports[0], host, services, devices, reloader, pulls, doors, secure, tls_port, console)
                server.node, server.mqtt = node, mqtt
                yield server
                await membership.drain()
                await devices.drain(services.settings.server.drain_s)
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
                await pulls.close()
                await membership.leave()
                if mqtt is not None:
                    await mqtt.close()
                await runner.cleanup()
                if tracer is not None:
                    await tracer.close()
                await doors.close()
                if console is not None:
                    await console.close()
    except (
        EngineError,
        VoiceError,
        VadError,
        StoreError,
        AgentError,
        McpConfigError,
        ClusterError,
        TracingError,
    ) as error:
        raise CannotServe(str(error)) from error


async def _doors(services: Services, devices: ConnectedDevices, access: AccessControl, host: str) -> HttpServices:
    """Pictures, announcements, MCP for other programs.

    Raises:
        CannotServe: a token cannot be kept.
    """
    try:
        return await HttpServices.open(services, devices, access, host)
    except OSError as error:
        folder = services.settings.server.data_dir
        raise CannotServe(f"server.data_dir: {folder} cannot be used: {error.strerror}") from error


async def _console(
    services: Services,
    devices: ConnectedDevices,
    access: AccessControl,
    reloader: Reloader,
    origin: SettingsSource | None,
    alerts: Alerts,
    pulls: Pulls,
) -> Console | None:
    """The pages for owners; None when they are switched off.

    Raises:
        CannotServe: the file of their password cannot be used.
    """
    if not services.settings.console.enabled:
        return None
    try:
        return await Console.open(
            services,
            devices,
            access.guests,
            pulls,
            is_own_host=access.pages.is_own_host,
            source=origin,
            trusted=access.trusted,
            apply=reloader.apply,
            alerts=alerts.shown,
        )
    except PasswordError as error:
        raise CannotServe(str(error)) from error


def _bound(settings: Settings) -> list[BoundPort]:
    """The plain port and that of TLS, or one of both. Blocking. Raises `CannotServe`."""
    server = settings.server
    first = BoundPort(server.host, server.port, "server.port")
    if not (server.tls_cert and server.tls_key and server.tls_port):
        return [first]
    try:
        return [first, BoundPort(server.host, server.tls_port, "server.tls_port")]
    except CannotServe:
        first.__exit__()
        raise


async def _listen(runner: web.AppRunner, ports: list[BoundPort], tls: TlsFiles | None) -> list[int]:
    """Listen on them, the last one with TLS where there is a certificate; returns their real numbers.

    Raises:
        CannotServe: another process was quicker.
    """
    for port in ports:
        context = tls.context if tls is not None and port is ports[-1] else None
        try:
            for one in port.sockets:
                await web.SockSite(runner, one, backlog=1024, ssl_context=context).start()
        except OSError as error:
            raise port.failure(error) from error
    return [port.number for port in ports]


def _certificate(settings: Settings) -> TlsFiles | None:
    server = settings.server
    if server.tls_cert is None or server.tls_key is None:
        return None
    tls = TlsFiles(server.tls_cert, server.tls_key)
    name = urlsplit(server.public_url).hostname or ""
    if why := distrusted_because(tls.context, name):
        _log.warning("devices will refuse the certificate %s: %s", server.tls_cert, why)
    if not name:
        _log.warning("TLS without server.public_url: set it, with the name that is in the certificate")
    return tls


def _set_log_level(settings: Settings) -> None:
    logging.getLogger("xiaozhi").setLevel(settings.log.level.upper())
