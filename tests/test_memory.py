"""Long-term memory: what is taken for a fact, what becomes of it, and a service that finds facts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.chat import ChatStandIn
from bench.standins.mem0 import Mem0StandIn
from xiaozhi.concurrency.retirement import Retirement
from xiaozhi.memory import MemoryKeeper
from xiaozhi.memory.extraction import SaidTurn, questions, read_answer
from xiaozhi.memory.facts import (
    MAX_CHARS,
    Known,
    Proposal,
    fitting,
    merge,
    names_in,
    outdates,
    same_fact,
    search,
    surplus,
    tidy,
)
from xiaozhi.settings import Settings
from xiaozhi.stages.llm.engine import ChatModel
from xiaozhi.stages.llm.registry import build_chat
from xiaozhi.store import Store
from xiaozhi.turn.trace import TurnTrace

ONE, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


# Facts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [("Is allergic to nuts.", "is allergic to nuts"), ("喜欢喝咖啡。", "喜欢喝咖啡"), ("Has two cats", "has 2 cats")],
)
def test_the_same_said_again_is_the_same_fact(one: str, other: str) -> None:
    assert same_fact(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Likes apples", "Likes pears"),
        ("喜欢吃苹果", "喜欢吃香蕉"),
        ("Has a daughter of 7", "Has a daughter of 8"),
        ("叫王小明", "叫李小明"),
        ("Lives in Beijing", "Lives in Shanghai"),
        ("Likes fish", "Does not like fish"),
    ],
)
def test_another_thing_is_another_fact(one: str, other: str) -> None:
    assert not same_fact(one, other)


def test_a_newer_number_and_a_negation_outdate_what_was_known() -> None:
    assert outdates("Has a daughter who is 8 years old", "Has a daughter who is 7 years old")
    assert outdates("女儿今年八岁", "女儿今年七岁")
    assert outdates("不喜欢喝咖啡", "喜欢喝咖啡")
    assert not outdates("Has 3 dogs", "Has 2 cats")
    assert not outdates("Likes pears", "Likes apples")


def test_new_facts_are_added_known_ones_are_not_and_the_newest_wins() -> None:
    known = [Known(3, "Is called Bo"), Known(5, "Has a daughter who is 7 years old"), Known(9, "Lives in Beijing")]
    proposals = [
        Proposal("- is called Bo."),
        Proposal("Has a daughter who is 8 years old"),
        Proposal("Lives in Shanghai", replaces=9),
        Proposal("Plays the cello"),
        Proposal("plays the cello"),
        Proposal("  "),
    ]
    changes = merge(known, proposals, longest=100, outdated=[3, 77])
    assert changes.remove == [3, 5, 9]
    assert changes.add == ["is called Bo.", "Has a daughter who is 8 years old", "Lives in Shanghai", "Plays the cello"]


def test_a_fact_taken_back_within_one_conversation_is_not_kept() -> None:
    changes = merge([], [Proposal("Likes fish"), Proposal("Does not like fish")], longest=100)
    assert changes.add == ["Does not like fish"]


def test_a_fact_is_one_line_of_bounded_length() -> None:
    assert tidy(' 1. "Likes\n tea" ', 50) == "Likes tea"
    assert tidy("x" * 80, 20) == "x" * 19 + "…"


def test_the_oldest_facts_go_when_there_are_too_many_or_they_are_too_long() -> None:
    facts = [Known(number, "x" * 97) for number in range(60)]
    assert surplus(facts, 50) == list(range(60 - MAX_CHARS // 100))
    assert surplus(facts[:10], 8) == [0, 1]
    assert surplus(facts[:10], 10) == []
    assert len(fitting([fact.text for fact in facts])) == MAX_CHARS // 100
    assert fitting(["a", "b"]) == ("a", "b")


def test_facts_are_found_by_their_words_and_by_what_they_mention() -> None:
    facts = [Known(1, "Has a cat called Momo"), Known(2, "Works as a nurse"), Known(3, "对花生过敏")]
    assert [fact.id for fact in search(facts, "momo")] == [1]
    assert [fact.id for fact in search(facts, "花生")] == [3]
    assert [fact.id for fact in search(facts, "a nurse who works")] == [2]
    assert len(search(facts, " ")) == 3


def test_names_are_found_in_facts() -> None:
    facts = [
        "用户的女儿叫小雨，今年七岁",
        "Has a cat called momo",
        "Lives in Berlin with Anna's mother",
        "The user sings",
    ]
    assert set(names_in(facts)) == {"小雨", "momo", "Berlin", "Anna"}


# What a model answers -------------------------------------------------------------------------------------------------

KNOWN = [Known(41, "Lives in Beijing"), Known(57, "Has a dog")]


@pytest.mark.parametrize(
    "answer",
    [
        '{"facts": [{"text": "Lives in Xi\'an", "replaces": 1}], "outdated": [2]}',
        'Sure!\n```json\n{"facts": [{"fact": "Lives in Xi\'an", "replaces": "1."}], "outdated": ["2"]}\n```\nDone.',
        '{"memories": [{"memory": "Lives in Xi\'an", "replaces": 1.0}, 7, {}], "remove": [2, 99, true]}',
    ],
)
def test_facts_are_read_however_they_are_dressed_up(answer: str) -> None:
    found = read_answer(answer, KNOWN)
    assert found is not None
    assert found.proposals == (Proposal("Lives in Xi'an", 41),)
    assert found.outdated == (57,)


def test_a_bare_list_is_understood_and_no_json_is_not() -> None:
    found = read_answer('["Sings in a choir", ""]', [])
    assert found is not None
    assert found.proposals == (Proposal("Sings in a choir"),)
    assert read_answer("There is nothing worth keeping.", []) is None
    assert read_answer('{"facts": [', []) is None


@given(st.text(max_size=200), st.sampled_from(["", '{"facts":', "[", "```json\n{", '{"facts":[{"text":']))
def test_nothing_a_model_answers_breaks_the_reader(text: str, begin: str) -> None:
    found = read_answer(begin + text, KNOWN)
    assert found is None or len(found.proposals) <= 12


def test_the_end_of_a_long_conversation_is_asked_about_in_its_own_language() -> None:
    turns = [SaidTurn(f"第{number}句话" + "啊" * 300, "好") for number in range(40)]
    system, user = questions(turns, KNOWN)
    assert system.content.startswith("你从")
    assert "第39句话" in user.content
    assert "第1句话" not in user.content
    assert len(user.content) < 7000
    assert "1. Lives in Beijing\n2. Has a dog" in user.content
    assert questions([SaidTurn("I live in Rome", "Nice.")], [])[0].content.startswith("From a spoken")


# The keeper -----------------------------------------------------------------------------------------------------------


@dataclass
class Home:
    """What the keeper needs of the process, with a real chat client and a real store."""

    chat: ChatModel
    settings: Settings
    store: Store
    retirement: Retirement = field(default_factory=Retirement)


@asynccontextmanager
async def keeper(
    answer: Any, *, endpoint: bool = True, **memory: Any
) -> AsyncIterator[tuple[MemoryKeeper, ChatStandIn]]:
    async with ChatStandIn(answer) as model:
        endpoints = [{"name": "m", "base_url": f"{model.url}/v1", "model": "bench", "api_key": "none"}]
        settings = Settings.model_validate({"llm": {"endpoints": endpoints if endpoint else []}, "memory": memory})
        home = Home(build_chat(settings.llm).chat, settings, await Store.open(":memory:"))
        made = MemoryKeeper(home)
        try:
            for device in (ONE, OTHER):
                await home.store.devices.seen(device)
            yield made, model
        finally:
            await made.close()
            await home.chat.close()
            await home.store.close()


def talk(made: MemoryKeeper, device: str, *texts: str) -> None:
    for number, text in enumerate(texts):
        trace = TurnTrace(number, mode="auto")
        trace.heard, trace.said = text, "I see."
        made.turn(device, trace)


async def facts(made: MemoryKeeper, device: str) -> list[str]:
    return [fact.text for fact in await made.known(device)]


CHOIR = '{"facts": [{"text": "Sings in a choir", "replaces": 0}], "outdated": []}'


async def test_facts_are_drawn_from_a_conversation_and_stay_with_its_device() -> None:
    async with keeper(CHOIR) as (made, model):
        talk(made, ONE, "I sing in a choir", "every Monday")
        assert made.ended(ONE)
        await made.settled()
        assert await facts(made, ONE) == ["Sings in a choir"]
        assert await facts(made, OTHER) == []
        assert "I sing in a choir" in model.requests[-1].body["messages"][1]["content"]
        talk(made, ONE, "choir again", "on Monday")
        assert made.ended(ONE)
        await made.settled()
        assert "1. Sings in a choir" in model.requests[-1].body["messages"][1]["content"]
        assert await facts(made, ONE) == ["Sings in a choir"], "said again, it is not doubled"
        assert (made.read, made.added) == (2, 1)


async def test_short_conversations_are_added_up() -> None:
    async with keeper(CHOIR, min_turns=3) as (made, _):
        talk(made, ONE, "one", "two")
        assert not made.ended(ONE)
        talk(made, ONE, "three")
        assert made.ended(ONE)


async def test_without_an_endpoint_nothing_is_extracted_but_remember_works() -> None:
    async with keeper(CHOIR, endpoint=False) as (made, model):
        talk(made, ONE, "I sing", "in a choir", "really")
        assert not made.enabled
        assert not made.ended(ONE)
        await made.remember(ONE, "Takes the bus at 7")
        await made.remember(ONE, "Takes the bus at 8")
        assert await facts(made, ONE) == ["Takes the bus at 8"]
        await made.remember(ONE, "takes the bus at 8.")
        with pytest.raises(ValueError, match="nothing"):
            await made.remember(ONE, "  ")
        assert await facts(made, ONE) == ["Takes the bus at 8"]
        assert model.requests == []


async def test_what_was_to_be_forgotten_does_not_come_back_from_the_same_conversation() -> None:
    async with keeper(CHOIR) as (made, model):
        await made.remember(ONE, "Sings in a choir")
        talk(made, ONE, "I sing in a choir", "it is nice")
        assert await made.forget(ONE, "choir") == 1
        talk(made, ONE, "forget about the choir")  # the turn in which it was asked for
        assert not made.ended(ONE)
        talk(made, ONE, "what is the time", "and the date")
        made.ended(ONE)
        assert await made.forget(ONE) == 0  # while the conversation is being read
        await made.settled()
        assert await facts(made, ONE) == []
        assert "choir" not in model.requests[-1].body["messages"][1]["content"]


async def test_a_model_that_fails_or_talks_nonsense_changes_nothing() -> None:
    async with keeper(["I found nothing.", CHOIR]) as (made, model):
        await made.remember(ONE, "Has a dog")
        talk(made, ONE, "one", "two")
        made.ended(ONE)
        await made.settled()
        model.fault = "500"
        talk(made, ONE, "one", "two")
        made.ended(ONE)
        await made.settled()
        assert made.failed == 2
        assert await facts(made, ONE) == ["Has a dog"]


async def test_a_device_that_was_removed_is_not_remembered() -> None:
    async with keeper(CHOIR) as (made, _):
        talk(made, ONE, "one", "two")
        await made._store.devices.remove(ONE)
        made.ended(ONE)
        await made.settled()
        assert await facts(made, ONE) == []


async def test_the_oldest_fact_goes_when_there_are_too_many() -> None:
    async with keeper(CHOIR, max_facts=2) as (made, _):
        for fact in ("Has a dog", "Plays chess", "Owns a red bicycle"):
            await made.remember(ONE, fact)
        assert await facts(made, ONE) == ["Plays chess", "Owns a red bicycle"]


# A service ------------------------------------------------------------------------------------------------------------


async def test_a_mem0_service_finds_facts_updates_them_and_forgets() -> None:
    async with Mem0StandIn(key="k-123") as service:
        memory: dict[str, Any] = {"engine": "mem0", "base_url": service.url, "api_key": "k-123"}
        async with keeper(CHOIR, **memory) as (made, model):
            talk(made, ONE, "I live in Rome", "what is the time")
            made.ended(ONE)
            await made.settled()
            assert await facts(made, ONE) == ["I live in Rome"]
            assert service.of(f"xiaozhi:{ONE}") == ["I live in Rome"]
            method, path, body, headers = service.requests[-1]
            assert (method, path, headers["X-API-Key"]) == ("POST", "/memories", "k-123")
            assert body["user_id"] == f"xiaozhi:{ONE}"
            assert body["messages"][:2] == [
                {"role": "user", "content": "I live in Rome"},
                {"role": "assistant", "content": "I see."},
            ]
            service.replaces["I live in Turin"] = "I live in Rome"
            talk(made, ONE, "I live in Turin", "since May")
            made.ended(ONE)
            await made.settled()
            assert await facts(made, ONE) == ["I live in Turin"]
            await made.remember(OTHER, "I have a dog")
            assert await made.forget(ONE, "turin") == 1
            await made.settled()
            assert service.of(f"xiaozhi:{ONE}") == []
            assert service.of(f"xiaozhi:{OTHER}") == ["I have a dog"]
            await made.forget(OTHER)
            await made.settled()
            assert service.memories == {}
            assert model.requests == []


@pytest.mark.parametrize("fault", ["500", "reset", "html", "hang"])
async def test_the_chat_model_takes_the_place_of_a_service_that_is_away(fault: str) -> None:
    async with Mem0StandIn() as service:
        service.fault = fault
        memory: dict[str, Any] = {"engine": "mem0", "base_url": service.url, "service_timeout_s": 0.5}
        async with keeper(CHOIR, **memory) as (made, _):
            talk(made, ONE, "I sing in a choir", "yes")
            made.ended(ONE)
            await made.settled()
            assert await facts(made, ONE) == ["Sings in a choir"]
            assert made.service_failed == 1


async def test_what_a_service_says_in_another_shape_is_left_out() -> None:
    async with Mem0StandIn() as service:
        service.fault = "odd"
        async with keeper(CHOIR, engine="mem0", base_url=service.url) as (made, _):
            talk(made, ONE, "I sing", "yes")
            made.ended(ONE)
            await made.settled()
            assert await facts(made, ONE) == []
