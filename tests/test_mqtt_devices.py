"""Devices by MQTT and UDP, through real sockets: hello, turns, goodbye, what goes wrong on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bench.mqtt_device import MqttClient, MqttCredentials, MqttDevice
from tests.house import SPEED, House, house, question
from tests.networks import Network
from xiaozhi.access.identity import Identity as Shown
from xiaozhi.access.mqtt import MqttOffer, shown
from xiaozhi.client.device import Device
from xiaozhi.client.errors import ChannelLost, ConnectFailed
from xiaozhi.client.manners import DeviceState, Manners
from xiaozhi.client.ota import ClientIdentity, OtaReply
from xiaozhi.client.speaker import NEW_QUEUE_PACKETS
from xiaozhi.settings import MqttSettings
from xiaozhi.turn.machine import ListeningMode

PORTS: dict[str, Any] = {"enabled": True, "port": 0, "udp_port": 0}
LONG = "🙂 " + "".join(f"This is sentence number {n} of a long reply. " for n in range(1, 16))


@asynccontextmanager
async def mqtt_house(folder: Path, answer: str = "🙂 It is ten past nine.", **tables: Any) -> AsyncIterator[House]:
    tables["mqtt"] = {**PORTS, **tables.get("mqtt", {})}
    async with house(folder, answer, **tables) as home:
        yield home


async def boot(home: House, device: Device) -> OtaReply:
    return await device.boot(f"http://127.0.0.1:{home.server.port}/xiaozhi/ota/")


@asynccontextmanager
async def sleeping(
    home: House, number: int = 1, *, mode: ListeningMode = ListeningMode.AUTO, queue_packets: int = NEW_QUEUE_PACKETS
) -> AsyncIterator[MqttDevice]:
    """A device that has started and sleeps, connected by MQTT."""
    identity = ClientIdentity.of(f"02:00:00:00:00:{number:02x}")
    manners = Manners(queue_packets=queue_packets)
    async with MqttDevice(identity, mode=mode, manners=manners, speed=SPEED, trace=True) as device:
        await device.start(home.server.ota_url)
        yield device


@asynccontextmanager
async def talking(home: House, number: int = 1, **options: Any) -> AsyncIterator[MqttDevice]:
    """A device with an open channel."""
    async with sleeping(home, number, **options) as device:
        await device.open_channel()
        yield device


def kinds(device: Device, kind: str) -> list[dict[str, Any]]:
    return [message for _, message in device.received if message.get("type") == kind]


# What a device is told ------------------------------------------------------------------------------------------------


async def test_mqtt_is_offered_beside_the_websocket_to_the_devices_that_shall_use_it(tmp_path: Path) -> None:
    chosen, other = ClientIdentity.of("02:00:00:00:00:01"), ClientIdentity.of("02:00:00:00:00:02")
    async with mqtt_house(tmp_path, mqtt={"devices": ["02:00:00:00:00:01".upper()]}) as home:
        async with Device(chosen) as device:
            reply = await boot(home, device)
            assert reply.url == home.url
            section = reply.body["mqtt"]
            port = home.server.mqtt.offer.port if home.server.mqtt else 0
            assert section["endpoint"] == f"127.0.0.1:{port}"
            assert section["client_id"] == f"xiaozhi@@@02_00_00_00_00_01@@@{chosen.client_id}"
            assert (section["publish_topic"], section["subscribe_topic"]) == ("device-server", "null")
            assert all(len(name) <= 15 for name in section)
        async with Device(other) as device:
            assert "mqtt" not in (await boot(home, device)).body


async def test_without_a_listener_nothing_is_offered(tmp_path: Path) -> None:
    async with house(tmp_path) as home, MqttDevice(ClientIdentity.numbered(1)) as device:
        assert "mqtt" not in (await boot(home, device)).body


@pytest.mark.parametrize(
    "stolen",
    [
        {"password": "1.2.3"},
        {"password": ""},
        {"username": "bm90IGpzb24="},
        {"username": ""},
        {"username": "eyJkZXZpY2UiOiAiMDI6MDA6MDA6MDA6MDA6OTkiLCAiY2xpZW50IjogIngiLCAiYmFzZSI6ICIifQ=="},
    ],
)
async def test_who_does_not_show_what_the_ota_address_gave_to_this_device_is_refused(
    tmp_path: Path, stolen: dict[str, str]
) -> None:
    async with mqtt_house(tmp_path, auth={"mode": "token"}) as home, MqttDevice(ClientIdentity.numbered(1)) as device:
        section = (await boot(home, device)).body["mqtt"]
        with pytest.raises(ConnectFailed, match=r"NOT_AUTHORIZED|without an answer"):
            await device.connect_mqtt(MqttCredentials.read({**section, **stolen}))
        await device.connect_mqtt(MqttCredentials.read(section))
        assert device.online


# Turns ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(ListeningMode))
async def test_a_turn_by_voice_in_every_mode(tmp_path: Path, mode: ListeningMode) -> None:
    async with mqtt_house(tmp_path) as home, talking(home, mode=mode) as device:
        for _ in range(2):
            report = await device.turn(question())
            assert report.answered
            assert report.text == "It is ten past nine."
            assert report.reply_ms >= 600
        assert home.asked[0][-1]["content"] == "what time is it"


async def test_the_hello_names_a_place_for_sound_with_a_key_of_its_own_each_time(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        await device.open_channel()
        first, second = kinds(device, "hello")
        assert first["version"] == 3
        assert first["transport"] == "udp"
        assert first["udp"]["encryption"] == "aes-128-ctr"
        assert first["udp"]["server"] == "127.0.0.1"
        assert bytes.fromhex(first["udp"]["nonce"])[0] == 1
        for name in ("key", "nonce"):
            assert len(bytes.fromhex(first["udp"][name])) == 16
            assert first["udp"][name] != second["udp"][name]
        assert first["session_id"] != second["session_id"]
        assert len(home.server.devices) == 1, "a second hello without goodbye takes the place of the first"


@pytest.mark.parametrize("queue_packets", [NEW_QUEUE_PACKETS, 44])
async def test_a_long_reply_is_heard_whole_by_old_and_new_firmware(tmp_path: Path, queue_packets: int) -> None:
    async with mqtt_house(tmp_path, LONG) as home, talking(home, queue_packets=queue_packets) as device:
        report = await device.turn(question())
        assert report.answered
        assert report.text.endswith("sentence number 15 of a long reply.")
        assert not report.dropped
        assert report.reply_ms == pytest.approx(device.sound.received * 60.0, abs=1.0)


async def test_an_abort_silences_the_reply_and_the_device_can_be_spoken_to_again(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, LONG) as home, talking(home) as device:
        reply = asyncio.create_task(device.turn(question()))
        await device.until(lambda: device.sound.received > 20, 20)
        device.abort()
        assert (await reply).reply_ms < 5000
        report = await device.turn(question())
        assert report.text.startswith("This is sentence number 1")


async def test_a_device_that_is_not_heard_is_answered_in_writing(tmp_path: Path) -> None:
    """No packet of it has come, so there is nowhere to send sound to."""
    async with mqtt_house(tmp_path) as home, sleeping(home) as device:
        device.uplink_network = Network(loss=1.0)
        await device.open_channel()
        report = await device.turn_text("what time is it")
        assert report.text == "It is ten past nine."


# The end --------------------------------------------------------------------------------------------------------------


async def test_goodbye_ends_the_session_and_leaves_the_connection(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        assert (await device.turn(question())).answered
        await device.close_channel()
        await home.server.devices.empty()
        assert device.online
        assert home.server.devices.asleep(device.identity.device_id) is not None
        await asyncio.sleep(0.2)  # the device goes idle
        await device.open_channel()
        assert (await device.turn(question())).answered


async def test_who_says_nothing_is_said_goodbye_to_and_sleeps_on(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, server={"idle_close_s": 20}) as home, talking(home) as device:
        device.listen()
        with pytest.raises(ChannelLost, match="the server said goodbye"):
            await device.until(lambda: False, 60)
        assert device.online
        assert kinds(device, "goodbye") == [{"type": "goodbye", "session_id": device.session_id}]


async def test_a_device_that_goes_on_with_a_session_that_is_over_is_told_so(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        (session_id,) = {message["session_id"] for message in kinds(device, "hello")}
        await device.close_channel()
        await home.server.devices.empty()
        client = device.client
        assert client is not None
        client.publish({"type": "listen", "state": "start", "mode": "auto", "session_id": session_id})
        await asyncio.sleep(0.5)
        assert kinds(device, "goodbye") == [{"type": "goodbye", "session_id": session_id}]
        client.publish({"type": "listen", "state": "start", "mode": "auto", "session_id": ""})
        client.publish({"type": "mcp", "payload": {"jsonrpc": "2.0", "id": 1}, "session_id": session_id})
        await asyncio.sleep(0.5)
        assert len(kinds(device, "goodbye")) == 1


async def test_a_goodbye_of_an_older_session_ends_nothing(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        assert device.client is not None
        device.client.publish({"type": "goodbye", "session_id": "another"})
        assert (await device.turn(question())).answered


async def test_a_server_that_stops_says_goodbye(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        assert (await device.turn(question())).answered
        await home.server.devices.drain(5.0)
        with pytest.raises(ChannelLost, match="goodbye"):
            await device.until(lambda: False, 5)


async def test_a_device_that_is_hung_up_is_said_goodbye_to_whether_it_talks_or_sleeps(tmp_path: Path) -> None:
    """As when it is blocked or removed on the console."""
    async with mqtt_house(tmp_path) as home, talking(home) as device, sleeping(home, 2) as other:
        for one in (device, other):
            home.server.devices.hang_up(one.identity.device_id, "blocked on the console")
        await asyncio.sleep(0.5)
        assert not device.online
        assert not other.online
        assert not device.connected
        assert not home.server.devices.online()


# Connections that break -----------------------------------------------------------------------------------------------


async def test_a_turn_goes_on_while_the_control_connection_breaks_and_comes_back(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path, LONG) as home, talking(home) as device:
        reply = asyncio.create_task(device.turn(question()))
        await device.until(lambda: device.sound.received > 20, 20)
        device.lose_mqtt()
        received = device.sound.received
        await asyncio.sleep(10.0)
        assert device.sound.received > received + 100, "sound goes on"
        assert device.credentials is not None
        await device.connect_mqtt(device.credentials)
        report = await reply
        assert report.answered, "what was said in between has come"
        assert report.text.endswith("sentence number 15 of a long reply.")


async def test_a_session_whose_device_does_not_come_back_ends(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        assert (await device.turn(question())).answered
        device.lose_mqtt()
        async with asyncio.timeout(40):
            await home.server.devices.empty()
        assert not home.server.devices.online()


async def test_the_same_device_connecting_again_takes_its_own_place(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, sleeping(home) as older, sleeping(home) as device:
        await asyncio.sleep(0.1)
        assert older.mqtt_lost_because == "the server closed the connection"
        await device.open_channel()
        assert (await device.turn(question())).answered


async def test_a_client_that_is_silent_for_longer_than_it_promised_is_gone(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, MqttDevice(ClientIdentity.numbered(1)) as device:
        section = (await boot(home, device)).body["mqtt"]
        lost: list[str] = []
        client = await MqttClient.open(
            MqttCredentials.read({**section, "keepalive": 40}), lambda _payload: None, lost.append
        )
        await asyncio.sleep(200)
        assert not lost, "it pings"
        assert client._ping is not None
        client._ping.cancel()
        await asyncio.sleep(70)
        assert lost == ["the server closed the connection"]
        assert not home.server.devices.online()


async def test_a_device_that_roams_is_heard_and_hears_at_its_new_address(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device:
        assert (await device.turn(question())).answered
        await device.sound.rebind()
        report = await device.turn(question())
        assert report.reply_ms >= 600


@pytest.mark.parametrize(
    ("up", "down"),
    [
        (Network(loss=0.05, jitter_ms=200.0), Network(loss=0.05, jitter_ms=200.0)),
        (Network(reordered=0.05), Network(reordered=0.05, jitter_ms=50.0)),
        (Network(loss=1.0), Network()),
    ],
    ids=["loss and jitter", "reordering", "nothing arrives"],
)
async def test_a_bad_network_leaves_no_device_stuck(tmp_path: Path, up: Network, down: Network) -> None:
    async with mqtt_house(tmp_path, LONG) as home, sleeping(home) as device:
        device.uplink_network, device.downlink_network = up, down
        await device.open_channel()
        for _ in range(3):
            report = await device.turn(question())
            if up.loss == 1.0:
                assert not report.answered
                continue
            assert report.answered
            assert report.text.endswith("sentence number 15 of a long reply.")
            assert report.reply_ms > 0.85 * 15 * 1200
            assert device.manners.state in (DeviceState.LISTENING, DeviceState.SPEAKING)


def test_a_device_that_belongs_to_another_node_is_told_that_nodes_address() -> None:
    offer = MqttOffer(MqttSettings(enabled=True, tls_port=8883), 1883, 8883, 8884)
    identity = Shown("02:00:00:00:00:01", "a-client", "")
    section = offer.section(identity, "a-token", "wss://node-1.example.org/xiaozhi/v1/")
    assert section["endpoint"] == "node-1.example.org:8883"
    read = shown(str(section["username"]), str(section["password"]))
    assert read is not None
    assert read.base == "https://node-1.example.org"
    assert offer.udp(read.base) == ("node-1.example.org", 8884)
    assert offer.section(identity, "a-token", "http://192.0.2.1:8000")["endpoint"] == "192.0.2.1:1883"


async def test_what_happens_by_mqtt_and_udp_is_in_the_metrics(tmp_path: Path) -> None:
    async with mqtt_house(tmp_path) as home, talking(home) as device, aiohttp.ClientSession() as http:
        assert (await device.turn(question())).answered
        async with http.get(f"http://127.0.0.1:{home.server.port}/metrics") as response:
            text = await response.text()
    for line in (
        "xiaozhi_mqtt_connections 1.0",
        "xiaozhi_udp_sessions 1.0",
        'xiaozhi_udp_dropped_total{reason="late"} 0',
    ):
        assert line in text
