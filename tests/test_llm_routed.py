"""Several endpoints as one, against servers that fail in every way: the user hears one whole answer."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from bench.standins.chat import ChatStandIn
from xiaozhi.events import Message, ToolSpec
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, RouteNote
from xiaozhi.stages.llm.registry import build_chat
from xiaozhi.upstream.breaker import BreakerState

ANSWER = "one two three four five six seven eight"
EARLY_FAULTS = [
    "refuse",
    "401",
    "429",
    "500",
    "garbage",
    "bad-json",
    "wrong-json",
    "error-event",
    "html",
    "empty",
    "cut",
]


@dataclass(slots=True)
class Rig:
    """A routed chat over stand-ins; the first is always asked first, while it is well."""

    chat: Chat
    servers: list[ChatStandIn]
    notes: list[RouteNote]

    async def say(self, text: str = "hello", **more: Any) -> str:
        request = ChatRequest([Message("user", text)], "en", on_note=self.notes.append, **more)
        return "".join([delta.text async for delta in self.chat.stream(request)])

    def questions(self, server: int) -> list[list[dict[str, Any]]]:
        return [request.body["messages"] for request in self.servers[server].requests if request.body]


@asynccontextmanager
async def rig(
    count: int = 2, fault_after: int = 0, endpoints: Sequence[dict[str, Any]] = (), **values: Any
) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(ChatStandIn(ANSWER, fault_after=fault_after)) for _ in range(count)]
        made = []
        for number, server in enumerate(servers):
            own = endpoints[number] if number < len(endpoints) else {}
            weight = 1000.0 if number == 0 else 1e-6
            base = {"name": "abc"[number], "base_url": f"{server.url}/v1", "model": "m", "weight": weight}
            made.append(LlmEndpoint(**{**base, **own}))
        defaults: dict[str, Any] = {"routing": {"enabled": False}, "hedge": {"mode": "off"}}
        chat = build_chat(LlmSettings(endpoints=tuple(made), **{**defaults, **values}), rng=random.Random(1)).chat
        stack.push_async_callback(chat.close)
        yield Rig(chat, servers, [])


@pytest.mark.parametrize("fault", EARLY_FAULTS)
async def test_a_failure_before_the_first_token_is_not_noticed(fault: str) -> None:
    async with rig() as house:
        house.servers[0].fault = fault
        assert await house.say() == ANSWER
        assert house.notes == [RouteNote("b", "", 2, False)]
        first, second = house.chat.states()
        assert (first.requests, sum(first.failures.values()), second.succeeded) == (1, 1, 1)
        assert house.chat.pool.failovers == 1


@pytest.mark.parametrize("fault", ["hang", "hang-first"])
async def test_an_endpoint_that_hangs_is_given_up_for_another_and_its_request_is_closed(fault: str) -> None:
    async with rig(failover_first_token_s=0.05) as house:
        house.servers[0].fault = fault
        assert await house.say() == ANSWER
        await house.servers[0].idle()
        assert house.servers[0].aborted == 1
        assert house.chat.states()[0].failures == {"first_byte": 1}


async def test_an_address_without_tls_is_passed_over() -> None:
    async with ChatStandIn() as plain:
        tls = plain.url.replace("http:", "https:")
        async with rig(endpoints=[{"base_url": f"{tls}/v1"}]) as house:
            assert await house.say() == ANSWER
            assert house.chat.states()[0].failures == {"connection": 1}
            assert "SSL" in house.chat.states()[0].last_error or "ssl" in house.chat.states()[0].last_error


@pytest.mark.parametrize("fault", ["reset", "cut", "garbage", "bad-json", "wrong-json", "error-event", "hang-mid"])
async def test_another_endpoint_goes_on_where_one_broke_off(fault: str) -> None:
    async with rig(fault_after=6, failover_idle_s=0.1) as house:
        house.servers[0].fault = fault
        house.servers[1].answer = "four five six seven eight"
        assert await house.say() == ANSWER
        question, said, go_on = house.questions(1)[0]
        assert question == {"role": "user", "content": "hello"}
        assert said["role"] == "assistant"
        assert ANSWER.startswith(said["content"].strip()) and said["content"]
        assert go_on["role"] == "user" and "cut off" in go_on["content"]
        assert [note.endpoint for note in house.notes] == ["a", "a+b"]
        assert house.chat.continued == 1
        assert house.chat.states()[0].failures == {"broken": 1}


async def test_a_continuation_that_begins_again_is_cut() -> None:
    async with rig(fault_after=6) as house:
        house.servers[0].fault = "reset"
        assert await house.say() == ANSWER  # the second says everything from the beginning


async def test_a_continuation_that_breaks_off_while_it_repeats_leaves_no_repetition() -> None:
    async with rig(3, fault_after=8) as house:
        for server in house.servers[:2]:
            server.fault = "reset"
        house.servers[1].fault_after = 4  # it has only repeated until then
        assert await house.say() == ANSWER


async def test_a_chinese_user_s_answer_is_continued_in_chinese() -> None:
    async with rig(fault_after=3) as house:
        house.servers[0].answer = house.servers[1].answer = "今天天气很好，我们出去走走吧。"
        house.servers[0].fault = "reset"
        request = ChatRequest([Message("user", "你好")], "zh")
        assert "".join([delta.text async for delta in house.chat.stream(request)]) == "今天天气很好，我们出去走走吧。"
        assert "断开" in house.questions(1)[0][-1]["content"]


async def test_a_single_endpoint_is_asked_once_more_after_a_chance_failure_and_then_the_reason_is_told() -> None:
    async with rig(1) as house:
        house.servers[0].fault = "refuse"
        with pytest.raises(ChatError, match=r"^a: "):
            await house.say()
        assert house.chat.states()[0].requests == 2
        assert house.chat.failed == 1


async def test_when_all_fail_every_reason_is_told_and_nobody_is_asked_for_ever() -> None:
    async with rig(3) as house:
        for server, fault in zip(house.servers, ("500", "401", "html"), strict=True):
            server.fault = fault
        with pytest.raises(ChatError) as caught:
            await house.say()
        for reason in ("a: HTTP 500", "b: HTTP 401", "c: answered with text/html"):
            assert str(caught.value).count(reason) == 1
        assert sum(len(house.questions(number)) for number in range(3)) <= 4


async def test_five_failures_open_the_breaker_and_nobody_waits_for_it_any_more() -> None:
    async with rig() as house:
        house.servers[0].fault = "500"
        for _ in range(8):
            assert await house.say() == ANSWER
        assert len(house.questions(0)) == 5
        assert house.chat.states()[0].breaker is BreakerState.OPEN


@pytest.mark.parametrize("as_date", [False, True])
async def test_an_endpoint_that_says_when_to_come_back_is_left_alone_until_then(as_date: bool) -> None:
    async with rig() as house:
        when = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
        house.servers[0].retry_after_s = when if as_date else 120
        house.servers[0].fault = "429"
        for _ in range(3):
            assert await house.say() == ANSWER
        assert len(house.questions(0)) == 1
        assert 100 < house.chat.states()[0].rests_s <= 120


async def test_a_refused_request_is_no_fault_of_the_endpoint() -> None:
    async with rig(1) as house:
        house.servers[0].fault = "400"
        for _ in range(7):
            with pytest.raises(ChatError, match="HTTP 400"):
                await house.say()
        assert house.chat.states()[0].breaker is BreakerState.CLOSED


async def test_when_nobody_is_well_one_request_tries_all_the_same_and_finds_it_back() -> None:
    async with rig(1) as house:
        house.servers[0].fault = "401"
        with pytest.raises(ChatError):
            await house.say()
        assert house.chat.states()[0].breaker is BreakerState.OPEN
        house.servers[0].fault = ""
        assert await house.say() == ANSWER
        assert house.chat.states()[0].breaker is BreakerState.CLOSED


async def test_a_single_endpoint_that_says_when_to_come_back_is_not_asked_before() -> None:
    async with rig(1) as house:
        house.servers[0].fault = "429"
        for _ in range(3):
            with pytest.raises(ChatError):
                await house.say()
        assert len(house.questions(0)) == 1


HEDGE = {"mode": "free", "share": 1.0, "from_s": 0.05, "to_s": 0.05}


async def test_a_late_endpoint_gets_company_and_the_loser_is_closed_at_once() -> None:
    async with rig(hedge=HEDGE) as house:
        house.servers[0].fault = "hang"
        assert await house.say() == ANSWER
        await house.servers[0].idle()
        assert house.notes == [RouteNote("b", "", 2, True)]
        assert (house.chat.pool.hedges, house.servers[0].aborted) == (1, 1)
        assert house.chat.states()[0].dropped == 1


@pytest.mark.parametrize("why", ["paid", "load", "budget"])
async def test_nobody_is_asked_twice_when_it_is_not_allowed(why: str) -> None:
    hedge = {**HEDGE, "share": 0.0} if why == "budget" else HEDGE
    endpoints = [{"price": 1.0}, {"price": 1.0}] if why == "paid" else []
    async with rig(hedge=hedge, endpoints=endpoints, failover_first_token_s=0.2) as house:
        house.chat.hedging_allowed = why != "load"
        house.servers[0].fault = "hang"
        assert await house.say() == ANSWER
        assert house.chat.pool.hedges == 0
        assert house.notes == [RouteNote("b", "", 2, False)]


async def test_a_tool_call_that_has_begun_is_never_asked_for_twice() -> None:
    pieces = [[{"index": 0, "id": "c1", "type": "function", "function": {"name": "lamp", "arguments": '{"on"'}}]]
    pieces += [[{"index": 0, "function": {"arguments": ": true}"}}]]
    async with rig(hedge=HEDGE) as house:
        house.servers[0].answer = ""
        house.servers[0].tool_pieces = pieces
        tool = ToolSpec("lamp", "Switch the lamp", {"type": "object", "properties": {}})
        request = ChatRequest([Message("user", "lamp on")], "en", tools=[tool])
        deltas = [delta async for delta in house.chat.stream(request)]
        assert [(call.name, call.arguments) for call in deltas[-1].tool_calls] == [("lamp", '{"on": true}')]
        assert house.chat.pool.hedges == 0
        body = house.servers[0].requests[0].body
        assert body["tools"][0]["function"]["name"] == "lamp" and body["tool_choice"] == "auto"


async def test_closing_the_answer_closes_the_request_and_counts_as_no_failure() -> None:
    async with rig() as house:
        stream = house.chat.stream(ChatRequest([Message("user", "hello")], "en"))
        await anext(stream)
        await stream.aclose()
        await house.servers[0].idle()
        assert (house.chat.states()[0].dropped, house.chat.states()[0].in_flight) == (1, 0)


async def test_no_more_replies_at_once_than_allowed_over_all_endpoints() -> None:
    async with rig(max_concurrent=1, first_token_timeout_s=0.05) as house:
        house.servers[0].fault = "hang-mid"
        first = house.chat.stream(ChatRequest([Message("user", "hello")], "en"))
        house.servers[0].fault = ""
        await anext(first)
        with pytest.raises(ChatError, match="1 replies are being given already"):
            await house.say()
        await first.aclose()
        assert await house.say() == ANSWER


async def test_a_full_endpoint_passes_questions_to_the_next() -> None:
    async with rig(endpoints=[{"max_concurrent": 1}]) as house:
        first = house.chat.stream(ChatRequest([Message("user", "hello")], "en"))
        await anext(first)
        assert await house.say() == ANSWER
        assert [len(house.questions(number)) for number in range(2)] == [1, 1]
        await first.aclose()


async def test_simple_questions_go_to_the_edge_and_hard_ones_to_the_cloud_and_each_stands_in() -> None:
    endpoints = [{"tier": "edge"}, {"tier": "cloud"}]
    async with rig(endpoints=endpoints, routing={"enabled": True}) as house:
        await house.say("hello there")
        await house.say("explain how a transistor works")
        assert [len(house.questions(number)) for number in range(2)] == [1, 1]
        assert [note.route for note in house.notes] == ["edge: short and plain", "cloud: a hard question (explain)"]
        house.servers[0].fault = "refuse"
        assert await house.say("hello there") == ANSWER
        assert house.notes[-1].endpoint == "b"
        await house.say("hello", tier="cloud")
        assert house.notes[-1].route == "cloud: the device prefers it"


async def test_health_checks_find_a_dead_endpoint_without_asking_a_question() -> None:
    async with rig() as house:
        house.servers[0].fault = "refuse"
        for _ in range(2):
            await house.chat.pool.checks.check_all(lambda chat: chat.warm())
        assert [state.healthy for state in house.chat.states()] == [False, True]
        assert await house.say() == ANSWER
        assert house.questions(0) == []
        house.servers[0].fault = ""
        await house.chat.pool.checks.check_all(lambda chat: chat.warm())
        assert house.chat.states()[0].healthy is True


async def test_warming_reaches_every_endpoint_and_closing_ends_the_checks() -> None:
    async with rig(3) as house:
        await house.chat.warm()
        assert [[request.path for request in server.requests] for server in house.servers] == [["/v1/models"]] * 3


async def test_endpoints_on_one_host_share_their_connections() -> None:
    async with ChatStandIn(ANSWER) as server:
        endpoints = tuple(
            LlmEndpoint(name=name, base_url=f"{server.url}/v1", model="m", max_concurrent=1) for name in "ab"
        )
        chat = build_chat(LlmSettings(endpoints=endpoints), rng=random.Random(3)).chat
        for _ in range(6):
            async for _ in chat.stream(ChatRequest([Message("user", "hello")], "en")):
                pass
        assert {state.succeeded > 0 for state in chat.states()} == {True}
        assert len({request.client_port for request in server.requests}) == 1
        await chat.close()


async def test_faults_in_any_order_never_lose_an_answer_while_one_endpoint_is_well() -> None:
    rng = random.Random(11)
    faults = [
        "",
        "refuse",
        "reset",
        "500",
        "429",
        "garbage",
        "cut",
        "hang",
        "hang-mid",
        "bad-json",
        "error-event",
        "slow",
    ]
    async with rig(3, fault_after=4, failover_first_token_s=0.2, failover_idle_s=0.2) as house:
        for server in house.servers:
            server.slow_ms = 80.0
            server.retry_after_s = 0  # one that asks for a rest is not well, whatever its fault is now
        for _ in range(25):
            bad = rng.sample(range(3), 2)
            for number, server in enumerate(house.servers):
                server.fault = rng.choice(faults) if number in bad else ""
            assert await house.say() == ANSWER
        await asyncio.gather(*(server.idle() for server in house.servers))
        assert all(state.in_flight == 0 for state in house.chat.states())
