"""A million wrong frames: recorded sessions, mutated and played at a running server, while a bystander talks.

What is asked is that the server goes on, that memory, tasks, threads and descriptors are level at the end, that the log
stays small and tells of no error, and that the bystander's turns stay whole. Exit code 1 when one of them is broken.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.devices import Scene, Stage, staged
from bench.first_word import utterances
from bench.harness import allow_files
from bench.load import Fleet
from bench.mutations import CLOSE, TEXT, Frame, frames_in, mutated
from bench.outcome import Outcome
from bench.progress import Progress
from bench.relay import pour
from bench.sampling import Sample
from bench.soak import Soaked, ends_table, errors_in, verdict
from bench.stats import table
from bench.user import Load
from bench.verdict import Line, broken
from xiaozhi.client.device import Device
from xiaozhi.client.errors import DeviceError
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.turn.machine import ListeningMode

_UPGRADE_S: Final = 10.0
_SETTLE_S: Final = 8.0
# Of the server's log, at its default level, for each wrong frame.
_MAX_LOG_BYTES: Final = 40.0
_WHOLE: Final = 0.99
# Firmware before 1.8 described its things; browser clients ping. No client in the repository does either.
_OLD: Final = (
    b'{"type":"iot","update":true,"descriptors":[{"name":"Speaker","description":"speaker","properties":'
    b'{"volume":{"description":"0 to 100","type":"number"}},"methods":{"SetVolume":{"description":"set it",'
    b'"parameters":{"volume":{"description":"0 to 100","type":"number","required":true}}}}}]}',
    b'{"type":"iot","update":true,"states":[{"name":"Speaker","state":{"volume":50}}]}',
    b'{"type":"ping"}',
)


# Recording ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def recording(url: str) -> AsyncIterator[tuple[str, list[list[Frame]]]]:
    """A port in front of the server that notes every frame a client sends, by connection."""
    there = urlsplit(url)
    sessions: list[list[Frame]] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        back, onward = await asyncio.open_connection(there.hostname, there.port)
        onward.write(head)
        session: list[Frame] = []
        sessions.append(session)
        buffer = bytearray()

        def note(data: bytes) -> None:
            buffer.extend(data)
            session.extend(frames_in(buffer))

        await asyncio.gather(pour(reader, onward, note), pour(back, writer))

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}{there.path}", sessions


async def recorded(url: str) -> list[list[Frame]]:
    """Sessions as clients have them: spoken, typed and broken-off turns, with tools, in every framing and mode."""
    speech = (await asyncio.to_thread(utterances, ()))[0]
    async with recording(url) as (front, sessions):
        for number, (version, mode) in enumerate([(v, m) for v in (1, 2, 3) for m in ListeningMode]):
            identity = ClientIdentity.numbered(900 + number)
            async with Device(identity, version=version, mode=mode, decode_reply=False, speed=2.0) as device:
                await device.connect(front)
                await device.turn(speech)
                await device.turn_text("set the volume to fifty percent")
                talking = asyncio.create_task(device.turn_text("讲一个故事"))
                await asyncio.wait((talking,), timeout=1.0)
                device.abort("wake_word_detected")
                await talking
                device.listen()
                await asyncio.sleep(0.3)
                device.stop()
    found = [session for session in sessions if len(session) > 10]
    found[0][3:3] = [Frame(TEXT, message) for message in _OLD]
    return found


# Playing ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Played:
    """What was sent and what came back; shared by all that play."""

    frames: int = 0
    wrong: int = 0
    """Of the frames, those that are not as recorded; the order in which they come is wrong as well."""
    sessions: int = 0
    sent_bytes: int = 0
    ends: Counter[str] = field(default_factory=Counter)


class Attacker:
    """Plays mutated sessions one after the other, as one device.

    Args:
        number: which device.
        url: the WebSocket address.
        sessions: as recorded.
        played: where it counts.
        frames_per_s: how fast it sends.
    """

    def __init__(
        self, number: int, url: str, sessions: Sequence[Sequence[Frame]], played: Played, frames_per_s: float, seed: int
    ) -> None:
        self._identity = ClientIdentity.numbered(1000 + number)
        self._url = urlsplit(url)
        self._sessions = sessions
        self._played = played
        self._pause_s = 1.0 / frames_per_s
        self._dice = random.Random(seed * 100_003 + number)

    async def play(self, frames: int) -> None:
        """Go on until so many wrong frames have been sent by all together."""
        while self._played.wrong < frames:
            try:
                self._played.ends[await self._session(frames)] += 1
            except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                self._played.ends[f"no connection: {type(error).__name__}"] += 1
                await asyncio.sleep(0.5)

    async def _session(self, frames: int) -> str:
        dice, played = self._dice, self._played
        async with asyncio.timeout(_UPGRADE_S):
            reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
            writer.write(self.upgrade(dice.choice("123")))
            head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            writer.close()
            await asyncio.sleep(0.2)
            return f"refused: {head.split(b' ', 2)[1].decode()}"
        played.sessions += 1
        listening = asyncio.create_task(_heard(reader))
        right = {id(frame) for session in self._sessions for frame in session}
        try:
            for step in mutated(dice.choice(self._sessions), self._sessions, dice):
                for frame in step:
                    data = frame.packed(dice)
                    writer.write(data)
                    played.frames += 1
                    played.wrong += id(frame) not in right
                    played.sent_bytes += len(data)
                await writer.drain()
                await asyncio.sleep(len(step) * self._pause_s * dice.uniform(0.0, 2.0))
                if listening.done() or played.wrong >= frames:
                    break
            if not listening.done():
                if dice.random() < 0.5:
                    writer.write(Frame(CLOSE, b"\x03\xe8").packed(dice))
                    await asyncio.wait((listening,), timeout=1.0)
                writer.transport.abort()
                return "by the client"
            return f"by the server: {listening.result()}"
        except ConnectionError:
            return f"by the server: {listening.result() if listening.done() else 'TCP'}"
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            writer.close()

    def upgrade(self, version: str) -> bytes:
        """The request that opens a session, in the framing of this version."""
        lines = (
            f"GET {self._url.path} HTTP/1.1",
            f"Host: {self._url.hostname}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            f"Protocol-Version: {version}",
            f"Device-Id: {self._identity.device_id}",
            f"Client-Id: {self._identity.client_id}",
        )
        return "\r\n".join((*lines, "", "")).encode()


async def _heard(reader: asyncio.StreamReader) -> str:
    """Read to the end; the code of the Close frame, or that there was none."""
    buffer = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            buffer += data
            for frame in frames_in(buffer):
                if frame.opcode == CLOSE:
                    return str(int.from_bytes(frame.payload[:2], "big"))
    return "TCP"


# The run ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attack:
    """How many wrong frames, by how many devices, how fast each, with which dice, beside how many that behave."""

    frames: int
    devices: int
    frames_per_s: float
    seed: int = 1
    bystanders: int = 1


@dataclass(slots=True)
class Result:
    """What came of it."""

    soaked: Soaked
    played: Played
    rows: list[tuple[object, ...]]
    log: bytes


async def attacked(attack: Attack, scene: Scene) -> Result:
    """Record, play, watch."""
    async with staged(scene) as stage:
        assert stage.watcher is not None and stage.log is not None
        sessions = await recorded(stage.target.websocket_url)
        load = Load(attack.bystanders, 86_400.0, turns_per_minute=6.0, ramp_s=0.0)
        soaked = Soaked(Outcome(load), await stage.watcher.look(), None, [])
        played = Played()
        rows = await _watched(stage, attack, sessions, played, soaked.outcome)
        if not soaked.outcome.server_ended:
            await asyncio.sleep(_SETTLE_S)
            soaked.after = await stage.watcher.look()
        log = await asyncio.to_thread(stage.log.read_bytes)
        soaked.errors_logged = errors_in(log.decode(errors="replace"))
        return Result(soaked, played, rows, log)


async def _watched(
    stage: Stage, attack: Attack, sessions: Sequence[Sequence[Frame]], played: Played, outcome: Outcome
) -> list[tuple[object, ...]]:
    assert stage.watcher is not None and stage.log is not None
    rows: list[tuple[object, ...]] = []
    fleet = Fleet(stage.target, outcome.load, (), 1)
    url = stage.target.websocket_url
    attackers = [
        Attacker(number, url, sessions, played, attack.frames_per_s, attack.seed) for number in range(attack.devices)
    ]
    progress, began_s = Progress(), time.monotonic()
    tasks = [asyncio.create_task(attacker.play(attack.frames)) for attacker in attackers]
    try:
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=1.0)
            fleet.poll()
            outcome.turns = fleet.turns
            try:
                sample = await stage.watcher.look()
            except ProcessLookupError:
                outcome.server_ended = True
                break
            outcome.samples.append(sample)
            log_bytes = stage.log.stat().st_size
            if played.wrong >= len(rows) * attack.frames // 10:
                rows.append(_row(time.monotonic() - began_s, played, sample, log_bytes, outcome))
            progress.say(
                f"{played.wrong} of {attack.frames} wrong frames, {sample.rss_mb:.0f} MB, log {log_bytes} bytes"
            )
        for task in tasks:
            if task.done():
                task.result()
        rows.append(_row(time.monotonic() - began_s, played, outcome.samples[-1], stage.log.stat().st_size, outcome))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        outcome.died = fleet.died
        fleet.close()
        progress.end()
    return rows


def _row(at_s: float, played: Played, sample: Sample, log_bytes: int, outcome: Outcome) -> tuple[object, ...]:
    turns = f"{len(outcome.answered)}/{len(outcome.fair)}"
    memory, tasks, fds = f"{sample.rss_mb:.1f}", sample.tasks, sample.fds
    return (
        f"{at_s:.0f}",
        played.frames,
        played.wrong,
        played.sessions,
        memory,
        tasks,
        sample.threads,
        fds,
        log_bytes,
        turns,
    )


def judged(result: Result) -> list[Line]:
    """What the server must hold."""
    outcome, played = result.soaked.outcome, result.played
    whole = f"{len(outcome.answered)} of {len(outcome.fair)} turns answered, {outcome.starved:.0%} of them with a gap"
    each = len(result.log) / max(1, played.wrong)
    return [
        *verdict(result.soaked),
        Line(f"a bystander is answered, {_WHOLE:.0%}", whole, outcome.success >= _WHOLE if outcome.fair else None),
        Line(f"at most {_MAX_LOG_BYTES:g} bytes of log a frame", f"{each:.1f}, {len(result.log)} in all",
             each <= _MAX_LOG_BYTES),
    ]  # fmt: skip


def show(result: Result) -> str:
    """The tables."""
    header = ("s", "frames", "wrong", "sessions", "MB", "tasks", "threads", "fds", "log bytes", "bystander")
    tables = [table(header, result.rows), table(("a session ended", "times"), result.played.ends.most_common())]
    if wrong := result.soaked.outcome.errors().most_common():
        tables.append(table(("a turn of the bystander", "times"), wrong))
    return "\n\n".join((*tables, ends_table(result.soaked)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 when something broke."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=24, help="that send them")
    parser.add_argument("--frames-per-second", type=float, default=60.0, help="of each, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="keep the server's log here")
    given = parser.parse_args(arguments)
    if given.frames < 1 or given.devices < 1 or given.frames_per_second <= 0:
        parser.error("--frames, --devices and --frames-per-second must be above 0")
    allow_files(65_536)
    try:
        result = asyncio.run(
            attacked(Attack(given.frames, given.devices, given.frames_per_second, given.seed), Scene(tiny=True))
        )
    except DeviceError as error:
        print(f"no session could be recorded: {error}", file=sys.stderr)
        return 1
    if given.log:
        given.log.write_bytes(result.log)
    lines = judged(result)
    print(f"{show(result)}\n\nHostile:")
    print("\n".join(f"  {line}" for line in lines))
    return 1 if broken(lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
