"""A whole turn with tools: a scripted model, real tools."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

import numpy as np
import pytest

from tests.tool_host import tool_host
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.events import Message, ToolCall, ToolSpec
from xiaozhi.settings import ToolsSettings
from xiaozhi.stages.llm.stage import ModelAnswer
from xiaozhi.tools.built_in import calculator
from xiaozhi.tools.declare import tool
from xiaozhi.tools.rounds import with_tools
from xiaozhi.tools.tool import ToolContext, ToolResult
from xiaozhi.tools.toolbox import Registry, Toolbox

QUESTION = (Message("user", "what is six times seven, and eight times eight?"),)


def says(text: str = "", tool_calls: tuple[ToolCall, ...] = ()) -> ModelAnswer:
    return ModelAnswer(text, tool_calls=tool_calls)


class Script:
    """A model that says its lines, the last one again and again, and writes down what it was asked."""

    def __init__(self, *lines: ModelAnswer) -> None:
        self.lines = list(lines)
        self.asked: list[tuple[list[Message], list[str]]] = []

    async def __call__(self, messages: Sequence[Message], specs: tuple[ToolSpec, ...]) -> ModelAnswer:
        self.asked.append((list(messages), [spec.name for spec in specs]))
        return self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]


def calculation(number: str, expression: str) -> ToolCall:
    return ToolCall(number, "calculate", json.dumps({"expression": expression}))


def box(*extra: object, **settings: object) -> Toolbox:
    registry = Registry([*calculator.tools(tool_host()), *extra])  # type: ignore[list-item]  # tools, kept short in the tests
    made = Toolbox(registry, ToolContext(language="en"), ToolsSettings.model_validate(settings))
    made.begin_turn("")
    return made


async def test_speech_before_and_after_several_calls_makes_one_reply() -> None:
    calls = (calculation("a", "6*7"), calculation("b", "8*8"))
    model = Script(says("Let me see.", calls), says("42 and 64."))
    done = await with_tools(model, box(), QUESTION)
    assert done.spoken == ("Let me see.", "42 and 64.")
    assert done.messages == (
        Message("assistant", "Let me see.", tool_calls=calls),
        Message("tool", "42", tool_call_id="a"),
        Message("tool", "64", tool_call_id="b"),
        Message("assistant", "42 and 64."),
    )
    assert model.asked[1][0] == [*QUESTION, *done.messages[:3]]
    assert model.asked[0][1] == model.asked[1][1] == ["calculate", "convert_units"]


async def test_broken_arguments_are_told_and_the_model_may_mend_them() -> None:
    model = Script(
        says(tool_calls=(ToolCall("a", "calculate", '{"expression": '),)),
        says(tool_calls=(calculation("b", "6*7"),)),
        says("42."),
    )
    done = await with_tools(model, box(), QUESTION)
    assert "not valid JSON" in done.messages[1].content and done.messages[3].content == "42"
    assert done.spoken == ("42.",)


async def test_a_model_that_calls_without_end_is_asked_once_more_without_tools() -> None:
    model = Script(says(tool_calls=(calculation("a", "6*7"),)))
    done = await with_tools(model, box(max_rounds=3), QUESTION)
    assert len(model.asked) == 4
    assert [specs for _, specs in model.asked][-1] == []
    assert len(done.messages) == 6 and done.spoken == ()


async def test_music_ends_the_rounds_and_says_what_it_plays() -> None:
    @tool()
    async def play(context: ToolContext) -> ToolResult:
        """Plays."""

        async def sound() -> AsyncGenerator[PcmInt, None]:
            yield np.zeros(240, np.int16)

        return ToolResult("Playing: Moon", audio=sound)

    model = Script(says(tool_calls=(ToolCall("a", "play", ""),)))
    done = await with_tools(model, box(play), QUESTION)
    assert len(model.asked) == 1 and done.closing == "Playing: Moon"
    assert done.audio is not None and [len(piece) async for piece in done.audio()] == [240]
    talkative = Script(says("Here you are!", (ToolCall("a", "play", ""),)))
    assert (await with_tools(talkative, box(play), QUESTION)).closing == ""


async def test_a_filler_is_spoken_once_and_only_into_silence() -> None:
    @tool()
    async def slow(context: ToolContext) -> str:
        """Takes a while."""
        for _ in range(5):
            await asyncio.sleep(0)
        return "done"

    call = (ToolCall("a", "slow", ""),)
    said: list[str] = []
    await with_tools(
        Script(says("", call), says("", call), says("ok")), box(slow, filler_after_s=0), QUESTION, said.append
    )
    assert said == ["One moment, let me see."]
    said.clear()
    await with_tools(Script(says("Let me look.", call), says("ok")), box(slow, filler_after_s=0), QUESTION, said.append)
    assert said == []


async def test_the_end_of_the_conversation_is_passed_on() -> None:
    @tool()
    async def end(context: ToolContext) -> ToolResult:
        """Ends."""
        return ToolResult("bye", ends_conversation=True)

    done = await with_tools(Script(says("", (ToolCall("a", "end", ""),)), says("Goodbye!")), box(end), QUESTION)
    assert done.ends_conversation and done.spoken == ("Goodbye!",)


async def test_an_abort_cancels_the_call_that_runs() -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    @tool()
    async def hang(context: ToolContext) -> str:
        """Never ends."""
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    turn = asyncio.create_task(with_tools(Script(says("", (ToolCall("a", "hang", ""),))), box(hang), QUESTION))
    await running.wait()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert ended.is_set()


async def test_nothing_is_called_before_the_turn_is_committed() -> None:
    committed = asyncio.Event()
    reached = asyncio.Event()
    done: list[str] = []

    @tool()
    async def act(context: ToolContext) -> str:
        """Acts."""
        done.append("acted")
        return "ok"

    async def commit() -> None:
        reached.set()
        await committed.wait()

    prepared = box(act)
    model = Script(says("", (ToolCall("a", "act", ""),)), says("Done."))
    for goes_on in (False, True):
        turn = asyncio.create_task(with_tools(model, prepared, QUESTION, before_calls=commit))
        await reached.wait()
        assert done == []
        if goes_on:
            committed.set()
            assert (await turn).spoken == ("Done.",)
        else:
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
            model.lines.insert(0, says("", (ToolCall("a", "act", ""),)))
            reached.clear()
    assert done == ["acted"]
