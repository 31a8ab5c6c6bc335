"""Names looked up in threads that nobody waits for.

Without internet a look-up hangs for 10 s and more and cannot be cancelled; one in the loop's own executor would hold up
the end of the loop for that long, and a start without internet must not take more than 5 s.
"""

import asyncio
import contextlib
import socket
import threading

from aiohttp.abc import AbstractResolver, ResolveResult


class DaemonResolver(AbstractResolver):
    """The system's resolver, in one daemon thread for each look-up."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: there is no such name, or nobody who knows.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def settle(addresses: list[ResolveResult] | None, error: OSError | None) -> None:
            if found.done():
                return
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(addresses or [])

        def look_up() -> None:
            addresses, error = None, None
            try:
                addresses = _addresses(host, port, family)
            except OSError as failure:
                error = failure
            except UnicodeError:  # a label that is empty or too long
                error = OSError(f"{host!r} is not a host name")
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(settle, addresses, error)

        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        return await found

    async def close(self) -> None:
        """Nothing is held."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=found_family,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found_family, _, proto, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
        if found_family in (socket.AF_INET, socket.AF_INET6)
    ]
