"""The life of the process: the start-up message, signals, the service manager; serve until told to stop."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from xiaozhi import __version__
from xiaozhi.logs import set_up_logging
from xiaozhi.notify import Notifier, service_manager
from xiaozhi.pressure.memory import give_back
from xiaozhi.pulls import missing_models
from xiaozhi.reload.watch import FileWatch
from xiaozhi.server import CannotServe, Server, serving
from xiaozhi.settings import Settings
from xiaozhi.settings.load import DEFAULT_FILE, Loaded
from xiaozhi.settings.source import SettingsSource

_log = logging.getLogger(__name__)

# Ctrl-C reaches a whole process group, and a wrapper passes it on once more; service managers signal a control group:
# signals that come so soon after the first are the same one. A later one ends the process without draining.
_ONE_SIGNAL_S: Final = 1.0


async def _serve_until_told(
    settings: Settings,
    source: Path | None,
    reread: Callable[[], Loaded] | None,
    origin: SettingsSource | None,
    warnings: tuple[str, ...],
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with service_manager() as manager:
        await _serve_and_tell(settings, source, reread, origin, warnings, stop, manager)


async def _serve_and_tell(
    settings: Settings,
    source: Path | None,
    reread: Callable[[], Loaded] | None,
    origin: SettingsSource | None,
    warnings: tuple[str, ...],
    stop: asyncio.Event,
    manager: Notifier,
) -> None:
    loop = asyncio.get_running_loop()
    telling: asyncio.Task[None] | None = None
    manager.status("loading models")
    async with serving(settings, origin) as server:
        files = [file for file in (source, origin.local if origin is not None else None) if file and file.is_file()]
        _say(_banner(settings, server, files))
        gc.collect()
        gc.freeze()  # models and modules stay for good: later collections need not look at them (17 to 31 ms each)
        give_back()
        server.reloader.reread, server.reloader.told = reread, warnings
        watch = FileWatch(server.reloader, source or DEFAULT_FILE)
        if reread is not None and hasattr(signal, "SIGHUP"):

            def read_again() -> None:
                manager.reloading()
                watch.ask()

            loop.add_signal_handler(signal.SIGHUP, read_again)
        watching = asyncio.create_task(watch.run(looks=reread is not None and settings.server.reload), name="reload")
        pulling = asyncio.create_task(server.pulls.run(), name="pull-models")
        server.services.on_turn.append(server.count_turn)
        server.reloader.on_busy.append(lambda busy: manager.reloading() if busy else manager.ready())
        telling = asyncio.create_task(manager.watch(lambda: _status(server)), name="tell-service-manager")
        manager.ready()
        await stop.wait()
        watching.cancel()
        pulling.cancel()
        manager.stopping(server.services.settings.server.drain_s)
        _say("stopping: running turns may finish …")
        loop.call_later(_ONE_SIGNAL_S, _end_at_next_signal, loop)
    if telling is not None:  # to the end of the drain, during which the loop must not stand still either
        telling.cancel()


def _end_at_next_signal(loop: asyncio.AbstractEventLoop) -> None:
    """Whoever signals once more does not want to wait."""
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


def _status(server: Server) -> str:
    """One line for the service manager."""
    devices, turns = len(server.devices), server.turns
    doing = "draining" if server.devices.draining else "serving"
    return f"{doing}; {devices} device{'s' * (devices != 1)} online, {turns} turn{'s' * (turns != 1)} answered"


def _banner(settings: Settings, server: Server, files: Sequence[Path]) -> str:
    lines = [
        f"XiaoZhi server {__version__}",
        "",
        f"  type this into the device (OTA address):  {server.ota_url}",
        f"  devices connect to                        {server.websocket_url}",
        f"  settings                                  {', '.join(map(str, files)) or 'built-in defaults'}",
        f"  who may connect                           {_auth_line(settings)}",
        *(f"  {line}" for line in (server.console.banner(server.base_url) if server.console is not None else ())),
        "",
        *(f"  {line}" for line in server.services.banner),
        *(f"  {line}" for line in _fetching_lines(settings)),
        "",
        "  try it:  xiaozhi talk --say 'what time is it'        stop: Ctrl-C",
    ]
    return "\n".join(lines)


def _fetching_lines(settings: Settings) -> list[str]:
    names = " and ".join(missing_models(settings))
    return [f"fetching {names} now; taken over while serving (models.auto_pull = false does without)"] if names else []


def _auth_line(settings: Settings) -> str:
    if settings.auth.mode == "open":
        return "anyone who reaches the port (auth.mode = open)"
    if settings.auth.mode == "activate":
        return "devices bound by their six-digit code (auth.mode = activate)"
    return "devices with a token from the OTA address (auth.mode = token)"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(
    settings: Settings,
    source: Path | None = None,
    reread: Callable[[], Loaded] | None = None,
    origin: SettingsSource | None = None,
    warnings: tuple[str, ...] = (),
) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code. Errors are one line on standard error.

    Args:
        settings: what to serve with.
        source: the file they come from.
        reread: reads them again, at SIGHUP or when the file has changed; raises `SettingsError`.
        origin: where the console writes changes of them.
        warnings: about the settings, to be logged.
    """
    set_up_logging(settings.log)
    for warning in warnings:
        _log.warning("settings: %s", warning)
    try:
        import uvloop
    except ImportError:  # not made for Windows
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with runner:
            runner.run(_serve_until_told(settings, source, reread, origin, warnings))
    except CannotServe as error:
        sys.stderr.write(f"xiaozhi: {error}\n")
        return 1
    return 0
