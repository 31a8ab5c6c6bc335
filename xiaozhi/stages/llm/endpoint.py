"""What every endpoint of the reply has: its key, its connections, its patience, and what is said of its failures."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, TypeVar

import httpx2
import openai

from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.event_stream import NotAChatStream
from xiaozhi.stages.llm.sse import error_text
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.retry_after import retry_after_s

_log = logging.getLogger(__name__)

R = TypeVar("R")

# A server that is well says so in much less.
_CHECK_S: Final = 3.0
# A shorter key, or value of a header, is none: it would be found in every word.
_MIN_SECRET_CHARS: Final = 6
_NOBODY_BEHIND: Final = frozenset({502, 503, 504})


class EndpointChat(ABC):
    """The part that all kinds of endpoints share.

    One object and one pool of connections serve every conversation; at most `max_concurrent` answers stream at once.

    Args:
        endpoint: where and what to ask.
        settings: timeouts and the limit of concurrent answers.
        connections: shared with other endpoints; own ones when left out.
    """

    path = "/chat/completions"
    """Where questions go, behind the endpoint's address."""

    def __init__(
        self, endpoint: LlmEndpoint, settings: LlmSettings, connections: HostConnections | None = None
    ) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._settings = settings
        self._key = endpoint.key()
        secrets = (self._key, *endpoint.headers().values())
        self._secrets = [secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARS]
        self._slots = asyncio.Semaphore(endpoint.max_concurrent or settings.max_concurrent)
        self._connections = connections or HostConnections(settings)

    @abstractmethod
    def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """See `ChatModel.stream`."""

    async def warm(self) -> str:
        """Open a connection and keep it; costs no tokens. Returns why the endpoint is not there; see `ChatModel.warm`.

        It is asked for the head of its list of models. Many services refuse that or do not know it: they are there all
        the same, and so is one with an error of its own. Only a gateway that says so tells of a server that is down.
        """
        if fault := key_fault(self._key):
            return f"the key {fault}"
        address = f"{self._endpoint.base_url.rstrip('/')}/models"
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + _CHECK_S):
                answer = await self._connections.client(address).head(address, headers=self._headers())
        except TimeoutError:
            return "no answer in time"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            return self._safe(_cause(error))
        return f"HTTP {answer.status_code}" if answer.status_code in _NOBODY_BEHIND else ""

    async def close(self) -> None:
        """Close the connections, which endpoints on one host share."""
        await self._connections.close()

    def _headers(self) -> dict[str, str]:
        """Of every request."""
        return {"Authorization": f"Bearer {self._key or 'none'}", **self._endpoint.headers()}

    @asynccontextmanager
    async def _failures_explained(self) -> AsyncIterator[None]:
        """Turn whatever goes wrong upstream into a `ChatError` of one line that names the endpoint, never the key."""
        try:
            yield
        except (NotAChatStream, TimeoutError) as error:
            kind = FailureKind.NONSENSE if isinstance(error, NotAChatStream) else FailureKind.FIRST_BYTE
            raise ChatError(self._line(str(error)), kind=kind) from None
        except ChatError:
            raise
        except openai.APIStatusError as error:
            raise self._refused(error.status_code, error_text(error.body), error.response.headers) from None
        except (openai.APITimeoutError, httpx2.ConnectTimeout):
            reason = f"no connection within {self._settings.connect_timeout_s:g} s"
            raise ChatError(self._line(reason), kind=FailureKind.CONNECTION) from None
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise ChatError(self._line(_cause(error)), kind=FailureKind.CONNECTION) from None
        except Exception as error:
            # Whatever an endpoint, its key or its address makes of our libraries: another one may answer.
            _log.debug("%s", self._line("failed in an unexpected way"), exc_info=True)
            raise ChatError(self._line(_cause(error)), kind=FailureKind.NONSENSE) from error

    def _refused(self, status: int, said: str, headers: Mapping[str, str]) -> ChatError:
        """An answer with a status that is none; `said` is what it tells of the reason."""
        rest_s = retry_after_s(headers, datetime.now(UTC))
        line = self._line(status_line(status, said, rest_s))
        return ChatError(line, kind=kind_of(status, rest_s), status=status, rest_s=rest_s)

    def _line(self, reason: str) -> str:
        return f"{self.name}: {self._safe(reason)}"

    def _safe(self, text: str) -> str:
        """Servers like to repeat a key that they refuse."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class EndpointPatience:
    """How long may still be waited; only waiting counts, not the time in which nobody asks for more.

    Args:
        seconds: until the first sign of life.
        complaint: what is said, with the seconds, when patience is at its end.
        thinking_s: the longest stretch of signs of life without a word to be spoken.
    """

    def __init__(self, seconds: float, complaint: str, thinking_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._thinking_s = thinking_s
        self._thinks_since: float | None = None
        self.renew(seconds, complaint)

    def renew(self, seconds: float, complaint: str) -> None:
        """There was a sign of life."""
        self._left_s = seconds
        self._complaint = f"{complaint} {seconds:g} s"

    def think(self) -> None:
        """There was a sign of life, but nothing to be spoken.

        Raises:
            TimeoutError: patience with thoughts is at its end.
        """
        now = self._loop.time()
        self._thinks_since = now if self._thinks_since is None else self._thinks_since
        if now - self._thinks_since > self._thinking_s:
            raise TimeoutError(f"thought for more than {self._thinking_s:g} s")

    def spoke(self) -> None:
        """There was a word: what it thinks next is another thought."""
        self._thinks_since = None

    async def spend(self, work: Awaitable[R]) -> R:
        """Wait for `work`.

        Raises:
            TimeoutError: patience is at its end.
        """
        began = self._loop.time()
        limit = asyncio.timeout(self._left_s)
        try:
            async with limit:
                result = await work
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(self._complaint) from None
            raise
        self._left_s -= self._loop.time() - began
        return result


def status_line(status: int, said: str, rest_s: float | None = None) -> str:
    """One line about an HTTP status, what was said with it, and when to come back."""
    when = f" (retry after {rest_s:g} s)" if rest_s is not None else ""
    return f"HTTP {status}{when}" + (f": {said}" if said else "")


def kind_of(status: int, rest_s: float | None = None) -> FailureKind:
    """How an endpoint failed that answered with an HTTP status other than 200, and said when to come back or not."""
    if status == 429 or rest_s is not None:
        return FailureKind.BUSY
    if status in {400, 413, 415, 422}:
        return FailureKind.REQUEST
    return FailureKind.REFUSED if status < 500 and status != 408 else FailureKind.SERVER


def _cause(error: BaseException) -> str:
    """The innermost reason: the client says "Connection error." and keeps the reason in the cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
