"""The server as it is run, on uvloop, and MQTT clients of other make: paho-mqtt, aiomqtt, with TLS and without."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiomqtt
import orjson
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from bench.harness import ServerProcess, free_port, server_process
from bench.mqtt_device import MqttCredentials, MqttDevice
from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from tests.house import brief, question
from tests.test_entrance import certificate, trusting
from tests.test_reminder_restart import settings
from xiaozhi.client.device import Device
from xiaozhi.client.manners import Manners
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.speaker import NEW_QUEUE_PACKETS

pytestmark = pytest.mark.real_time  # a server in a process of its own

TOPIC: Final = "devices/p2p/02_00_00_00_00_01"
HELLO: Final = orjson.dumps({"type": "hello", "version": 3, "transport": "udp", "features": {"mcp": False}})


@asynccontextmanager
async def server(folder: Path, *sets: str) -> AsyncIterator[ServerProcess]:
    build_tiny(folder / "model", "what time is it")
    async with ChatStandIn("🙂 It is ten past nine.") as chat, SpeechStandIn(sound=brief) as speech:
        toml = settings(folder, chat.url, speech.url).replace('mode = "open"', 'mode = "token"')
        ports = (f"mqtt.port={free_port()}", f"mqtt.udp_port={free_port()}")
        async with server_process(toml, sets=("mqtt.enabled=true", *ports, *sets)) as one:
            yield one


async def credentials_of(one: ServerProcess, device: Device) -> MqttCredentials:
    return MqttCredentials.read((await device.boot(f"{one.base_url}/xiaozhi/ota/")).body["mqtt"])


class Paho:
    """paho-mqtt with its own thread; what it is told arrives in a queue here."""

    def __init__(self, credentials: MqttCredentials, context: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=credentials.client_id)
        self.client.username_pw_set(credentials.username, credentials.password)
        if context is not None:
            self.client.tls_set_context(context)

        def tell(kind: str, value: Any) -> None:
            loop.call_soon_threadsafe(self.told.put_nowait, (kind, value))

        self.client.on_connect = lambda _c, _u, _f, code, _p: tell("connected", code)
        self.client.on_message = lambda _c, _u, message: tell(message.topic, orjson.loads(message.payload))
        self.client.on_publish = lambda _c, _u, number, _r, _p: tell("published", number)
        self.client.on_subscribe = lambda _c, _u, _n, codes, _p: tell("subscribed", codes)
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: tell("disconnected", code)

    async def connect(self, host: str, port: int, keepalive_s: int = 60) -> ReasonCode:
        await asyncio.to_thread(self.client.connect, host, port, keepalive_s)
        self.client.loop_start()
        code = await self.next("connected")
        assert isinstance(code, ReasonCode)
        return code

    async def next(self, kind: str) -> Any:
        async with asyncio.timeout(20):
            while True:
                what, value = await self.told.get()
                if what == kind:
                    return value

    async def close(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


async def test_turns_with_a_server_as_it_is_run(tmp_path: Path) -> None:
    async with (
        server(tmp_path) as one,
        MqttDevice(ClientIdentity.of("02:00:00:00:00:01"), manners=Manners(queue_packets=NEW_QUEUE_PACKETS)) as device,
    ):
        await device.connect_mqtt(await credentials_of(one, device))
        await device.open_channel()
        for _ in range(2):
            report = await device.turn(question())
            assert report.text == "It is ten past nine."
            assert report.reply_ms >= 600
        await device.close_channel()


async def test_paho_connects_subscribes_publishes_and_is_answered(tmp_path: Path) -> None:
    async with server(tmp_path) as one, Device(ClientIdentity.of("02:00:00:00:00:01")) as device:
        credentials = await credentials_of(one, device)
        client = Paho(credentials)
        assert not (await client.connect(*credentials.address)).is_failure
        client.client.subscribe([(TOPIC, 1), ("#", 0)])
        assert [code.value for code in await client.next("subscribed")] == [0, 0]
        for qos in (0, 1):
            number = client.client.publish(credentials.publish_topic, HELLO, qos=qos).mid
            assert await client.next("published") == number
            hello = await client.next(TOPIC)
            assert hello["transport"] == "udp"
            assert len(bytes.fromhex(hello["udp"]["key"])) == 16
        await client.close()
        wrong = Paho(MqttCredentials.read({**_section(credentials), "password": "1.2.3"}))
        assert (await wrong.connect(*credentials.address)).value == 135
        await wrong.close()


def _section(credentials: MqttCredentials) -> dict[str, Any]:
    names = ("endpoint", "client_id", "username", "password", "publish_topic")
    return {name: getattr(credentials, name) for name in names}


async def test_aiomqtt_holds_a_conversation_in_messages_and_is_pinged_through_silence(tmp_path: Path) -> None:
    async with server(tmp_path) as one, Device(ClientIdentity.of("02:00:00:00:00:01")) as device:
        credentials = await credentials_of(one, device)
        host, port = credentials.address
        async with aiomqtt.Client(
            host,
            port,
            identifier=credentials.client_id,
            username=credentials.username,
            password=credentials.password,
            keepalive=2,
        ) as client:
            await asyncio.sleep(5.0)
            await client.publish(credentials.publish_topic, HELLO)
            async with asyncio.timeout(20):
                async for message in client.messages:  # among them it is asked for its tools
                    assert isinstance(message.payload, bytes)
                    if orjson.loads(message.payload)["type"] == "hello":
                        break
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client(host, port, identifier="somebody"):
                pass


async def test_with_tls_on_a_port_of_its_own(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    port = free_port()
    sets = (
        f"server.tls_cert={cert}",
        f"server.tls_key={key}",
        f"server.tls_port={free_port()}",
        f"mqtt.tls_port={port}",
        f"mqtt.endpoint=127.0.0.1:{port}",
    )
    async with server(tmp_path, *sets) as one, Device(ClientIdentity.of("02:00:00:00:00:01")) as device:
        credentials = await credentials_of(one, device)
        assert credentials.address == ("127.0.0.1", port)
        context = trusting(cert)
        client = Paho(credentials, context)
        assert not (await client.connect("127.0.0.1", port)).is_failure
        client.client.publish(credentials.publish_topic, HELLO)
        assert (await client.next(TOPIC))["type"] == "hello"
        await client.close()
