"""Agent platforms as the mind: each against a strict stand-in of its wire format, alone and through whole turns."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.standins.chat import ChatStandIn
from bench.standins.platforms import (
    DEFAULT,
    KEY,
    CozeStandIn,
    DifyStandIn,
    HomeAssistantStandIn,
    PlatformStandIn,
    ResponsesStandIn,
)
from tests.house import house
from xiaozhi.checks import upstream
from xiaozhi.checks.finding import Level
from xiaozhi.console.settings_file import SettingsFile
from xiaozhi.console.trials import Trials
from xiaozhi.events import Message, ToolCall, ToolSpec
from xiaozhi.settings import LlmEndpoint, LlmSettings, Settings
from xiaozhi.settings.load import SettingsSource
from xiaozhi.stages.llm.continuation import continuing
from xiaozhi.stages.llm.engine import ChatError, ChatModel, ChatRequest
from xiaozhi.stages.llm.registry import build_chat, build_model
from xiaozhi.stages.llm.threads import MAX_THREADS, Threads
from xiaozhi.text.citations import CitationMarks
from xiaozhi.text.messages import unasked_mark
from xiaozhi.upstream.failure import FailureKind

PLATFORMS: dict[str, type[PlatformStandIn]] = {
    "dify": DifyStandIn,
    "coze": CozeStandIn,
    "home-assistant": HomeAssistantStandIn,
    "responses": ResponsesStandIn,
}
KEEPING = ("dify", "coze")
STREAMING = ("dify", "coze", "responses")


def fields(kind: str, url: str, **more: Any) -> dict[str, Any]:
    base = url if kind in ("coze", "home-assistant", "ragflow") else f"{url}/{'api/v1' if kind == 'fastgpt' else 'v1'}"
    model = {"coze": CozeStandIn.BOT, "home-assistant": HomeAssistantStandIn.AGENT}.get(kind, "app")
    return {"name": kind, "kind": kind, "base_url": base, "model": model, "api_key": KEY, **more}


@asynccontextmanager
async def asked_at(kind: str, url: str, others: int = 0, **limits: Any) -> AsyncIterator[ChatModel]:
    endpoint = LlmEndpoint(**fields(kind, url))
    rest = [endpoint.model_copy(update={"name": f"other-{n}"}) for n in range(others)]
    model = build_model(endpoint, LlmSettings(endpoints=(endpoint, *rest), **{"connect_timeout_s": 5.0, **limits}))
    try:
        yield model
    finally:
        await model.close()


def question(*texts: str, device: str = "d1/小智", **more: Any) -> ChatRequest:
    """Texts of the user and of the assistant in turn, behind a prompt."""
    said = [Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
    return ChatRequest([Message("system", "You are 小智."), *said], "en", conversation=device, **more)


async def say(model: ChatModel, request: ChatRequest, said: list[str] | None = None) -> str:
    said = [] if said is None else said
    async with aclosing(model.stream(request)) as deltas:
        async for delta in deltas:
            said.append(delta.text)
    return "".join(said)


@pytest.mark.parametrize("kind", PLATFORMS)
async def test_an_answer_is_heard_without_thoughts_sources_and_events(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        said: list[str] = []
        assert await say(model, question("is the lamp on?"), said) == DEFAULT
        assert len(said) > 5 or kind == "home-assistant"
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", KEEPING)
async def test_only_the_newest_text_is_sent_where_the_platform_keeps_the_past(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        await say(model, question("one"))
        await say(model, question("one", "half of what was sa", "two"))
        await say(model, question("two", "b", "three"))  # the history has forgotten the first turn
        await say(model, question("x", device="d2/小智"))
    first, second = server.conversations.values()
    assert (first.asked, second.asked) == (["one", "two", "three"], ["x"])
    assert first.user != second.user and "d1" not in first.user


@pytest.mark.parametrize("kind", KEEPING)
async def test_a_cleared_history_begins_a_new_conversation(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        await say(model, question("one"))
        await say(model, question("one"))
    assert [one.asked for one in server.conversations.values()] == [["one"], ["one"]]


@pytest.mark.parametrize("kind", KEEPING)
async def test_a_lost_conversation_begins_anew_with_what_was_said_in_it(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        await say(model, question("my name is Ann"))
        server.conversations.clear()
        assert await say(model, question("my name is Ann", "Hello Ann.", "who am I?")) == DEFAULT
        (kept,) = server.conversations.values()
        told = "\n".join(kept.asked)
        assert "my name is Ann" in told and "Hello Ann." in told and told.endswith("who am I?")


@pytest.mark.parametrize("kind", KEEPING)
async def test_what_others_have_answered_is_told_with_the_next_question(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        await say(model, question("one"))
        await say(model, question("one", "a", "what is 2 + 3", "five", "and twice that?"))
    (kept,) = server.conversations.values()
    told = "\n".join(kept.asked)
    assert "what is 2 + 3" in told and "five" in told and told.count("one") == 1


@pytest.mark.parametrize("kind", KEEPING)
async def test_an_answer_that_is_broken_off_is_stopped_there_before_the_next_question(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        server.fault = "hang-mid"
        stream = model.stream(question("tell me a story"))
        assert (await anext(stream)).text
        await stream.aclose()
        server.fault = ""
        assert await say(model, question("tell me a story", "Once …", "no, the time")) == DEFAULT
        assert len(server.stopped) == 1
        (kept,) = server.conversations.values()
        assert kept.asked == ["tell me a story", "no, the time"]
        await server.idle()


@pytest.mark.parametrize("kind", KEEPING)
async def test_an_answer_that_came_to_its_end_is_not_stopped(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        await say(model, question("one"))
        await model.close()
        assert server.stopped == []


@pytest.mark.parametrize("kind", PLATFORMS)
async def test_a_wrong_key_is_refused_and_not_told(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        server.fault = "401"
        with pytest.raises(ChatError) as caught:
            await say(model, question("lamp"))
    assert (caught.value.kind, caught.value.status) == (FailureKind.REFUSED, 401)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("kind", KEEPING)
@pytest.mark.parametrize(("fault", "expected"), [("429", FailureKind.BUSY), ("500", FailureKind.SERVER)])
async def test_refusals_are_told_apart(kind: str, fault: str, expected: FailureKind) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        server.fault = fault
        with pytest.raises(ChatError) as caught:
            await say(model, question("hello"))
    assert caught.value.kind is expected


@pytest.mark.parametrize("kind", STREAMING)
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("error-mid", FailureKind.BUSY),
        ("cut", FailureKind.NONSENSE),
        ("reset-mid", FailureKind.CONNECTION),
    ],
)
async def test_an_answer_that_goes_wrong_in_the_middle_is_an_error(
    kind: str, fault: str, expected: FailureKind
) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        server.fault = fault
        said: list[str] = []
        with pytest.raises(ChatError) as caught:
            await say(model, question("hello"), said)
    assert caught.value.kind is expected
    assert DEFAULT.startswith("".join(said)) and len("".join(said)) < len(DEFAULT)


@pytest.mark.parametrize("kind", STREAMING)
async def test_silence_in_the_middle_is_given_up(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url, idle_timeout_s=0.05) as model:
        server.fault = "hang-mid"
        with pytest.raises(ChatError, match=r"went silent for 0\.05 s"):
            await say(model, question("hello"))


@pytest.mark.parametrize("kind", KEEPING)
async def test_a_question_that_a_filter_refuses_is_answered_with_a_sentence_of_our_own(kind: str) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        server.fault = "declined"
        (delta,) = [delta async for delta in model.stream(question("hello"))]
        assert delta.aside and delta.text


async def test_what_the_house_does_not_understand_another_may_answer() -> None:
    async with HomeAssistantStandIn() as server:
        async with asked_at("home-assistant", server.url) as alone:
            assert await say(alone, question("who was Li Bai?")) == "Sorry, I couldn't understand that"
        async with asked_at("home-assistant", server.url, others=1) as one_of_two:
            with pytest.raises(ChatError) as caught:
                await say(one_of_two, question("who was Li Bai?"))
            assert caught.value.kind is FailureKind.REQUEST


async def test_the_house_is_never_asked_to_go_on_with_what_another_has_said() -> None:
    async with HomeAssistantStandIn() as server, asked_at("home-assistant", server.url) as model:
        with pytest.raises(ChatError, match="does not go on"):
            await say(model, continuing(question("lamp on"), "I have turned"))
        assert server.requests == []


async def test_the_house_keeps_the_conversation_that_it_has_named() -> None:
    async with HomeAssistantStandIn() as server, asked_at("home-assistant", server.url) as model:
        await say(model, question("lamp on"))
        await say(model, question("lamp on", "done", "and the lamp in the hall"))
    assert [one.asked for one in server.conversations.values()] == [["lamp on", "and the lamp in the hall"]]


async def test_responses_call_our_tools_and_get_their_results() -> None:
    lamp = ToolSpec("lamp", "Switches the lamp.", {"type": "object", "properties": {"on": {"type": "boolean"}}})
    async with ResponsesStandIn() as server, asked_at("responses", server.url) as model:
        server.calls = '{"on":true}'
        request = question("lamp on", tools=[lamp])
        deltas = [delta async for delta in model.stream(request)]
        assert deltas[-1].tool_calls == (ToolCall("call_1", "lamp", '{"on":true}'),)
        calling = Message("assistant", "", tool_calls=deltas[-1].tool_calls, provider=deltas[-1].provider)
        result = Message("tool", "done", tool_call_id="call_1")
        again = ChatRequest([*request.messages, calling, result], "en", tools=[lamp])
        assert await say(model, again) == DEFAULT
    assert server.requests[0].body["instructions"] == "You are 小智."
    assert server.requests[1].body["input"][-1] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": "done",
    }


async def test_responses_are_given_pictures() -> None:
    async with ResponsesStandIn() as server, asked_at("responses", server.url) as model:
        await say(model, ChatRequest([Message("user", "what is it?", image="data:image/png;base64,AA==")], "en"))
    (item,) = server.requests[0].body["input"]
    assert [part["type"] for part in item["content"]] == ["input_text", "input_image"]


class FastGpt(ChatStandIn):
    """The path of FastGPT."""

    def routes(self) -> Any:
        return [one.__class__(one.method, f"/api{one.path}", one.handler, one.kwargs) for one in super().routes()]


async def test_fastgpt_is_sent_the_newest_text_in_its_conversation_and_its_sources_are_not_spoken() -> None:
    answer = "Press the red button[664d0aa1b2c3d4e5f6a7b8c9](CITE). Then wait[0]."
    async with FastGpt(answer) as server, asked_at("fastgpt", server.url) as model:
        assert await say(model, question("one")) == "Press the red button. Then wait[0]."
        await say(model, question("one", "a", "two"))
        await say(model, question("one", device="d2/小智"))
    bodies = [request.body for request in server.requests]
    assert [body["messages"] for body in bodies] == [
        [{"role": "user", "content": text}] for text in ("one", "two", "one")
    ]
    assert bodies[0]["chatId"] == bodies[1]["chatId"] != bodies[2]["chatId"]


async def test_ragflow_is_asked_at_the_address_of_its_chat() -> None:
    class RagFlow(ChatStandIn):
        def routes(self) -> Any:
            path = "/api/v1/chats_openai/app/chat/completions"
            return [one.__class__(one.method, path, one.handler, one.kwargs) for one in super().routes()[:1]]

    answer = "It is the left one. [ID:0][ID:12] ##1$$ Yes."
    async with RagFlow(answer) as server, asked_at("ragflow", server.url) as model:
        assert await say(model, question("which?")) == "It is the left one. Yes."


async def test_nobody_but_a_user_asks_a_platform() -> None:
    async with DifyStandIn() as dify, ChatStandIn("A summary.") as plain:
        both = [fields("dify", dify.url), fields("openai", plain.url)]
        chat = build_chat(LlmSettings.model_validate({"endpoints": both})).chat
        try:
            assert await say(chat, ChatRequest([Message("user", "Sum up …")], "en")) == "A summary."
            assert dify.requests == []
        finally:
            await chat.close()


async def test_a_platform_that_fails_is_replaced_unnoticed() -> None:
    async with DifyStandIn() as dify, CozeStandIn() as coze:
        both = [fields("dify", dify.url, weight=1000), fields("coze", coze.url, weight=0.001)]
        settings = LlmSettings.model_validate({"endpoints": both})
        chat = build_chat(settings).chat
        dify.fault = "error-mid"
        try:
            said = await say(chat, question("hello"))
        finally:
            await chat.close()
    assert said.startswith(DEFAULT[:9])
    assert coze.requests


@pytest.mark.parametrize("kind", PLATFORMS)
async def test_the_check_asks_a_platform_in_its_own_way(kind: str) -> None:
    async with PLATFORMS[kind]() as server:
        one = await upstream.endpoint(LlmEndpoint(**fields(kind, server.url)), LlmSettings())
        assert one.level is Level.OK, one.text
        server.fault = "401"
        one = await upstream.endpoint(LlmEndpoint(**fields(kind, server.url)), LlmSettings())
        assert one.level is Level.BAD and "refuses the key" in one.text


def test_a_platform_that_takes_no_pictures_cannot_be_said_to_see() -> None:
    with pytest.raises(ValidationError, match="takes no pictures"):
        LlmEndpoint.model_validate({"preset": "home-assistant", "vision": True})


def test_conversations_are_remembered_within_bounds() -> None:
    threads = Threads()
    for number in range(MAX_THREADS + 10):
        begun = question("one", device=f"d{number}")
        thread = threads.of(begun)
        thread.id = "x"
        thread.ask(begun)
    assert not threads.of(question("one", "a", "two", device="d0")).id
    assert threads.of(question("one", "a", "two", device=f"d{MAX_THREADS}")).id
    assert not Threads().of(question("x", "y", "z", device="")).id


@given(
    st.lists(st.sampled_from(["[ID:3]", "##2$$", "【4:0†a b.pdf】", "[^1^]", "a[", "##", " ", "[x]", "【注】", "b"])),
    st.data(),
)
def test_marks_of_sources_are_taken_out_wherever_the_pieces_are_cut(parts: Sequence[str], data: st.DataObject) -> None:
    text = "".join(parts)
    whole = CitationMarks()
    expected = whole.push(text) + whole.finish()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    marks, said = CitationMarks(), ""
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        said += marks.push(text[start:end])
    assert said + marks.finish() == expected


# Whole turns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEEPING)
async def test_a_device_talks_with_a_platform_over_several_turns_and_connections(kind: str, tmp_path: Path) -> None:
    async with PLATFORMS[kind]() as server, house(tmp_path, llm={"endpoints": [fields(kind, server.url)]}) as home:
        async with home.device() as device:
            assert (await device.turn_text("tell me about the moon")).text == DEFAULT.removeprefix("🙂 ")
            await device.turn_text("and about the sun")
        async with home.device() as device:
            await device.turn_text("and about mars")
        async with home.device(2) as device:
            await device.turn_text("hello there you")
    one, other = server.conversations.values()
    assert one.asked == ["tell me about the moon", "and about the sun", "and about mars"]
    assert other.asked == ["hello there you"]


async def test_a_cache_never_answers_for_a_platform(tmp_path: Path) -> None:
    async with DifyStandIn("The sky is blue because air scatters blue light.") as server:
        llm = {"endpoints": [fields("dify", server.url)]}
        async with house(tmp_path, llm=llm, cache={"answers": True}) as home:
            for number in (1, 2):
                async with home.device(number) as device:
                    await device.turn_text("why is the sky blue")
    assert [one.body["query"] for one in server.requests] == ["why is the sky blue"] * 2


async def test_a_switch_of_the_agent_begins_a_conversation_of_its_own(tmp_path: Path) -> None:
    async with (
        DifyStandIn() as server,
        house(tmp_path, llm={"endpoints": [fields("dify", server.url)]}) as home,
        home.device() as device,
    ):
        await device.turn_text("tell me about the moon")
        await device.turn_text("switch to the storyteller")
        await device.turn_text("and about the sun")
    first, second = (one.asked for one in server.conversations.values())
    assert first == ["tell me about the moon"]
    assert second[0].endswith("\nand about the sun") and "moon" not in second[0] and len(second) == 1


@pytest.mark.parametrize("kind", KEEPING)
async def test_an_abort_breaks_the_answer_off_at_the_platform(kind: str, tmp_path: Path) -> None:
    long = " ".join(["It is a long story, and it goes on and on."] * 200)
    llm = {"idle_timeout_s": 30.0, "first_token_timeout_s": 30.0}
    async with PLATFORMS[kind](long) as server:
        server.hang_at = 40
        async with (
            house(tmp_path, llm={"endpoints": [fields(kind, server.url)], **llm}) as home,
            home.device() as device,
        ):
            telling = asyncio.create_task(device.turn_text("tell me a story"))
            await device.until(lambda: device.manners.speaker.playback.heard_ms > 600, 20.0)
            device.abort()
            await telling
            server.hang_at = -1
            server.answer = DEFAULT
            assert (await device.turn_text("now the time")).text == DEFAULT.removeprefix("🙂 ")
            assert len(server.stopped) == 1
    (kept,) = server.conversations.values()
    assert kept.asked == ["tell me a story", "now the time"]


async def test_a_greeting_is_no_past_and_a_note_is_no_other_question() -> None:
    greeting = [Message("user", unasked_mark("en")), Message("assistant", "Hello!")]
    async with DifyStandIn() as server, asked_at("dify", server.url) as model:
        await say(model, ChatRequest([*greeting, Message("user", "one\n(sounds glad)")], "en", conversation="d"))
        past = [*greeting, Message("user", "one\n(sounds glad)\n(tools)"), Message("assistant", "a")]
        await say(model, ChatRequest([*past, Message("user", "two")], "en", conversation="d"))
        await say(model, ChatRequest([*greeting, Message("user", "three")], "en", conversation="d"))
    assert [one.asked for one in server.conversations.values()] == [["one\n(sounds glad)", "two"], ["three"]]


@pytest.mark.parametrize("kind", KEEPING)
async def test_results_of_tools_that_another_has_called_are_told(kind: str) -> None:
    calling = Message("assistant", "", tool_calls=(ToolCall("1", "lamp", "{}"),))
    result = Message("tool", "The lamp is on.", tool_call_id="1")
    request = question("lamp on")
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        again = ChatRequest([*request.messages, calling, result], "en", conversation="d")
        assert await say(model, again) == DEFAULT
    (kept,) = server.conversations.values()
    assert "The lamp is on." in "\n".join(kept.asked)


async def test_a_login_page_is_no_answer() -> None:
    async with ChatStandIn() as server, asked_at("responses", server.url) as model:
        with pytest.raises(ChatError) as caught:
            await say(model, question("hello"))
    assert caught.value.kind is FailureKind.REFUSED  # there is no such path


async def test_it_is_tried_from_the_console_like_any_other(tmp_path: Path) -> None:
    async with CozeStandIn() as server, house(tmp_path, console={"enabled": True}) as home:
        trials = Trials(
            home.server.services, SettingsFile(SettingsSource(tmp_path / "settings.toml", {}, {}), Settings)
        )
        shown = await trials.run("llm", {"endpoint": fields("coze", server.url)})
    assert shown["ok"] and "coze, 7400000000000000001 begins" in shown["detail"]


@pytest.mark.parametrize("kind", KEEPING)
async def test_a_picture_is_uploaded_and_goes_along_with_its_question(kind: str) -> None:
    picture = b"\x89PNG picture"
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        asked = ChatRequest([Message("system", "Look."), Message("user", "what is it?", image=url)], "en")
        assert await say(model, asked) == DEFAULT
        with pytest.raises(ChatError, match="only as they are"):
            await say(model, ChatRequest([Message("user", "?", image="http://127.0.0.1/a.png")], "en"))
    assert server.pictures == [picture]
    body = orjson.dumps(server.requests[0].body).decode()
    assert "file-1" in body and "what is it?" in body and len(server.requests) == 1


async def test_a_picture_that_is_not_taken_is_an_error_of_this_question() -> None:
    url = f"data:image/gif;base64,{base64.b64encode(b'GIF').decode()}"
    async with DifyStandIn() as server, asked_at("dify", server.url) as model:
        with pytest.raises(ChatError, match="HTTP 415: File type not allowed") as caught:
            await say(model, ChatRequest([Message("user", "?", image=url)], "en"))
    assert caught.value.kind is FailureKind.REQUEST, "and it goes on being asked"


async def test_a_house_that_acts_and_says_nothing_has_done_it() -> None:
    async with HomeAssistantStandIn("") as server, asked_at("home-assistant", server.url) as model:
        assert await say(model, question("lamp on")) == "Done."


# Somebody else's code ------------------------------------------------------------------------------------------------

# What cozepy 0.20.0 and dify-client send for these questions, without the fields that they leave at null.
SDK_COZE = {
    "bot_id": CozeStandIn.BOT,
    "user_id": "u",
    "additional_messages": [{"role": "user", "type": "question", "content": "hello", "content_type": "text"}],
    "stream": True,
    "auto_save_history": True,
}
SDK_DIFY = {"inputs": {}, "query": "hello", "user": "u", "response_mode": "streaming"}


@pytest.mark.parametrize(("kind", "sent"), [("coze", SDK_COZE), ("dify", SDK_DIFY)])
async def test_a_question_is_what_the_services_own_client_sends(kind: str, sent: dict[str, Any]) -> None:
    async with PLATFORMS[kind]() as server, asked_at(kind, server.url) as model:
        await say(model, question("hello"))
    body = server.requests[0].body
    user = body["user_id" if kind == "coze" else "user"]
    assert {name: "u" if value == user else value for name, value in body.items() if name in sent} == sent
    assert not any(value for name, value in body.items() if name not in sent)


async def test_responses_are_asked_as_the_official_client_asks_and_its_stand_in_is_understood_by_it() -> None:
    async with ResponsesStandIn() as server, asked_at("responses", server.url) as model:
        await say(model, question("hello"))
        (ours,) = server.requests
        client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0)
        said = ""
        async with client, await client.responses.create(**ours.body) as stream:
            async for event in stream:
                said += event.delta if event.type == "response.output_text.delta" else ""
    assert said == DEFAULT
    assert server.requests[1].body == ours.body


async def test_a_platform_that_is_late_gets_no_company_but_a_successor() -> None:
    async with DifyStandIn() as dify, CozeStandIn() as coze:
        limits = {"failover_first_token_s": 0.3, "hedge": {"from_s": 0.05, "to_s": 0.05, "share": 1.0, "mode": "all"}}
        both = [fields("dify", dify.url, weight=1000), fields("coze", coze.url, weight=0.001)]
        chat = build_chat(LlmSettings.model_validate({"endpoints": both, **limits})).chat
        dify.hang_at = 0
        try:
            assert await say(chat, question("hello")) == DEFAULT
            assert (chat.pool.hedges, chat.pool.failovers) == (0, 1)
        finally:
            await chat.close()
        await dify.idle()
        assert len(dify.stopped) == 1


async def test_a_platform_beside_a_model_is_asked_on_trial_by_nobody_and_answers_when_it_may() -> None:
    async with DifyStandIn("The house says so.") as dify, ChatStandIn() as model:
        model.fault = "500"
        plain = {"name": "plain", "base_url": f"{model.url}/v1", "model": "m", "api_key": "k", "weight": 1000}
        endpoints = [plain, fields("dify", dify.url, weight=0.001)]
        chat = build_chat(LlmSettings.model_validate({"endpoints": endpoints}), rng=random.Random(1)).chat
        gate, waiting = asyncio.Event(), asyncio.Event()

        async def permission() -> None:
            waiting.set()
            await gate.wait()

        try:
            aimed = chat.aim(replace(question("hello"), permission=permission))
            assert (aimed.aimed_at, chat.acts(aimed)) == ("plain", False)
            wanted = chat.aim(replace(question("hello"), endpoint="dify"))
            assert (wanted.aimed_at, chat.acts(wanted)) == ("dify", True)
            saying = asyncio.create_task(say(chat, aimed))
            async with asyncio.timeout(5):
                await waiting.wait()
            assert (len(model.requests), dify.requests) == (1, []), "the model has failed, and nobody may act yet"
            gate.set()
            assert await saying == "The house says so."
        finally:
            await chat.close()


async def test_an_address_that_lacks_its_version_is_told_what_to_write() -> None:
    async with DifyStandIn() as server:
        endpoint = LlmEndpoint(**fields("dify", server.url, base_url=server.url))
        one = await upstream.endpoint(endpoint, LlmSettings())
    assert one.level is Level.BAD
    assert "/chat-messages is not there" in one.text and f'write base_url = "{server.url}/v1"' in one.text
