"""Devices that stop reading or vanish without a word: nobody else notices, and the server does not keep them."""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ctypes import addressof, create_string_buffer
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from bench.devices import freezers
from bench.freezing import Freezer, Frozen, Thawed, freeze_in_mid_reply, small_window_session
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from bench.user import Load, Target
from tests.house import House, question, settings_for
from tests.recognisers import until
from xiaozhi.app.server import serving
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.text.messages import INTERRUPTED_EN
from xiaozhi.text.units import join_pieces
from xiaozhi.transport.connected_devices import ConnectedDevice
from xiaozhi.transport.protocol import DeviceProtocol
from xiaozhi.transport.websocket_writer import WebSocketWriter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops processes and drops packets the Linux way")

STORY = "Once upon a time there was a board. " * 12
FROZEN = 99
SEND_TIMEOUT_S = 1.0
# Noise cannot be compressed: 16 kB a second, so that the kernel's buffers are full after one second and not after ten.
BITRATE_BPS = 128_000


def roar(text: str) -> PcmInt:
    """A second of loud noise for each sentence."""
    return np.random.default_rng(len(text)).normal(0.0, 8000.0, DOWNLINK_RATE_HZ).astype(np.int16)


@asynccontextmanager
async def story_house(folder: Path, story: str = STORY, send_timeout_s: float = SEND_TIMEOUT_S) -> AsyncIterator[House]:
    """A server that gives devices up after a second, with a story to tell to whoever asks."""
    async with ChatStandIn(story) as chat, SpeechStandIn(sound=roar) as speech:
        settings = settings_for(
            folder,
            chat.url,
            speech.url,
            server={"host": "127.0.0.1", "port": 0, "data_dir": folder / "data", "drain_s": 0.0,
                    "send_timeout_s": send_timeout_s, "keepalive_s": 5.0},
            audio={"bitrate_bps": BITRATE_BPS},
        )  # fmt: skip
        async with serving(settings) as server:
            yield House(server, chat, speech)


@contextmanager
def freezing_device(url: str) -> Iterator[tuple[int, Connection]]:
    """A device in a process of its own that stops itself in mid-reply: its process id, and what it tells."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=freeze_in_mid_reply, args=(Target(url), FROZEN, [], 600.0, theirs), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        yield process.pid, ours
    finally:
        process.kill()
        process.join()
        ours.close()


async def told(pipe: Connection) -> Frozen | Thawed:
    """The next thing that the device tells."""
    news = await asyncio.to_thread(pipe.recv)
    assert isinstance(news, Frozen | Thawed)
    return news


def conversations() -> int:
    """Conversations that are under way."""
    return sum(task.get_name() == "conversation" for task in asyncio.all_tasks())


async def max_waiting(connection: ConnectedDevice, house_: House) -> tuple[int, int]:
    """The most that waited for a device, in bytes and in messages, until the server has let go of it."""
    max_bytes = most_messages = 0
    writer = house_.writer(connection.device_id)
    async with asyncio.timeout(45):
        while house_.server.devices.find(connection.device_id) is connection:
            max_bytes = max(max_bytes, writer.waiting_bytes)
            most_messages = max(most_messages, len(writer._items))
            await asyncio.sleep(0.01)
    return max_bytes, most_messages


@pytest.mark.real_time
async def test_a_device_frozen_in_mid_reply_is_given_up_while_others_are_answered_and_is_welcome_again(
    tmp_path: Path,
) -> None:
    async with story_house(tmp_path) as home, home.device(1) as other:
        with freezing_device(home.url) as (pid, pipe):
            assert await told(pipe) == Frozen(FROZEN)
            connection = home.server.devices.find(ClientIdentity.numbered(FROZEN).device_id)
            assert connection is not None and connection.busy and conversations() == 2
            home.chat.answer = "🙂 Yes."
            watching = asyncio.create_task(max_waiting(connection, home))
            assert (await other.turn(question())).answered
            max_bytes, most_messages = await watching
            assert 0 < max_bytes < 8192, "a reply of 12 s has 200 kB"
            assert most_messages < 24, "a second of audio, and its texts"
            assert conversations() == 1 and len(home.server.devices) == 1
            os.kill(pid, signal.SIGCONT)
            assert await told(pipe) == Thawed(FROZEN, given_up=True, next_turn="answered")
            assert (await other.turn(question())).answered


def vanish(ws: aiohttp.ClientWebSocketResponse) -> None:
    """As if the power were cut: from now on this end's kernel sees nothing that comes, and acknowledges nothing.

    A socket filter (SO_ATTACH_FILTER, classic BPF) of the one instruction "keep 0 bytes" does it without privileges.
    """
    connection = ws._response.connection
    assert connection is not None and connection.transport is not None
    program = create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0
    with socket.socket(fileno=os.dup(connection.transport.get_extra_info("socket").fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 1, addressof(program)))


@pytest.mark.real_time
async def test_devices_whose_power_is_cut_are_found_out_by_what_is_sent_to_them(tmp_path: Path) -> None:
    """No FIN, no RST: one vanishes in the midst of a word, one while nobody says anything."""
    async with story_house(tmp_path) as home, small_window_session() as session, home.device(1) as other:
        sockets = []
        for number in (2, 3):
            ws = await session.ws_connect(home.url, headers={"Device-Id": f"02:00:00:00:00:0{number}"})
            await ws.send_str('{"type": "hello"}')
            await ws.send_str('{"type": "listen", "state": "start", "mode": "auto"}')
            assert json.loads((await ws.receive()).data)["type"] == "hello"
            sockets.append(ws)
        speaking = home.server.devices.find("02:00:00:00:00:02")
        idle = home.server.devices.find("02:00:00:00:00:03")
        assert speaking is not None and idle is not None
        words = SpokenUtterance.encode(question())
        for packet in words.packets:
            await sockets[0].send_bytes(packet)
        await until(lambda: speaking.busy)
        for ws in sockets:
            vanish(ws)
        assert (await other.turn(question())).answered
        await until(lambda: home.server.devices.find(speaking.device_id) is None)
        await until(lambda: home.server.devices.find(idle.device_id) is None)
        assert conversations() == 1


@pytest.mark.real_time
async def test_who_asks_on_and_on_and_never_reads_fills_no_memory(tmp_path: Path) -> None:
    async with story_house(tmp_path) as home, small_window_session() as session:
        async with session.ws_connect(home.url, headers={"Device-Id": "02:00:00:00:00:02"}) as ws:
            await ws.send_str('{"type": "hello"}')
            vanish_reading(ws)
            while home.server.devices.find("02:00:00:00:00:02") is not None:
                assert len(home.writer("02:00:00:00:00:02")._items) <= 280
                try:
                    await ws.send_str('{"type": "ping"}')
                except ConnectionError:
                    break
        await until(lambda: not conversations())


def vanish_reading(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Read nothing more, and go on sending."""
    connection = ws._response.connection
    assert connection is not None and connection.transport is not None
    transport = connection.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()


@pytest.mark.parametrize(("sentences", "send_timeout_s", "ends"), [(12, 1.0, False), (4, 5.0, True)])
async def test_what_a_device_did_not_take_is_not_remembered_as_heard(
    tmp_path: Path, sentences: int, send_timeout_s: float, ends: bool
) -> None:
    """It is found out in the midst of the reply, or after its end."""
    story = "".join(f"This is sentence {number}. " for number in range(1, sentences + 1))
    async with story_house(tmp_path, story, send_timeout_s) as home, small_window_session() as session:
        device_id = "02:00:00:00:00:02"
        async with session.ws_connect(home.url, headers={"Device-Id": device_id}) as ws:
            await ws.send_str('{"type": "hello"}')
            await ws.send_str('{"type": "listen", "state": "detect", "text": "tell me a story"}')
            while (await ws.receive()).type is not aiohttp.WSMsgType.BINARY:
                pass
            connection = home.session(device_id)
            reply = connection._conversation._reply
            assert reply is not None
            vanish_reading(ws)
            await until(lambda: not connection.busy or home.server.devices.find(device_id) is None)
            assert (home.server.devices.find(device_id) is not None) is ends
        (turn,) = await home.server.services.store.turns.list(device_id)
    told = join_pieces([clause.text for clause, _ in reply.pacer.spoken()])
    _face, _, played = turn.played.partition(" ")
    assert turn.interrupted and played.endswith(INTERRUPTED_EN)
    played = played.removesuffix(INTERRUPTED_EN)
    assert told.startswith(played)
    assert "sentence 1." in played and len(told) - len(played) > len("sentence 1"), "half a second or more"


class Stuck:
    """A socket that is not connected yet: all that is sent waits."""

    closed = False


async def test_the_texts_that_wait_for_one_device_are_limited() -> None:
    writer = WebSocketWriter(Stuck(), DeviceProtocol(), timeout_s=60.0)
    for number in range(1000):
        writer.send({"answer": number})
    with pytest.raises(TimeoutError):
        await writer.over
    assert len(writer._items) <= 256


async def test_a_few_texts_too_long_for_any_device_are_not_kept_either() -> None:
    writer = WebSocketWriter(Stuck(), DeviceProtocol(), timeout_s=60.0)
    writer.send({"a": "a" * 200_000})
    writer.send({"b": "b" * 200_000})
    with pytest.raises(TimeoutError, match="texts wait"):
        await writer.over
    assert len(writer._items) == 1


# The bench -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("devices", "percent", "found"), [(30, 0.0, 0), (30, 5.0, 2), (2, 90.0, 1), (1, 50.0, 0)])
def test_a_share_of_the_devices_freezes_and_one_stays_awake(devices: int, percent: float, found: int) -> None:
    assert freezers(devices, percent) == found


def test_without_any_that_freeze_no_process_is_started() -> None:
    freezer = Freezer(Target("ws://127.0.0.1:1/"), Load(3, 1.0), [])
    freezer.poll()
    freezer.close()
    assert freezer.frozen == 0 and not freezer.thawed
