"""The way to Redis: every question has a short time and a breaker, and a Redis that is gone is an ordinary answer."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from xiaozhi.cluster.values import pack, unpack
from xiaozhi.settings.cluster import ClusterSettings
from xiaozhi.upstream.breaker import Admission, Breaker, BreakerRules, BreakerState

if TYPE_CHECKING:
    from redis.asyncio import Redis
from xiaozhi.program import PlainError

_log = logging.getLogger(__name__)

R = TypeVar("R")

# So many failures in a row of one use before it waits for `cluster.retry_s`.
_FAILURES: Final = 3
# An answer that cannot be used is told of once in so long, for each use.
_SAID_EVERY_S: Final = 60.0
# Connections to Redis at the same time; an operation takes a fraction of a millisecond, so a few serve thousands.
_CONNECTIONS: Final = 32


class ClusterError(PlainError):
    """The cluster cannot be joined; one line says what to do."""


class Gone(Exception):
    """Redis did not answer in time, refused, or is left alone for a while. The caller goes on without it."""


class Use(Enum):
    """What Redis is asked for: each has a breaker of its own, so that a use that is slow does not stop another."""

    NODES = "nodes"
    SPEECH = "speech"
    ANSWERS = "answers"
    CONVERSATIONS = "conversations"
    DEVICES = "devices"
    LIMITS = "limits"
    KEYS = "keys"


class RedisLink:
    """A client of Redis or Valkey. Nothing is opened before the first question.

    Args:
        settings: the `[cluster]` table.
        clock: monotonic seconds.

    Raises:
        ClusterError: the package is not installed, or the settings cannot be used.
    """

    def __init__(self, settings: ClusterSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.asked = 0
        """Questions put to Redis."""
        self.failed = 0
        """Questions without an answer in time."""
        self.spared = 0
        """Questions not asked, because Redis has just failed."""
        self.settings = settings
        self.max_bytes = settings.max_value_kb * 1024
        """Longest value kept, in bytes."""
        self._timeout_s = settings.timeout_ms / 1000.0
        self._clock = clock
        self._client, self._away = _client(settings)
        rules = BreakerRules(_FAILURES, settings.retry_s, window_s=10.0, window_min=1000)
        self._breakers = {use: Breaker(rules, self._changed(use)) for use in Use}
        self._said_gone = False
        self._said_odd: dict[Use, float] = {}

    def key(self, *parts: str) -> str:
        """A key of this cluster; its prefix stands in braces, so that all keys lie in one slot of a Redis Cluster."""
        return ":".join((f"{{{self.settings.prefix}}}", *parts))

    def well(self, use: Use) -> bool:
        """Whether a question of this use would be asked now."""
        return self._breakers[use].would_admit(self._clock())

    async def ask(self, use: Use, question: Callable[[Any], Awaitable[R]], *, timeout_s: float | None = None) -> R:
        """Put a question, and read its answer.

        Whoever holds the other end may answer anything, of any kind: a Redis whose answer cannot be read is one that
        does not answer. So the question reads it as well, and what it raises is `Gone` to the caller.

        Args:
            use: what for.
            question: awaits commands of the client it is given, a `redis.asyncio.Redis` that answers bytes (its own
                annotations leave open whether they are text), and makes of the answers what the caller wants.
            timeout_s: for all of it; `cluster.timeout_ms` when left out.

        Raises:
            Gone: no answer, or one that the question could not read.
        """
        breaker, now = self._breakers[use], self._clock()
        admission = breaker.admit(now)
        if admission is Admission.REFUSED:
            self.spared += 1
            raise Gone
        self.asked += 1
        try:
            async with _cancellable(), asyncio.timeout(timeout_s or self._timeout_s):
                answer = await question(self._client)
        except Exception as error:
            self.failed += 1
            self._note(use, error)
            breaker.failed(admission, self._clock())
            raise Gone from error
        except BaseException:
            breaker.dropped(admission, self._clock())
            raise
        breaker.succeeded(admission, self._clock())
        if self._said_gone:
            self._said_gone = False
            _log.warning("redis answers again")
        return answer

    def recovered(self) -> None:
        """Redis has just answered: uses that were waiting may try again at once."""
        for breaker in self._breakers.values():
            breaker.recover(self._clock())

    async def get(self, use: Use, key: str) -> bytes | None:
        """A value written by `put`; None where there is none, or one that cannot be read. Raises `Gone`."""

        async def read(redis: Any) -> bytes | None:
            stored = bytes_of(await redis.get(key))
            return unpack(stored, self.max_bytes) if stored is not None else None

        return await self.ask(use, read)

    async def put(self, use: Use, key: str, value: bytes, ttl_s: float, *, compress: bool = True) -> bool:
        """Write a value for `ttl_s` seconds; False for one that is too long. Raises `Gone`."""
        if len(value) > self.max_bytes:
            return False
        packed = pack(value, compress=compress)
        await self.ask(use, lambda redis: redis.set(key, packed, px=max(1, int(ttl_s * 1000))))
        return True

    async def close(self) -> None:
        """Close every connection."""
        try:
            async with asyncio.timeout(1.0):
                await self._client.aclose()
        except Exception as error:  # noqa: BLE001 - whatever it answers to that, it is over
            _log.debug("redis not closed: %s", type(error).__name__)

    def _note(self, use: Use, error: Exception) -> None:
        if isinstance(error, self._away):
            if not self._said_gone:
                self._said_gone = True
                _log.warning("redis does not answer (%s); this node goes on by itself", _cause(error))
            return
        now = self._clock()
        if now - self._said_odd.get(use, -_SAID_EVERY_S) >= _SAID_EVERY_S:
            self._said_odd[use] = now
            _log.warning(
                "redis answers about %s what cannot be used (%s); this node goes on without it",
                use.value,
                _cause(error),
            )

    @staticmethod
    def _changed(use: Use) -> Callable[[BreakerState, BreakerState, float], None]:
        def changed(old: BreakerState, new: BreakerState, _now: float) -> None:
            _log.debug("redis for %s: %s, was %s", use.value, new.value, old.value)

        return changed


@contextlib.asynccontextmanager
async def _cancellable() -> AsyncIterator[None]:
    """A cancellation that somebody has swallowed in between is raised at the end.

    The client waits with `asyncio.wait_for`, which loses one in Python 3.11 when what it waits for is done in the same
    breath: a task that asks again and again would then never end.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _client(settings: ClusterSettings) -> "tuple[Redis, tuple[type[Exception], ...]]":
    """The client, and what it raises when Redis cannot be reached, or does not let this node in."""
    try:
        import redis.asyncio as client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as NotConnected
        from redis.exceptions import TimeoutError as TooSlow
    except ImportError:
        raise ClusterError("cluster.url is set, but the client is missing: pip install 'xiaozhi[redis]'") from None
    timeout_s = settings.timeout_ms / 1000.0
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        # Name, TLS and password take several round trips.
        "socket_connect_timeout": 4.0 * timeout_s,
        "max_connections": _CONNECTIONS,
        "timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,  # every Redis and Valkey speaks it; nothing of 3 is used here
    }
    if password := settings.password.get_secret_value():
        options["password"] = password
    if settings.secure:
        options |= _tls_options(settings)
    try:
        pool = client.BlockingConnectionPool.from_url(settings.url.get_secret_value(), **options)
    except ValueError:
        raise ClusterError("cluster.url is no address of a Redis; it looks like redis://host:6379/0") from None
    return client.Redis(connection_pool=pool), (NotConnected, TooSlow, OSError, TimeoutError)


def _tls_options(settings: ClusterSettings) -> dict[str, str]:
    """Certificates for the client, looked at now: when it connects, a bad file would pass for a Redis that is away.

    Raises:
        ClusterError: a file cannot be read or is none.
    """
    options: dict[str, str] = {}
    context = ssl.create_default_context()
    if settings.tls_ca is not None:
        try:
            context.load_verify_locations(settings.tls_ca)
        except OSError as error:
            raise ClusterError(f"cluster.tls_ca: {settings.tls_ca}: {_unusable(error)}") from None
        options["ssl_ca_certs"] = str(settings.tls_ca)
    if settings.tls_cert is not None and settings.tls_key is not None:
        try:
            # A key with a password would be asked for on the terminal; an empty one is refused instead.
            context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
        except OSError as error:
            where = f"{settings.tls_cert}, cluster.tls_key: {settings.tls_key}"
            raise ClusterError(f"cluster.tls_cert: {where}: {_unusable(error)}") from None
        options |= {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key)}
    return options


def _unusable(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        known = {"KEY_VALUES_MISMATCH": "the key is another certificate's", "NO_CERTIFICATE_OR_CRL_FOUND": "no PEM"}
        return known.get(error.reason or "", "not a PEM file, or one with a password")
    return (error.strerror or type(error).__name__).lower()


def _cause(error: BaseException) -> str:
    """The kind of an error, and what to do where that is plain. Its text may hold the address, and that a password."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {seen.verify_message}; see cluster.tls_ca"
        if isinstance(seen, ssl.SSLError):
            return f"no TLS with it: {seen.reason or type(seen).__name__}; see cluster.url and cluster.tls_cert"
        if type(seen).__name__ in ("AuthenticationError", "NoPermissionError"):
            return f"{type(seen).__name__}; see cluster.password"
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__


def bytes_of(answer: Any) -> bytes | None:
    """An answer that has to be bytes, or nothing. Raises `TypeError`."""
    if answer is None or isinstance(answer, bytes):
        return answer
    raise TypeError(f"{type(answer).__name__} instead of bytes")


def number_of(answer: Any, most: float) -> float:
    """An answer that has to be a number from 0 to `most`. Raises `ValueError`, `TypeError`."""
    number = float(answer)
    if not 0.0 <= number <= most:
        raise ValueError("a number out of range")
    return number
