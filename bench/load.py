"""The load generator: simulated devices in processes of their own, real time, real Opus. What they saw comes back."""

import asyncio
import multiprocessing
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.first_word import utterances
from bench.lag import watched_lag
from bench.user import Load, Target, Turn, User
from xiaozhi.client.link import device_session


@dataclass(frozen=True, slots=True)
class Tally:
    """What one process of devices has to say beside its turns.

    Attributes:
        due: turns due.
        lag_ms: its own loop's worst lag.
        pranks: what was played, and how often.
        calls: connections that came about.
    """

    due: int = 0
    lag_ms: float = 0.0
    pranks: dict[str, int] = field(default_factory=dict)
    calls: int = 0


def drive(target: Target, load: Load, numbers: range, recordings: Sequence[Path], pipe: Connection) -> None:
    """Process body: the devices with these numbers; sends each turn as it ends, and a `Tally` at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the bench, which ends its processes itself
    speech = utterances(recordings)

    async def run() -> Tally:
        async with device_session() as session:
            users = [User(number, load, target, speech, session, pipe.send) for number in numbers]
            async with watched_lag() as lag, asyncio.TaskGroup() as tasks:
                for user in users:
                    tasks.create_task(user.live())
        pranks = sum((user.prankster.played for user in users), Counter[str]())
        calls = sum(user.calls for user in users)
        return Tally(sum(user.due for user in users), lag.worst_ms, pranks, calls)

    pipe.send(asyncio.run(run()))


class Fleet:
    """The processes of devices. Start it, `poll` until it is done, `close` it whatever happens."""

    def __init__(self, target: Target, load: Load, recordings: Sequence[Path], processes: int) -> None:
        users = load.devices - load.freezers
        processes = max(1, min(processes, users))
        context = multiprocessing.get_context("spawn")
        self.turns: list[Turn] = []
        self.tallies: list[Tally] = []
        self.died = 0
        """Processes that ended without a word."""
        self._pipes: list[Connection] = []
        self._workers: list[BaseProcess] = []
        for index in range(processes):
            numbers = range(users * index // processes, users * (index + 1) // processes)
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=drive, args=(target, load, numbers, list(recordings), theirs), daemon=True)
            worker.start()
            theirs.close()
            self._pipes.append(ours)
            self._workers.append(worker)

    @property
    def running(self) -> bool:
        """Some devices are still at it."""
        return bool(self._pipes)

    def poll(self) -> None:
        """Take in what has been told. Never waits."""
        for pipe in list(self._pipes):
            try:
                while pipe.poll():
                    news = pipe.recv()
                    if isinstance(news, Tally):
                        self.tallies.append(news)
                        self._pipes.remove(pipe)
                        pipe.close()
                        break
                    self.turns.append(news)
            except EOFError:
                self.died += 1
                self._pipes.remove(pipe)

    def close(self) -> None:
        """End whatever still runs."""
        for pipe in self._pipes:
            pipe.close()
        for worker in self._workers:
            worker.join(0.0 if self._pipes else 10.0)
            if worker.is_alive():
                worker.terminate()
                worker.join(10.0)
        self._pipes.clear()
