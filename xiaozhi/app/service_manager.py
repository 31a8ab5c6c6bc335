"""The service manager's notifications (sd_notify of systemd): ready, reloading, stopping, status and the watchdog.

One datagram for each message to the socket that `NOTIFY_SOCKET` names; without that variable nothing is sent. The
format is that of sd_notify(3): lines of `NAME=value`.
"""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final

_log = logging.getLogger(__name__)

# How often the status line is looked at; the watchdog is told at least so often as well.
_STATUS_EVERY_S: Final = 5.0
# sd_watchdog_enabled(3) recommends half of the interval; a third leaves room for one message that is late.
_WATCHDOG_SHARE: Final = 1.0 / 3.0
# The connections are closed and files are written after the turns have ended.
_CLOSE_S: Final = 15.0


class Notifier:
    """Tells the service manager how the process is. Without a socket every call does nothing.

    Args:
        address: a path, or a name in the abstract namespace, which begins with `@`; empty for no service manager.
        watchdog_s: the service manager restarts the process when it has heard nothing for so long; 0 for never.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s
        self.lost = 0
        """Messages that the service manager did not take."""
        self._socket: socket.socket | None = None
        if not address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            _log.warning("the service manager is not told anything: NOTIFY_SOCKET %s: %s", address, error.strerror)
            self.close()

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Notifier":
        """From the environment; its variables are removed, so that no child process speaks for this one."""
        address = environ.pop("NOTIFY_SOCKET", "")
        interval, meant = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
            address = ""  # other kinds, such as vsock, are for virtual machines
        # The single executable runs below a process that unpacks it, and that one is the service's main process.
        ours = {str(os.getpid()), *([str(os.getppid())] if getattr(sys, "frozen", False) else [])}
        watched = interval.isascii() and interval.isdigit() and (not meant or meant in ours)
        return cls(address, int(interval) / 1e6 if watched else 0.0)

    def send(self, *lines: str) -> None:
        """Send one message of such lines; never waits, and what is not taken is counted."""
        if self._socket is None:
            return
        try:
            self._socket.send("\n".join(lines).encode())
        except OSError as error:
            self.lost += 1
            _log.debug("the service manager did not take a message: %s", error)

    def ready(self) -> None:
        """The process serves, at first or again after `reloading`."""
        self.send("READY=1")

    def reloading(self) -> None:
        """The settings are being read again; `ready` is to follow."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, within_s: float) -> None:
        """The process ends within so many seconds, and some more for closing."""
        self.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int((within_s + _CLOSE_S) * 1e6)}")

    def status(self, line: str) -> None:
        """What `systemctl status` shows."""
        self.send("STATUS=" + line.replace("\n", " "))

    async def watch(self, line: Callable[[], str]) -> None:
        """Keep the watchdog quiet and the status up to date until cancelled.

        It is a task of the loop on purpose: a loop that stands still tells nothing, and the service is restarted.

        Args:
            line: the status of the moment.
        """
        if self._socket is None:
            return
        pause_s = min(_STATUS_EVERY_S, self.watchdog_s * _WATCHDOG_SHARE or _STATUS_EVERY_S)
        last = ""
        while True:
            if self.watchdog_s:
                self.send("WATCHDOG=1")
            if (now := line()) != last:
                self.status(now)
                last = now
            await asyncio.sleep(pause_s)

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@contextmanager
def service_manager() -> Iterator[Notifier]:
    """The notifier of this process, closed at the end."""
    notifier = Notifier.take(os.environ)
    try:
        yield notifier
    finally:
        notifier.close()
