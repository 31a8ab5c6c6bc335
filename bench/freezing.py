"""Devices that freeze in mid-reply, as a crashed or starved board does: its TCP still answers, nobody reads.

Each runs in a process of its own, which stops itself (SIGSTOP) when the reply sounds. Most are woken after a while and
talk on; one of three never wakes. What is asked is that nobody else notices, and that the server does not keep them.
"""

import asyncio
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import aiohttp

from bench.first_word import utterances
from bench.user import Load, LoadDevice, Target
from xiaozhi.client.errors import DeviceError
from xiaozhi.client.link import DeviceSocket
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity

FROZEN_S: Final = 20.0
_NEVER_WAKES_EVERY: Final = 3
# So many packets have been played when it freezes: in the midst of the reply.
_PACKETS_FIRST: Final = 5
# The firmware's lwIP offers a window of 5760 bytes; Linux doubles what it is told.
_WINDOW_BYTES: Final = 2880
_REST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Frozen:
    """A device has frozen, just now."""

    number: int


@dataclass(frozen=True, slots=True)
class Thawed:
    """A device that froze and was woken: whether the server had given it up, and how its next turn went."""

    number: int
    given_up: bool
    next_turn: str


def small_window_session() -> aiohttp.ClientSession:
    """As `device_session`, and the network takes little for a device that does not read."""

    def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        sock = socket.socket(*address[:3])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW_BYTES)
        sock.setblocking(False)
        return sock

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=open_socket),
        ws_response_class=DeviceSocket,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


def freeze_in_mid_reply(
    target: Target, number: int, recordings: Sequence[Path], duration_s: float, pipe: Connection
) -> None:
    """Process body: one device that freezes in every other turn; it stops its own process, somebody else goes on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the bench, which ends its processes itself
    speech = utterances(recordings)
    until_s = time.monotonic() + duration_s
    asyncio.run(_freeze_now_and_then(target, number, speech, until_s, pipe))


async def _freeze_now_and_then(
    target: Target, number: int, speech: Sequence[SpokenUtterance], until_s: float, pipe: Connection
) -> None:
    dice = random.Random(number)
    async with (
        small_window_session() as session,
        LoadDevice(ClientIdentity.numbered(number), session, 0.0, dice) as device,
    ):
        while time.monotonic() < until_s:
            if not await _on_line(device, target):
                continue
            turn = asyncio.create_task(device.turn(dice.choice(speech)))
            while not turn.done() and len(device.manners.speaker.playback.heard) < _PACKETS_FIRST:
                await asyncio.wait((turn,), timeout=0.02)
            if turn.done():
                await turn
                continue
            pipe.send(Frozen(number))
            os.kill(os.getpid(), signal.SIGSTOP)
            await turn
            given_up = not device.connected
            outcome = "not connected"
            if await _on_line(device, target):
                outcome = (await device.turn(dice.choice(speech))).outcome.value
            pipe.send(Thawed(number, given_up, outcome))
            await asyncio.sleep(_REST_S)


async def _on_line(device: LoadDevice, target: Target) -> bool:
    if device.connected:
        return True
    try:
        await device.call(target)
    except DeviceError:
        await asyncio.sleep(1.0)
        return False
    return True


class Freezer:
    """The processes of those devices. `poll` it while the others talk, `close` it whatever happens.

    Args:
        target: where they call.
        load: of the whole run; the last `load.freezers` numbers are theirs.
        recordings: what they say.
    """

    def __init__(self, target: Target, load: Load, recordings: Sequence[Path]) -> None:
        context = multiprocessing.get_context("spawn")
        self.frozen = 0
        """How often one froze."""
        self.thawed: list[Thawed] = []
        """What became of those that were woken."""
        self._asleep: dict[int, float] = {}
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}
        self._never: set[int] = set()
        for place, number in enumerate(range(load.devices - load.freezers, load.devices)):
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(
                target=freeze_in_mid_reply,
                args=(target, number, list(recordings), load.duration_s, theirs),
                daemon=True,
            )
            worker.start()
            theirs.close()
            self._workers[number] = (worker, ours)
            if place % _NEVER_WAKES_EVERY == _NEVER_WAKES_EVERY - 1:
                self._never.add(number)

    def poll(self) -> None:
        """Take in what has been told, and wake those that have slept long enough. Never waits."""
        now_s = time.monotonic()
        for number, (worker, pipe) in self._workers.items():
            try:
                while pipe.poll():
                    news = pipe.recv()
                    if isinstance(news, Thawed):
                        self.thawed.append(news)
                    else:
                        self.frozen += 1
                        self._asleep[number] = now_s
            except (EOFError, OSError):
                continue  # its time is over
            asleep_s = self._asleep.get(number)
            if asleep_s is not None and number not in self._never and now_s - asleep_s >= FROZEN_S:
                del self._asleep[number]
                if worker.pid is not None:
                    os.kill(worker.pid, signal.SIGCONT)

    def close(self) -> None:
        """End them all, frozen ones too."""
        for worker, pipe in self._workers.values():
            worker.kill()
            worker.join(10.0)
            pipe.close()
        self._workers.clear()
