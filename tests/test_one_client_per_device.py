"""A device and somebody who knows its MAC address, over real sockets: who is let in, who is told what, who stays."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.console_browser import CONSOLE, browser, set_password
from tests.house import House, house
from xiaozhi.cli import main
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity

MINE = ClientIdentity.of("02:00:00:00:00:01")
RIVAL = dataclasses.replace(MINE, client_id="11111111-2222-4333-8444-555555555555", language="en-US")
TOKEN: dict[str, Any] = {"auth": {"mode": "token"}}


@asynccontextmanager
async def device_as(home: House, identity: ClientIdentity) -> AsyncIterator[Device]:
    """A device that has booted and connected, as far as it gets."""
    async with Device(identity, speed=3.0, trace=True) as device:
        ota = await device.boot(home.server.ota_url)
        await device.connect(ota.url, ota.token)
        yield device


async def boot(home: House, identity: ClientIdentity, **headers: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http:
        sent = {**names(identity), "Accept-Language": identity.language, **headers}
        async with http.post(home.server.ota_url, json=identity.description(), headers=sent) as response:
            assert response.status == 200
            answer: dict[str, Any] = await response.json()
            return answer


def names(identity: ClientIdentity) -> dict[str, str]:
    return {"Device-Id": identity.device_id, "Client-Id": identity.client_id}


async def poll(home: House, identity: ClientIdentity) -> int:
    url = f"{home.server.ota_url}activate"
    async with aiohttp.ClientSession() as http, http.post(url, json={}, headers=names(identity)) as response:
        return response.status


async def talks(device: Device, words: str = "hello there") -> bool:
    return (await device.turn_text(words)).text == "It is ten past nine."


def told(device: Device) -> str:
    return " ".join(str(message.get("text", "")) for _, message in device.received)


@pytest.mark.parametrize("mode", ["token", "activate"])
async def test_who_knows_the_address_of_a_device_is_not_that_device(tmp_path: Path, mode: str) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, auth={"mode": mode}, console=CONSOLE) as home:
        if mode == "activate":
            await home.server.services.store.pending.bind((await boot(home, MINE))["activation"]["code"])
        async with device_as(home, MINE) as mine:
            assert await talks(mine, "my secret word is rutabaga")
            asked = len(home.asked)
            section = (await boot(home, RIVAL))["activation"]
            assert section["message"] == f"New client, let in at\n127.0.0.1:{home.server.port}\n{section['code']}"
            async with device_as(home, RIVAL) as rival:
                rival.detect("what is my secret word")
                await rival.until(lambda: rival.close_code is not None or not rival.connected, 20)
                assert "new identity" in told(rival) and ", ".join(section["code"]) in told(rival)
                assert not [one for _, one in rival.received if one.get("type") == "mcp"], "nor are its tools asked for"
            assert len(home.asked) == asked, "it costs no model, and nobody reads what was said"
            assert await poll(home, RIVAL) == 202
            assert mine.connected and await talks(mine), "who is told so hangs nobody up"
        kept = await home.server.services.store.turns.list(MINE.device_id)
        assert len(kept) == 2


async def test_a_rival_that_polls_first_locks_nobody_out(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "activate"}) as home:
        mine, rival = (await boot(home, MINE))["activation"], (await boot(home, RIVAL))["activation"]
        assert mine["code"] != rival["code"] and mine["challenge"] != rival["challenge"]
        assert (await boot(home, MINE))["activation"]["code"] == mine["code"]
        await home.server.services.store.pending.bind(mine["code"])
        assert await poll(home, RIVAL) == 202
        assert await poll(home, MINE) == 200
        assert "activation" in await boot(home, RIVAL) and "activation" not in await boot(home, MINE)
        async with device_as(home, MINE) as device:
            assert await talks(device)


async def test_a_board_that_was_erased_is_let_in_by_one_click_and_no_other_device_is_touched(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE, **TOKEN) as home, browser(home.server) as page:
        neighbour = ClientIdentity.of("02:00:00:00:00:02")
        async with device_as(home, MINE) as mine, device_as(home, neighbour) as other:
            assert await talks(mine) and await talks(other)
        shown = (await boot(home, RIVAL))["activation"]["code"]
        rows = {row["id"]: row for row in (await page.get("devices"))["devices"]}
        assert rows[MINE.device_id]["waiting"] == [{"code": shown, "address": ""}]
        assert rows[neighbour.device_id]["waiting"] == []
        status, row = await page.call("POST", "devices/bind", {"code": shown})
        assert (status, row["waiting"]) == (200, [])
        assert await poll(home, RIVAL) == 200 and "activation" not in await boot(home, RIVAL)
        async with device_as(home, RIVAL) as board, device_as(home, neighbour) as other:
            assert await talks(board) and await talks(other)
            assert "hello there" in json.dumps(home.asked[-2]), "it goes on where the board was before"
        assert "activation" in await boot(home, MINE), "it is the other one now"


@pytest.mark.parametrize("asked_before", [False, True])
async def test_a_board_that_was_erased_is_let_in_from_the_command_line(
    tmp_path: Path, asked_before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def xiaozhi(*words: str) -> int:
        return main(["devices", *words, "--set", f"server.data_dir={tmp_path / 'data'}"])

    async with house(tmp_path, **TOKEN) as home:
        async with device_as(home, MINE) as mine:
            assert await talks(mine)
        if asked_before:
            code = (await boot(home, RIVAL))["activation"]["code"]
            assert await asyncio.to_thread(xiaozhi, "list") == 0
            assert f"{MINE.device_id} wants in from this machine and shows {code}" in capsys.readouterr().out
        assert await asyncio.to_thread(xiaozhi, "release", MINE.device_id) == 0
        assert ("is let in" if asked_before else "the next client") in capsys.readouterr().out
        async with device_as(home, RIVAL) as board:
            assert await talks(board)
        assert "activation" in await boot(home, MINE)
        third = dataclasses.replace(MINE, client_id="third")
        codes = [(await boot(home, one))["activation"]["code"] for one in (MINE, third)]
        assert await asyncio.to_thread(xiaozhi, "release", MINE.device_id) == 1, "somebody has to say which"
        said = capsys.readouterr()
        assert "devices bind CODE" in said.err and all(code in said.out for code in codes)
        assert await asyncio.to_thread(xiaozhi, "bind", codes[1]) == 0
        assert "activation" not in await boot(home, third)


async def test_a_client_with_another_id_each_time_comes_by_a_token_of_its_owners(tmp_path: Path) -> None:
    auth = {"mode": "token", "tokens": ["a-long-and-random-one"]}
    async with house(tmp_path, auth=auth) as home:
        for number in range(3):
            async with Device(dataclasses.replace(MINE, client_id=f"run-{number}"), speed=3.0) as device:
                await device.connect(home.url, "a-long-and-random-one")
                assert await talks(device)
        assert "activation" in await boot(home, RIVAL)


async def test_the_log_says_once_that_somebody_else_wants_to_be_a_device(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, **TOKEN) as home:
        async with device_as(home, MINE):
            pass
        for _ in range(5):
            await boot(home, RIVAL)
        lines = [record.getMessage() for record in caplog.records if "another Client-Id" in record.getMessage()]
        assert len(lines) == 1 and f" devices release {MINE.device_id}`" in lines[0]


# Crowds ---------------------------------------------------------------------------------------------------------------


async def upgrade(home: House, http: aiohttp.ClientSession, device_id: str, address: str) -> int:
    """The status with which a client that boots and connects is answered; 101 where it is let in."""
    from_there = {"Device-Id": device_id, "Client-Id": "c", "X-Forwarded-For": address}
    async with http.post(home.server.ota_url, headers=from_there) as response:
        if response.status != 200:
            return response.status
        token = (await response.json())["websocket"]["token"]
    try:
        async with http.ws_connect(home.url, headers={**from_there, "Authorization": f"Bearer {token}"}) as socket:
            await socket.send_str('{"type":"hello"}')
            await socket.receive_json(timeout=10)
            return 101
    except aiohttp.WSServerHandshakeError as refused:
        return refused.status


async def test_a_crowd_of_made_up_names_is_turned_away_and_the_real_device_keeps_all_it_has(tmp_path: Path) -> None:
    auth = {"mode": "token", "new_devices_per_hour": 5}
    server = {"trusted_proxies": ["127.0.0.1"], "requests_per_minute": 0}
    async with house(tmp_path, auth=auth, server=server) as home, aiohttp.ClientSession() as http:
        async with device_as(home, MINE) as mine:
            assert await talks(mine)
        statuses = [await upgrade(home, http, f"made-up-{number}", "203.0.113.9") for number in range(8)]
        assert statuses == [101] * 5 + [429] * 3
        statuses = [await upgrade(home, http, f"v6-{number}", f"2001:db8:0:1::{number}") for number in range(8)]
        assert statuses == [101] * 5 + [429] * 3, "one subscriber of IPv6 has a whole /64"
        crowd = [await upgrade(home, http, f"crowd-{number}", f"203.0.114.{number}") for number in range(60)]
        assert crowd.count(101) == 50 - 10 - 1 and crowd[-1] == 429
        async with device_as(home, MINE) as mine:
            assert await talks(mine), "who is known is not counted"
        assert len(await home.server.services.store.turns.list(MINE.device_id)) == 2
        assert len(await home.server.services.store.devices.list()) == 50


async def test_a_known_device_finds_a_place_where_strangers_hold_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xiaozhi.transport.connected_devices._READ_S", 0.0)
    async with house(tmp_path, server={"max_devices": 3}, **TOKEN) as home:
        async with device_as(home, MINE) as mine:
            assert await talks(mine)
        strangers = [ClientIdentity.of(f"02:00:00:00:01:0{number}") for number in range(3)]
        async with (
            device_as(home, strangers[0]) as first,
            device_as(home, strangers[1]) as second,
            device_as(home, strangers[2]) as third,
            aiohttp.ClientSession() as http,
        ):
            assert await talks(second), "who talks is no stranger any more"
            assert await upgrade(home, http, "another-stranger", "") == 503
            async with device_as(home, MINE) as mine:
                assert await talks(mine)
                await first.until(lambda: not first.connected or first.close_code is not None, 10)
                assert await upgrade(home, http, "another-stranger", "") == 503
            assert second.connected and third.connected
