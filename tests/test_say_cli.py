"""`xiaozhi say` and `xiaozhi memories` as somebody types them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.standins.mem0 import Mem0StandIn
from tests.house import house
from xiaozhi.cli import main
from xiaozhi.memory.extraction import SaidTurn
from xiaozhi.memory.mem0 import Mem0
from xiaozhi.settings import MemorySettings
from xiaozhi.store import Store

DEVICE = "02:00:00:00:00:01"


@pytest.fixture
def xiaozhi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: main([*words, "--set", f"server.data_dir={tmp_path / 'data'}"])


@pytest.mark.real_time
async def test_say_speaks_through_the_running_server_with_the_token_it_made(
    xiaozhi: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with house(tmp_path) as home:
        here = ("--set", f"server.port={home.server.port}", "--set", "server.host=127.0.0.1")
        assert await asyncio.to_thread(xiaozhi, "say", "Hello.", *here) == 1
        assert "no device is connected" in capsys.readouterr().err
        async with home.device() as device:
            assert await asyncio.to_thread(xiaozhi, "say", "Dinner", "is ready.", *here) == 0
            assert f"{DEVICE}  spoken" in capsys.readouterr().out
            assert "Dinner is ready." in [message.get("text") for _, message in device.received]
            assert await asyncio.to_thread(xiaozhi, "say", "Hello.", "--device", "attic", *here) == 1
            assert "attic  unknown device" in capsys.readouterr().out
            assert await asyncio.to_thread(xiaozhi, "say", " ", *here) == 2
            wrong = ("--set", "push.token=a-token-that-is-wrong")
            assert await asyncio.to_thread(xiaozhi, "say", "Hello.", *here, *wrong) == 2
            assert "token" in capsys.readouterr().err


def test_without_a_server_or_a_token_say_tells_what_to_do(
    xiaozhi: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert xiaozhi("say", "hello") == 2
    assert "after its first start" in capsys.readouterr().err
    assert xiaozhi("say", "hello", "--set", "push.token=a-token-of-sixteen", "--set", "server.port=9") == 2
    assert "xiaozhi serve" in capsys.readouterr().err
    assert xiaozhi("say", "hello", "--set", "push.enabled=false") == 2
    assert "push.enabled" in capsys.readouterr().err


def test_memories_are_added_listed_searched_and_forgotten(
    xiaozhi: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def known() -> None:
        store = await Store.open(tmp_path / "data" / "xiaozhi.db")
        await store.devices.seen(DEVICE)
        await store.close()

    asyncio.run(known())
    assert xiaozhi("memories", "list", DEVICE) == 0
    assert "nothing is remembered" in capsys.readouterr().out
    for fact in ("Has a cat called Momo", "Has a daughter of 7", "Has a daughter of 8", "Plays the cello"):
        assert xiaozhi("memories", "add", DEVICE, fact) == 0
    assert xiaozhi("memories", "add", DEVICE, "plays the cello.") == 1
    capsys.readouterr()
    assert xiaozhi("memories", "list", DEVICE) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        "Has a cat called Momo",
        "Has a daughter of 8",
        "Plays the cello",
    ]
    assert xiaozhi("memories", "list", DEVICE, "--about", "momo") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert xiaozhi("memories", "forget", DEVICE) == 1
    assert xiaozhi("memories", "forget", DEVICE, "--about", "momo") == 0
    assert xiaozhi("memories", "forget", DEVICE, lines[2].split()[0]) == 0
    assert xiaozhi("memories", "forget", DEVICE, "999") == 1
    assert xiaozhi("memories", "forget", DEVICE, "--all", "--yes") == 0
    capsys.readouterr()
    assert xiaozhi("memories", "list", DEVICE) == 0
    assert "nothing is remembered" in capsys.readouterr().out
    assert xiaozhi("memories", "list", "nobody") == 1


@pytest.mark.real_time
async def test_what_is_forgotten_here_is_forgotten_at_the_memory_service_as_well(
    xiaozhi: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = await Store.open(tmp_path / "data" / "xiaozhi.db")
    await store.devices.seen(DEVICE)
    await store.memories.add(DEVICE, "I live in Rome")
    number = (await store.memories.add(DEVICE, "I sing")).id
    await store.close()
    async with Mem0StandIn() as service:
        mem0 = Mem0(MemorySettings(engine="mem0", base_url=service.url))
        await mem0.add(f"xiaozhi:{DEVICE}", [SaidTurn("I live in Rome", ""), SaidTurn("I sing", "")])
        await mem0.close()
        there = ("--set", "memory.engine=mem0", "--set", f"memory.base_url={service.url}")
        assert await asyncio.to_thread(xiaozhi, "memories", "forget", DEVICE, str(number), *there) == 0
        assert service.of(f"xiaozhi:{DEVICE}") == ["I live in Rome"]
        service.fault = "500"
        assert await asyncio.to_thread(xiaozhi, "memories", "forget", DEVICE, "--about", "rome", *there) == 1
        assert "not at the service" in capsys.readouterr().err
