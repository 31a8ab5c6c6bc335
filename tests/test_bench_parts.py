"""What benches share: the tables of the stand-ins, bytes carried on, the lag of a bench's own loop, spoken words."""

import asyncio
import time
import tomllib

import pytest

from bench.lag import watched_lag
from bench.relay import pour
from bench.spoken import spoken
from bench.standins.tables import chat_table, voice_table
from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings import Settings


def test_the_tables_are_settings_that_point_at_the_stand_ins() -> None:
    near, far = "http://127.0.0.1:1", "http://127.0.0.1:2"
    text = chat_table(near, "near", tier="edge") + chat_table(far) + voice_table("http://127.0.0.1:3")
    settings = Settings.model_validate(tomllib.loads(text))
    found = [(endpoint.name, endpoint.base_url, endpoint.tier) for endpoint in settings.llm.endpoints]
    assert found == [("near", f"{near}/v1", "edge"), ("stand-in", f"{far}/v1", "auto")]
    assert settings.tts.engines == ("openai", "espeak")
    assert (settings.tts.openai.base_url, settings.tts.openai.format) == ("http://127.0.0.1:3/v1", "pcm")


async def test_bytes_are_carried_on_in_order_until_one_side_hangs_up() -> None:
    seen = bytearray()
    carried = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pour(reader, writer, seen.extend)
        carried.set()

    async with await asyncio.start_server(echo, "127.0.0.1") as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        sent = bytes(range(256)) * 1000
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent == bytes(seen)
        await carried.wait()
        writer.close()


async def test_a_connection_that_breaks_ends_the_carrying_without_an_error() -> None:
    ended = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pour(reader, writer)
        ended.set()

    async with await asyncio.start_server(carry, "127.0.0.1") as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x" * 1000)
        await writer.drain()
        writer.transport.abort()
        await ended.wait()


@pytest.mark.real_time
async def test_a_loop_that_is_held_up_is_noticed_and_watching_ends_with_the_block() -> None:
    async with watched_lag(0.001) as lag:
        await asyncio.sleep(0)
        time.sleep(0.02)  # noqa: ASYNC251  # what is held up is the subject
        await asyncio.sleep(0.002)  # the watcher's own timer is over before this one
    assert lag.worst_ms >= 18.0
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(("text", "language"), [("今天天气怎么样", "zh"), ("what time is it", "en")])
def test_words_are_spoken_at_the_rate_of_a_microphone(text: str, language: str) -> None:
    pcm = spoken(text, language)
    assert pcm.dtype.name == "int16" and 0.5 < len(pcm) / UPLINK_RATE_HZ < 3.0
    assert abs(pcm).max() > 1000
