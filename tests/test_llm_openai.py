"""The OpenAI-compatible endpoint against a server that speaks the real wire format, in health and in every failure."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from aiohttp import web

from bench.standins.chat import ChatStandIn
from xiaozhi.events import Message, ProviderFields, ToolCall, ToolSpec
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.llm.engine import ChatError, ChatRequest
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.stages.llm.request_body import completion_body, message_param

KEY = "sk-very-secret"
ANSWER = "🙂 Hello there. 你好，世界！"
HELLO = [Message("system", "Be brief."), Message("user", "hi"), Message("assistant", "yes?"), Message("user", "hello")]


def settings(**values: Any) -> LlmSettings:
    return LlmSettings(**{"connect_timeout_s": 5.0, **values})


@asynccontextmanager
async def chat_at(url: str, limits: LlmSettings | None = None, **endpoint: Any) -> AsyncIterator[OpenAIChat]:
    values = {"name": "stand-in", "base_url": f"{url}/v1", "api_key": KEY, "model": "bench", **endpoint}
    chat = OpenAIChat(LlmEndpoint(**values), limits or settings())
    try:
        yield chat
    finally:
        await chat.close()


async def say(chat: OpenAIChat, said: list[str] | None = None) -> str:
    """The whole answer; `said` keeps what came before an error."""
    said = [] if said is None else said
    async for delta in chat.stream(ChatRequest(HELLO, "en")):
        said.append(delta.text)
    return "".join(said)


async def test_an_answer_is_streamed_token_by_token() -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url) as chat:
        said: list[str] = []
        assert await say(chat, said) == ANSWER
        assert len(said) > 5
        request = server.requests[0]
        assert request.path == "/v1/chat/completions"
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.body == {
            "model": "bench",
            "stream": True,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "yes?"},
                {"role": "user", "content": "hello"},
            ],
        }


async def test_the_endpoints_own_parameters_are_sent() -> None:
    endpoint: dict[str, Any] = {"max_tokens": 80, "temperature": 0.0, "extra_body": {"enable_thinking": False}}
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, **endpoint) as chat:
        await say(chat)
        body = server.requests[0].body
        assert (body["max_tokens"], body["temperature"], body["enable_thinking"]) == (80, 0.0, False)


async def test_the_body_is_byte_for_byte_what_the_openai_client_sends() -> None:
    call = ToolCall("c1", "lamp", '{"on": true}')
    provider = ProviderFields("stand-in", {"reasoning_content": "嗯……"}, ({"extra_content": {"s": "x"}},))
    messages = [
        Message("system", "你是小智。\u2028 \x01"),
        Message("user", '看 "这个"', image="data:image/png;base64,AAAA"),
        Message("assistant", "", tool_calls=(call,), provider=provider),
        Message("tool", "done", tool_call_id="c1"),
        Message("user", "and now? 😀"),
    ]
    parameters = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    tools = [ToolSpec("lamp", "Switches the lamp.", parameters)]
    endpoint = LlmEndpoint(
        name="stand-in", base_url="http://127.0.0.1:1", model="m", max_tokens=50, temperature=0.7,
        extra_body={"enable_thinking": False, "top_k": 3},
    )  # fmt: skip
    sent: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content)
        return httpx2.Response(200, content=b"")

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        client = openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1:1", http_client=http)
        asked: dict[str, Any] = {
            "model": "m",
            "messages": [message_param(message, "stand-in") for message in messages],
            "stream": True,
            "tools": [{"type": "function", "function": {"name": "lamp", "description": "Switches the lamp.",
                                                        "parameters": parameters}}],
            "tool_choice": "auto",
            "max_tokens": 50,
            "temperature": 0.7,
            "extra_body": endpoint.extra_body,
        }  # fmt: skip
        async with client.chat.completions.with_streaming_response.create(**asked):
            pass
    assert completion_body(ChatRequest(messages, "zh", tools), endpoint, max_tokens_name="max_tokens") == sent[0]


async def test_its_headers_are_sent_and_no_redirection_takes_them_to_another_address() -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(
            f"{other.url}{request.path}" if request.path != "/v1/models" else "/v1/model-list"
        )

    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{path:.*}", away)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    headers: dict[str, Any] = {"extra_headers": {"X-Team": "home"}}
    async with ChatStandIn(ANSWER) as other:
        async with chat_at(other.url, **headers) as chat:
            assert await say(chat) == ANSWER and other.requests[-1].headers["x-team"] == "home"
        asked = len(other.requests)
        async with chat_at(f"http://127.0.0.1:{runner.addresses[0][1]}", **headers) as chat:
            with pytest.raises(
                ChatError, match=f"it redirects to {other.url.removeprefix('http://')}: give that address"
            ):
                await say(chat)
        assert len(other.requests) == asked
    await runner.cleanup()


async def test_what_a_server_repeats_of_a_key_or_a_header_goes_no_further() -> None:
    async def repeat(request: web.Request) -> web.StreamResponse:
        said = f"{request.headers['Authorization']} of {request.headers['X-Key']} in {request.headers['X-Group']}"
        return web.json_response({"error": {"message": said}}, status=401)

    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{path:.*}", repeat)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    headers: dict[str, Any] = {"extra_headers": {"X-Key": "another-secret", "X-Group": "1"}}
    async with chat_at(f"http://127.0.0.1:{runner.addresses[0][1]}", **headers) as chat:
        with pytest.raises(ChatError, match=r"HTTP 401: Bearer \*\*\* of \*\*\* in 1$"):
            await say(chat)
    await runner.cleanup()


async def test_a_local_server_needs_no_key() -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, api_key="") as chat:
        assert await say(chat) == ANSWER


async def test_one_connection_serves_turn_after_turn_and_warming_opens_it() -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url) as chat:
        await chat.warm()
        assert server.requests[0].path == "/v1/models"
        for _ in range(3):
            assert await say(chat) == ANSWER
        assert len({request.client_port for request in server.requests}) == 1


@pytest.mark.parametrize("fault", ["401", "429", "500"])
async def test_warming_succeeds_whatever_the_status(fault: str) -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url) as chat:
        server.fault = fault
        await chat.warm()
        server.fault = ""
        await say(chat)
        assert len({request.client_port for request in server.requests}) == 1


async def test_warming_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    async with ChatStandIn() as server, chat_at(server.url) as chat:
        server.fault = "refuse"
        assert await Chat(LlmSettings(), [chat]).warm()
    async with chat_at("http://127.0.0.1:1") as chat:
        assert await Chat(LlmSettings(), [chat]).warm()
    short = settings(connect_timeout_s=0.01, first_token_timeout_s=0.01)
    async with ChatStandIn() as server, chat_at(server.url, short) as chat:
        server.fault = "hang"
        assert await Chat(LlmSettings(), [chat]).warm()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert all(line.startswith("stand-in cannot be reached now: ") for line in warnings)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refuse", ""),
        ("401", "HTTP 401: Incorrect API key provided"),
        ("429", r"HTTP 429 \(retry after 7 s\): Rate limit reached"),
        ("500", "HTTP 500: The server had an error"),
        ("html", "answered with text/html"),
        ("empty", "answered nothing"),
        ("only-reasoning", "answered nothing"),
    ],
)
async def test_failures_before_the_first_token_are_one_line(fault: str, reason: str) -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url) as chat:
        server.fault = fault
        said: list[str] = []
        with pytest.raises(ChatError, match=f"^stand-in: {reason}") as caught:
            await say(chat, said)
        assert said == []
        assert KEY not in str(caught.value)
        assert "\n" not in str(caught.value)
        server.fault = ""
        assert await say(chat) == ANSWER  # the next turn is well again


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reset", ""),
        ("cut", "broke off in the middle"),
        ("garbage", "broke off in the middle"),
        ("bad-json", "sent what is no JSON"),
        ("wrong-json", "sent JSON of another shape"),
        ("error-event", "The server is overloaded"),
    ],
)
async def test_failures_in_the_middle_come_after_what_was_said(fault: str, reason: str) -> None:
    async with ChatStandIn("one two three four five six") as server, chat_at(server.url) as chat:
        server.fault = fault
        said: list[str] = []
        with pytest.raises(ChatError, match=f"^stand-in: {reason}"):
            await say(chat, said)
        if fault == "reset":  # the reset may overtake what was written just before it
            assert "one two three".startswith("".join(said))
        else:
            assert "".join(said) == "one two three"


async def test_a_stream_that_is_cut_before_its_first_token() -> None:
    async with ChatStandIn(ANSWER, fault_after=0) as server, chat_at(server.url) as chat:
        server.fault = "cut"
        with pytest.raises(ChatError, match=r"^stand-in: ended without an answer"):
            await say(chat)


@pytest.mark.parametrize("fault", ["hang", "hang-first"])
async def test_a_first_token_that_never_comes_is_given_up(fault: str) -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, settings(first_token_timeout_s=0.05)) as chat:
        await chat.warm()  # else a busy machine needs that long before the server is asked at all
        server.fault = fault
        with pytest.raises(ChatError, match=r"^stand-in: no first token within 0\.05 s"):
            await say(chat)
        await server.idle()
        assert server.aborted == 1


async def test_silence_in_the_middle_is_given_up() -> None:
    async with ChatStandIn("one two three four") as server, chat_at(server.url, settings(idle_timeout_s=0.05)) as chat:
        server.fault = "hang-mid"
        said: list[str] = []
        with pytest.raises(ChatError, match=r"^stand-in: went silent for 0\.05 s"):
            await say(chat, said)
        assert "".join(said) == "one two three"
        await server.idle()


async def test_only_the_models_silence_counts_not_the_listeners() -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, settings(idle_timeout_s=0.02)) as chat:
        said = ""
        async for delta in chat.stream(ChatRequest(HELLO, "en")):
            said += delta.text
            if len(said) == 1:
                await asyncio.sleep(0.1)  # five times the patience with the model
        assert said == ANSWER


async def test_no_connection_is_named() -> None:
    async with chat_at("http://127.0.0.1:1") as chat:
        with pytest.raises(ChatError, match=r"^stand-in: OSError: .*connect|^stand-in: Connect"):
            await say(chat)


@pytest.mark.parametrize("fault", ["reasoning", "think-tags"])
async def test_reasoning_is_never_said(fault: str) -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url) as chat:
        server.fault = fault
        assert (await say(chat)).strip() == ANSWER


async def test_what_the_first_answer_shows_of_thoughts_holds_for_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url) as chat:
        server.fault = "think-end"
        assert (await say(chat)).startswith("The user greets me"), "nothing has shown yet that this is a thought"
        assert "Write thinks = true beside the endpoint" in caplog.text
        assert (await say(chat)).strip() == ANSWER
        server.fault = ""
        said: list[str] = []
        assert await say(chat, said) == ANSWER
        assert len(said) == 1, "held back until its end, for nothing"
        assert await say(chat, said := []) == ANSWER
        assert len(said) > 5, "and not again"


@pytest.mark.parametrize("how", [{"thinks": True}, {"model": "deepseek-r1:7b"}])
async def test_a_model_that_is_known_to_think_is_never_heard_thinking(how: dict[str, Any]) -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, **how) as chat:
        for fault in ("think-end", "think-tags", "reasoning"):
            server.fault = fault
            assert (await say(chat)).strip() == ANSWER
        server.fault = "think-cut"
        with pytest.raises(ChatError, match="had spent its max_tokens before a word to be spoken"):
            await say(chat)


async def test_what_the_settings_say_of_thoughts_is_not_unlearned() -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, thinks=True) as chat:
        assert await say(chat) == ANSWER
        assert chat.begins_in_thought
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, thinks=False) as chat:
        server.fault = "think-end"
        await say(chat)
        assert not chat.begins_in_thought


@pytest.mark.real_time  # in virtual time it takes none to think
@pytest.mark.parametrize("fault", ["only-reasoning", "think-tags", "think-end"])
async def test_thinking_for_too_long_is_given_up(fault: str) -> None:
    limits = settings().model_copy(update={"thinking_timeout_s": 1e-9})
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, limits, thinks=True) as chat:
        server.fault = fault
        with pytest.raises(ChatError, match="thought for more than 1e-09 s"):
            await say(chat)
        await server.idle()


async def test_thinking_without_end_behind_the_first_words_is_given_up_too() -> None:
    limits = settings().model_copy(update={"thinking_timeout_s": 0.2})
    answer = "Let me see. <think>" + "and then again " * 1000
    said: list[str] = []
    async with ChatStandIn(answer, tokens_per_s=100.0) as server, chat_at(server.url, limits) as chat:
        with pytest.raises(ChatError, match="thought for more than"):
            await say(chat, said)
        assert "".join(said).strip() == "Let me see."
        await server.idle()


async def test_a_slow_drip_of_bytes_is_an_answer_like_any_other() -> None:
    async with ChatStandIn("好的 ok") as server, chat_at(server.url) as chat:
        server.fault = "drip"
        assert await say(chat) == "好的 ok"


async def test_closing_the_iterator_closes_the_request() -> None:
    async with ChatStandIn("one two three four") as server, chat_at(server.url) as chat:
        server.fault = "hang-mid"
        stream = chat.stream(ChatRequest(HELLO, "en"))
        assert (await anext(stream)).text == "one"
        await stream.aclose()
        await server.idle()
        assert server.aborted == 1
        server.fault = ""
        assert await say(chat) == "one two three four"


async def test_cancelling_while_the_answer_is_awaited_closes_the_request() -> None:
    async with ChatStandIn() as server, chat_at(server.url) as chat:
        server.fault = "hang"
        asking = asyncio.create_task(say(chat))
        await server.asked()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.idle()
        assert server.aborted == 1


async def test_no_more_answers_than_allowed_stream_at_once() -> None:
    async with ChatStandIn("one two three four") as server, chat_at(server.url, settings(max_concurrent=1)) as chat:
        server.fault = "hang-mid"
        first = chat.stream(ChatRequest(HELLO, "en"))
        await anext(first)
        second = asyncio.create_task(say(chat))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(server.requests) == 1
        server.fault = ""
        await first.aclose()
        assert await second == "one two three four"


async def test_a_key_that_the_server_repeats_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async with ChatStandIn(ANSWER) as server, chat_at(server.url, api_key="Incorrect API key") as chat:
        server.fault = "401"
        with pytest.raises(ChatError, match=r"^stand-in: HTTP 401: \*\*\* provided"):
            await say(chat)


async def test_scripted_answers_and_whole_completions() -> None:
    async with ChatStandIn(["first", "second"]) as server, chat_at(server.url) as chat:
        assert [await say(chat) for _ in range(3)] == ["first", "second", "second"]
        server.answer = lambda messages: messages[-1]["content"] + "!"
        assert await say(chat) == "hello!"
        whole = await chat._client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert whole.choices[0].message.content == "x!"
