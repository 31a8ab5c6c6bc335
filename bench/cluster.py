"""Three nodes, one at the edge, behind HAProxy with one Redis: nodes die and drain, Redis stops, an uplink is cut.

Everything is real but the clouds: server processes, redis-server, haproxy, and devices that ask the OTA address when
they have lost their connection. Every device asks questions that carry its own mark; the stand-in chat model answers
with the mark and counts conversations in which it sees somebody else's.

Exit code 1 when a turn was lost elsewhere than on the node that was killed, a device was away for more than 15 s, or
anything was mixed. Of a node that drains, one thing is no loss: a question that was on the wire while the node hung up
a device that was doing nothing. The device says it again; the node's log has to bear it out. Exit code 2 when something
was missed while the devices themselves had no processor: nothing can be concluded then.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np

from bench.cluster_verdict import FRONT, Asked, Record, killed, let_go, lost, show, verdict
from bench.first_word import utterances
from bench.harness import ServerProcess, allow_files, free_port, server_process
from bench.lag import watched_lag
from bench.progress import Progress
from bench.quiet import Others
from bench.relay import pour
from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatMessages, ChatStandIn
from bench.standins.sound import tone
from bench.standins.speech import SpeechStandIn
from bench.standins.tables import chat_table, voice_table
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.client.device import Device
from xiaozhi.client.errors import DeviceError
from xiaozhi.client.link import device_session
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.text.messages import message

NODES: Final = ("a", "b", "edge")
_MARK: Final = re.compile(r"mark(\d+)")
_CLOUD_NOTICE: Final = "".join(filter(str.isalnum, message("offline", "en")))
_LOOK_S: Final = 0.1
# Devices that are later than this send their sound later than the nodes wait for it.
_STARVED_MS: Final = 1000.0


class Clouds:
    """The chat model: answers with the asker's mark, and looks whether a conversation is of one device only."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def answer(self, messages: ChatMessages) -> str:
        """Say the mark of the newest question."""
        texts = [str(one["content"]) for one in messages if one["role"] != "system"]
        marks = [mark for text in texts for mark in _MARK.findall(text)]
        self._record.mixed_conversations += len(set(marks)) > 1
        return f"🙂 This is for mark{marks[-1] if marks else '?'}."  # what is spoken holds no mark: an earlier one does


class Uplink:
    """A cable to an upstream that can be cut."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._to = (host, int(port))
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = free_port()

    @property
    def url(self) -> str:
        """Where it begins."""
        return f"http://127.0.0.1:{self.port}"

    async def mend(self) -> None:
        """Let data through."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Break what is open and let nothing through."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(pour(reader, far_writer), pour(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}


class Redis:
    """A real one that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it keeps nothing over a stop."""
        program = shutil.which("redis-server") or shutil.which("valkey-server") or "redis-server"
        self._process = await asyncio.create_subprocess_exec(
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder),
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await _listening(self.port)

    async def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None


@asynccontextmanager
async def haproxy(folder: Path, ports: Sequence[int]) -> AsyncIterator[int]:
    """A front for the OTA address of all nodes; gives its port."""
    port = free_port()
    servers = "\n".join(
        f"    server n{number} 127.0.0.1:{one} check inter 500ms fall 2 rise 1" for number, one in enumerate(ports)
    )
    file = folder / "haproxy.cfg"
    file.write_text(
        "global\n    maxconn 1000\n"
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 60s\n    timeout server 60s\n"
        "    retries 3\n    option redispatch\n    retry-on conn-failure empty-response\n"
        f"frontend devices\n    bind 127.0.0.1:{port}\n    default_backend nodes\n"
        "backend nodes\n    balance roundrobin\n    option httpchk GET /health/ready\n"
        "    http-check expect status 200\n"
        f"{servers}\n"
    )
    process = await asyncio.create_subprocess_exec(
        shutil.which("haproxy") or "haproxy", "-q", "-db", "-f", str(file), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _listening(port)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(10.0):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


def node_toml(name: str, folder: Path, redis_port: int, chats: dict[str, str], speech_url: str) -> str:
    """The settings of a node; `chats` are the addresses of its endpoints by tier."""
    endpoints = "".join(chat_table(url, tier, tier=tier) for tier, url in chats.items())
    return f"""
[server]
data_dir = "{folder / name}"
drain_s = 15.0
[auth]
mode = "token"
[models]
auto_pull = false
[asr]
engine = "sense-voice"
model_dir = "{folder / "asr"}"
workers = 1
[llm]
history_summary = false
{endpoints}{voice_table(speech_url)}[cache]
premake = false
[memory]
engine = "off"
[console]
enabled = false
[cluster]
url = "redis://127.0.0.1:{redis_port}/0"
node = "{name}"
tier = "{"edge" if name == "edge" else "cloud"}"
"""


class Nodes:
    """The server processes by their names; one that has ended can be started again."""

    def __init__(self, start: Callable[[str], contextlib.AbstractAsyncContextManager[ServerProcess]]) -> None:
        self._start = start
        self._stacks: dict[str, AsyncExitStack] = {}
        self.running: dict[str, ServerProcess] = {}
        self.names: dict[int, str] = {}
        self.logs: list[tuple[str, str]] = []
        """Name and log of each node that has ended."""

    async def start(self, name: str) -> None:
        """Start one and wait until it serves."""
        stack = self._stacks[name] = AsyncExitStack()
        server = await stack.enter_async_context(self._start(name))
        self.running[name] = server
        self.names[server.port] = name

    async def end(self, name: str, number: signal.Signals) -> int:
        """Send a signal, once, and wait until it has ended; the exit code."""
        server = self.running.pop(name)
        os.kill(server.pid, number)
        code = await server.process.wait()
        self.logs.append((name, await asyncio.to_thread(server.log.read_text, errors="replace")))
        await self._stacks.pop(name).aclose()
        return code

    async def close(self) -> None:
        """Stop them all."""
        for name in list(self._stacks):
            await self._stacks.pop(name).aclose()

    def at(self, url: str) -> str:
        """The node of a WebSocket address; `front` where a node that knew of no other sent the device back there."""
        return self.names.get(int(url.split(":")[2].split("/")[0]), FRONT)


class Resident:
    """One device: connects through OTA, talks now and then, comes back when it has lost its connection."""

    def __init__(
        self,
        number: int,
        ota_url: str,
        nodes: Nodes,
        record: Record,
        session: aiohttp.ClientSession,
        pause_s: float,
        speech: SpokenUtterance,
    ) -> None:
        self.device = Device(ClientIdentity.numbered(number), trace=True, decode_reply=False, session=session)
        self.node = ""
        self._number = number
        self._ota_url = ota_url
        self._nodes = nodes
        self._record = record
        self._dice = random.Random(number)
        self._pause_s = pause_s
        self._speech = speech
        self._asked = 0

    async def live(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        async with self.device:
            await self._come(loop.time())
            while True:
                until_s = loop.time() + self._dice.uniform(0.3, 1.0) * self._pause_s
                while loop.time() < until_s:
                    await asyncio.sleep(_LOOK_S)
                    if not self.device.connected:
                        await self._come(loop.time())
                await self._ask()

    async def _come(self, lost_s: float) -> None:
        """Ask where to connect, and connect; again and again until it works."""
        record, before = self._record, self.node
        phase = record.phase
        while True:
            try:
                reply = await self.device.boot(self._ota_url)
                await self.device.connect(reply.url, reply.token)
                break
            except DeviceError:
                await asyncio.sleep(0.5)
        self.node = self._nodes.at(reply.url)
        if before:
            record.away_s.setdefault(phase, []).append(asyncio.get_running_loop().time() - lost_s)
            record.moved[f"{before} > {self.node}"] += 1

    async def _ask(self) -> None:
        self._asked += 1
        hard = self._asked % 2 == 0
        question = f"mark{self._number} question {self._asked}" + (", please explain that" if hard else "")
        phase, node = self._record.phase, self.node
        spoken = self._asked % 3 == 0
        began_s = asyncio.get_running_loop().time()
        if spoken:
            report = await self.device.turn(self._speech, answer_timeout_s=20.0)
        else:
            report = await self.device.turn_text(question, answer_timeout_s=20.0)
        marks = set(_MARK.findall(report.text))
        self._record.turns.append(
            Asked(
                phase,
                node,
                self.device.identity.device_id,
                report.outcome.value,
                spoken,
                mixed=bool(marks - {str(self._number)}),
                begun=report.first_packet_ms is not None,
                offline=_CLOUD_NOTICE in "".join(filter(str.isalnum, report.text)),
                took_s=asyncio.get_running_loop().time() - began_s,
            )
        )


def _brief(text: str) -> PcmInt:
    """Speech that is over soon: what is said is not what is measured here."""
    return np.resize(tone("."), max(int(0.4 * DOWNLINK_RATE_HZ), int(0.02 * DOWNLINK_RATE_HZ * len(text))))


async def run(devices: int, phase_s: float, pause_s: float, drains: int = 1) -> Record:
    """The whole drill."""
    record, progress = Record(), Progress()
    (utterance, *_) = await asyncio.to_thread(utterances, [])
    clouds = Clouds(record)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        build_tiny(folder / "asr", "hello")
        cloud = await stack.enter_async_context(ChatStandIn(clouds.answer, first_token_ms=150.0))
        near = await stack.enter_async_context(ChatStandIn(clouds.answer, first_token_ms=50.0))
        speech = await stack.enter_async_context(SpeechStandIn(first_byte_ms=50.0, sound=_brief))
        uplink, voice_uplink = Uplink(cloud.url), Uplink(speech.url)
        for cable in (uplink, voice_uplink):
            await cable.mend()
            stack.push_async_callback(cable.cut)
        redis = Redis(folder)
        await redis.start()
        stack.push_async_callback(redis.stop)

        def start(name: str) -> contextlib.AbstractAsyncContextManager[ServerProcess]:
            edge = name == "edge"
            chats = {"edge": near.url, "cloud": uplink.url} if edge else {"cloud": cloud.url}
            toml = node_toml(name, folder, redis.port, chats, voice_uplink.url if edge else speech.url)
            return server_process(toml, port=ports[name])

        ports = {name: free_port() for name in NODES}
        nodes = Nodes(start)
        stack.push_async_callback(nodes.close)
        for name in NODES:
            await nodes.start(name)
        await asyncio.sleep(4.0)  # two heartbeats: all nodes know each other
        front = await stack.enter_async_context(haproxy(folder, [nodes.running[name].port for name in NODES]))
        session = await stack.enter_async_context(device_session())
        ota_url = f"http://127.0.0.1:{front}/xiaozhi/ota/"
        residents = [
            Resident(number, ota_url, nodes, record, session, pause_s, utterance) for number in range(1, devices + 1)
        ]
        tasks = [asyncio.create_task(one.live()) for one in residents]
        lag = await stack.enter_async_context(watched_lag())

        async def phase(name: str, work: Callable[[], Awaitable[None]] | None = None) -> None:
            record.phase = name
            record.phases.append(name)
            progress.say(f"{name}: {Counter(one.node for one in residents if one.device.connected)}")
            ended = asyncio.get_running_loop().time() + phase_s
            if work is not None:
                await work()
            await asyncio.sleep(max(0.0, ended - asyncio.get_running_loop().time()))

        async def kill() -> None:
            await nodes.end("a", signal.SIGKILL)

        async def drain(name: str) -> None:
            code = await nodes.end(name, signal.SIGTERM)
            record.drains.setdefault(record.phase, []).extend(let_go(name, nodes.logs[-1][1]))
            if code:
                record.bad_ends.append(f"node {name} ended with code {code} when told to stop ({record.phase})")

        async def cut() -> None:
            await uplink.cut()
            await voice_uplink.cut()

        async def mend() -> None:
            await uplink.mend()
            await voice_uplink.mend()

        try:
            await phase("calm")
            print("placed:", dict(Counter(one.node for one in residents)))
            await phase("kill -9 a", kill)
            await phase("a again", lambda: nodes.start("a"))
            for number in range(drains):
                name, again = "ba"[number % 2], f" ({number + 1})" * (number > 0)
                await phase(f"drain {name}{again}", partial(drain, name))
                await phase(f"{name} again{again}" if name == "b" else f"a back{again}", partial(nodes.start, name))
            await phase("redis stopped", redis.stop)
            await phase("redis back", redis.start)
            await phase("uplink of edge cut", cut)
            await phase("uplink back", mend)
            unheard = {turn.device for turn in record.turns if lost(turn, record) and not killed(turn)}
            nodes.logs += [(name, server.log.read_text(errors="replace")) for name, server in nodes.running.items()]
            for name, log in nodes.logs:
                lines = [line for line in log.splitlines() if any(one in line for one in unheard)]
                record.logged += [f"{name}: {line}" for line in lines[-40:]]
            away = [one for one in residents if not one.device.connected]
            if away:
                record.away_s.setdefault("never", []).extend([float("inf")] * len(away))
            print("at the end:", dict(Counter(one.node for one in residents)), "moved:", dict(record.moved))
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            record.lag_ms = lag.worst_ms
        for error in ended:
            if isinstance(error, Exception):
                raise error
    progress.end()
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--devices", type=int, default=60)
    parser.add_argument("--phase", type=float, default=20.0, metavar="S", help="length of each of the nine phases")
    parser.add_argument("--pause", type=float, default=8.0, metavar="S", help="longest pause between two turns")
    parser.add_argument("--drains", type=int, default=1, metavar="N", help="drains, of nodes b and a in turn; 1")
    given = parser.parse_args(arguments)
    missing = [name for name in ("redis-server", "haproxy") if shutil.which(name) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    allow_files(4096)
    # A node that is killed leaves its upstreams in the middle of an answer; that is the point, and no news.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    others = Others()
    record = asyncio.run(run(given.devices, given.phase, given.pause, given.drains))
    record.others = others.share()
    missed = verdict(record)
    print(f"\n{show(record)}\n")
    print("\n".join(record.logged[-100:]))
    print(f"others took {record.others:.0%} of the machine; the devices were {record.lag_ms:.0f} ms late at most")
    print("\n".join(f"MISSED: {line}" for line in missed) or "all targets met")
    if missed and record.lag_ms > _STARVED_MS:
        print("not judged: the devices had no processor; use a quieter machine or fewer devices")
        return 2
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
