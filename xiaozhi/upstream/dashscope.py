"""Alibaba's DashScope over its inference WebSocket: tasks in JSON, sound as bare binary messages, both ways.

A task is begun by `run-task`, lives from `task-started` to `task-finished` or `task-failed` and has a connection for
itself. After `task-finished` the connection takes the next task; after `task-failed` the service closes it. Sound
carries no id: what belongs to no task that runs is dropped. The fields are those of the official SDK (PyPI
`dashscope` 2.0.2, `audio/tts_v2/speech_synthesizer.py` and `audio/asr/recognition.py`) and of Model Studio's pages.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol, TypeAlias

import aiohttp
import orjson

from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.settings.pasted import key_fault
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections, NotOpened, reason

Output: TypeAlias = "bytes | Mapping[str, Any]"
"""Sound, or the `output` of a `result-generated`."""

_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
# Waiting for whoever reads; one second of sound at 24 kHz has 48 000 bytes. Above, the connection is not read.
_MAX_WAITING_BYTES: Final = 400_000
# The service closes a connection that was idle for 60 s.
_MAX_IDLE_S: Final = 50.0
_MAX_IDLE_SOCKETS: Final = 8
# How long a task that was given up may take to end before its connection is closed.
_LEAVE_S: Final = 2.0
# A connection that was kept may be dead without either side knowing (a router forgot it): then a new one is opened.
_STALE_S: Final = 1.0
_ADVICE: Final = {
    401: "the key is wrong, or belongs to another region: see {table}.api_key and {table}.url",
    403: "the key may not use this service: see the console, and {table}.workspace",
    429: "too many requests for this key",
}


class DashscopeError(Exception):
    """A task failed; one line saying why, without a name in front.

    Args:
        message: why.
        lost: the connection ended without a word of the service.
    """

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class DashscopeTask:
    """One task. One coroutine sends, one reads `outputs`.

    Args:
        socket: its connection.
        payload: of `run-task`.
    """

    def __init__(self, socket: "_Socket", payload: Mapping[str, Any]) -> None:
        self.id = uuid.uuid4().hex
        self.over = False
        """The service has ended it, or the connection is gone."""
        self.started = asyncio.Event()
        self.error: DashscopeError | None = None
        self.outputs: Channel[Output] = Channel(_MAX_WAITING_BYTES, lambda item: len(item) if _is_sound(item) else 1)
        """What comes, until the task ends; `raise_error` then says whether that was well."""
        self._socket = socket
        self._payload = payload
        self._finishing = False

    async def begin(self, wait_s: float) -> None:
        """Have it started.

        Raises:
            DashscopeError: refused, lost, or not within `wait_s` seconds.
        """
        await self._send("run-task", self._payload)
        try:
            async with asyncio.timeout(wait_s):
                await self.started.wait()
        except TimeoutError as error:
            raise DashscopeError(f"no task within {wait_s:g} s", lost=True) from error
        self.raise_error()

    async def send(self, given: Mapping[str, Any]) -> None:
        """Send input in JSON.

        Raises:
            DashscopeError: the connection is gone.
        """
        what = {name: value for name, value in self._payload.items() if name != "parameters"}
        await self._send("continue-task", {**what, "input": given})  # all of it, as the official SDK does

    async def send_sound(self, data: bytes) -> None:
        """Send sound.

        Raises:
            DashscopeError: the connection is gone.
        """
        await self._socket.send(data)

    async def finish(self, given: Mapping[str, Any] | None = None) -> None:
        """No further input comes.

        Raises:
            DashscopeError: the connection is gone.
        """
        self._finishing = True
        await self._send("finish-task", {"input": given or {}})

    def raise_error(self) -> None:
        """Raise why it ended, if that was not well.

        Raises:
            DashscopeError: it failed.
        """
        if self.error is not None:
            raise self.error

    async def leave(self, given: Mapping[str, Any]) -> None:
        """Give it up: what still comes is dropped, and its connection is kept if it ends soon."""
        self.outputs.close()
        if self.over:
            return
        try:
            async with asyncio.timeout(_LEAVE_S):
                if given or not self._finishing:
                    await self.finish(given)
                await self._socket.free.wait()
        except (DashscopeError, TimeoutError):
            pass
        finally:
            if not self.over:
                await self._socket.close()

    async def _send(self, action: str, payload: Mapping[str, Any]) -> None:
        header = {"action": action, "task_id": self.id, "streaming": "duplex"}
        await self._socket.send(orjson.dumps({"header": header, "payload": payload}).decode())


class DashscopeAccount(Protocol):
    """The settings of an engine of this service."""

    @property
    def url(self) -> str:
        """Of its `/api-ws/v1/inference`."""
        ...

    @property
    def workspace(self) -> str:
        """Of Model Studio; empty for the key's own."""
        ...

    def key(self) -> str:
        """Empty where there is none."""
        ...


class DashscopeSockets:
    """The connections to the service, kept between tasks.

    Args:
        account: where the service is, and the key.
        table: the name of its settings, for errors.
        connect_s: the longest time to connect, and to have a task started, in seconds.
        clock: monotonic time in seconds.
    """

    def __init__(
        self, account: DashscopeAccount, table: str, connect_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._account, self._table, self._connect_s, self._clock = account, table, connect_s, clock
        self._connections = Connections(None, connect_s=connect_s)
        self._idle: list[tuple[_Socket, float]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def task(
        self, payload: Mapping[str, Any], *, cancel: Mapping[str, Any] | None = None
    ) -> AsyncIterator[DashscopeTask]:
        """Have a task run; leaving before its end gives it up without waiting.

        Args:
            payload: of `run-task`.
            cancel: the `input` of the `finish-task` that gives it up.

        Raises:
            DashscopeError: it cannot be reached, refuses the key or the task.
        """
        task = await self._begin(payload)
        try:
            yield task
        finally:
            if not task.over:
                leaving = asyncio.create_task(task.leave(cancel or {}), name="dashscope-leave")
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    async def connect(self) -> None:
        """Have a connection ready; costs nothing.

        Raises:
            DashscopeError: it cannot be reached, or refuses the key.
        """
        self._keep(self._take() or await self._open())

    async def close(self) -> None:
        """Close all that is idle or being left."""
        for leaving in tuple(self._leaving):
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for socket, _ in self._idle:
            await socket.close()
        self._idle.clear()
        await self._connections.close()

    async def _begin(self, payload: Mapping[str, Any]) -> DashscopeTask:
        while True:
            kept = self._take()
            socket = kept or await self._open()
            task = DashscopeTask(socket, payload)
            socket.carry(task)
            try:
                await task.begin(_STALE_S if kept is not None else self._connect_s)
                return task
            except DashscopeError as error:
                await socket.close()
                if kept is None or not error.lost:
                    raise
            except BaseException:
                await socket.close()
                raise

    def _take(self) -> "_Socket | None":
        """The connection that was used last, if it is still good."""
        while self._idle:
            socket, since_s = self._idle.pop()
            if not socket.closed and self._clock() - since_s <= _MAX_IDLE_S:
                return socket
            socket.close_soon()
        return None

    def _keep(self, socket: "_Socket") -> None:
        self._idle.append((socket, self._clock()))
        if len(self._idle) > _MAX_IDLE_SOCKETS:
            self._idle.pop(0)[0].close_soon()

    async def _open(self) -> "_Socket":
        socket = await dashscope_socket(self._connections, self._account.url, self._account, self._table)
        return _Socket(socket, self._keep)


async def dashscope_socket(
    connections: Connections, url: str, account: DashscopeAccount, table: str
) -> aiohttp.ClientWebSocketResponse:
    """Open a connection with the key.

    Args:
        connections: of the engine.
        url: of the account's service; the key goes there and nowhere else.
        account: whose key.
        table: the name of its settings, for errors.

    Raises:
        DashscopeError: it cannot be reached, refuses the key, or there is none.
    """
    key = account.key()
    if not key:
        raise DashscopeError(f"no key: set {table}.api_key or its environment variable")
    if fault := key_fault(key):
        raise DashscopeError(f"the key {fault}: see {table}.api_key")
    headers = {"Authorization": f"Bearer {key}", "User-Agent": "xiaozhi"}
    if account.workspace:
        headers["X-DashScope-WorkSpace"] = account.workspace
    advice = {status: text.format(table=table) for status, text in _ADVICE.items()}
    try:
        return await connections.websocket(url, headers=headers, max_bytes=_MAX_MESSAGE_BYTES, advice=advice)
    except NotOpened as error:
        raise DashscopeError(str(error)) from error


class _Socket:
    """One connection; a task of its own reads it, so that one that the service has closed is known at once."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, keep: "Callable[[_Socket], None]") -> None:
        self.closed = False
        self.free = asyncio.Event()
        """No task runs on it."""
        self.free.set()
        self._socket, self._keep = socket, keep
        self._task: DashscopeTask | None = None
        self._reading = asyncio.create_task(self._read(), name="dashscope-read")

    def carry(self, task: DashscopeTask) -> None:
        """What comes from now on belongs to this task."""
        self._task = task
        self.free.clear()

    async def send(self, data: str | bytes) -> None:
        if self.closed:
            raise self._task.error if self._task is not None and self._task.error is not None else _cut()
        try:
            await (self._socket.send_str(data) if isinstance(data, str) else self._socket.send_bytes(data))
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise DashscopeError(reason(error), lost=True) from error

    async def close(self) -> None:
        self.close_soon()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()  # a reader that was cancelled before it began has not done so

    def close_soon(self) -> None:
        self.closed = True
        self._reading.cancel()

    async def _read(self) -> None:
        why = _cut()
        try:
            async for message in self._socket:
                await self._take(message)
                if self.closed:
                    break
        except (aiohttp.ClientError, OSError) as error:
            why = DashscopeError(reason(error), lost=True)
        except (ValueError, KeyError, TypeError, AttributeError):
            why = DashscopeError(f"sent something that is not of its protocol: {one_line(message.data, 60)}")
        finally:
            self.closed = True
            self._end(why)
            await self._socket.close()

    async def _take(self, message: aiohttp.WSMessage) -> None:
        task = self._task
        if message.type is aiohttp.WSMsgType.BINARY:
            if task is not None and task.started.is_set():
                with suppress(ChannelClosed):  # it was given up
                    await task.outputs.put(message.data)
            return
        said = bounded_json.loads(message.data)
        header = said["header"]
        event = header["event"]
        if task is None or header.get("task_id", "") != task.id:
            return  # of a task that is over
        if event == "task-started":
            task.started.set()
        elif event == "result-generated":
            output = said["payload"].get("output") or {}
            with suppress(ChannelClosed):
                await task.outputs.put({**output})
        elif event == "task-finished":
            self._end(None)
            self._keep(self)
        elif event == "task-failed":
            self.closed = True
            code = one_line(header.get("error_code") or "failed", 60)
            self._end(DashscopeError(f"{code}: {one_line(header.get('error_message') or '', MAX_SHOWN_CHARS)}"))

    def _end(self, error: DashscopeError | None) -> None:
        """The task that runs is over."""
        if self._task is not None:
            task, self._task = self._task, None
            task.over, task.error = True, error
            task.outputs.close()
            task.started.set()
        self.free.set()


def _cut() -> DashscopeError:
    return DashscopeError("the connection ended before the answer", lost=True)


def _is_sound(item: Output) -> bool:
    return isinstance(item, bytes)
