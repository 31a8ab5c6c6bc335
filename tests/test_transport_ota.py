"""Who a client is, its token, and the address it is told, without a socket."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from xiaozhi.settings import AuthSettings, ServerSettings
from xiaozhi.transport.auth import Gatekeeper, load_secret
from xiaozhi.transport.identity import Identity
from xiaozhi.transport.lan import lan_address
from xiaozhi.transport.ota import websocket_url

NOW_S = 1_800_000_000.0
DEVICE = Identity("02:00:00:11:22:33", "client-1", "")


def gate(**settings: object) -> Gatekeeper:
    return Gatekeeper(AuthSettings.model_validate(settings), b"k" * 32, lambda: NOW_S)


def with_token(token: str, device_id: str = DEVICE.device_id) -> Identity:
    return Identity(device_id, DEVICE.client_id, token)


def test_identity_comes_from_headers_and_else_from_the_query() -> None:
    headers = {"Device-Id": "02:00:00:AA:BB:CC", "Client-Id": "c", "Authorization": "Bearer tok en"}
    assert Identity.of(headers, {"device-id": "x"}) == Identity("02:00:00:aa:bb:cc", "c", "tok en")
    query = {"device-id": "web", "client-id": "c", "authorization": "Bearer t"}
    assert Identity.of({}, query) == Identity("web", "c", "t")


def test_clients_without_a_name_are_told_apart() -> None:
    assert Identity.of({}, {}).device_id != Identity.of({}, {}).device_id


@given(st.text(max_size=200))
def test_hostile_names_become_harmless(name: str) -> None:
    identity = Identity.of({"Device-Id": name, "Client-Id": name}, {})
    assert len(identity.device_id) <= 64
    assert identity.device_id.isascii()
    assert not set(identity.device_id) & set("/\\ \n\r\"'<>")


def test_a_token_opens_the_door_for_its_own_device_until_it_expires() -> None:
    gatekeeper = gate(token_ttl_days=1)
    token = gatekeeper.token_for(DEVICE)
    assert " " not in token
    assert gatekeeper.admits(with_token(token))
    assert not gatekeeper.admits(with_token(token, "02:00:00:99:99:99"))
    later = Gatekeeper(AuthSettings(), b"k" * 32, lambda: NOW_S + 86_401)
    assert not later.admits(with_token(token))
    other_key = Gatekeeper(AuthSettings(), b"x" * 32, lambda: NOW_S)
    assert not other_key.admits(with_token(token))


@pytest.mark.parametrize(
    "token", ["", "None", "test-token", ".", "9999999999.", "9" * 400 + ".x", "١٢٣.x", "-1.x", "é.é"]
)
def test_other_tokens_do_not(token: str) -> None:
    assert not gate().admits(with_token(token))


def test_fixed_tokens_and_the_open_mode() -> None:
    assert gate(tokens=(SecretStr("let-me-in"),)).admits(with_token("let-me-in"))
    assert not gate(tokens=(SecretStr("let-me-in"),)).admits(with_token("let-me"))
    assert gate(mode="open").admits(with_token("None"))


def test_the_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    secret = load_secret(tmp_path / "data")
    assert load_secret(tmp_path / "data") == secret
    assert len(secret) == 32
    file = tmp_path / "data" / "token-secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"damaged")
    assert load_secret(tmp_path / "data") != secret


@pytest.mark.parametrize(
    ("host", "secure", "proxied", "expected"),
    [
        ("192.0.2.10:8000", False, False, "ws://192.0.2.10:8000/xiaozhi/v1/"),
        ("192.0.2.10", False, False, "ws://192.0.2.10:8000/xiaozhi/v1/"),
        ("xiaozhi.example", False, True, "ws://xiaozhi.example/xiaozhi/v1/"),
        ("xiaozhi.example", True, True, "wss://xiaozhi.example/xiaozhi/v1/"),
        ("xiaozhi.example:8443", True, True, "wss://xiaozhi.example:8443/xiaozhi/v1/"),
        ("", False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
        ("0.0.0.0:8000", False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
        ("[::1]:8000", False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
        ('evil" onload=x', False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
    ],
)
def test_a_device_is_told_the_address_it_used(host: str, secure: bool, proxied: bool, expected: str) -> None:
    url = websocket_url(
        ServerSettings(), host, secure=secure, proxied=proxied, own_port=8000, fallback_host="192.0.2.99"
    )
    assert url == expected


def test_the_public_address_wins() -> None:
    settings = ServerSettings(public_url="https://home.example")
    url = websocket_url(settings, "10.0.0.1", secure=False, proxied=False, own_port=8000, fallback_host="x")
    assert url == "wss://home.example/xiaozhi/v1/"


def test_the_address_of_this_machine_is_one_a_device_can_reach() -> None:
    assert lan_address() not in ("0.0.0.0", "")
