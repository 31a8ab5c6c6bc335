"""A Redis that answers anything to everything: the server starts, and devices boot, connect and are answered."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.house import house
from tests.redis_server import RedisServer, needs_redis
from xiaozhi.cluster.registry import node_of
from xiaozhi.cluster.values import pack

Reply = Callable[[random.Random], bytes]


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


def array(*members: bytes) -> bytes:
    return b"*%d\r\n%s" % (len(members), b"".join(members))


_PLAIN: dict[str, bytes] = {
    "the wrong type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "an error that is no text": b"-\xff\xfe\r\n",
    "OK": b"+OK\r\n",
    "a number": b":7\r\n",
    "a huge number": b":" + b"9" * 300 + b"\r\n",
    "no text": bulk(b"\xff\xfe\xfd"),
    "a number as text": bulk(b"1e999"),
    "a list of numbers": array(b":1\r\n", b":2\r\n"),
    "a list of lists": array(array(bulk(b"a"), b":1\r\n"), array(), b"$-1\r\n"),
    "a deep list": b"*1\r\n" * 5000 + b":1\r\n",
    "a long list": b"*300000\r\n" + b"$-1\r\n" * 300_000,
    "much": bulk(bytes(8_000_000)),
    "the beginning of much": b"$999999999999\r\nxx",
    "no protocol": b"HTTP/1.1 200 OK\r\n\r\n",
    "what a node would write": bulk(b"\x01\x00" + orjson.dumps({"v": 1, "turns": [{"at": "nan"}], "summary": 3})),
    "silence": b"",
}
_MORE = (
    b"-ERR no\r\n", b"-NOAUTH Authentication required.\r\n", b"-MOVED 3999 127.0.0.1:1\r\n", b"-LOADING\r\n",
    b"$-1\r\n", bulk(b""), bulk(b"nan"), b"*0\r\n", array(b"-ERR a\r\n", b"-WRONGTYPE b\r\n"), b"*999999999\r\n:1\r\n",
    b"$5\r\nab", b"\x00\x01\x02\r\n", b"%1\r\n+a\r\n:1\r\n", b"+OK\r\n:1\r\n",
)  # fmt: skip
_DICE: dict[str, Reply] = {
    "anything": lambda dice: dice.choice((*_PLAIN.values(), *_MORE)),
    "small things": lambda dice: dice.choice(_MORE),
    "bytes at random": lambda dice: dice.choice((b"$", b"*", b":", b"+", b"-", b"")) + dice.randbytes(20) + b"\r\n",
}


@contextlib.asynccontextmanager
async def hostile_redis(reply: Reply) -> AsyncIterator[str]:
    """Answers every command with what `reply` makes; yields its address."""
    dice = random.Random(20261130)
    open_: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_[task] = writer
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    await reader.readexactly(size + 2)
                writer.write(reply(dice))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for writer in open_.values():
            writer.close()
        await asyncio.gather(*open_)


@pytest.mark.real_time  # how long an answer may take is part of it
@pytest.mark.parametrize("kind", [*_PLAIN, *_DICE])
async def test_whatever_redis_answers_the_server_starts_and_devices_are_answered(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply = _DICE[kind] if kind in _DICE else lambda _dice: _PLAIN[kind]
    async with hostile_redis(reply) as url:
        cluster = {"url": url, "timeout_ms": 60, "retry_s": 30.0, "heartbeat_s": 0.2}
        tables: dict[str, Any] = {
            "cache": {"answers": True, "speech": True, "disk_mb": 0},
            "memory": {"engine": "local"},
        }
        async with house(tmp_path, auth={"mode": "token"}, cluster=cluster, **tables) as home:
            for number in (1, 2):
                async with home.device(number, connect=False) as device:
                    ota = await device.boot(home.server.ota_url)
                    assert f":{home.server.port}/" in ota.url
                    await device.connect(ota.url, ota.token)
                    report = await device.turn_text(f"what time is it in room {number}")
                    assert report.text == "It is ten past nine." and report.reply_ms > 0
    lines = [
        record for record in caplog.records if record.levelno >= logging.WARNING and "redis" in record.getMessage()
    ]
    assert len(lines) <= 12, [record.getMessage() for record in lines]
    wrong = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in wrong if "damaged" not in record.getMessage()] == []


# Values of the right kind that no node has written -------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@needs_redis
@pytest.mark.real_time
@pytest.mark.parametrize(
    "value",
    [
        b"\xff" * 40, b"[]", b"null", b'{"v":1,"texts":[1,null,{}," "]}', b"[" * 900 + b"]" * 900,
        b'{"v":1,"summary":null,"turns":[{"at":"inf","heard":1,"said":2,"played":3,"cut":4}]}',
        b'{"keys":[{"generation":1e999,"made_s":"nan","honoured_until_s":0,"secret":"00"}]}',
        b'["' + b"d" * 5000 + b'","c","123456","x"]',
    ],
)  # fmt: skip
async def test_keys_that_hold_nonsense_cost_nobody_an_answer(
    tmp_path: Path, redis: RedisServer, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    import redis.asyncio as client

    device_id = "02:00:00:00:00:01"
    raw = ("token-keys", "node:x", "code:123456", f"talk:{device_id}")
    packed = (f"device:{device_id}", f"memories:{device_id}")
    async with client.Redis(port=redis.port) as poison:
        await poison.flushall()
        for name in (*raw, *packed):
            await poison.set(f"{{xiaozhi}}:{name}", pack(value) if name in packed else value)
        await poison.sadd("{xiaozhi}:nodes", "x", value[:200])
        await poison.zadd("{xiaozhi}:forgotten", {value[:200]: 1e18})
        await poison.zadd("{xiaozhi}:dead", {value[:200]: 1e17})
        cluster = {"url": redis.url, "timeout_ms": 2000, "heartbeat_s": 0.2}
        async with (
            house(tmp_path, auth={"mode": "activate"}, memory={"engine": "local"}, cluster=cluster) as home,
            home.device(connect=False) as device,
        ):
            code = (await device.boot(home.server.ota_url)).body["activation"]["code"]
            await home.server.services.store.pending.bind("123456")
            assert await home.server.services.store.pending.bind(code) is not None
            ota = await device.boot(home.server.ota_url)
            await device.connect(ota.url, ota.token)
            assert (await device.turn_text("hello there")).text == "It is ten past nine."
    wrong = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in wrong if "damaged" not in record.getMessage()] == []


@pytest.mark.parametrize(
    "change",
    [
        {"address": "http://10.0.0.1:99999"}, {"address": "http://" + "a" * 9000}, {"address": "http://a b"},
        {"address": "javascript:alert(1)"}, {"address": "http://10.0.0.1\r\nX: y"}, {"address": 3}, {"capacity": 1e308},
        {"capacity": True}, {"capacity": -1}, {"capacity": 2**63}, {"devices": "many"}, {"pressure": 1e300},
        {"pressure": "nan"}, {"draining": "no"}, {"name": None}, {"beat": []},
    ],
)  # fmt: skip
def test_a_heartbeat_that_no_node_would_write_is_none(change: dict[str, object]) -> None:
    good = {"v": 1, "name": "a", "address": "http://10.0.0.1:8000", "capacity": 100, "devices": 3, "pressure": 0.5}
    assert node_of(orjson.dumps(good)) is not None
    assert node_of(orjson.dumps({**good, **change})) is None
