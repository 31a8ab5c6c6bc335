"""Seams between two models, and tool calls out of pieces."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.events import Message, ProviderFields, ToolCall
from xiaozhi.stages.llm.continuation import Seam, continuing
from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.stages.llm.event_stream import NotAChatStream
from xiaozhi.stages.llm.request_body import message_param
from xiaozhi.stages.llm.tool_calls import CallAssembler, call_pieces


@pytest.mark.parametrize(
    ("said", "continuation", "whole"),
    [
        ("从前有一只猫", "，它很懒。", "从前有一只猫，它很懒。"),
        ("从前有一只猫", "从前有一只猫，它很懒。", "从前有一只猫，它很懒。"),
        ("🙂 从前有一只猫，", "🙂 从前有一只猫，它很懒。", "🙂 从前有一只猫，它很懒。"),
        ("从前有一只猫", "一只猫，它很懒。", "从前有一只猫，它很懒。"),
        ("从前有一只猫", "猫很懒。", "从前有一只猫猫很懒。"),  # one character may be chance
        ("I think that", "we should go.", "I think that we should go."),
        ("I think that", " we should go.", "I think that we should go."),
        ("I think that ", "I think that we should go.", "I think that we should go."),
        ("I think that", "… we should go.", "I think that we should go."),
        ("It costs 5", "0 euros", "It costs 50 euros"),
        ("好的", "😊我来讲。", "好的我来讲。"),
        ("", "Hello.", "Hello."),
        ("All is said.", "All is said.", "All is said."),
    ],
)
def test_a_continuation_follows_without_repetition(said: str, continuation: str, whole: str) -> None:
    for size in (1, 3, 100):
        seam = Seam(said)
        pieces = [continuation[i : i + size] for i in range(0, len(continuation), size)]
        joined = said + "".join(seam.push(piece) for piece in pieces) + seam.flush()
        assert joined == whole


@given(st.text(max_size=40), st.lists(st.text(max_size=8), max_size=12))
def test_nothing_is_held_back_for_ever_and_nothing_is_invented(said: str, pieces: list[str]) -> None:
    seam = Seam(said)
    joined = "".join(seam.push(piece) for piece in pieces) + seam.flush()
    assert joined.lstrip() in "".join(pieces) or joined.strip() in "".join(pieces)


def test_without_anything_said_the_request_stays_as_it_is() -> None:
    request = ChatRequest([Message("user", "hi")], "en")
    assert continuing(request, " ") is request
    assert [message.role for message in continuing(request, "Hel").messages] == ["user", "assistant", "user"]


def piece(index: int | None, identity: str, name: str, arguments: object) -> dict[str, Any]:
    entry: dict[str, Any] = {"function": {"name": name or None, "arguments": arguments}}
    return entry | ({"index": index} if index is not None else {}) | ({"id": identity} if identity else {})


WEATHER = ("c1", "weather", '{"city":"北京"}')
LAMP = ("c2", "lamp", "{}")


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        ([[piece(0, "c1", "weather", "")], [piece(0, "", "", '{"city":')], [piece(0, "", "", '"北京"}')]], [WEATHER]),
        ([[piece(0, *WEATHER), piece(1, *LAMP)]], [WEATHER, LAMP]),
        ([[piece(0, *WEATHER)], [piece(0, *LAMP)]], [WEATHER, LAMP]),  # whole calls, all with the number 0
        ([[piece(None, *WEATHER)], [piece(None, *LAMP)]], [WEATHER, LAMP]),
        ([[piece(0, "c1", "weather", '{"city":')], [piece(0, "c1", "weather", '"北京"}')]], [WEATHER]),
        ([[piece(0, "c1", "weather", {"city": "北京"})]], [WEATHER]),
        ([[piece(0, "", "weather", '{"city":"北京"}')], [piece(0, "", "lamp", "{}")]],
         [("call_1", *WEATHER[1:]), ("call_2", *LAMP[1:])]),
        ([[piece(0, "", "lamp", None)], [piece(1, "", "lamp", None)]],
         [("call_1", "lamp", "{}"), ("call_2", "lamp", "{}")]),
        ([[piece(0, "x", "lamp", "{}"), piece(1, "x", "lamp", "{}")]], [("x", "lamp", "{}"), ("call_2", "lamp", "{}")]),
        ([[piece(1, "c2", "lamp", "{")], [piece(0, *WEATHER)], [piece(1, "", "", "}")]], [LAMP, WEATHER]),
    ],
)  # fmt: skip
def test_tool_calls_are_put_together(deltas: list[list[dict[str, Any]]], calls: list[tuple[str, str, str]]) -> None:
    assembler = CallAssembler()
    for delta in deltas:
        assembler.push(call_pieces(delta))
    assert assembler.finish() == tuple(ToolCall(*call) for call in calls)


def test_a_server_that_runs_away_is_stopped() -> None:
    with pytest.raises(NotAChatStream, match="more than"):
        CallAssembler().push(call_pieces([piece(0, "a", "b", "x" * 70_000)]))
    assembler = CallAssembler()
    with pytest.raises(NotAChatStream, match="more than 32 tools"):
        assembler.push(call_pieces([piece(number, str(number), "b", "{}") for number in range(40)]))
    nameless = CallAssembler()
    nameless.push(call_pieces([piece(0, "a", "", "{}")]))
    with pytest.raises(NotAChatStream, match="does not say which"):
        nameless.finish()


@pytest.mark.parametrize("listed", ["x", 5, [3]])
def test_other_shapes_are_refused(listed: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        call_pieces(listed)


@pytest.mark.parametrize(
    ("index", "number"), [(2, 2), ("2", 2), (2.0, 2), (None, None), ("", None), ("two", None), (True, None), ([], None)]
)
def test_the_number_of_a_call_is_read_in_any_shape(index: object, number: int | None) -> None:
    (read,) = call_pieces([{"index": index, "id": "a", "function": {"name": "lamp", "arguments": "{}"}}])
    assert (read.index, read.id, read.name, read.arguments) == (number, "a", "lamp", "{}")


def test_a_call_without_the_level_of_the_function_or_a_list_around_it_is_a_call() -> None:
    (read,) = call_pieces({"id": 7, "name": "lamp", "arguments": {"on": True}})
    assert (read.id, read.name, read.arguments) == ("7", "lamp", '{"on":true}')
    assert call_pieces([None]) == ()


def test_messages_with_tools_and_pictures_have_their_shapes() -> None:
    call = ToolCall("c1", "lamp", "{}")
    asked = message_param(Message("assistant", "", tool_calls=(call,)), "a")
    assert asked == {
        "role": "assistant", "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "lamp", "arguments": "{}"}}],
    }  # fmt: skip
    answer = message_param(Message("tool", "on", tool_call_id="c1"), "a")
    assert answer == {"role": "tool", "tool_call_id": "c1", "content": "on"}
    seen = message_param(Message("user", "what is it", image="data:image/jpeg;base64,AA"), "a")
    assert seen["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AA"}},
        {"type": "text", "text": "what is it"},
    ]


def test_what_a_provider_sent_beside_a_call_goes_back_to_that_provider_alone() -> None:
    beside = ProviderFields(
        "a", {"reasoning_content": "hm"}, ({"extra_content": {"signature": "S"}, "function": {"strict": True}},)
    )
    asked = Message("assistant", "", tool_calls=(ToolCall("c1", "lamp", "{}"),), provider=beside)
    back = message_param(asked, "a")
    assert back["reasoning_content"] == "hm"
    assert back["tool_calls"] == [
        {
            "extra_content": {"signature": "S"}, "id": "c1", "type": "function",
            "function": {"strict": True, "name": "lamp", "arguments": "{}"},
        }
    ]  # fmt: skip
    assert message_param(asked, "b") == message_param(replace(asked, provider=None), "a")


def test_a_call_goes_back_as_strict_servers_want_it_however_it_was_written() -> None:
    call = ToolCall("c1", "functions.no such tool", "{'x': 1,}")
    (back,) = message_param(Message("assistant", "", tool_calls=(call,)), "a")["tool_calls"]
    assert back["function"] == {"name": "functions_no_such_tool", "arguments": '{"x": 1}'}
    (back,) = message_param(Message("assistant", "", tool_calls=(replace(call, arguments="what?"),)), "a")["tool_calls"]
    assert back["function"]["arguments"] == "{}"


def test_half_a_character_in_a_conversation_does_not_end_it() -> None:
    assert message_param(Message("user", "a\ud83d\ude00b\ud83d"), "a")["content"] == "a😀b"
