"""OTA over real HTTP, as devices, desktop and browser clients ask for it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.house import House, house

HEADERS = {"Device-Id": "02:00:00:00:00:01", "Client-Id": "client-1", "User-Agent": "board/2.4.2"}
# Longer replies make the firmware's HTTP client hang; longer names abort it when it stores them.
MAX_BYTES = 8191
LONGEST_NAME = 15


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, auth={"mode": "token"}) as home:
        yield home


@pytest.fixture
async def http(home: House) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{home.server.port}") as session:
        yield session


def names(value: object) -> list[str]:
    """Every member name in a JSON value."""
    if not isinstance(value, dict):
        return []
    return [name for key, inner in value.items() for name in (key, *names(inner))]


async def reply_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The reply, after what every reply must be."""
    body = await response.read()
    assert response.status == 200, body
    assert response.content_type == "application/json"
    assert "Transfer-Encoding" not in response.headers, "the firmware reads Content-Length"
    assert int(response.headers["Content-Length"]) == len(body) <= MAX_BYTES
    reply: dict[str, Any] = await response.json()
    assert set(reply) == {"server_time", "websocket"}, "mqtt would win over websocket; firmware would be installed"
    assert set(reply["websocket"]) == {"url", "token", "version"}
    assert reply["websocket"]["version"] == 1
    assert max(map(len, names(reply))) <= LONGEST_NAME
    assert isinstance(reply["server_time"]["timestamp"], int)
    assert reply["server_time"]["timestamp"] > 1_700_000_000_000, "milliseconds"
    assert -14 * 60 <= reply["server_time"]["timezone_offset"] <= 14 * 60, "minutes"
    return reply


@pytest.mark.parametrize("path", ["/xiaozhi/ota/", "/xiaozhi/ota"])
async def test_a_device_is_told_where_to_connect_with_a_token_that_opens_the_door(
    home: House, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.post(path, json={"application": {"version": "2.4.2"}}, headers=HEADERS) as response:
        reply = await reply_of(response)
    assert reply["websocket"]["url"] == home.url
    token = reply["websocket"]["token"]
    async with http.ws_connect(home.url, headers={**HEADERS, "Authorization": f"Bearer {token}"}) as socket:
        await socket.send_str('{"type":"hello"}')
        assert (await asyncio.wait_for(socket.receive_json(), 5))["type"] == "hello"
    stranger = {**HEADERS, "Device-Id": "02:00:00:00:00:02", "Authorization": f"Bearer {token}"}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(home.url, headers=stranger)
    assert refused.value.status == 401


async def test_a_token_in_other_hands_is_refused_and_the_log_says_why(
    home: House, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with http.post("/xiaozhi/ota/", headers=HEADERS) as response:
        bearer = {"Authorization": f"Bearer {(await reply_of(response))['websocket']['token']}"}
    for changed, why in (
        ({"Client-Id": "client-2"}, "the token belongs to another Client-Id"),
        ({"Device-Id": "02:00:00:00:00:02"}, "the token belongs to another Device-Id"),
        ({"Authorization": "Bearer test-token"}, "not a token of this server"),
        ({"Authorization": ""}, "no token"),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(home.url, headers={**HEADERS, **bearer, **changed})
        assert refused.value.status == 401
        assert caplog.messages[-1] == f"refused, from 127.0.0.1: {why}"


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"not json",
    "an SSID that is no UTF-8": b'{"board":{"ssid":"\xff\xfe"}}',
    "binary": bytes(range(256)),
    "another shape": b"[1,2,3]",
    "60 KB": b'{"partition_table":"' + b"x" * 60_000 + b'"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data", "x"])
async def test_the_body_may_be_anything(http: aiohttp.ClientSession, body: bytes, content_type: str) -> None:
    headers = {**HEADERS, "Content-Type": content_type}
    async with http.post("/xiaozhi/ota/", data=body, headers=headers) as response:
        await reply_of(response)


async def test_a_body_in_chunks_is_taken(http: aiohttp.ClientSession) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"{"

    async with http.post("/xiaozhi/ota/", data=chunks(), headers=HEADERS) as response:
        await reply_of(response)


async def test_a_client_without_any_header_is_answered(http: aiohttp.ClientSession) -> None:
    async with http.post("/xiaozhi/ota/", skip_auto_headers=["User-Agent", "Content-Type", "Accept"]) as response:
        await reply_of(response)


async def test_a_host_without_a_port_means_ours(home: House, http: aiohttp.ClientSession) -> None:
    """The firmware leaves the port out of its Host header."""
    async with http.post("/xiaozhi/ota/", headers={**HEADERS, "Host": "192.0.2.10"}) as response:
        reply = await reply_of(response)
    assert reply["websocket"]["url"] == f"ws://192.0.2.10:{home.server.port}/xiaozhi/v1/"


HOSTILE_HEADERS: list[dict[str, str]] = [
    {"Host": 'x" onload="alert(1)'},
    {"Host": "[::1]:8000"},
    {"Host": "a" * 4000},
    {"Host": "10.0.0.1:99999"},
    {"Host": "10.0.0.1:0"},
    {"Device-Id": "../../etc/passwd"},
    {"Device-Id": "x" * 4000, "Client-Id": "y" * 3000},
    {"Device-Id": "\u9ea6\u514b", "Client-Id": "\udcff"},
    {"Authorization": "Bearer " + "z" * 4000},
    {"X-Forwarded-Proto": "javascript", "X-Forwarded-For": "999.999"},
    {"Accept-Encoding": "br;q=x, ,,"},
]


@pytest.mark.parametrize("headers", HOSTILE_HEADERS, ids=lambda headers: "+".join(headers))
async def test_hostile_headers_get_an_ordinary_reply(home: House, headers: dict[str, str]) -> None:
    """Written by hand: HTTP clients would refuse to send some of these."""
    headers = {"Host": "10.0.0.1", "Content-Length": "0", "Connection": "close", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", home.server.port)
    writer.write(f"POST /xiaozhi/ota/ HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape"))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400")), head
    assert len(body) <= MAX_BYTES
    if b"200" in head.splitlines()[0]:
        assert b"onload" not in body
        assert b"javascript" not in body
        assert b":99999" not in body


@pytest.mark.parametrize("path", ["/xiaozhi/ota/", "/xiaozhi/ota"])
async def test_a_person_with_a_browser_is_told_what_to_do(home: House, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        page = await response.text()
    assert home.url in page
    assert home.server.ota_url in page
    assert "设备" in page
    assert "http://" not in page.replace(home.server.ota_url, "").replace("http://192.168.4.1", ""), (
        "nothing is fetched"
    )


@pytest.mark.parametrize("path", ["/xiaozhi/ota/", "/xiaozhi/ota"])
async def test_a_test_page_on_this_machine_may_ask_and_a_strangers_may_not(
    http: aiohttp.ClientSession, path: str
) -> None:
    mine, strange = "http://localhost:8006", "http://page.example"
    asked = {"Origin": mine, "Access-Control-Request-Method": "POST"}
    async with http.options(path, headers=asked) as response:
        assert response.status == 204
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
        assert all(name in allowed for name in ("device-id", "client-id", "content-type", "authorization"))
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Access-Control-Allow-Origin"] == mine
    async with http.post(path, headers={**HEADERS, "Origin": mine}) as response:
        assert response.headers["Access-Control-Allow-Origin"] == mine
        await reply_of(response)
    for method in ("OPTIONS", "POST", "GET"):
        async with http.request(method, path, headers={**asked, **HEADERS, "Origin": strange}) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers
            assert "token" not in await response.text()
    async with http.post(path, headers=HEADERS) as response:
        assert "Access-Control-Allow-Origin" not in response.headers, "a device is no page"
        await reply_of(response)


@pytest.mark.parametrize("path", ["/xiaozhi/ota/activate", "/xiaozhi/ota/activate/"])
async def test_nothing_has_to_be_activated(http: aiohttp.ClientSession, path: str) -> None:
    async with http.post(path, json={"algorithm": "hmac-sha256"}, headers=HEADERS) as response:
        assert response.status == 200


async def test_a_device_may_connect_without_a_path_by_the_same_rules(http: aiohttp.ClientSession, home: House) -> None:
    """`ws://host:port` is what the instructions of desktop clients say."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("/", headers=HEADERS)
    assert refused.value.status == 401
    async with http.post("/xiaozhi/ota/", json={}, headers=HEADERS) as response:
        token = (await response.json())["websocket"]["token"]
    async with http.ws_connect("/", headers={**HEADERS, "Authorization": f"Bearer {token}"}) as socket:
        await socket.send_json({"type": "hello"})
        assert (await socket.receive_json(timeout=5))["transport"] == "websocket"


async def test_other_paths_and_methods_are_refused_without_a_page(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as response:
        assert response.status == 200
    async with http.get("/xiaozhi/v1/") as response:
        assert response.status == 426
    async with http.delete("/xiaozhi/ota/") as response:
        assert response.status == 405
    async with http.get("/etc/passwd") as response:
        assert response.status == 404
