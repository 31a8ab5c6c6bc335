"""Time that passes only while everybody waits: a test waits for nothing, and a busy machine changes nothing.

The clock of the loop, `time.monotonic` and `time.time` stand still while somebody works, and jump to the next timer
when nobody does: no callback, no thread that the loop has given work to, no byte on its way between two sockets of this
process. So whole turns between a real server and real devices in one process take milliseconds.

What another process does is not seen, and time would run away from it: such tests are marked `real_time`.
"""

import asyncio
import functools
import os
import selectors
import socket
import time
from _socket import socket as _plain_socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

R = TypeVar("R")

# What has not been read after so long waits for somebody who does not read, or who has gone. To him more is sent and
# more again: each wait for nothing halves the next one.
_UNREAD_S: Final = 0.05
_MIN_UNREAD_S: Final = 0.001
# A thread that got nothing from any processor for so long waits for something that may need time to pass.
_WAITS_S: Final = 0.05
_IDLE_NS: Final = 1_000_000
# Before more time than this passes it is looked at again.
_LOOK_AGAIN_S: Final = 0.02
# A timer may run as early as the clock's resolution. Who then waits for the rest waits no time at all, again and again,
# and would do so for ever if the clock stood quite still: after so many rounds it moves by that much.
_RESOLUTION_S: Final = 1e-9
_SPINNING_ROUNDS: Final = 1000

# The number alone: as an enum it costs as much as receiving something.
_family: Final[Callable[[socket.socket], int]] = vars(_plain_socket)["family"].__get__

_real_monotonic, _real_time = time.monotonic, time.time
_running: "VirtualLoop | None" = None
_on_their_way = (
    0  # bytes that sockets of this process have sent and not received; where the other end is elsewhere, too
)
_Pair: TypeAlias = tuple[Any, Any]
# Connections that one end has closed and not yet the other, by the addresses of who closed and of its peer: whether the
# peer has still to read of it.
_ends: dict[_Pair, bool] = {}


def _monotonic() -> float:
    return _real_monotonic() if _running is None else _running.time()


def _wall_time() -> float:
    return _real_time() if _running is None else _running.wall_time()


def install() -> None:
    """Let `time.monotonic` and `time.time` follow a virtual loop while there is one; before anything keeps them.

    And count what sockets send and receive, and which are closed.
    """
    time.monotonic, time.time = _monotonic, _wall_time
    for name in ("close", "shutdown"):
        setattr(socket.socket, name, _told(getattr(socket.socket, name), closes=name == "close"))
    ways = (("send", True), ("sendto", True), ("sendmsg", True), ("recv", False), ("recv_into", False))
    for name, sends in (*ways, ("recvfrom", False)):
        setattr(socket.socket, name, _counted(getattr(socket.socket, name), sends=sends))


def _counted(call: Callable[..., Any], *, sends: bool) -> Callable[..., Any]:
    @functools.wraps(call)
    def counted(sock: socket.socket, *args: Any, **kwargs: Any) -> Any:
        global _on_their_way
        done = call(sock, *args, **kwargs)
        if _family(sock) != socket.AF_UNIX:  # by which threads wake a loop
            count = done if isinstance(done, int) else len(done[0] if isinstance(done, tuple) else done)
            _on_their_way += count if sends else -count
            if count == 0 and not sends and (pair := _pair(sock)) is not None and pair[::-1] in _ends:
                _ends[pair[::-1]] = False
        return done

    return counted


def _told(call: Callable[..., None], *, closes: bool) -> Callable[..., None]:
    @functools.wraps(call)
    def told(sock: socket.socket, *args: Any) -> None:
        pair = _pair(sock)
        call(sock, *args)
        if pair is not None and (_ends.pop(pair[::-1], None) if closes else _ends.get(pair[::-1])) is None:
            _ends.setdefault(pair, True)

    return told


def _pair(sock: socket.socket) -> _Pair | None:
    """The addresses of a connection; none where there is no connection, or no longer."""
    if sock.fileno() < 0 or sock.family == socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        return None
    try:
        return sock.getsockname(), sock.getpeername()
    except OSError:
        return None


def _effort_ns() -> int | None:
    """What the other threads of this process and its children have got of the processors; None while one wants more."""
    total, me = 0, os.path.basename(os.readlink("/proc/thread-self"))  # noqa: PTH115, PTH119 - called often
    for task in os.scandir("/proc/self/task"):
        folders = [f"/proc/{child}" for child in _read(f"{task.path}/children").split()]
        for folder in folders if task.name == me else [task.path, *folders]:
            if _read(f"{folder}/stat").rpartition(")")[2].split()[:1] in (["R"], ["D"]):  # it runs, or waits to
                return None
            total += int((_read(f"{folder}/schedstat").split() or ["0"])[0])
    return total


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # it has ended meanwhile
        return ""


class _Jumping(selectors.DefaultSelector):
    """Waits for what is under way; what would have been waited for beyond is put on the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.threads_at_work = 0
        self._rounds = 0  # in a row without waiting
        self._gated_at = 0  # so many threads were found waiting
        self._unread = _on_their_way  # so many bytes were found to be read by nobody
        self._unread_s = _UNREAD_S

    def begun(self) -> None:
        """A thread more is at work, which nobody has found waiting yet."""
        self.threads_at_work += 1
        self._gated_at = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; see `selectors.BaseSelector.select`."""
        ready = super().select(0)
        self._rounds = self._rounds + 1 if timeout == 0 else 0
        if self._rounds == _SPINNING_ROUNDS:
            self._rounds, self.now_s = 0, self.now_s + _RESOLUTION_S
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        ready = self._of_threads(timeout) if self.threads_at_work else self._of_sockets()
        if not ready:
            self.now_s += timeout
        return ready

    def _of_sockets(self) -> list[tuple[selectors.SelectorKey, int]]:
        keys = self.get_map()
        if len(keys) <= 1:  # no more than the loop has for itself
            return []
        connecting = any(key.events == selectors.EVENT_WRITE for key in keys.values())
        if _on_their_way == self._unread and not connecting and not any(_ends.values()):
            return []
        if ready := super().select(self._unread_s):
            self._unread_s = _UNREAD_S
        else:
            _ends.update(dict.fromkeys(_ends, False))  # its peer is in another process, or does not listen
            self._unread, self._unread_s = _on_their_way, max(self._unread_s / 2.0, _MIN_UNREAD_S)
        return ready

    def _of_threads(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Whatever comes while threads are at work; nothing once all of them wait."""
        if self._gated_at == self.threads_at_work and timeout < _LOOK_AGAIN_S:
            return self._of_sockets()
        self._gated_at = 0
        last: int | None = None
        while not (ready := super().select(_WAITS_S)):
            effort = _effort_ns()
            if last is not None and effort is not None and effort - last < _IDLE_NS:
                self._gated_at = self.threads_at_work
                break
            last = effort
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time: minutes pass in milliseconds."""

    def __init__(self) -> None:
        global _running
        self._jumping = _Jumping()
        self._begun_s, self._begun_at_s = _real_monotonic(), _real_time()
        _ends.clear()
        super().__init__(self._jumping)
        _running = self

    def time(self) -> float:
        """Seconds of the monotonic clock."""
        return self._begun_s + self._jumping.now_s

    def wall_time(self) -> float:
        """Seconds since 1970."""
        return self._begun_at_s + self._jumping.now_s

    def run_in_executor(  # type: ignore[override] # typeshed's TypeVarTuple says no more
        self, executor: Executor | None, func: Callable[..., R], *args: Any
    ) -> "asyncio.Future[R]":
        """See `asyncio.loop.run_in_executor`; the clock stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.begun()
        future.add_done_callback(self._handed_over)
        return future

    def _handed_over(self, _future: object) -> None:
        self._jumping.threads_at_work -= 1

    async def _sendfile_native(self, *_args: Any, **_options: Any) -> int:
        """Files are sent by way of this process, where bytes are counted."""
        raise asyncio.SendfileNotAvailableError

    async def subprocess_exec(self, *_args: Any, **_options: Any) -> Any:
        """Another process has a clock of its own."""
        raise RuntimeError("time would run away from another process: mark the test with pytest.mark.real_time")

    def close(self) -> None:
        """See `asyncio.loop.close`; time is real again."""
        global _running
        if _running is self:
            _running = None
        super().close()


@contextmanager
def at_work(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """A thread that the loop knows nothing of works for it meanwhile."""
    if not isinstance(loop, VirtualLoop):
        yield
        return
    loop._jumping.begun()
    try:
        yield
    finally:
        loop._jumping.threads_at_work -= 1


def in_virtual_time(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run to the end on a loop in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
