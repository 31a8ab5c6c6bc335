"""Whole turns through a running server whose model services answer as real ones do, byte for byte.

Strict services are played by rules over the request: what DeepSeek, Gemini and others refuse is refused here with their
words.
"""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.standins.chat import ChatStandIn, Verbatim
from tests.house import House, house
from tests.test_tool_turns import STATUS, VOLUME, come_true, known, offered
from tests.test_tools_plain_schema import require_plain
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.text.messages import message
from xiaozhi.upstream.breaker import BreakerState

DONE = b"data: [DONE]\n\n"
DECLINED = message("declined", "en")
APOLOGY = message("apology", "en")
UNTOLD = message("done_untold", "en")


def chunk(finish: str | None = None, /, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"


def tool_call(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {"id": "a1", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls: dict[str, Any], **fields: Any) -> bytes:
    return chunk(role="assistant", **fields, tool_calls=list(calls)) + chunk("tool_calls") + DONE


def saying(text: str) -> bytes:
    return chunk(content=text) + chunk("stop") + DONE


def refusing(text: str, **more: Any) -> Verbatim:
    body = {"error": {"message": text, "type": "invalid_request_error", **more}}
    return Verbatim(orjson.dumps(body), status=400, content_type="application/json")


def last_calls(body: dict[str, Any]) -> dict[str, Any] | None:
    """The message with calls that the results at the end belong to."""
    found = [each for each in body["messages"] if each.get("tool_calls")]
    return found[-1] if found and body["messages"][-1]["role"] == "tool" else None


def in_two_rounds(first: bytes, second: Callable[[dict[str, Any], dict[str, Any]], Verbatim]) -> Any:
    """Calls first; `second` is given the request with the results, and the message with the calls in it."""

    def answer(body: dict[str, Any]) -> Verbatim:
        calls = last_calls(body)
        return Verbatim(first) if calls is None else second(body, calls)

    return answer


def breakers(home: House) -> list[BreakerState]:
    return [state.breaker for state in home.server.services.chat.states()]


# Streams ----------------------------------------------------------------------------------------------------------

STREAMS = {
    "events without data": chunk(content="First. ") + b"data:\n\n" + chunk(content="Then.") + chunk("stop") + DONE,
    "a gateway's comment inside the data": b"data: : OPENROUTER PROCESSING\n\n" + saying("First. Then."),
    "carriage returns alone": saying("First. Then.").replace(b"\n", b"\r"),
    "a byte order mark, and no blank line at the end": b"\xef\xbb\xbf" + saying("First. Then.").rstrip(),
    "usage in chunks of its own": chunk(content="First. ")
    + b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n'
    + saying("Then."),
}


@pytest.mark.parametrize("piece", [1, 0])
async def test_a_stream_as_the_standard_has_it_is_heard_to_its_end(tmp_path: Path, piece: int) -> None:
    async with house(tmp_path) as home, home.device() as device:
        for name, body in STREAMS.items():
            home.chat.verbatim = lambda _asked, body=body: Verbatim(body, piece=piece)  # type: ignore[misc]
            assert (await device.turn_text("what is it")).text == "First. Then.", name
        assert len(home.asked) == len(STREAMS), "nothing was asked twice"


async def test_a_completion_that_comes_whole_is_an_answer(tmp_path: Path) -> None:
    whole = {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Here I am."}}]}
    body = orjson.dumps(whole, option=orjson.OPT_INDENT_2)
    async with house(tmp_path) as home, home.device() as device:
        home.chat.verbatim = lambda _asked: Verbatim(body, content_type="application/json; charset=utf-8")
        assert (await device.turn_text("what is it")).text == "Here I am."


async def test_a_face_cut_in_two_is_shown(tmp_path: Path) -> None:
    halves = (
        rb'data: {"choices": [{"delta": {"content": "\ud83d"}}]}',
        rb'data: {"choices": [{"delta": {"content": "\ude14',
    )
    body = halves[0] + b"\n\n" + halves[1] + b' I am sorry."}, "finish_reason": "stop"}]}\n\n' + DONE
    async with house(tmp_path) as home, home.device() as device:
        home.chat.verbatim = lambda _asked: Verbatim(body)
        report = await device.turn_text("what is it")
    assert (report.text, report.emotion) == ("I am sorry.", "sad")


# Tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        tool_call("functions." + VOLUME, '{"volume": 40}', index="0"),
        tool_call("default_api:" + VOLUME + ":0", '{"volume": 40}', index=None),
        tool_call("functions.self.audio_speaker.set_volume", '{"volume": 40}'),
        tool_call(VOLUME + "<|channel|>commentary", '{"volume": 40,}', index=0),
        tool_call(VOLUME.upper(), '{"volume": 40}{"volume": 40}', index=0),
        tool_call(VOLUME, '"{\\"volume\\": 40}"', index=0),
        tool_call(VOLUME, "```json\n{'volume': 40}\n```", index=0),
        tool_call(VOLUME, '{"arguments": {"volume": "40"}}', index=0),
    ],
)
async def test_a_call_that_any_human_can_read_is_carried_out(tmp_path: Path, call: dict[str, Any]) -> None:
    def strict(body: dict[str, Any], calls: dict[str, Any]) -> Verbatim:
        (back,) = calls["tool_calls"]
        names = {tool["function"]["name"] for tool in body["tools"]}
        fine = back["function"]["name"] in names and json.loads(back["function"]["arguments"]) is not None
        return Verbatim(saying("Done.")) if fine else refusing("Invalid 'messages[2].tool_calls[0]'")

    async with house(tmp_path) as home, home.device() as device:
        await known(home, device)
        home.chat.verbatim = in_two_rounds(calling(call), strict)
        report = await device.turn_text("make it forty")
        assert (report.text, device.tools.calls) == ("Done.", [("self.audio_speaker.set_volume", {"volume": 40})])
        assert len(home.asked) == 2


async def test_a_thought_signature_goes_back_with_its_call(tmp_path: Path) -> None:
    """Gemini answers 400 to a result whose call has lost its signature, and forgets the call's other fields never."""
    signed = tool_call(VOLUME, '{"volume": 40}', extra_content={"google": {"thought_signature": "SIG"}}, note=[1, {}])

    def gemini(_body: dict[str, Any], calls: dict[str, Any]) -> Verbatim:
        (back,) = calls["tool_calls"]
        if back.get("extra_content") != signed["extra_content"] or back.get("note") != [1, {}]:
            return refusing("Function call is missing a thought_signature in functionCall parts.")
        return Verbatim(saying("Done."))

    async with house(tmp_path) as home, home.device() as device:
        await known(home, device)
        home.chat.verbatim = in_two_rounds(calling(signed), gemini)
        assert (await device.turn_text("make it forty")).text == "Done."
        assert (len(home.asked), device.tools.volume) == (2, 40)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_the_thoughts_before_a_call_go_back_with_it_and_are_not_spoken(tmp_path: Path, name: str) -> None:
    """DeepSeek and Kimi answer 400 to a result whose call has lost its reasoning."""
    first = chunk(**{name: "I should "}) + chunk(**{name: "call it."}) + calling(tool_call(VOLUME, '{"volume": 40}'))

    def deepseek(_body: dict[str, Any], calls: dict[str, Any]) -> Verbatim:
        if calls.get(name) != "I should call it.":
            return refusing(f"The `{name}` in the thinking mode must be passed back to the API.")
        return Verbatim(saying("Done."))

    async with house(tmp_path) as home, home.device() as device:
        await known(home, device)
        home.chat.verbatim = in_two_rounds(first, deepseek)
        assert (await device.turn_text("make it forty")).text == "Done."
        assert (len(home.asked), device.tools.volume) == (2, 40)
        home.chat.verbatim = lambda _body: Verbatim(saying("Forty."))
        await device.turn_text("and what is it now")
        assert name not in json.dumps(home.asked[-1]), "thoughts belong to their turn alone"


async def test_details_of_thoughts_go_back_as_they_came(tmp_path: Path) -> None:
    details = [
        [{"type": "reasoning.text", "index": 0, "text": "I should ", "format": "anthropic-claude-v1"}],
        [{"type": "reasoning.text", "index": 0, "text": "call it."}],
        [{"type": "reasoning.text", "index": 0, "text": "", "signature": "S"}],
        [{"type": "reasoning.encrypted", "index": 1, "data": "ZZZ"}],
    ]
    first = b"".join(chunk(content="", reasoning_details=each) for each in details)
    backs: list[Any] = []

    def openrouter(_body: dict[str, Any], calls: dict[str, Any]) -> Verbatim:
        backs.append(calls["reasoning_details"])
        return Verbatim(saying("Done."))

    async with house(tmp_path) as home, home.device() as device:
        await known(home, device)
        home.chat.verbatim = in_two_rounds(first + calling(tool_call(VOLUME, '{"volume": 40}')), openrouter)
        assert (await device.turn_text("make it forty")).text == "Done."
    text = {"type": "reasoning.text", "index": 0, "text": "I should call it.", "format": "anthropic-claude-v1"}
    assert backs == [[{**text, "signature": "S"}, {"type": "reasoning.encrypted", "index": 1, "data": "ZZZ"}]]


async def test_who_has_thought_is_asked_again_and_nobody_else_sees_the_thoughts(tmp_path: Path) -> None:
    first = chunk(reasoning_content="hm") + calling(tool_call(VOLUME, '{"volume": 40}'))
    async with ChatStandIn() as one, ChatStandIn() as two:
        endpoints = [
            {"name": name, "base_url": f"{server.url}/v1", "model": "m", "api_key": "k"}
            for name, server in (("one", one), ("two", two))
        ]
        llm = {"endpoints": endpoints, "hedge": {"mode": "off"}}
        async with house(tmp_path, llm=llm) as home, home.device() as device:
            await known(home, device)
            for server in (one, two):
                server.verbatim = in_two_rounds(first, lambda _body, _calls: Verbatim(saying("Done.")))
            for _ in range(5):
                assert (await device.turn_text("make it forty")).text == "Done."
            for server in (one, two):
                results = [last_calls(each.body) for each in server.requests if "messages" in each.body]
                assert [each is not None for each in results] == [False, True] * (len(results) // 2)
                assert all(each is None or each["reasoning_content"] == "hm" for each in results)

            def gone(body: dict[str, Any]) -> Verbatim:
                return Verbatim(first) if last_calls(body) is None else Verbatim(b"{}", 500, "application/json")

            two.requests.clear()
            one.verbatim = gone
            two.verbatim = lambda body: Verbatim(saying("Yes.")) if last_calls(body) else None
            seen: list[dict[str, Any]] = []
            while not seen:
                await device.turn_text("make it forty")
                seen = [calls for each in two.requests if "messages" in each.body and (calls := last_calls(each.body))]
            assert "reasoning_content" not in seen[0]


async def test_where_the_answer_fails_after_a_tool_has_run_the_user_hears_that_it_was_done(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        await known(home, device)
        home.chat.verbatim = in_two_rounds(
            calling(tool_call(VOLUME, '{"volume": 40}')),
            lambda _body, _calls: Verbatim(b'{"error": "down"}', status=500, content_type="application/json"),
        )
        report = await device.turn_text("make it forty")
        assert report.text == UNTOLD
        assert [name for name, _ in device.tools.calls] == ["self.audio_speaker.set_volume"], "once"
        home.chat.verbatim = in_two_rounds(
            calling(tool_call("self_fly", "{}")),
            lambda _body, _calls: Verbatim(b'{"error": "down"}', status=500, content_type="application/json"),
        )
        assert (await device.turn_text("now fly")).text == APOLOGY, "nothing was done"


class LooseDevice(DeviceMcpServer):
    """A device that describes its tools as its makers please."""

    def answer(self, payload: dict[str, Any]) -> dict[str, object] | None:
        if payload.get("method") != "tools/list":
            return super().answer(payload)
        volume = {"type": "object", "properties": {"volume": {"type": "int"}}, "required": ["volume"]}
        tools: list[tuple[str, object]] = [
            ("self.audio_speaker.set_volume", volume),
            ("arr", {"type": "object", "properties": {"a": {"type": "array"}}}),
            ("req", {"type": "object", "properties": {}, "required": ["z"]}),
            ("灯.开", {"type": "dict", "properties": {"level": {"type": "float", "pattern": "^(a+)+$"}}}),
            ("灯,开", None),
            ("wide", {"type": "object", "properties": {f"p{number}": {} for number in range(100)}}),
        ]
        listed = [{"name": name, "description": name, "inputSchema": schema} for name, schema in tools]
        return {"jsonrpc": "2.0", "id": payload["id"], "result": {"tools": listed}}


def strict(body: dict[str, Any]) -> Verbatim | None:
    """A service that refuses the whole request for one schema, without a word about tools."""
    names = [tool["function"]["name"] for tool in body.get("tools", ())]
    for tool in body.get("tools", ()):
        try:
            require_plain(tool["function"]["parameters"])
        except (AssertionError, KeyError):
            return refusing("Invalid schema")
    if len(set(names)) < len(names) or not all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names):
        return refusing("Invalid request")
    return None


async def test_a_device_with_loose_schemas_is_answered_and_its_tools_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, "Hello.") as home, home.device(tools=LooseDevice()) as device:
        await come_true(lambda: len(home.session().tools.tools()) == 5)
        home.chat.verbatim = strict
        assert (await device.turn_text("hello there")).text == "Hello."
        assert len(home.asked) == 1, "nothing was refused"
        names = offered(home)
        assert {VOLUME, "arr", "req"} < set(names) and "wide" not in names
        home.chat.verbatim = in_two_rounds(
            calling(tool_call(VOLUME, '{"volume": 40}')), lambda body, _calls: strict(body) or Verbatim(saying("Done."))
        )
        assert (await device.turn_text("make it forty")).text == "Done."
        assert device.tools.volume == 40
    warnings = [record.getMessage() for record in caplog.records if "cannot be offered" in record.getMessage()]
    assert warnings == ["1 tools of the device cannot be offered: wide: it takes 100 arguments, more than 64"]


@pytest.mark.parametrize("words", ["Invalid request", f"Invalid schema for function '{VOLUME}': In context=()"])
async def test_a_service_that_refuses_the_tools_in_whatever_words_is_asked_without_them(
    tmp_path: Path, words: str
) -> None:
    def service(body: dict[str, Any]) -> Verbatim | None:
        refused = VOLUME if VOLUME in words else ""
        return refusing(words) if any(refused in tool["function"]["name"] for tool in body.get("tools", ())) else None

    async with house(tmp_path, "Hello.") as home, home.device() as device:
        await known(home, device)
        home.chat.verbatim = service
        assert (await device.turn_text("hello there")).text == "Hello."
        assert (len(home.asked), STATUS in offered(home)) == (2, VOLUME in words), "one is left out where one is named"
        assert breakers(home) == [BreakerState.CLOSED]


# Withheld ---------------------------------------------------------------------------------------------------------

WITHHELD = {
    "a reason": Verbatim(chunk("content_filter", role="assistant", content="") + DONE),
    "zhipu's reason": Verbatim(chunk("sensitive", content="") + DONE),
    "azure": refusing("The response was filtered due to the prompt triggering the policy.", code="content_filter"),
    "qwen": refusing("Input data may contain inappropriate content.", code="data_inspection_failed"),
    "deepseek": refusing("Content Exists Risk"),
    "in the stream": Verbatim(b'data: {"error": {"code": "1301", "message": "sensitive content"}}\n\n'),
}


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_an_answer_that_is_withheld_is_said_kindly_and_is_no_failure(tmp_path: Path, language: str) -> None:
    question = {"en": "tell me something", "zh": "说点什么吧"}[language]
    async with house(tmp_path) as home, home.device() as device:
        await known(home, device)
        for name, answer in WITHHELD.items():
            home.chat.verbatim = lambda _body, answer=answer: answer  # type: ignore[misc]
            report = await device.turn_text(question)
            assert report.text.replace(" ", "") == message("declined", language).replace(" ", ""), name
            assert report.trace is not None and not report.trace["error"], name
        (state,) = home.server.services.chat.states()
        assert (state.breaker, state.failures) == (BreakerState.CLOSED, {})
        assert len(home.asked) == len(WITHHELD), "and nothing is asked twice"


async def test_a_refusal_in_the_models_own_words_is_spoken(tmp_path: Path) -> None:
    body = (
        chunk(content=None, refusal="I can't ") + chunk(content=None, refusal="help with that.") + chunk("stop") + DONE
    )
    async with house(tmp_path) as home, home.device() as device:
        home.chat.verbatim = lambda _body: Verbatim(body)
        assert (await device.turn_text("tell me something")).text == "I can't help with that."


async def test_an_answer_that_is_withheld_in_the_middle_ends_with_the_sentence(tmp_path: Path) -> None:
    body = chunk(content="Well, I know") + chunk("content_filter") + DONE
    async with house(tmp_path) as home, home.device() as device:
        home.chat.verbatim = lambda _body: Verbatim(body)
        assert (await device.turn_text("tell me something")).text == f"Well, I know {DECLINED}"


# Endpoints that make us stumble -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"api_key": "你的api key"},
        {"api_key": "sk-1\nX-Evil: 1"},
        {"base_url": "http://exa\u2028mple.invalid/v1"},
        {"base_url": "http://xn--a.invalid/v1"},
    ],
)
async def test_whatever_an_endpoint_makes_of_us_another_answers(
    tmp_path: Path, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with ChatStandIn("It is ten past nine.") as well:
        endpoints = [
            {"name": "bad", "base_url": f"{well.url}/v1", "model": "m", "api_key": "k", "weight": 1000, **bad},
            {"name": "well", "base_url": f"{well.url}/v1", "model": "m", "api_key": "k", "weight": 0.001},
        ]
        with caplog.at_level(logging.WARNING):
            async with house(tmp_path, llm={"endpoints": endpoints}) as home, home.device() as device:
                assert (await device.turn_text("what is it")).text == "It is ten past nine."
                assert breakers(home)[1] is BreakerState.CLOSED
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"choices": [{"delta": {"content": ' + b"[" * 900 + b"]" * 900 + b"}}]}\n\n",
        b'data: {"choices": {"0": 1}}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [[]]}}]}\n\n',
        b'data: {"error": ' + b'{"error":' * 700 + b"1" + b"}" * 701 + b"\n\n",
        b"\x00\xff\xfe garbage \n\n",
    ],
)
async def test_odd_json_is_that_endpoints_failure_and_the_user_is_answered(tmp_path: Path, body: bytes) -> None:
    async with ChatStandIn("It is ten past nine.") as well, house(tmp_path) as first:
        first.chat.verbatim = lambda _body: Verbatim(body)
        endpoints = [
            {"name": "odd", "base_url": f"{first.chat.url}/v1", "model": "m", "api_key": "k", "weight": 1000},
            {"name": "well", "base_url": f"{well.url}/v1", "model": "m", "api_key": "k", "weight": 0.001},
        ]
        async with house(tmp_path / "second", llm={"endpoints": endpoints}) as home, home.device() as device:
            assert (await device.turn_text("what is it")).text == "It is ten past nine."
            states = home.server.services.chat.states()
            assert sum(states[0].failures.values()) == 1
