"""What a device says unasked: answers to its wake word, greetings, goodbyes; never over the user."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.house import House, house, noise, question
from xiaozhi.client.device import Device
from xiaozhi.client.manners import DeviceState
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.conversation.conversation import Conversation
from xiaozhi.conversation.saying import Told
from xiaozhi.settings import TurnSettings
from xiaozhi.text.script import script_of
from xiaozhi.turn.decisions import CommitSaying, DropReply, Interrupt, NextUtterance, StartSaying
from xiaozhi.turn.greetings import Greetings
from xiaozhi.turn.machine import ListeningMode, TurnMachine, TurnState

LONG_ANSWER = "🙂 " + "".join(f"This is sentence number {n} of a long reply. " for n in range(1, 16))


def shown(device: Device) -> list[str]:
    """The subtitles so far."""
    return [message["text"] for _, message in device.received if message.get("state") == "sentence_start"]


def tts(device: Device) -> list[str]:
    """The tts messages so far, without subtitles."""
    states = [message["state"] for _, message in device.received if message["type"] == "tts"]
    return [state for state in states if state != "sentence_start"]


def conversation(home: House) -> Conversation:
    connection = home.session()
    return connection._conversation


# Wake word ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [ListeningMode.AUTO, ListeningMode.REALTIME])
async def test_the_wake_word_is_answered_and_the_question_after_it_heard(tmp_path: Path, mode: ListeningMode) -> None:
    async with house(tmp_path, turn={"wake_reply": "I'm here."}) as home, home.device(mode=mode) as device:
        device.detect("你好小智", wake_audio=SpokenUtterance.encode(noise(1.0), 60))
        device.listen()
        await device.until(lambda: tts(device) == ["start", "stop"], 15)
        assert shown(device) == ["I'm here."]
        assert not [message for _, message in device.received if message["type"] == "stt"], "nobody has said anything"
        await device.until(lambda: device.manners.state is DeviceState.LISTENING)
        assert home.asked == []
        report = await device.turn(question())
        assert (report.heard, report.text) == ("what time is it", "It is ten past nine.")
        assert home.asked[-1][-2] == {"role": "assistant", "content": "😶 I'm here."}, "what was heard is known"


async def test_without_a_wake_reply_the_device_only_listens(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        device.detect("你好小智")
        device.listen()
        assert (await device.turn(question())).heard == "what time is it"
        assert tts(device) == ["start", "stop"]


async def test_a_held_key_is_not_answered_with_a_wake_reply_or_a_greeting(tmp_path: Path) -> None:
    turn = {"wake_reply": "auto", "greeting": "auto"}
    async with house(tmp_path, turn=turn) as home, home.device(mode=ListeningMode.MANUAL) as device:
        report = await device.turn(question())
        assert report.heard == "what time is it"
        assert shown(device) == ["It is ten past nine."]


async def test_a_greeting_is_said_once(tmp_path: Path) -> None:
    async with house(tmp_path, turn={"greeting": "Welcome home."}) as home, home.device() as device:
        device.listen()
        await device.until(lambda: tts(device) == ["start", "stop"], 15)
        device.listen()
        assert (await device.turn(question())).answered
        assert shown(device) == ["Welcome home.", "It is ten past nine."]


# Goodbye --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["再见", "Goodbye.", "Bye bye!"])
async def test_who_says_goodbye_hears_one_and_the_conversation_is_over(tmp_path: Path, words: str) -> None:
    async with house(tmp_path) as home, home.device() as device:
        assert (await device.turn_text("hello there")).answered
        device.listen()
        device.detect(words)
        await device.until(lambda: tts(device) == ["start", "stop"] * 2, 15)
        assert shown(device)[-1] in (
            "好的，再见，有事随时叫我。",
            "Call me whenever you need me.",
            "再见，有事随时叫我。",
        )
        await device.until(lambda: device.close_code is not None or not device.connected, 5)
        assert len(home.asked) == 1, "no model is asked for a goodbye"


async def test_after_a_long_silence_the_device_says_goodbye_and_hangs_up(tmp_path: Path) -> None:
    quick, words = {"idle_close_s": 5}, {"goodbye": "See you soon."}
    async with house(tmp_path, server=quick, turn=words) as home, home.device() as device:
        assert (await device.turn_text("hello there")).answered
        conversation(home)._active_at -= 5.0
        await device.until(lambda: not device.connected or device.close_code is not None, 15)
        assert shown(device)[-1] == "See you soon."
        assert tts(device)[-2:] == ["start", "stop"]


@pytest.mark.parametrize("case", ["no goodbye", "nothing was ever said", "push to talk"])
async def test_silent_ends(tmp_path: Path, case: str) -> None:
    turn: dict[str, Any] = {"goodbye": "" if case == "no goodbye" else "auto"}
    mode = ListeningMode.MANUAL if case == "push to talk" else ListeningMode.AUTO
    async with house(tmp_path, server={"idle_close_s": 5}, turn=turn) as home, home.device(mode=mode) as device:
        if case == "nothing was ever said":
            device.listen()
        elif case == "push to talk":
            assert (await device.turn(question())).answered
        else:
            assert (await device.turn_text("hello there")).answered
        said = len(shown(device))
        conversation(home)._active_at -= 5.0
        await device.until(lambda: not device.connected or device.close_code is not None, 15)
        assert len(shown(device)) == said


# say ------------------------------------------------------------------------------------------------------------------


async def test_say_tells_what_became_of_it(tmp_path: Path) -> None:
    async with house(tmp_path, LONG_ANSWER) as home, home.device() as device:
        device.listen()
        await device.until(lambda: len(home.server.devices) > 0)
        talk = conversation(home)
        assert await asyncio.wait_for(talk.say("😆 Tea is ready."), 15) is Told.SPOKEN
        await device.until(lambda: tts(device) == ["start", "stop"], 5)
        faces = [message["emotion"] for _, message in device.received if message["type"] == "llm"]
        assert faces == ["laughing"]
        assert await talk.say("🙂") is Told.REFUSED, "there is nothing to speak"

        first = talk.say("Tea is ready.")
        assert await talk.say("And another thing.") is Told.REFUSED
        device.abort()
        assert await asyncio.wait_for(first, 5) in (Told.DROPPED, Told.INTERRUPTED)

        home.speech.first_byte_ms = 30_000.0
        assert await asyncio.wait_for(talk.say("Too late.", patience_s=0.2), 5) is Told.DROPPED
        home.speech.first_byte_ms = 0.0
        turn = asyncio.create_task(device.turn_text("tell me a story"))
        await device.until(lambda: "This is sentence number 1 of a long reply." in "".join(shown(device)))
        assert await talk.say("Tea is ready.") is Told.REFUSED, "a reply is sounding"
        device.abort()
        await turn
        assert "Too late." not in shown(device)


async def test_a_sentence_is_over_with_its_conversation(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.device() as device:
            device.listen()
            await device.until(lambda: len(home.server.devices) > 0)
            home.speech.first_byte_ms = 30_000.0
            talk = conversation(home)
            told = talk.say("Nobody will hear this.", patience_s=60.0)
        assert await asyncio.wait_for(told, 5) is Told.DROPPED
        assert await talk.say("Nor this.") is Told.REFUSED


# The machine ----------------------------------------------------------------------------------------------------------


def state_of(machine: TurnMachine) -> TurnState:
    """Its state now: what a type checker has concluded from an earlier look does not hold."""
    return machine.state


def waiting(mode: ListeningMode = ListeningMode.AUTO) -> TurnMachine:
    machine = TurnMachine(TurnSettings())
    machine.listen(mode)
    return machine


def test_who_speaks_first_is_not_talked_over() -> None:
    machine = waiting()
    (start,) = machine.say()
    assert isinstance(start, StartSaying)
    assert machine.speech_began(machine.utterance, 0.0, 150.0) == [DropReply(start.generation)]
    assert state_of(machine) is TurnState.HEARING
    assert machine.reply_ready(start.generation) == [], "its sound comes too late"
    assert state_of(machine) is TurnState.HEARING


def test_a_sentence_is_let_out_by_its_first_sound_and_ends_like_a_reply() -> None:
    machine = waiting()
    generation = machine.generation
    machine.say()
    assert machine.listen(ListeningMode.AUTO) != []  # firmware says once more that it listens
    committed, nothing_heard = machine.reply_ready(generation)
    assert committed == CommitSaying(generation) and isinstance(nothing_heard, NextUtterance)
    assert state_of(machine) is TurnState.REPLYING
    assert machine.say() == []
    assert all(isinstance(decision, NextUtterance) for decision in machine.reply_done(generation))
    assert state_of(machine) is TurnState.WAITING
    assert machine.generation > generation


@pytest.mark.parametrize("end", ["abort", "key", "typed", "give up", "failed"])
def test_a_waiting_sentence_is_dropped(end: str) -> None:
    machine = waiting()
    generation = machine.generation
    machine.say()
    match end:
        case "abort":
            assert machine.abort() == [DropReply(generation)]
        case "key":
            assert DropReply(generation) in machine.listen(ListeningMode.MANUAL)
        case "typed":
            assert machine.typed("hello")[0] == DropReply(generation)
        case "give up":
            assert machine.give_up_saying(generation) == [DropReply(generation)]
        case "failed":
            assert machine.reply_done(generation) == []
    assert machine.generation > generation
    assert machine.reply_ready(generation) == []
    assert machine.give_up_saying(generation) == []


@pytest.mark.parametrize("interruptible", [True, False])
def test_speech_over_a_sentence_stops_it_only_where_it_may(interruptible: bool) -> None:
    machine = waiting(ListeningMode.REALTIME)
    generation = machine.generation
    machine.say(interruptible=interruptible)
    machine.reply_ready(generation)
    machine.speech_began(machine.utterance, 0.0, 150.0)
    assert state_of(machine) is (TurnState.PROBING if interruptible else TurnState.REPLYING)
    assert Interrupt(generation) in machine.abort(), "a key always does"
    assert state_of(machine) is TurnState.WAITING


@pytest.mark.parametrize("state", ["hearing", "replying"])
def test_nothing_is_said_into_a_turn(state: str) -> None:
    machine = waiting()
    if state == "hearing":
        machine.speech_began(machine.utterance, 0.0, 150.0)
    else:
        machine.typed("hello")
    assert machine.say() == []


def test_manners_know_when_to_say_what() -> None:
    settings = TurnSettings(wake_reply="auto", greeting="Welcome.", goodbye="auto")
    manners = Greetings(settings)
    assert manners.woken(listening=False, language="zh") == ""
    assert manners.listens(ListeningMode.AUTO, language="zh") == "我在。"
    assert manners.listens(ListeningMode.AUTO, language="zh") == ""
    assert manners.woken(listening=True, language="en") == "I'm here."
    assert manners.farewell("zh").startswith("好的")
    assert Greetings(settings).listens(ListeningMode.REALTIME, language="en") == "Welcome."
    manners.take(wake_reply="嗯？", greeting="", goodbye="主人再见。")
    assert manners.farewell("zh") == "主人再见。"
    assert manners.farewell("en").startswith("Goodbye"), "an agent that speaks another language than the user"
    assert manners.leaves("再见！")
    assert manners.leaves("Good bye.")
    assert not manners.leaves("再见是什么意思")


def test_a_script_has_its_emotion_on_its_first_clause() -> None:
    clauses = script_of("😆 Tea is ready. Come quickly!")
    assert [clause.emotion for clause in clauses] == ["laughing"] + [""] * (len(clauses) - 1)
    assert script_of("你好。", emotion="sad")[0].emotion == "sad"
    assert script_of("🙂 …") == []
