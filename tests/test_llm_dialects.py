"""Streams in the shapes in which providers send them: what is spoken, what is called, what is an error.

Written after the providers' documents and the reports of those who met these shapes; ids and names are made up.
"""

from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from xiaozhi.events import ToolCall
from xiaozhi.settings import LlmEndpoint
from xiaozhi.stages.llm.event_stream import NotAChatStream
from xiaozhi.stages.llm.sse import ChunkReader, Declined
from xiaozhi.stages.llm.tool_calls import CallAssembler
from xiaozhi.text.hidden import MAX_THOUGHT_CHARS, HiddenParts

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Heard:
    """What comes out of a stream."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    thought: bool = False
    finished: bool = True
    opened: bool | None = None  # by the prompt, as far as the stream shows it


def event(choice: dict[str, Any] | None, end: bytes = b"\n\n", space: bytes = b" ", **more: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, **choice}]
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}
    return b"data:" + space + orjson.dumps(body) + end


def delta(content: Any = None, finish: Any = None, /, end: bytes = b"\n\n", **more: Any) -> bytes:
    return event({"delta": {"content": content, **more}, "finish_reason": finish, "logprobs": None}, end)


def bare(finish: Any = None, /, **fields: Any) -> bytes:
    return event({"delta": fields, "finish_reason": finish})


def call(name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


USAGE = event(None, usage={"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8})
WEATHER = (ToolCall("call_a", "weather", '{"city":"北京"}'),)

BEGUN = (
    bare(role="assistant", content="")
    + bare(content="let me see</th")
    + bare(content="ink>\n\nYes.")
    + event({"delta": {"content": ""}, "finish_reason": "stop", "stop_reason": None})
    + DONE
)

STREAMS: dict[str, tuple[bytes, Heard]] = {
    "openai: role first, usage last": (
        bare(role="assistant", content="", refusal=None)
        + bare(content="你")
        + bare(content="好")
        + bare("stop")
        + USAGE
        + DONE,
        Heard("你好"),
    ),
    "openai: a refusal is said": (
        bare(role="assistant", content=None, refusal="")
        + bare(refusal="I can't ")
        + bare(refusal="do that.")
        + bare("stop")
        + DONE,
        Heard("I can't do that."),
    ),
    "azure: the filter's verdict first, a filter in every chunk": (
        event(None, prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}])
        + event({"delta": {"role": "assistant"}, "finish_reason": None, "content_filter_results": {}})
        + delta("好")
        + event({"delta": {}, "finish_reason": "stop", "content_filter_results": {}})
        + DONE,
        Heard("好"),
    ),
    "deepseek: thinks apart, keeps alive with comments": (
        b": keep-alive\n\n: keep-alive\n\n"
        + bare(role="assistant", content=None, reasoning_content="")
        + bare(content=None, reasoning_content="嗯")
        + bare(content="好的", reasoning_content=None)
        + event(
            {"delta": {"content": "", "reasoning_content": None}, "finish_reason": "stop"}, usage={"total_tokens": 9}
        )
        + DONE,
        Heard("好的", thought=True),
    ),
    "qwen: empty reasons, an empty delta, no space after data": (
        event({"delta": {"content": "", "role": "assistant"}, "finish_reason": None}, space=b"")
        + event({"delta": {"content": "早上"}, "finish_reason": ""}, space=b"")
        + event({"delta": {"content": "好"}, "finish_reason": ""}, space=b"")
        + event({"delta": {}, "finish_reason": "stop"}, space=b"")
        + b"data:[DONE]\n\n",
        Heard("早上好"),
    ),
    "qwen with thinking": (
        bare(role="assistant", content=None, reasoning_content="想")
        + bare(content="是", reasoning_content=None)
        + bare("stop", content="", reasoning_content=None)
        + USAGE
        + DONE,
        Heard("是", thought=True),
    ),
    "zhipu: the reason beside the last words": (
        bare(role="assistant", content="你")
        + event({"delta": {"role": "assistant", "content": "好"}, "finish_reason": "stop"}, usage={"total_tokens": 4})
        + DONE,
        Heard("你好"),
    ),
    "zhipu: a whole call in one piece": (
        bare("tool_calls", role="assistant", tool_calls=[call("weather", '{"city":"北京"}', id="call_a", index=0)])
        + DONE,
        Heard(calls=WEATHER),
    ),
    "siliconflow: usage in every chunk": (
        event(
            {"delta": {"content": "好", "reasoning_content": None, "role": "assistant"}, "finish_reason": None},
            usage={"total_tokens": 1},
        )
        + event(
            {"delta": {"content": "啊", "reasoning_content": None}, "finish_reason": "stop"}, usage={"total_tokens": 2}
        )
        + DONE,
        Heard("好啊"),
    ),
    "ollama: role in every chunk, thinking in another field": (
        bare(role="assistant", content="", reasoning="so")
        + bare(role="assistant", content="Hi")
        + bare("stop", role="assistant", content="")
        + DONE,
        Heard("Hi", thought=True),
    ),
    "ollama: every whole call with the number 0": (
        bare(role="assistant", content="", tool_calls=[call("a", "{}", id="call_1", index=0)])
        + bare(role="assistant", content="", tool_calls=[call("b", "{}", id="call_2", index=0)])
        + bare("tool_calls", role="assistant", content="")
        + DONE,
        Heard(calls=(ToolCall("call_1", "a", "{}"), ToolCall("call_2", "b", "{}"))),
    ),
    "vllm: of a tag whose opener is in the prompt only the tag is taken away, where it is not expected": (
        BEGUN,
        Heard("let me see\n\nYes.", opened=True),
    ),
    "llama.cpp: tags in the text, timings at the end": (
        bare(role="assistant", content=None)
        + bare(content="<think>hm")
        + bare(content="</think>Yes")
        + bare("stop")
        + event(None, usage={"total_tokens": 1}, timings={"prompt_n": 1})
        + DONE,
        Heard("Yes"),
    ),
    "anthropic's compatible endpoint: calls without text": (
        bare(role="assistant", content="I look.")
        + bare(tool_calls=[call("weather", "", id="call_a", index=0)])
        + bare(tool_calls=[{"index": 0, "function": {"arguments": '{"city":'}}])
        + bare(tool_calls=[{"index": 0, "function": {"arguments": '"北京"}'}}])
        + bare("tool_calls")
        + DONE,
        Heard("I look.", WEATHER),
    ),
    "anthropic's errors come as an event of their own kind": (
        b'event: ping\ndata: {"type": "ping", "choices": []}\n\n' + bare(content="Hi") + bare("stop") + DONE,
        Heard("Hi"),
    ),
    "gemini: calls without a number, all at once": (
        bare(
            "tool_calls",
            role="assistant",
            tool_calls=[
                call("weather", '{"city":"北京"}', id="call_a"),
                call("clock", "{}", id="call_b"),
            ],
        )
        + DONE,
        Heard(calls=(*WEATHER, ToolCall("call_b", "clock", "{}"))),
    ),
    "gemini: whole calls in chunks of their own, without number and id": (
        bare(tool_calls=[call("weather", '{"city":"北京"}', id="")])
        + bare("stop", tool_calls=[call("clock", "{}", id="")])
        + DONE,
        Heard(calls=(ToolCall("call_1", "weather", '{"city":"北京"}'), ToolCall("call_2", "clock", "{}"))),
    ),
    "mistral: content in parts": (
        bare(role="assistant", content="")
        + bare(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])
        + bare(content=[{"type": "text", "text": "Oui"}])
        + bare("stop", content=".")
        + DONE,
        Heard("Oui.", thought=True),
    ),
    "mistral: arguments as an object": (
        bare("tool_calls", content="", tool_calls=[call("weather", {"city": "北京"}, id="call_a", index=0)]) + DONE,
        Heard(calls=WEATHER),
    ),
    "openrouter: comments while it waits, details of reasoning": (
        b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"
        + bare(role="assistant", content="", reasoning_details=[{"type": "reasoning.text", "text": "hm"}])
        + event({"delta": {"content": "Yes"}, "finish_reason": None, "native_finish_reason": None}, provider="x")
        + event({"delta": {"content": ""}, "finish_reason": "stop", "native_finish_reason": "STOP"})
        + USAGE
        + DONE,
        Heard("Yes", thought=True),
    ),
    "litellm: the word null for a missing name": (
        bare(tool_calls=[call("weather", '{"city":', id="call_a", index=0)])
        + bare("tool_calls", tool_calls=[call("null", '"北京"}', id="", index=0)])
        + DONE,
        Heard(calls=WEATHER),
    ),
    "lm studio: empty names in later pieces": (
        bare(tool_calls=[call("weather", "", id="call_a", index=0)])
        + bare(tool_calls=[call("", '{"city":', index=0)])
        + bare(tool_calls=[call("", '"北京"}', index=0)])
        + bare("tool_calls")
        + DONE,
        Heard(calls=WEATHER),
    ),
    "deepseek through gateways: arguments and id null": (
        bare(role="assistant", tool_calls=[call("weather", None, id="call_a", index=0)])
        + bare(
            tool_calls=[
                {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": '{"city":"北京"}'}}
            ]
        )
        + bare(tool_calls=[{"index": 0, "function": None}])
        + bare("tool_calls", content=None)
        + DONE,
        Heard(calls=WEATHER),
    ),
    "hunyuan, doubao: no end but a reason": (
        bare(role="assistant", content="好") + bare("stop", content=""),
        Heard("好"),
    ),
    "a gateway without a reason but with an end": (bare(content="好") + DONE, Heard("好")),
    "length and filter are ends as well": (bare(content="好") + bare("length") + DONE, Heard("好")),
    "minimax: the whole answer once more at the end": (
        bare(role="assistant", content="好")
        + event(
            {"finish_reason": "stop", "message": {"role": "assistant", "content": "好"}},
            object="chat.completion",
            base_resp={"status_code": 0, "status_msg": ""},
        ),
        Heard("好"),
    ),
    "iis and other proxies: carriage returns, a byte order mark": (
        b"\xef\xbb\xbf" + delta("你", end=b"\r\n\r\n") + delta("好", "stop", end=b"\r\n\r\n") + b"data: [DONE]\r\n\r\n",
        Heard("你好"),
    ),
    "dashscope: numbered events with a status in a comment": (
        b"id:1\nevent:result\n:HTTP_STATUS/200\n" + bare(content="好") + b"id:2\nevent:result\n" + bare("stop") + DONE,
        Heard("好"),
    ),
    "a gateway's comments in the data, events without data, fields that nobody knows": (
        b"data: : OPENROUTER PROCESSING\n\ndata:\n\ndata\n\ndata: null\n\ndata: [PING]\n\ndata: keep-alive\n\n"
        b"retry: 3000\nfoo: bar\nfoo\n: comment\n" + bare(content="好") + b"event:\ndata: \n\n" + bare("stop") + DONE,
        Heard("好"),
    ),
    "old macs: carriage returns alone": (
        delta("你", end=b"\r\r") + delta("好", "stop", end=b"\r\r") + b"data: [DONE]\r\r",
        Heard("你好"),
    ),
    "an event over several lines": (
        b'data: {"choices": [\ndata: {"delta": {"content": "\xe5\xa5\xbd"},\ndata: "finish_reason": "stop"}]}\n\n'
        + DONE,
        Heard("好"),
    ),
    "no blank lines between the events, and none at the end": (
        delta("你", end=b"\n") + delta("好", "stop", end=b"\n") + b"data: [DONE]",
        Heard("你好"),
    ),
    "the mark of the end in quotes": (delta("好") + b'data: "[DONE]"\n\n', Heard("好")),
    "a character in two halves": (
        rb'data: {"choices": [{"delta": {"content": "a\ud83d"}}]}' + b"\n\n"
        rb'data: {"choices": [{"delta": {"content": "\ude00b\ud83d"}}]}' + b"\n\n"
        rb'data: {"choices": [{"delta": {"content": "c"}, "finish_reason": "stop"}]}' + b"\n\n",
        Heard("a😀bc"),
    ),
    "a character in two halves in the arguments of a call": (
        rb'data: {"choices": [{"delta": {"tool_calls": [{"index": "0", "id": "call_a", "function": '
        rb'{"name": "weather", "arguments": "{\"city\":\"\ud83d"}}]}}]}' + b"\n\n"
        rb'data: {"choices": [{"delta": {"tool_calls": [{"index": "0", "function": {"arguments": "\ude00\"}"}}]}, '
        rb'"finish_reason": "tool_calls"}]}' + b"\n\n",
        Heard(calls=(ToolCall("call_a", "weather", '{"city":"😀"}'),)),
    ),
    "bytes that are not UTF-8": (
        b'data: {"choices": [{"delta": {"content": "caf\xe9"}, "finish_reason": "stop"}]}\n\n',
        Heard("caf\ufffd"),
    ),
    "one completion instead of a stream": (
        orjson.dumps(
            {"choices": [{"index": 0, "message": {"role": "assistant", "content": "好"}, "finish_reason": "stop"}]}
        ),
        Heard("好"),
    ),
    "one completion over many lines, with a call and thoughts": (
        orjson.dumps(
            {
                "choices": [
                    {
                        "message": {
                            "content": None,
                            "reasoning_content": "hm",
                            "tool_calls": [call("weather", '{"city":"北京"}', id="call_a")],
                        }
                    }
                ]
            },
            option=orjson.OPT_INDENT_2,
        ),
        Heard(calls=WEATHER, thought=True),
    ),
    "one completion as the only event of a stream": (
        event({"message": {"role": "assistant", "content": "好"}, "finish_reason": "stop"}) + DONE,
        Heard("好"),
    ),
    "chunks on lines of their own, without the word data": (
        b"".join(piece.removeprefix(b"data: ").rstrip() + b"\n" for piece in (delta("你"), delta("好", "stop"))),
        Heard("你好"),
    ),
    "contents that are numbers, parts that are texts": (
        bare(content=7)
        + bare(content=0)
        + bare(content=["好", None, {"type": "output_text", "text": "!"}])
        + bare("stop"),
        Heard("70好!"),
    ),
    "the reason is the word null": (bare("null", content="好") + bare("stop"), Heard("好")),
    "choices null and deltas null": (
        b'data: {"choices": null}\n\n'
        + event({"delta": None, "finish_reason": None})
        + bare("stop", content="好")
        + DONE,
        Heard("好"),
    ),
}

# Where the answers may begin in the middle of a thought.
HELD: dict[str, tuple[bytes, Heard]] = {
    "vllm, sglang: deepseek-r1, whose template opens the thought": (BEGUN, Heard("\n\nYes.", opened=True)),
    "ollama before it separated thoughts": (
        delta("<think>\n") + delta("hm\n</think>\n\nYes.") + delta("", "stop") + DONE,
        Heard("\n\nYes."),
    ),
    "a reasoning parser beside the template": (
        bare(role="assistant", content="")
        + bare(reasoning_content="let me see")
        + bare(content="\n\nYes.")
        + bare("stop")
        + DONE,
        Heard("\n\nYes.", thought=True),
    ),
    "a template that has closed the thought as well": (
        delta("Yes. ") + delta("Really.") + delta("", "stop") + DONE,
        Heard("Yes. Really.", opened=False),
    ),
    "a thought that has used up the tokens": (delta("let me see what") + delta("", "length") + DONE, Heard()),
    "a connection that breaks off in a thought": (delta("let me see what"), Heard(finished=False)),
    "qwen3.5: a call out of a thought that is not closed": (
        delta("let me see")
        + bare("tool_calls", tool_calls=[call("weather", '{"city":"北京"}', id="call_a", index=0)])
        + DONE,
        Heard(calls=WEATHER),
    ),
    "a call after a thought": (
        delta("let me see</think>")
        + delta("I look.")
        + bare("tool_calls", tool_calls=[call("weather", '{"city":"北京"}', id="call_a", index=0)])
        + DONE,
        Heard("I look.", WEATHER, opened=True),
    ),
    "another word for it": (delta("so</reasoning>Yes.") + delta("", "stop") + DONE, Heard("Yes.", opened=True)),
    "tags in the thought": (
        delta("<b> is < than <think>, or") + delta("</think>Yes.", "stop") + DONE,
        Heard("Yes.", opened=True),
    ),
}

ERRORS: dict[str, tuple[bytes, str]] = {
    "deepseek has no room": (bare(content="好") + bare("insufficient_system_resource"), "insufficient_system_resource"),
    "zhipu's inference fails": (bare(content="好") + bare("network_error"), "network_error"),
    "openrouter tells of an upstream's error": (
        event({"delta": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "Overloaded"}}),
        "Overloaded",
    ),
    "openrouter tells it beside the choices": (
        event({"delta": {"content": ""}, "finish_reason": "error"}, error={"code": 502, "message": "Overloaded"}),
        "Overloaded",
    ),
    "anthropic is overloaded": (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        "Overloaded",
    ),
    "minimax refuses the key": (
        b'data: {"choices": null, "base_resp": {"status_code": 1004, "status_msg": "login fail"}}\n\n',
        r"login fail \(1004\)",
    ),
    "a part of a content is of no kind": (bare(content=[{"picture": 7}]), "another shape"),
    "a content is an object of another kind": (bare(content={"picture": 7}), "another shape"),
    "qwen is throttled": (b'data: {"code": "Throttling", "message": "Requests rate limit exceeded"}\n\n', "rate limit"),
    "baidu refuses the key": (b'data: {"error_code": 110, "error_msg": "Access token invalid"}\n\n', "token invalid"),
    "spark has no more": (b'data: {"code": 11201, "message": "licc limit", "sid": "x"}\n\n', "licc limit"),
    "vllm tells it without a word for it": (b'data: {"object": "error", "message": "no such model"}\n\n', "no such"),
    "an event of this kind with a plain text": (b"event: error\ndata: upstream timed out\n\n", "upstream timed out"),
    "gemini's errors come in a list": (b'data: {"error": [{"message": "API key not valid"}]}\n\n', "API key not valid"),
    "a completion that is an error": (b'{\n "error": {\n  "message": "no such model"\n }\n}', "no such model"),
    "vllm was stopped": (bare(content="好") + bare("abort"), "broke off: abort"),
}

# What providers say when they withhold an answer: the sentence for it is the endpoint's.
DECLINED: dict[str, bytes] = {
    "qwen": b'data: {"error": {"code": "data_inspection_failed", "message": "It may hold inappropriate content."}}',
    "zhipu": 'data: {"error": {"code": "1301", "message": "输入或生成内容可能包含不安全或敏感内容"}}'.encode(),
    "minimax": b'data: {"choices": null, "base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}}',
    "deepseek": b'data: {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}',
    "spark": b'data: {"code": 10013, "message": "input content moderation failed", "sid": "x"}',
}


def hear(data: bytes, size: int, *, holds: bool = False) -> Heard:
    """A stream in pieces of a size, as the endpoint's client puts it together."""
    reader, calls, hidden = ChunkReader(), CallAssembler(), HiddenParts(unsure=holds)
    chunks = [chunk for at in range(0, len(data), size) for chunk in reader.feed(data[at : at + size])]
    chunks += reader.finish()
    text = ""
    for chunk in chunks:
        text += (hidden.release() if chunk.thinking else "") + hidden.push(chunk.text)
        calls.push(chunk.calls)
    thought, finished = any(chunk.thinking for chunk in chunks), any(chunk.finished for chunk in chunks)
    text += hidden.finish(whole=finished and not calls.begun and not any(chunk.cut for chunk in chunks))
    return Heard(text, calls.finish(), thought, finished, hidden.opened_by_prompt)


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("name", STREAMS)
def test_a_providers_stream_is_understood(name: str, size: int) -> None:
    data, expected = STREAMS[name]
    assert hear(data, size) == expected


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("name", HELD)
def test_of_an_answer_that_begins_in_the_middle_of_a_thought_only_the_answer_is_spoken(name: str, size: int) -> None:
    data, expected = HELD[name]
    assert hear(data, size, holds=True) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_who_is_wrongly_taken_for_one_that_thinks_says_the_same_at_last(name: str) -> None:
    data, expected = STREAMS[name]
    heard = hear(data, 7, holds=True)
    assert (heard.calls, heard.finished) == (expected.calls, expected.finished)
    if not expected.opened and not expected.calls and "length" not in name:
        assert heard.text == expected.text


def test_a_thought_without_end_is_noticed() -> None:
    hidden = HiddenParts(unsure=True)
    assert hidden.push("all work and no play " * (MAX_THOUGHT_CHARS // 21)) == ""
    assert not hidden.overfull
    assert hidden.push("all work and no play ") == ""
    assert hidden.overfull


@pytest.mark.parametrize(
    ("model", "more", "expected"),
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"preset": "vllm"}, True),
        ("deepseek-r1:14b", {}, True),
        ("deepseek-r1:14b", {"preset": "ollama"}, False),  # asks for no effort, and Ollama closes the thought
        ("Qwen/QwQ-32B-AWQ", {"preset": "vllm"}, True),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", {"preset": "vllm"}, True),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", {}, False),
        ("Qwen/Qwen3.5-27B", {}, True),
        ("Qwen/Qwen3.5-27B", {"preset": "vllm"}, False),
        ("Qwen/Qwen3-8B", {}, False),  # writes both tags itself
        ("zai-org/GLM-Z1-9B-0414", {}, True),
        ("deepseek-chat", {"preset": "deepseek"}, False),
        ("gpt-4o-mini", {"preset": "openai"}, False),
        ("gpt-4o-mini", {"thinks": True}, True),
        ("deepseek-r1", {"thinks": False}, False),
    ],
)
def test_which_answers_begin_in_a_thought_goes_by_the_setting_or_the_name(
    model: str, more: dict[str, Any], expected: bool
) -> None:
    endpoint = LlmEndpoint.model_validate({"name": "x", "base_url": "http://127.0.0.1/v1", "model": model, **more})
    assert endpoint.begins_in_thought is expected


@pytest.mark.parametrize("name", DECLINED)
def test_a_provider_that_does_not_want_to_answer_is_no_failure(name: str) -> None:
    with pytest.raises(Declined):
        hear(DECLINED[name] + b"\n\n", 100_000)


@pytest.mark.parametrize(
    "reason", ["content_filter", "content_filter: SAFETY", "sensitive", "SAFETY", "PROHIBITED_CONTENT", "refusal"]
)
def test_a_reason_that_says_so_is_a_filters(reason: str) -> None:
    reader = ChunkReader()
    (chunk,) = reader.feed(bare(reason, content=""))
    assert (chunk.declined, chunk.finished) == (True, True)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "eos", "function_call", "end_turn", "STOP"])
def test_other_reasons_are_not(reason: str) -> None:
    (chunk,) = ChunkReader().feed(bare(reason, content=""))
    assert (chunk.declined, chunk.finished) == (False, True)


@pytest.mark.parametrize("name", ERRORS)
def test_a_providers_complaint_is_quoted(name: str) -> None:
    data, line = ERRORS[name]
    with pytest.raises(NotAChatStream, match=line):
        hear(data, 100_000)
