"""The life of the process: load, warm, serve, drain."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from xiaozhi import __version__
from xiaozhi.logs import set_up_logging
from xiaozhi.services import running_services
from xiaozhi.settings import Settings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.vad.silero import VadError
from xiaozhi.transport.app import build_app
from xiaozhi.transport.auth import Gatekeeper, load_secret
from xiaozhi.transport.lan import lan_address
from xiaozhi.transport.ota import OTA_PATH, WEBSOCKET_PATH, OtaDesk
from xiaozhi.transport.websocket import Devices

_log = logging.getLogger(__name__)


class CannotServe(Exception):
    """Serving is not possible; one line says why and what to do."""


@dataclass(slots=True)
class Server:
    """A server that accepts devices.

    Attributes:
        port: the port it listens on (the real one where the settings say 0).
        host: an address to reach it: loopback if it listens only there, else this machine's on the network.
        banner: one line per stage: which engine, why, and what to do for a better one.
        devices: the connected devices.
    """

    port: int
    host: str
    banner: list[str]
    devices: Devices

    @property
    def ota_url(self) -> str:
        """What to type into a device."""
        return f"http://{self.host}:{self.port}{OTA_PATH}"

    @property
    def websocket_url(self) -> str:
        """Where devices connect."""
        return f"ws://{self.host}:{self.port}{WEBSOCKET_PATH}"


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Server]:
    """Serve while the context is open; on leaving it, drain and close.

    Raises:
        CannotServe: a port that is taken, a folder that cannot be written, an engine that cannot be used.
    """
    try:
        secret = load_secret(settings.server.data_dir)
    except OSError as error:
        raise CannotServe(f"server.data_dir: {settings.server.data_dir} cannot be used: {error.strerror}") from error
    try:
        async with running_services(settings) as services:
            gatekeeper = Gatekeeper(settings.auth, secret)
            devices = Devices(services, gatekeeper)
            host = _reachable(settings.server.host)
            runner = web.AppRunner(
                build_app(devices, OtaDesk(settings.server, gatekeeper, host)),
                access_log=None,
                handler_cancellation=True,
                shutdown_timeout=1.0,
            )
            await runner.setup()
            site = web.TCPSite(runner, settings.server.host, settings.server.port, backlog=1024)
            watching: asyncio.Task[None] | None = None
            try:
                try:
                    await site.start()
                except OSError as error:
                    raise CannotServe(_bind_failure(settings, error)) from error
                watching = asyncio.create_task(devices.watch(), name="watch-devices")
                yield Server(runner.addresses[0][1], host, services.banner, devices)
                await devices.drain(settings.server.drain_s)
            finally:
                if watching is not None:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                await runner.cleanup()
    except (EngineError, VoiceError, VadError) as error:
        raise CannotServe(str(error)) from error


def _reachable(host: str) -> str:
    return lan_address() if host in ("0.0.0.0", "::", "") else host


def _bind_failure(settings: Settings, error: OSError) -> str:
    where = f"{settings.server.host}:{settings.server.port}"
    return f"cannot listen on {where}: {error.strerror}; choose another with --port or server.port"


async def _serve_until_told(settings: Settings, source: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as server:
        _say(_banner(settings, server, source))
        await stop.wait()
        _say("stopping: running turns may finish …")
        for number in (signal.SIGINT, signal.SIGTERM):  # a second signal ends the process at once
            loop.remove_signal_handler(number)


def _banner(settings: Settings, server: Server, source: Path | None) -> str:
    lines = [
        f"XiaoZhi server {__version__}",
        "",
        f"  type this into the device (OTA address):  {server.ota_url}",
        f"  devices connect to                        {server.websocket_url}",
        f"  settings                                  {source or 'built-in defaults'}",
        f"  who may connect                           {_auth_line(settings)}",
        "",
        *(f"  {line}" for line in server.banner),
        "",
        "  try it:  xiaozhi talk --say 'what time is it'        stop: Ctrl-C",
    ]
    return "\n".join(lines)


def _auth_line(settings: Settings) -> str:
    if settings.auth.mode == "open":
        return "anyone who reaches the port (auth.mode = open)"
    return "devices with a token from the OTA address (auth.mode = token)"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(settings: Settings, source: Path | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code. Errors are one line on standard error."""
    set_up_logging(settings.log)
    try:
        import uvloop
    except ImportError:  # not made for Windows
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with runner:
            runner.run(_serve_until_told(settings, source))
    except CannotServe as error:
        sys.stderr.write(f"xiaozhi: {error}\n")
        return 1
    return 0
