"""Thousands of OTA requests whose bodies and headers are nonsense or malice, over real keep-alive sockets.

1,500 requests by default; `XIAOZHI_TEST_HOSTILE_OTA=10000` in the environment sends as many.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from bench import sampling
from tests.house import House, house
from xiaozhi.client.ota import ClientIdentity, ask_ota
from xiaozhi.store import Store

_log = logging.getLogger(__name__)

REQUESTS: Final = int(os.environ.get("XIAOZHI_TEST_HOSTILE_OTA", "1500"))
AT_ONCE: Final = 8
SEED: Final = 20261121
# Resident memory may grow so much: 10,000 identities made up on the way would cost more if anything kept them.
_MAX_GROWTH_MB: Final = 24.0
# A good device's request in the middle of it all; on a busy machine a request takes some milliseconds.
_PATIENCE_S: Final = 2.0

_NESTED: Final = b'{"a":' * 900 + b"1" + b"}" * 900
_NUMBERS: Final = ("1e999", "-0", "9" * 400, "0.1e-400", "NaN", "null", "true", "[]", '""', "{}")
_NASTY: Final = (
    "../../etc/passwd", "%00", "%2e%2e%2f", "' OR 1=1 --", "'; DROP TABLE devices; --", "<script>alert(1)</script>",
    "${jndi:ldap://x/y}", "{{7*7}}", "\u202egnp.exe", "\u0000", "麦克风", "🦊" * 40, "x" * 7000, "a:b:c", "-" * 64,
    "02:00:00:00:00:0g", "anonymous-00000000", "\x7f\x01", "True", "null", "undefined", "0", "\t", ",", ";" * 300,
)  # fmt: skip
_PATHS: Final = (
    "/xiaozhi/ota/", "/xiaozhi/ota", "/xiaozhi/ota/activate", "/xiaozhi/ota/activate/", "/xiaozhi/ota/?device-id=%00",
    "/xiaozhi/ota/?device-id=" + "9" * 3000, "/xiaozhi/ota/?authorization=Bearer%20x&token=y", "/xiaozhi/ota/%2e%2e/",
    "/xiaozhi/ota/firmware/board/1.bin", "/xiaozhi/ota/firmware/..%2f..%2f/passwd.bin", "//xiaozhi/ota/",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request as bytes."""

    data: bytes
    closes: bool
    """The server may hang up after it."""


class Maker:
    """Makes hostile requests; the same seed, the same requests."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._bodies: tuple[Callable[[], bytes], ...] = (
            lambda: b"",
            lambda: self._dice.randbytes(self._dice.randrange(2000)),
            lambda: _NESTED,
            self._mutated,
            self._mutated,
            self._swapped,
            lambda: json.dumps([self._word() for _ in range(30)]).encode("utf-8", "surrogatepass"),
            lambda: b'{"mac_address":' + self._dice.choice(_NUMBERS).encode() + b"}",
            lambda: b'{"application":{"version":"' + b"9." * self._dice.randrange(3000) + b'"}}',
            lambda: b"\xef\xbb\xbf{}",
            lambda: b"{" * 5000,
        )

    def next(self) -> Hostile:
        """The next one."""
        dice = self._dice
        body = dice.choice(self._bodies)()
        lines = [f"Host: {dice.choice(('10.0.0.1', 'x', '[::1]:1', 'a' * 300, '10.0.0.1:99999', self._word()))}"]
        for name in ("Device-Id", "Client-Id", "User-Agent", "Accept-Language", "Authorization", "Content-Type"):
            if dice.random() < 0.6:
                lines.append(f"{name}: {self._word()}")
        for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Activation-Version"):
            if dice.random() < 0.2:
                lines.append(f"{name}: {self._word()}")
        if dice.random() < 0.05:
            lines += [f"X-{number}: {number}" for number in range(60)]
        chunked = dice.random() < 0.1
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
        # One in fifty breaks off or lies about its length; such a connection is at its end.
        lies = dice.random() < 0.02
        if lies:
            lines[-1] = dice.choice(("Content-Length: -1", "Content-Length: 12abc", "Transfer-Encoding: gzip, x"))
        method = dice.choice(("POST",) * 20 + ("GET", "OPTIONS", "PUT", "DELETE"))
        path = dice.choice(_PATHS[:4] if dice.random() < 0.7 else _PATHS)
        head = f"{method} {path} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked and body else b"0\r\n\r\n" if chunked else body
        return Hostile(head.encode("utf-8", "surrogatepass") + sent, lies)

    def _word(self) -> str:
        """A value of a header: never a line break, which would only make it another header."""
        dice = self._dice
        word = dice.choice(_NASTY) if dice.random() < 0.7 else "".join(map(chr, dice.choices(range(32, 0x2FFF), k=20)))
        return word.replace("\r", "").replace("\n", "")

    def _mutated(self) -> bytes:
        """A real device's body with some bytes exchanged."""
        body = bytearray(json.dumps(ClientIdentity.numbered(self._dice.getrandbits(20)).description()).encode())
        for _ in range(self._dice.randrange(1, 8)):
            body[self._dice.randrange(len(body))] = self._dice.randrange(256)
        return bytes(body)

    def _swapped(self) -> bytes:
        """A real device's body with values of another kind."""
        values: dict[str, Any] = ClientIdentity.numbered(self._dice.getrandbits(20)).description()
        for name in self._dice.sample(sorted(values), 6):
            values[name] = self._dice.choice(
                (None, 7, -1.5, [], {}, [[[]]], True, self._word(), {"name": self._word()})
            )
        return json.dumps(values).encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class Seen:
    """What the server answered: statuses, the longest answer to what was HTTP in bytes, and broken connections."""

    statuses: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    hung_up: int = 0


async def attack(port: int, maker: Maker, count: int, seen: Seen) -> None:
    """Send requests over one connection after the other, each kept as long as the server keeps it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fresh = True
    for _ in range(count):
        request = maker.next()
        for last_try in (fresh, True):
            try:
                writer.write(request.data)
                keeps = await _answered(reader, seen) and not request.closes
                answered = True
            except (ConnectionError, asyncio.IncompleteReadError):
                # A server may end a connection that was kept; as every client does, this asks once more on a new one.
                keeps = answered = False
                seen.hung_up += last_try
            fresh = not keeps
            if fresh:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if answered or last_try:
                break
    writer.close()


async def _answered(reader: asyncio.StreamReader, seen: Seen) -> bool:
    """Read one answer; whether the connection goes on."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n"))
        }
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    seen.statuses[int(head.split(" ", 2)[1])] += 1
    if head.split(" ", 2)[1] != "400":  # what is no HTTP is no device's: the library shows it what was wrong
        seen.longest = max(seen.longest, len(body))
    assert b"Traceback" not in body
    return fields.get("connection", "").lower() != "close"


async def good_device(home: House, number: int) -> float:
    """A real device's request, whose answer opens the door; how long it took, in seconds."""
    identity = ClientIdentity.of(f"02:00:00:00:01:{number:02x}")
    async with aiohttp.ClientSession() as session:
        began = time.monotonic()
        reply = await ask_ota(session, f"http://127.0.0.1:{home.server.port}/xiaozhi/ota/", identity)
        took_s = time.monotonic() - began
        headers = {"Device-Id": identity.device_id, "Client-Id": identity.client_id}
        headers["Authorization"] = f"Bearer {reply.token}"
        async with session.ws_connect(home.url, headers=headers) as socket:
            await socket.send_str('{"type":"hello"}')
            assert (await asyncio.wait_for(socket.receive_json(), 10))["type"] == "hello"
    return took_s


async def rows(store: Store) -> dict[str, int]:
    """How many rows each table has."""
    tables = ("devices", "conversations", "turns", "memories", "reminders", "summaries", "agents")

    def count(connection: Any) -> dict[str, int]:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}

    return await store.database.read(count)


@pytest.mark.real_time
@pytest.mark.parametrize("mode", ["token", "activate"])
async def test_hostile_requests_change_nothing(tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "xiaozhi")  # kept lines would be taken for growth
    seen, maker = Seen(), Maker(SEED)
    count = REQUESTS if mode == "token" else REQUESTS // 5
    async with house(tmp_path, auth={"mode": mode}) as home:
        store = home.server.services.store
        await attack(home.server.port, Maker(SEED + 1), 200, Seen())  # what is made once is no growth
        before, memory_mb = await rows(store), sampling.rss_mb(os.getpid())
        attacks = [asyncio.create_task(attack(home.server.port, maker, count // AT_ONCE, seen)) for _ in range(AT_ONCE)]
        if mode == "token":
            while sum(seen.statuses.values()) < count // 2:
                await asyncio.wait(attacks, timeout=0.02)
            assert await good_device(home, 1) < _PATIENCE_S
            assert not all(task.done() for task in attacks), "that was in the middle"
        await asyncio.gather(*attacks)
        after = await rows(store)
        grown_mb = sampling.rss_mb(os.getpid()) - memory_mb
        if mode == "token":
            assert await good_device(home, 2) < _PATIENCE_S
            begun = after["conversations"]  # it may have gone before its past was read
            assert before["conversations"] <= begun <= before["conversations"] + 1
            assert after == {**before, "devices": before["devices"] + 1, "conversations": begun}
        else:
            # Devices that wait for their code are rows, so many at most; nothing else is written for them.
            assert {**after, "devices": 0} == {**before, "devices": 0}
            assert after["devices"] <= before["devices"] + count
    _log.info("%s: %s, %d hung up, %.1f MB more", mode, dict(seen.statuses), seen.hung_up, grown_mb)
    assert sum(seen.statuses.values()) + seen.hung_up == count // AT_ONCE * AT_ONCE
    assert not [status for status in seen.statuses if status >= 500], seen.statuses
    assert seen.statuses[200] + seen.statuses[202] > count // 3, "most bodies are answered like any other"
    assert seen.hung_up <= count // 20, "only where a request lied about its length"
    assert seen.longest <= 8191
    assert grown_mb < _MAX_GROWTH_MB
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
