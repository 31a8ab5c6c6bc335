"""What strangers, and devices gone wrong, may do to MQTT and UDP: nothing that another device would notice."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from bench.mqtt_device import MqttClient, MqttCredentials, MqttDevice
from tests.house import House, question
from tests.test_mqtt_devices import boot, kinds, mqtt_house, sleeping, talking
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.transport.mqtt_codec import Connect, Packet, PacketKind, Publish
from xiaozhi.transport.udp import HEADER, DatagramDrop

CONNECT = Connect("a-client", "a-user", "a-password", 60).packet().encode()


@asynccontextmanager
async def stranger(home: House) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    assert home.server.mqtt is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", home.server.mqtt.offer.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answered(reader: asyncio.StreamReader, within_s: float = 30.0) -> bytes:
    """All that comes until the server closes the connection."""
    async with asyncio.timeout(within_s):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on the plain port
        b"\x10\xff\xff\xff\x7f",  # 256 MB
        Packet(PacketKind.PINGREQ).encode(),
        Publish("device-server", b"{}").packet().encode(),
        bytes(64),
    ],
)
async def test_what_is_no_connect_is_closed_without_an_answer(tmp_path: Path, data: bytes) -> None:
    async with mqtt_house(tmp_path, auth={"mode": "token"}) as home, stranger(home) as (reader, writer):
        writer.write(data)
        assert await answered(reader) == b""


async def test_who_says_nothing_or_a_little_is_hung_up_after_ten_seconds(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, stranger(home) as (idle, _), stranger(home) as (slow, writer):
        began = asyncio.get_running_loop().time()

        async def trickle() -> None:
            for byte in CONNECT[:-1]:
                writer.write(bytes((byte,)))
                await asyncio.sleep(1.0)

        trickling = asyncio.create_task(trickle())
        assert await answered(idle) == await answered(slow) == b""
        assert asyncio.get_running_loop().time() - began < 15
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)


async def test_a_crowd_of_silent_connections_keeps_no_device_out(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home:
        assert home.server.mqtt is not None
        port = home.server.mqtt.offer.port
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        async with talking(home) as device:
            assert (await device.turn(question())).answered
        for _, writer in crowd:
            writer.close()


async def test_noise_of_any_kind_leaves_the_server_serving(tmp_path: Path) -> None:
    dice = random.Random(7)
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        assert device.credentials is not None
        shows = device.credentials
        identity = ClientIdentity.of("02:00:00:00:00:02")
        async with MqttDevice(identity) as other:
            section = (await boot(home, other)).body["mqtt"]
        connect = Connect(shows.client_id, section["username"], section["password"], 60).packet().encode()
        for number in range(60):
            async with stranger(home) as (reader, writer):
                if number % 2:
                    writer.write(connect)  # noise of somebody who was let in
                for _ in range(dice.randrange(1, 6)):
                    kind = dice.choice(list(PacketKind))
                    body = dice.randbytes(dice.randrange(40))
                    packet = bytearray(Packet(kind, body).encode())
                    if dice.random() < 0.5:
                        packet[dice.randrange(len(packet))] = dice.randrange(256)
                    writer.write(bytes(packet))
                message = dice.choice((b"[" * 5000, b"{", b"\xff", orjson.dumps({"type": ["hello"]}), b"null", b"{}"))
                writer.write(Publish("device-server", message).packet().encode())
                await asyncio.sleep(0.01)
                del reader
        assert (await device.turn(question())).answered


async def test_a_device_that_floods_is_hung_up(tmp_path: Path) -> None:
    async with (
        mqtt_house(tmp_path) as home,
        talking(home, 2) as device,
        MqttDevice(ClientIdentity.numbered(1)) as flooding,
    ):
        section = (await boot(home, flooding)).body["mqtt"]
        for message in ({"type": "ping"}, {"type": "hello", "version": 3, "transport": "udp"}):
            lost: list[str] = []
            client = await MqttClient.open(MqttCredentials.read(section), lambda _payload: None, lost.append)
            for _ in range(400):
                client.publish(message)
            await asyncio.sleep(2.0)
            assert lost
        assert home.server.mqtt is not None
        assert home.server.mqtt.listener.flooded
        assert (await device.turn(question())).answered


async def test_a_device_that_does_not_read_is_hung_up_and_costs_little(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, sleeping(home) as device:
        sleeper = home.server.devices.asleep(device.identity.device_id)
        assert sleeper is not None
        assert device.client is not None
        assert device.client._transport is not None
        device.client._transport.pause_reading()
        for _ in range(3000):
            sleeper.publish({"type": "alert", "status": "x", "message": "y" * 4000, "emotion": "neutral"})
        await asyncio.sleep(2.0)
        assert not home.server.devices.online()


async def test_datagrams_of_strangers_are_never_answered_and_change_nothing(tmp_path: Path) -> None:
    dice = random.Random(3)
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        assert (await device.turn(question())).answered
        assert home.server.mqtt is not None
        udp = home.server.mqtt.udp
        address = ("127.0.0.1", home.server.mqtt.offer.udp("http://127.0.0.1")[1])
        ssrc = device.sound.ssrc
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            for number in range(300):
                body = dice.randbytes(dice.randrange(80))
                # Who has seen a packet on its way knows the ssrc; the key he does not.
                header = HEADER.pack(1, 0, len(body), dice.choice((ssrc, ssrc ^ 1)), 0, dice.choice((1, 7, 1 << 31)))
                sock.sendto(dice.choice((header + body, body, header, struct.pack("!I", number))), address)
                await asyncio.sleep(0)
            await asyncio.sleep(1.0)
            assert sum(udp.drops.values()) >= 290
            assert {DatagramDrop.STRANGER, DatagramDrop.SHORT, DatagramDrop.LATE, DatagramDrop.FAR_AHEAD} <= set(
                udp.drops
            )
            with pytest.raises(BlockingIOError):
                sock.recv(2000)
        report = await device.turn(question())
        assert report.answered
        assert report.reply_ms >= 600
        assert not kinds(device, "goodbye")


async def test_a_recorded_session_cannot_be_played_back(tmp_path: Path) -> None:
    recorded: list[bytes] = []
    async with mqtt_house(tmp_path) as home, sleeping(home) as device:

        def record(datagram: bytes, deliver: object) -> None:
            recorded.append(datagram)
            assert callable(deliver)
            deliver(datagram)

        device.uplink_network = record
        await device.open_channel()
        assert (await device.turn(question())).answered
        assert home.server.mqtt is not None
        asked = len(home.asked)
        address = ("127.0.0.1", home.server.mqtt.offer.udp("http://127.0.0.1")[1])
        before = sum(home.server.mqtt.udp.drops.values())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            played_back = list(recorded)
            for datagram in played_back:
                sock.sendto(datagram, address)
                await asyncio.sleep(0)
        await asyncio.sleep(3.0)
        assert sum(home.server.mqtt.udp.drops.values()) >= before + len(played_back) > 20
        assert len(home.asked) == asked
