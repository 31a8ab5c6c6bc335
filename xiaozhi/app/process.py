"""The life of the process: the start-up message, signals, the service manager; serve until told to stop."""

import asyncio
import faulthandler
import functools
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from xiaozhi import __version__
from xiaozhi.app.ports import CannotServe
from xiaozhi.app.server import Server, serving
from xiaozhi.app.service_manager import Notifier, service_manager
from xiaozhi.logs import set_up_logging
from xiaozhi.overload.usage import give_back
from xiaozhi.program import program
from xiaozhi.reload.calibrating import calibrate
from xiaozhi.reload.model_pulls import missing_models
from xiaozhi.reload.watch import FileWatch
from xiaozhi.settings import Settings
from xiaozhi.settings.load import DEFAULT_FILE, Loaded, SettingsSource

_log = logging.getLogger(__name__)

# Ctrl-C reaches a whole process group, and a wrapper passes it on once more; service managers signal a control group:
# signals that come so soon after the first are the same one. A later one ends the process without draining.
_ONE_SIGNAL_S: Final = 1.0
# After the drain, for closing what is open. What `xiaozhi deploy` writes for service managers waits a little longer.
_CLOSE_S: Final = 8.0
_STANDARD_ERROR: Final = 2  # by its number: `sys.stderr` is not there in every service
# When all is closed and saved, for threads that are in the middle of something whose result nobody needs any more.
_THREADS_S: Final = 2.0
# How long a thread that wants the interpreter waits before it is let in. Python's own 5 ms is paid behind each encoded
# frame while the loop is busy: with 45 voices on two cores (`bench.micro voices`, two codec workers, its calmest run)
# one packet in twenty leaves 80 ms late at 5 ms, 17 to 19 at 1, 0.5 and 0.1; a job of the encoder is switched 0.9, 1.6
# and 2.4 times at 5, 0.5 and 0.1.
_SWITCH_INTERVAL_S: Final = 0.0005


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
        # In place of the handler that does nothing beside the loop's own: this one runs where the loop stands still,
        # too, between two instructions of whatever holds it up, or within a regular expression.
        signal.signal(number, functools.partial(_end_in_time, settings.server.drain_s + _CLOSE_S))
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
        await _announce(settings, server, files)
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
        calibrating = asyncio.create_task(calibrate(server.services, server.reloader), name="calibrate")
        server.services.on_turn.append(server.count_turn)
        server.reloader.on_busy.append(lambda busy: manager.reloading() if busy else manager.ready())
        telling = asyncio.create_task(manager.watch(lambda: _status(server)), name="tell-service-manager")
        manager.ready()
        await stop.wait()
        watching.cancel()
        pulling.cancel()
        calibrating.cancel()
        drain_s = server.services.settings.server.drain_s  # it may have changed meanwhile
        _end_in_time(drain_s + _CLOSE_S)
        manager.stopping(drain_s)
        _log.info("stopping: running turns may finish")
        loop.call_later(_ONE_SIGNAL_S, _end_at_next_signal, loop)
    if telling is not None:  # to the end of the drain, during which the loop must not stand still either
        telling.cancel()


def _end_in_time(seconds: float, _number: int = 0, _frame: FrameType | None = None) -> None:
    """Whatever the process is doing then, it says where, and ends: exit code 1."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STANDARD_ERROR)


def _leave_threads() -> None:
    """End the process although threads are at work: all that is to be kept has been written."""
    busy = sorted(thread.name for thread in threading.enumerate() if not thread.daemon)
    _log.warning("some of these threads do not end, and are left: %s", ", ".join(busy))
    logging.shutdown()
    os._exit(0)


def _end_at_next_signal(loop: asyncio.AbstractEventLoop) -> None:
    """Whoever signals once more does not want to wait."""
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


def _status(server: Server) -> str:
    """One line for the service manager."""
    devices, turns = len(server.devices), server.turns
    doing = "draining" if server.devices.draining else "serving"
    return f"{doing}; {devices} device{'s' * (devices != 1)} online, {turns} turn{'s' * (turns != 1)} answered"


async def _announce(settings: Settings, server: Server, files: Sequence[Path]) -> None:
    """Say where the server is and what it runs on: to a terminal as a page to read, otherwise to the log.

    The console's first password is shown on a terminal only. For whoever has none (a service, a container) it is kept
    in a file until somebody has signed in.
    """
    if sys.stdout.isatty():
        sys.stdout.write(_banner(settings, server, files) + "\n")
        sys.stdout.flush()
        return
    where = {"ota": server.ota_url, "websocket": server.websocket_url}
    for line in (*server.services.banner, *_fetching_lines(settings)):
        _log.info("%s", " ".join(line.split()))
    if server.console is not None:
        where["console"] = server.console.address(server.base_url)
        if (file := await server.console.access.keep_first_password()) is not None:
            _log.warning("the console's password is in %s, for its owner to read, until somebody has signed in", file)
    where["settings"] = ", ".join(map(str, files)) or "built-in defaults"
    _log.info("serving", extra={"version": __version__, **where, "auth": settings.auth.mode})


def _banner(settings: Settings, server: Server, files: Sequence[Path]) -> str:
    lines = [
        f"XiaoZhi server {__version__}",
        "",
        f"  type this into the device (OTA address):  {server.ota_url}",
        f"  devices connect to                        {server.websocket_url}",
        f"  settings                                  {', '.join(map(str, files)) or 'built-in defaults'}",
        f"  who may connect                           {_auth_line(settings)}",
        *(f"  {line}" for line in _console_lines(server)),
        "",
        *(f"  {line}" for line in server.services.banner),
        *(f"  {line}" for line in _fetching_lines(settings)),
        "",
        f"  try it:  {program()} talk --say 'what time is it'        stop: Ctrl-C",
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


def _console_lines(server: Server) -> list[str]:
    """Where the console is, and once its password."""
    if server.console is None:
        return []
    password = server.console.access.first_password
    lines = [f"console (pages for owners)                {server.console.address(server.base_url)}"]
    return [*lines, f"its password, shown only this once        {password}"] if password else lines


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
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        import uvloop
    except ImportError:  # not made for Windows
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with runner:
            runner.run(_serve_until_told(settings, source, reread, origin, warnings))
            _end_in_time(2 * _THREADS_S)  # should even the next not be possible
            leaving = threading.Timer(_THREADS_S, _leave_threads)
            leaving.daemon = True  # ends with the process, where no thread holds that up
            leaving.start()
    except CannotServe as error:
        sys.stderr.write(f"xiaozhi: {error}\n")
        return 1
    return 0
