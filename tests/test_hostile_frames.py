"""Wrong frames: what `bench.hostile` makes of recorded sessions, and a server that outlives a few thousand of them."""

import asyncio
import logging
import random
from pathlib import Path

import pytest
from aiohttp import ClientConnectionResetError, web
from hypothesis import given
from hypothesis import strategies as st

from bench.hostile import Attack, Attacker, Played, Result, judged, recording, show
from bench.mutations import BINARY, CLOSE, CONTINUATION, TEXT, Frame, frames_in, mutated
from bench.outcome import Outcome
from bench.soak import Soaked
from bench.user import Load, Turn
from bench.verdict import broken
from tests.house import House, house, question
from tests.test_bench_load import sample

SESSION = [
    Frame(TEXT, b'{"type":"hello","version":1,"features":{"mcp":true},"audio_params":{"format":"opus"}}'),
    Frame(TEXT, b'{"type":"listen","state":"start","mode":"auto"}'),
    *[Frame(BINARY, bytes(range(number, number + 80))) for number in range(30)],
    Frame(
        TEXT, b'{"type":"mcp","payload":{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","inputSchema":{}}]}}}'
    ),
    Frame(TEXT, b'{"type":"abort","reason":"wake_word_detected"}'),
]


@given(st.binary(max_size=70_000) | st.binary(max_size=300), st.sampled_from([TEXT, BINARY, CLOSE]), st.booleans())
def test_a_frame_is_read_as_it_was_packed_however_it_arrives(payload: bytes, opcode: int, masked: bool) -> None:
    frames = [Frame(opcode, payload, masked=masked), Frame(CONTINUATION, b"x", fin=False, reserved=2)]
    data = b"".join(frame.packed(random.Random(1)) for frame in frames)
    buffer = bytearray()
    found: list[Frame] = []
    for start in range(0, len(data), 1000):
        buffer += data[start : start + 1000]
        found += frames_in(buffer)
    assert found == frames and not buffer


@given(st.integers(0, 10_000))
def test_a_mutated_session_can_be_sent_and_is_another_each_time(seed: int) -> None:
    steps = mutated(SESSION, [SESSION], random.Random(seed))
    assert steps == mutated(SESSION, [SESSION], random.Random(seed))
    assert all(frame.packed(random.Random(2)) for step in steps for frame in step)
    assert steps != mutated(SESSION, [SESSION], random.Random(seed + 1))


async def recorded_turn(home: House) -> list[Frame]:
    async with recording(home.url) as (front, sessions):
        async with home.device(connect=False) as device:
            await device.connect(front)
            await device.turn(question())
        (session,) = sessions
        return session


async def test_a_recorded_session_holds_what_the_device_sent_and_wrong_ones_hurt_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as home:
        session = await recorded_turn(home)
        kinds = [frame.opcode for frame in session]
        assert b'"hello"' in session[0].payload and kinds.count(TEXT) >= 3 and kinds.count(BINARY) > 10
        played = Played()
        attackers = [Attacker(number, home.url, [session], played, 2000.0, seed=7) for number in range(4)]
        async with home.device() as bystander, asyncio.timeout(100):
            playing = asyncio.gather(*(attacker.play(2000) for attacker in attackers))
            assert (await bystander.turn_text("what time is it")).answered
            await playing
            assert (await bystander.turn_text("what time is it")).answered
        assert played.wrong >= 2000 and played.sessions > 20
        assert not any(end.startswith("no connection") for end in played.ends), played.ends
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_device_that_is_gone_before_it_is_let_in_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise ClientConnectionResetError("Cannot write to closing transport")  # as aiohttp says it

    async with house(tmp_path) as home:
        with monkeypatch.context() as patched:
            patched.setattr(web.WebSocketResponse, "prepare", gone)
            reader, writer = await asyncio.open_connection("127.0.0.1", home.server.port)
            frames = Attacker(1, home.url, [SESSION], Played(), 1.0, seed=1)
            writer.write(frames.upgrade("1"))
            assert await reader.read() == b""
            writer.close()
        assert not len(home.server.devices)
        async with home.device() as device:
            assert (await device.turn_text("hello")).answered
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_attack_that_left_its_mark_is_found() -> None:
    outcome = Outcome(Load(1, 100.0), turns=[Turn("answered", 0.0)] * 9)
    outcome.samples = [sample(float(second)) for second in range(100)]
    played = Played(frames=300, wrong=100, sessions=3)
    level = Result(Soaked(outcome, sample(0.0), sample(100.0), []), played, [], b"x" * 1000)
    assert not broken(judged(level)) and "by" not in show(level).splitlines()[-1]
    level.log = b"x" * 100_000
    outcome.turns.append(Turn("no answer", 1.0))
    assert [line.demand[:12] for line in broken(judged(level))] == ["a bystander ", "at most 40 b"]
    assert Attack(1, 1, 1.0).bystanders == 1
