"""What the service manager is told, and the end of a server that it stops."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.house import House, house, question, settings_for
from tests.test_serve_cli import START_S, command, environment, free_port
from xiaozhi.app.server import serving
from xiaozhi.app.service_manager import Notifier
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.turn.machine import ListeningMode


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(START_S)
        yield sock


def message(sock: socket.socket) -> dict[str, str]:
    """The next message as a table."""
    return dict(line.split("=", 1) for line in sock.recv(4096).decode().splitlines())


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_tells_its_state_to_a_path_or_an_abstract_name(kind: str, tmp_path: Path) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@xiaozhi-test-{os.getpid()}"
    with manager(address) as sock, contextlib.closing(Notifier(address)) as notifier:
        notifier.ready()
        assert message(sock) == {"READY": "1"}
        notifier.reloading()
        told = message(sock)
        assert told["RELOADING"] == "1" and int(told["MONOTONIC_USEC"]) > 0
        notifier.stopping(20.0)
        assert message(sock) == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "35000000"}
        notifier.status("two\nREADY=0")
        assert message(sock) == {"STATUS": "two READY=0"}, "a status is one line"


def test_the_variables_are_taken_away_so_that_no_child_speaks_for_the_server(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    with manager(address), contextlib.closing(Notifier.take(environ)) as notifier:
        assert environ == {"HOME": "/"}
        assert notifier.watchdog_s == 30.0


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_that_is_not_meant_for_this_process_is_not_fed(environ: dict[str, str], tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    given = {"NOTIFY_SOCKET": address, **({"WATCHDOG_USEC": "1000"} if "WATCHDOG_PID" in environ else {}), **environ}
    with manager(address), contextlib.closing(Notifier.take(given)) as notifier:
        assert notifier.watchdog_s == 0.0


@pytest.mark.parametrize("address", ["", "vsock:2:1", "/nowhere/at/all"])
async def test_without_a_service_manager_nothing_is_told(address: str) -> None:
    notifier = Notifier.take({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.close()
    async with asyncio.timeout(1):
        await notifier.watch(lambda: "nobody reads this")
    assert notifier.lost == 0


def test_a_manager_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address), contextlib.closing(Notifier(address)) as notifier:
        for _ in range(10_000):
            notifier.status("x" * 100)
        assert notifier.lost > 0


async def test_the_loop_itself_feeds_the_watchdog_and_a_status_is_told_when_it_changes(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as sock, contextlib.closing(Notifier(address, watchdog_s=0.03)) as notifier:
        sock.setblocking(False)
        lines = iter(["one", "one", "two"])
        told: list[str] = []
        watching = asyncio.create_task(notifier.watch(lambda: next(lines, "two")))
        async with asyncio.timeout(5):
            while told.count("WATCHDOG=1") < 4:
                told.append((await asyncio.get_running_loop().sock_recv(sock, 4096)).decode())
        watching.cancel()
        assert [line for line in told if line.startswith("STATUS")] == ["STATUS=one", "STATUS=two"]


def test_a_real_server_tells_when_it_is_ready_reads_again_and_ends(tmp_path: Path) -> None:
    address, port = str(tmp_path / "notify"), free_port()
    (tmp_path / "settings.toml").write_text("[server]\n")
    ours = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
    with (
        manager(address) as sock,
        (tmp_path / "out").open("wb") as out,
        subprocess.Popen(
            command("serve"), cwd=tmp_path, env={**environment(port, tmp_path), **ours}, stdout=out, stderr=out
        ) as process,
    ):
        try:
            told = [message(sock)]
            while "READY" not in told[-1]:
                told.append(message(sock))
            assert told[0] == {"STATUS": "loading models"}
            while not any(one.get("STATUS", "").startswith("serving; 0 devices") for one in told):
                told.append(message(sock))
            assert {"WATCHDOG": "1"} in told
            process.send_signal(signal.SIGHUP)
            while "RELOADING" not in told[-1]:
                told.append(message(sock))
            while "READY" not in told[-1]:
                told.append(message(sock))
            (tmp_path / "settings.toml").write_text("[server]\nport = 'none'\n")
            process.send_signal(signal.SIGHUP)
            while "RELOADING" not in told[-1]:
                told.append(message(sock))
            while "READY" not in told[-1]:
                told.append(message(sock))
            process.send_signal(signal.SIGTERM)
            while "STOPPING" not in told[-1]:
                told.append(message(sock))
            assert int(told[-1]["EXTEND_TIMEOUT_USEC"]) >= 20_000_000
            assert process.wait(20) == 0, (tmp_path / "out").read_text()
        finally:
            process.kill()


# Draining -------------------------------------------------------------------------------------------------------------


async def test_a_device_that_waits_is_closed_at_once_and_a_turn_under_way_is_answered_before(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        settings = settings_for(tmp_path / "two", home.chat.url, home.speech.url, server={"drain_s": 20.0})
        async with serving(settings) as server:
            draining = House(server, home.chat, home.speech)
            async with draining.device(1) as talks, draining.device(2) as waits:
                turn = asyncio.create_task(talks.turn_text("hello there"))
                await talks.until(lambda: talks.manners.speaker.playback.heard_ms > 100)
                stopping = asyncio.create_task(server.devices.drain(20.0))
                await waits.until(lambda: not waits.connected)
                assert talks.connected and not stopping.done() and server.devices.draining
                assert (await turn).answered
                await stopping


async def test_nobody_talks_a_draining_server_into_another_turn(tmp_path: Path) -> None:
    answer = "🙂 " + "This takes a while to say. " * 4
    async with house(tmp_path, answer) as home, home.device(mode=ListeningMode.REALTIME, speed=1.0) as device:
        turn = asyncio.create_task(device.turn_text("hello there"))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 300)
        asked = len(home.asked)
        stopping = asyncio.create_task(home.server.devices.drain(20.0))
        await asyncio.sleep(0)
        device.say(SpokenUtterance.encode(question(), 60))  # over the reply, which would end it otherwise
        connection = home.session()
        connection._conversation.typed("and what about tomorrow")
        assert (await connection._conversation.say("an announcement")).name == "REFUSED"
        report = await turn
        assert report.answered and report.text.count("This takes a while") == 4
        await stopping
        assert len(home.asked) == asked


async def test_a_load_balancer_sees_that_the_server_drains(tmp_path: Path) -> None:
    async with house(tmp_path) as home, aiohttp.ClientSession() as http:
        ready = f"http://127.0.0.1:{home.server.port}/health/ready"
        async with http.get(ready) as answer:
            assert answer.status == 200
        await home.server.devices.drain(0.0)
        async with http.get(ready) as answer:
            assert answer.status == 503
