"""Devices that an MQTT gateway of other make brings here by WebSocket."""

import struct
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.house import House, house, question
from tests.test_conformance import texts
from xiaozhi.audio.packet_time import packet_ms
from xiaozhi.client.microphone import SpokenUtterance

ONE = "02:00:00:00:00:01"
# As xiaozhi-mqtt-gateway sends them; its own token is the same for every device.
HEADERS = {
    "Device-Id": ONE,
    "Protocol-Version": "2",
    "Authorization": "Bearer test-token",
    "X-Forwarded-For": "192.0.2.7",
}
HELLO: dict[str, Any] = {"type": "hello", "version": 2, "transport": "websocket", "features": {}}


async def gateway(home: House, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    socket = await http.ws_connect(f"{home.url}?from=mqtt_gateway", headers=HEADERS)
    await socket.send_json(HELLO)
    await texts(socket, "hello")
    return socket


def framed(opus: bytes, timestamp_ms: int) -> bytes:
    return bytes(8) + struct.pack("!II", timestamp_ms, len(opus)) + opus


async def test_a_turn_in_the_framing_of_the_gateway(tmp_path: Path) -> None:
    tables: dict[str, Any] = {"auth": {"mode": "token"}, "mqtt": {"gateways": ["127.0.0.0/8"]}}
    async with house(tmp_path, **tables) as home, aiohttp.ClientSession() as http:
        socket = await gateway(home, http)
        await socket.send_json({"type": "listen", "state": "start", "mode": "manual"})
        for number, opus in enumerate(SpokenUtterance.encode(question(), 60).packets):
            await socket.send_bytes(framed(opus, number * 60))
        await socket.send_json({"type": "listen", "state": "stop"})
        assert (await texts(socket, "stt"))[-1]["text"] == "what time is it"
        heard_ms = 0.0
        while (message := await socket.receive()).type is not aiohttp.WSMsgType.TEXT or (
            message.json().get("state") != "stop"
        ):
            if message.type is aiohttp.WSMsgType.BINARY:
                _, length = struct.unpack_from("!II", message.data, 8)
                assert length == len(message.data) - 16
                heard_ms += packet_ms(message.data[16:])
        assert heard_ms >= 600
        await socket.close()


@pytest.mark.parametrize("gateways", [[], ["192.0.2.0/24"]])
async def test_nobody_else_is_taken_for_a_gateway(tmp_path: Path, gateways: list[str]) -> None:
    tables: dict[str, Any] = {"auth": {"mode": "token"}, "mqtt": {"gateways": gateways}}
    async with house(tmp_path, **tables) as home, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await gateway(home, http)
        assert refused.value.status == 401
