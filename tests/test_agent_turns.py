"""Whole turns with a store: what comes back after a break and a restart, and who answers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.standins.chat import ChatMessages, Verbatim
from tests.house import House, house
from tests.test_tool_turns import call, in_pieces
from xiaozhi.agents.roster import presets
from xiaozhi.client.device import Device
from xiaozhi.conversation.context import ConversationContext
from xiaozhi.conversation.reply import voice_request
from xiaozhi.conversation.services import Services
from xiaozhi.events import Clause
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.store import DeviceRecord as StoredDevice
from xiaozhi.turn.trace import TurnTrace


def context_of(services: Services, device_id: str) -> ConversationContext:
    """What a conversation that begins now knows; its node is alone."""
    return ConversationContext(services, services.store, services.memory, services.summaries, None, device_id)


async def ask(device: Device, text: str) -> str:
    report = await device.turn_text(text)
    assert report.answered
    return report.text


def said(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] != "system"]


def asked_by_turns(home: House) -> list[list[dict[str, Any]]]:
    """The questions without the requests for a summary."""
    return [messages for messages in home.asked if not messages[0]["content"].startswith(NOTES)]


NOTES = "You keep the notes"


def prompt(messages: list[dict[str, Any]]) -> str:
    assert messages[0]["role"] == "system"
    return str(messages[0]["content"])


async def until_stored(home: House, device: str, count: int) -> None:
    store = home.server.services.store
    async with asyncio.timeout(5):
        while len(await store.turns.list(device)) < count:
            pass  # each look is a round trip through the store's thread, behind the write that is waited for


DEVICE = "02:00:00:00:00:01"
OTHER = "02:00:00:00:00:02"
PLAIN: dict[str, Any] = {"cache": {"answers": False}}


async def test_a_device_that_comes_back_goes_on_where_it_was_and_no_other_does(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home:
        async with home.device() as device:
            await ask(device, "my cat is called Momo")
        async with home.device(2) as device:
            await ask(device, "good evening there")
            assert said(home.asked[-1]) == ["good evening there"]
        async with home.device() as device:
            await ask(device, "what is she called")
            assert said(home.asked[-1]) == ["my cat is called Momo", "🙂 Yes.", "what is she called"]


async def test_a_restart_of_the_server_keeps_the_conversation(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home, home.device() as device:
        await ask(device, "my cat is called Momo")
    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home:
        async with home.device() as device:
            await ask(device, "what is she called")
            assert said(home.asked[-1])[0] == "my cat is called Momo"
        turns = await home.server.services.store.turns.list(DEVICE)
    assert [turn.heard for turn in turns] == ["what is she called", "my cat is called Momo"]
    assert turns[0].trace["type"] == "trace"
    assert turns[0].played == "🙂 Yes."


async def test_what_comes_back_is_to_the_letter_what_was_sent_before_with_tools_and_feelings(tmp_path: Path) -> None:
    """So that models go on seeing their calls, and find what they have computed for the beginning of the prompt."""

    def calls(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        wanted = messages[-1]["role"] == "user" and "add up" in messages[-1]["content"]
        return in_pieces((call("calculate", expression="6*7"), call("no_such_tool"))) if wanted else []

    async def sad(home: House) -> None:
        """A turn that was heard as sad."""
        recollection = context_of(home.server.services, DEVICE)
        await recollection.load()
        recollection.messages("my cat is ill", Transcript("my cat is ill", "en", "sad", ("crying",)))
        clause = Clause("Oh no.", "Oh no.", "en", "sad")
        recollection.add(TurnTrace(1, heard="my cat is ill", language="en"), [(clause, 500.0)], 500.0)
        recollection.close()

    def common(home: House) -> list[str]:
        return said(asked_by_turns(home)[-1])

    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home:
        await sad(home)
        home.chat.tool_pieces = calls
        async with home.device() as device:
            await ask(device, "please add up what I owe")
            await ask(device, "and then?")
            before = common(home)
        async with home.device() as device:
            await ask(device, "are you there")
            assert common(home)[: len(before)] == before, "after a break of the line"
            await ask(device, "switch to the chef")
            await ask(device, "an omelette")
            await ask(device, "switch to xiaozhi")
            await ask(device, "who are you now")
            assert common(home)[: len(before)] == before, "when an agent comes back"
            before = common(home)
    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home, home.device() as device:
        await ask(device, "do you remember")
        assert common(home)[: len(before)] == before, "after a restart"
    assert before[0].startswith("my cat is ill\n(Side note: the user sounds sad and is crying.")
    assert "calculate: 42; no_such_tool (failed): " in before[2]


async def test_with_conversations_off_nothing_that_is_said_is_written(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 Yes.", store={"conversations": False}, **PLAIN) as home:
        async with home.device() as device:
            await ask(device, "a platypus")
            await ask(device, "another platypus")
            assert len(said(home.asked[-1])) == 3
        async with home.device() as device:
            await ask(device, "hello again")
            assert said(home.asked[-1]) == ["hello again"]
        assert await home.server.services.store.turns.list() == []
    assert b"platypus" not in b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file())


async def test_a_agent_is_switched_by_voice_without_the_model_and_stays(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home:
        async with home.device() as device:
            await ask(device, "remember the milk please")
            asked = len(home.asked)
            answer = await ask(device, "switch to the storyteller")
            assert answer.startswith("I'm the storyteller.")
            assert len(home.asked) == asked, "no model was asked"
            await ask(device, "begin then")
            assert prompt(home.asked[-1]).startswith("You are a storyteller")
            assert "remember the milk please" not in said(home.asked[-1]), "each agent has its own conversation"
            assert (await ask(device, "换成小智")).startswith("好的，我是小智")
            await ask(device, "what was it again")
            assert "remember the milk please" in said(home.asked[-1])
            await ask(device, "switch to storyteller")
        async with home.device() as device:
            await ask(device, "go on")
            assert prompt(home.asked[-1]).startswith("You are a storyteller")
            assert "begin then" in said(home.asked[-1])


async def test_a_look_into_the_store_that_is_late_does_not_undo_a_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, **PLAIN) as home:
        services = home.server.services
        recollection = context_of(services, DEVICE)
        await recollection.load()
        read, go_on, get = asyncio.Event(), asyncio.Event(), services.store.devices.get

        async def late(device_id: str) -> StoredDevice | None:
            device = await get(device_id)
            read.set()
            await go_on.wait()
            return device

        monkeypatch.setattr(services.store.devices, "get", late)
        looking = asyncio.create_task(recollection._look_again())
        await asyncio.wait_for(read.wait(), 10)
        recollection.switch(services.roster.of("chef"))
        go_on.set()
        await looking
        assert recollection.agent.name == "chef"
        await recollection._look_again()
        assert recollection.agent.name == "chef", "the store knows by now"
        recollection.close()


async def test_what_is_changed_beside_the_server_is_taken_over_by_the_next_turn_but_one(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home, home.device() as device:
        store = home.server.services.store
        await ask(device, "first question")
        await store.devices.update(DEVICE, agent="chef", room="Küche", owner="Ming")
        await store.memories.add(DEVICE, "is allergic to nuts")
        await ask(device, "second question")
        await until_stored(home, DEVICE, 2)
        await store.devices.get(DEVICE)
        await ask(device, "third question")
        assert "大厨" in prompt(home.asked[-1])
        assert "Küche" in prompt(home.asked[-1])
        assert "is allergic to nuts" in prompt(home.asked[-1])
        assert said(home.asked[-1]) == ["third question"]


async def test_removing_a_device_that_is_connected_makes_it_forget(tmp_path: Path) -> None:
    async with house(tmp_path, "🙂 Yes.", **PLAIN) as home, home.device() as device:
        store = home.server.services.store
        await ask(device, "first question")
        await until_stored(home, DEVICE, 1)
        assert await store.devices.remove(DEVICE)
        await ask(device, "second question")
        await ask(device, "third question")
        assert "first question" not in said(home.asked[-1])
        assert await store.turns.list() == []


async def test_what_a_conversation_outgrows_is_summed_up_in_the_background(tmp_path: Path) -> None:
    def answer(messages: ChatMessages) -> str:
        return "The user counts." if messages[0]["content"].startswith(NOTES) else "🙂 Yes."

    async with house(tmp_path, **PLAIN, llm={"history_turns": 4, "system_prompt": "Be kind."}) as home:
        home.chat.answer = answer
        summaries = home.server.services.summaries
        async with home.device() as device:
            for number in range(5):
                await ask(device, f"this is number {number}")
            async with asyncio.timeout(5):
                await home.chat.idle()
            assert summaries.made >= 1
            await ask(device, "go on with it")
            last = asked_by_turns(home)[-1]
            assert "The user counts." in prompt(last)
            assert prompt(last).startswith("Be kind.")
            assert "this is number 0" not in said(last)
            assert "this is number 4" in said(last)
        async with home.device() as device:
            await ask(device, "and once more")
            assert "The user counts." in prompt(asked_by_turns(home)[-1])


@pytest.mark.parametrize("reason", ["stop", "content_filter"])
async def test_a_summary_that_fails_or_is_withheld_is_dropped_without_a_word(tmp_path: Path, reason: str) -> None:
    body = b'data: {"choices": [{"delta": {"content": ""}, "finish_reason": "' + reason.encode() + b'"}]}\n\n'

    def answer(body_asked: dict[str, Any]) -> Verbatim | None:
        return Verbatim(body) if body_asked["messages"][0]["content"].startswith(NOTES) else None

    llm = {"history_turns": 2, "system_prompt": "Be kind."}
    async with house(tmp_path, "🙂 Yes.", **PLAIN, llm=llm) as home:
        home.chat.verbatim = answer
        async with home.device() as device:
            for number in range(4):
                assert await ask(device, f"this is number {number}") == "Yes."
        assert home.server.services.summaries.made == 0


async def test_the_heard_feeling_reaches_the_model_and_nobody_else(tmp_path: Path) -> None:
    async with house(tmp_path, **PLAIN) as home:
        recollection = context_of(home.server.services, DEVICE)
        sad = recollection.messages("我的猫走丢了", Transcript("我的猫走丢了", "zh", "sad", ("crying",)))
        assert sad[-1].content.startswith("我的猫走丢了\n（旁注：说话人听起来难过，在哭。")
        calm = recollection.messages("现在几点", Transcript("现在几点", "zh", "neutral"))
        assert calm[-1].content == "现在几点"
    async with house(tmp_path, **PLAIN, agents={"feelings": False}) as home:
        recollection = context_of(home.server.services, DEVICE)
        assert recollection.messages("x", Transcript("x", "en", "sad"))[-1].content == "x"


def test_a_agent_asks_for_its_own_voice_and_the_house_for_none() -> None:
    agents = {agent.name: agent for agent in presets()}
    assert voice_request(agents["storyteller"]) == VoiceRequest("en-US-BrianMultilingualNeural", "male", -5)
    assert voice_request(agents["xiaozhi"]) == ANY_VOICE, "what is made ahead for everybody is found again"


async def test_clients_without_an_id_leave_nothing_behind(tmp_path: Path) -> None:
    async with house(tmp_path, **PLAIN) as home:
        recollection = context_of(home.server.services, "anonymous-12ab")
        await recollection.load()
        recollection.switch(home.server.services.roster.of("chef"))
        recollection.close()
        assert recollection.agent.name == "chef"
        assert await home.server.services.store.devices.list() == []


async def test_what_tools_ask_of_a_conversation_is_done(tmp_path: Path) -> None:
    async with house(tmp_path, **PLAIN) as home:
        recollection = context_of(home.server.services, DEVICE)
        await recollection.load()
        await recollection.remember("likes tea")
        await recollection.remember("is called Ming")
        assert "likes tea" in recollection.messages("hi", Transcript("hi"))[0].content
        assert await recollection.forget("tea") == 1
        assert "likes tea" not in recollection.messages("hi", Transcript("hi"))[0].content
        assert "chef" in recollection.agents()
        await recollection.change_agent("大厨")
        assert recollection.agent.name == "chef"
        with pytest.raises(ValueError, match="no agent"):
            await recollection.change_agent("banana")
        recollection.close()
