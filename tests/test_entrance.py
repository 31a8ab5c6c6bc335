"""Coming in, over real sockets: activation, firmware, limits, hostile requests, TLS."""

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.firmware import image
from tests.house import House, house
from xiaozhi.access.auth import TokenAuth
from xiaozhi.access.identity import Identity
from xiaozhi.access.tls import TlsError, TlsFiles, distrusted_because, load_context
from xiaozhi.access.token_keys import load_keys
from xiaozhi.app.ports import CannotServe
from xiaozhi.app.server import serving
from xiaozhi.settings import AuthSettings, Settings
from xiaozhi.turn.machine import ListeningMode

BOARD = "bread-compact-wifi"
HEADERS = {"Device-Id": "02:00:00:00:00:01", "Client-Id": "client-1", "User-Agent": f"{BOARD}/2.4.2"}
MAX_BYTES = 8191


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def boot(http: aiohttp.ClientSession, home: House, **headers: str) -> dict[str, Any]:
    """A device's OTA request and its answer, which must be one that every firmware survives."""
    async with http.post(home.server.ota_url, json={}, headers={**HEADERS, **headers}) as response:
        assert response.status == 200
        assert len(await response.read()) <= MAX_BYTES
        reply: dict[str, Any] = await response.json()
    assert set(reply) <= {"server_time", "websocket", "firmware", "activation"}
    return reply


async def refusal(http: aiohttp.ClientSession, home: House, token: str, **headers: str) -> int:
    """The status with which an upgrade is refused."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(home.url, headers={**HEADERS, "Authorization": f"Bearer {token}", **headers})
    return refused.value.status


# Activation -----------------------------------------------------------------------------------------------------------


async def test_a_new_device_is_told_its_code_until_it_is_bound_and_then_talks(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with house(tmp_path, auth={"mode": "activate"}) as home, home.device(connect=False) as device:
        reply = (await device.boot(home.server.ota_url)).body
        code = reply["activation"]["code"]
        names = {"Device-Id": device.identity.device_id, "Client-Id": device.identity.client_id}
        async with http.post(home.server.ota_url + "activate", json={}, headers=names) as response:
            assert response.status == 202
        await device.connect(home.url, reply["websocket"]["token"])
        device.listen(ListeningMode.AUTO)
        await device.until(lambda: not device.connected or device.close_code is not None, 20)
        said = "".join(str(message.get("text", "")) for _, message in device.received)
        assert ", ".join(code) in said or "，".join(code) in said
        assert home.asked == [], "a device that belongs to nobody costs no model"

        bound = await home.server.devices._services.store.pending.bind(code)
        assert bound is not None
        async with http.post(home.server.ota_url + "activate", json={}, headers=names) as response:
            assert response.status == 200
        ota = await device.boot(home.server.ota_url)
        assert "activation" not in ota.body
        await device.connect(ota.url, ota.token)
        assert (await device.turn_text("hello there")).text == "It is ten past nine."


@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
async def test_the_screen_of_a_new_device_says_where_its_code_is_entered(
    tmp_path: Path, http: aiohttp.ClientSession, language: str
) -> None:
    """The firmware shows the message as it is; 240 pixels have room for 21 of its letters."""
    async with house(tmp_path, auth={"mode": "activate"}, console={"enabled": True}) as home:
        activation = (await boot(http, home, **{"Accept-Language": language}))["activation"]
        address, code = activation["message"].split("\n")
        assert (address, code) == (f"127.0.0.1:{home.server.port}", activation["code"])
        async with http.get(f"http://{address}") as page:
            assert page.status == 200 and page.url.path == "/console/"
        longest = await boot(http, home, Host="255.255.255.255:65535")
        assert max(map(len, longest["activation"]["message"].split("\n"))) <= 21


async def test_without_a_console_the_screen_says_which_command_takes_the_code(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with house(tmp_path, auth={"mode": "activate"}) as home:
        activation = (await boot(http, home))["activation"]
        assert activation["message"] == f"xiaozhi devices bind\n{activation['code']}"


async def test_what_is_typed_to_an_unbound_device_is_not_answered(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "activate"}) as home, home.device(connect=False) as device:
        ota = await device.boot(home.server.ota_url)
        await device.connect(ota.url, ota.token)
        device.detect("tell me a secret")
        await device.until(lambda: device.close_code is not None or not device.connected, 20)
        assert home.asked == []


async def test_blocked_devices_get_neither_a_token_nor_in(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with house(tmp_path, auth={"mode": "token"}) as home:
        token = (await boot(http, home))["websocket"]["token"]
        store = home.server.devices._services.store
        await store.devices.block(HEADERS["Device-Id"])
        assert await refusal(http, home, token) == 403
        async with http.post(home.server.ota_url, headers=HEADERS) as response:
            assert response.status == 403


async def test_stolen_foreign_expired_and_absent_tokens_are_refused_at_the_upgrade(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with house(tmp_path, auth={"mode": "token", "token_ttl_days": 1}) as home:
        token = (await boot(http, home))["websocket"]["token"]
        assert await refusal(http, home, token, **{"Device-Id": "02:00:00:00:00:02"}) == 401
        assert await refusal(http, home, token, **{"Client-Id": "client-2"}) == 401
        assert await refusal(http, home, "") == 401
        generation, expires_s, signature = token.split(".")
        assert await refusal(http, home, f"{generation}.{int(expires_s) + 1}.{signature}") == 401
        token_auth = home.server.devices._access.token_auth
        now_s = token_auth._now_s
        token_auth._now_s = lambda: now_s() + 2 * 86_400
        assert await refusal(http, home, token) == 401
        token_auth._now_s = now_s
        async with http.ws_connect(home.url, headers={**HEADERS, "Authorization": f"Bearer {token}"}) as socket:
            await socket.send_str('{"type":"hello"}')
            assert (await socket.receive_json())["type"] == "hello"


@pytest.mark.parametrize("wrong_s", [5.0, 2_500_000_000.0])
async def test_a_start_with_a_wrong_clock_leaves_no_keys_from_then_and_locks_nobody_out(
    tmp_path: Path, http: aiohttp.ClientSession, wrong_s: float
) -> None:
    data = tmp_path / "data"
    token_auth = TokenAuth(AuthSettings(), load_keys(data, wrong_s), lambda: wrong_s)  # as a server did it then
    token = token_auth.token_for(Identity(HEADERS["Device-Id"], HEADERS["Client-Id"], ""))
    async with house(tmp_path, auth={"mode": "token"}) as home:
        async with http.ws_connect(home.url, headers={**HEADERS, "Authorization": f"Bearer {token}"}) as socket:
            await socket.send_str('{"type":"hello"}')
            assert (await socket.receive_json())["type"] == "hello"
        now_s = time.time()
        keys = load_keys(data, now_s).keys
        assert all(key.made_s <= now_s and key.honoured_until_s <= now_s + 31 * 86_400 for key in keys)


async def test_a_browser_client_comes_in_by_its_query(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with house(tmp_path, auth={"mode": "token"}) as home:
        token = (await boot(http, home, **{"Device-Id": "web-1", "Client-Id": "c"}))["websocket"]["token"]
        for name, value in (("authorization", f"Bearer%20{token}"), ("token", token)):
            async with http.ws_connect(f"{home.url}?device-id=web-1&client-id=c&{name}={value}") as socket:
                await socket.send_str('{"type":"hello"}')
                await socket.receive_json()
                await socket.send_str('{"type":"ping"}')
                assert (await socket.receive_json())["type"] == "pong"


# Firmware -------------------------------------------------------------------------------------------------------------


async def test_firmware_is_offered_and_streamed_with_length_range_and_etag(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    data = image("2.5.0", body=b"code" * 20_000)
    (tmp_path / "fw" / BOARD).mkdir(parents=True)
    (tmp_path / "fw" / BOARD / "2.5.0.bin").write_bytes(data)
    async with house(tmp_path, ota={"firmware_dir": tmp_path / "fw"}) as home:
        offer = (await boot(http, home))["firmware"]
        assert set(offer) == {"version", "url"}
        assert offer["version"] == "2.5.0"
        async with http.get(offer["url"]) as response:  # without any header of ours, as devices ask
            assert response.status == 200
            assert int(response.headers["Content-Length"]) == len(data)
            assert "Transfer-Encoding" not in response.headers
            assert await response.read() == data
            etag = response.headers["ETag"]
        async with http.get(offer["url"], headers={"Range": "bytes=100-199"}) as response:
            assert response.status == 206
            assert await response.read() == data[100:200]
        async with http.get(offer["url"], headers={"If-None-Match": etag}) as response:
            assert response.status == 304
        assert "firmware" not in await boot(http, home, **{"User-Agent": f"{BOARD}/2.5.0"})
        assert "firmware" not in await boot(http, home, **{"User-Agent": "other/1.0"})
        for path in ("firmware/../../etc/passwd", f"firmware/{BOARD}/2.5.1.bin", "firmware/x/%2e%2e%2fpasswd"):
            async with http.get(home.server.ota_url + path) as response:
                assert response.status == 404


# Limits and hostility -------------------------------------------------------------------------------------------------


async def test_one_address_that_asks_too_often_is_told_when_to_come_again(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    limits = {"requests_per_minute": 5, "trusted_proxies": ["127.0.0.1"]}
    async with house(tmp_path, server=limits) as home:
        many = {**HEADERS, "X-Forwarded-For": "203.0.113.9"}
        statuses = []
        for _ in range(6):
            async with http.post(home.server.ota_url, headers=many) as response:
                statuses.append(response.status)
        assert statuses == [200] * 5 + [429]
        assert int(response.headers["Retry-After"]) >= 1
        await boot(http, home, **{"X-Forwarded-For": "203.0.113.10"})
        await boot(http, home)
        for _ in range(5):
            async with http.ws_connect(home.url, headers=many):
                pass
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(home.url, headers=many)
        assert refused.value.status == 429


# TLS ------------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str = "localhost", *, days: int = 30, password: str = "") -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-days", str(days), "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
            *(("-passout", f"pass:{password}") if password else ("-nodes",)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=cert)


async def test_a_device_boots_and_talks_over_tls_alone(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    async with house(tmp_path, server={"tls_cert": cert, "tls_key": key}) as home:
        assert home.server.secure
        assert home.server.ota_url.startswith("https://")
        connector = aiohttp.TCPConnector(ssl=trusting(cert))
        async with aiohttp.ClientSession(connector=connector) as http:
            reply = await boot(http, home)
            assert reply["websocket"]["url"] == f"wss://127.0.0.1:{home.server.port}/xiaozhi/v1/"
            async with http.ws_connect(reply["websocket"]["url"], headers=HEADERS) as socket:
                await socket.send_str('{"type":"hello"}')
                assert (await socket.receive_json())["type"] == "hello"
                await socket.send_str('{"type":"listen","state":"detect","text":"hello there"}')
                kinds = []
                while "stop" not in kinds:
                    message = await asyncio.wait_for(socket.receive(), 10)
                    kinds.append("audio" if message.type is aiohttp.WSMsgType.BINARY else message.json().get("state"))
                assert "audio" in kinds


async def test_plain_and_tls_ports_are_served_side_by_side(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with_port = {"tls_cert": cert, "tls_key": key, "tls_port": free_port()}
    async with house(tmp_path, server=with_port) as home:
        assert not home.server.secure
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting(cert))) as http:
            assert (await boot(http, home))["websocket"]["url"].startswith("ws://")
            async with http.post(f"https://127.0.0.1:{home.server.tls_port}/xiaozhi/ota/", headers=HEADERS) as response:
                url = (await response.json())["websocket"]["url"]
        assert url == f"wss://127.0.0.1:{home.server.tls_port}/xiaozhi/v1/"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_renewed_certificate_is_taken_up_and_a_wrong_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = certificate(tmp_path)
    files = TlsFiles(cert, key)
    await files.refresh()
    assert files.reloads == 0
    old = trusting(cert)
    assert distrusted_because(files.context, "localhost", old) == ""
    other_cert, other_key = certificate(tmp_path, "renewed")
    cert.write_bytes(other_cert.read_bytes())
    await files.refresh()  # the key has not been replaced yet
    assert "not the key" in caplog.text
    assert distrusted_because(files.context, "localhost", old) == "", "the old one still serves"
    key.write_bytes(other_key.read_bytes())
    await files.refresh()
    assert files.reloads == 1
    assert distrusted_because(files.context, "renewed", trusting(other_cert)) == ""


def test_certificates_that_devices_would_refuse_are_noticed(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    assert "self" in distrusted_because(load_context(cert, key), "localhost")
    assert "localhost" in distrusted_because(load_context(cert, key), "another.example", trusting(cert)) or "match" in (
        distrusted_because(load_context(cert, key), "another.example", trusting(cert))
    )


def test_old_boards_and_modems_find_a_cipher_and_older_tls_is_refused(tmp_path: Path) -> None:
    context = load_context(*certificate(tmp_path))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "AES128-GCM-SHA256", "AES128-SHA256"} <= names
    assert not [name for name in names if "RC4" in name or "DES" in name or "NULL" in name]


def test_wrong_certificate_files_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    _, locked = certificate(tmp_path, "locked", password="secret-word")
    other, _ = certificate(tmp_path, "other")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n")
    wrong = {
        (tmp_path / "none.pem", key): "No such file",
        (tmp_path, key): "Is a directory",
        (text, key): "holds no certificate",
        (cert, text): "holds no private key",
        (cert, cert): "holds no private key",
        (other, key): "is not the key of",
        (tmp_path / "locked.pem", locked): "protected by a password",
        (broken, key): "broken.pem",
    }
    for files, why in wrong.items():
        with pytest.raises(TlsError, match=why):
            load_context(*files)


async def test_a_server_does_not_start_without_its_certificate(tmp_path: Path) -> None:
    server = {"data_dir": tmp_path, "tls_cert": tmp_path / "a.pem", "tls_key": tmp_path / "b.pem"}
    with pytest.raises(CannotServe, match=r"server\.tls_cert"):
        async with serving(Settings.model_validate({"server": server})):
            pass
