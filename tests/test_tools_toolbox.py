"""Names, arguments and limits of tool calls; the toolbox of one conversation."""

import asyncio
import json
import re
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from xiaozhi.events import ToolCall
from xiaozhi.settings import ToolsSettings
from xiaozhi.tools.arguments import BadArguments, parse_arguments, schema_check
from xiaozhi.tools.confirmation import Confirmations, affirms
from xiaozhi.tools.declare import tool
from xiaozhi.tools.naming import Names, api_name
from xiaozhi.tools.plain_schema import plain_schema
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult, remote_tool
from xiaozhi.tools.toolbox import Registry, Toolbox, allowed

VALID = re.compile(r"^[a-zA-Z][a-zA-Z0-9_-]{0,63}$")


@tool()
async def echo(context: ToolContext, text: str, times: Annotated[int, Field(ge=1, le=3)] = 1) -> str:
    """Say it again.

    Takes:
        text: what to say,
            in one line.
        times: how often.
    """
    return " ".join([text] * times)


@tool(dangerous=True)
async def blow_up(context: ToolContext, what: Literal["bridge", "balloon"]) -> str:
    """Blow something up."""
    return f"{what} is gone"


@tool()
async def broken(context: ToolContext) -> str:
    """Never works."""
    raise RuntimeError("secret inside")


@tool()
async def picky(context: ToolContext) -> str:
    """Refuses."""
    raise ToolError("今天不行。")


def box(*tools: Tool, **settings: Any) -> Toolbox:
    made = Toolbox(Registry(tools), ToolContext(language="en"), ToolsSettings(**settings))
    made.begin_turn("hello")
    return made


def call(name: str, number: str = "1", /, **arguments: Any) -> ToolCall:
    return ToolCall(number, name, json.dumps(arguments))


async def test_a_typed_coroutine_becomes_a_tool_with_a_schema() -> None:
    assert echo.name == "echo"
    assert echo.description == "Say it again."
    assert echo.parameters == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "what to say, in one line."},
            "times": {"type": "integer", "default": 1, "minimum": 1, "maximum": 3, "description": "how often."},
        },
        "required": ["text"],
    }


def test_a_coroutine_without_types_is_refused() -> None:
    async def untyped(context: ToolContext, x) -> str:  # type: ignore[no-untyped-def]  # the mistake that is tested
        return ""

    async def contextless(x: int) -> str:
        return ""

    with pytest.raises(TypeError, match="argument x has no type"):
        tool()(untyped)
    with pytest.raises(TypeError, match="must be a ToolContext"):
        tool()(contextless)


@given(st.lists(st.text(min_size=1, max_size=120), unique=True, max_size=30))
def test_every_name_maps_to_a_valid_one_and_back(names: list[str]) -> None:
    mapped = Names(names)
    for name in names:
        assert VALID.match(mapped.to_api(name))
        assert mapped.to_own(mapped.to_api(name)) == name


def test_firmware_names_stay_readable_and_collisions_differ() -> None:
    assert api_name("self.audio_speaker.set_volume") == "self_audio_speaker_set_volume"
    assert api_name("查天气") != api_name("查新闻")
    assert api_name("x" * 100) == api_name("x" * 100) != api_name("x" * 101)
    names = Names(["self.lamp.on", "self_lamp_on"])
    assert names.to_api("self.lamp.on") == "self_lamp_on"
    assert names.to_api("self_lamp_on").startswith("self_lamp_on_")
    assert names.in_text("First call self.lamp.on, please.") == "First call self_lamp_on, please."
    assert names.to_own("nothing") is None


@pytest.mark.parametrize("text", ["[1]", "{", '"a"', "x" * 20_000, "3"])
def test_arguments_that_are_no_object_are_told_in_one_sentence(text: str) -> None:
    with pytest.raises(BadArguments) as told:
        parse_arguments(text)
    assert "\n" not in str(told.value) and len(str(told.value)) < 200


def test_no_arguments_are_no_mistake() -> None:
    assert parse_arguments("") == parse_arguments("null") == parse_arguments(" {} ") == {}


def test_values_of_the_wrong_kind_are_corrected_and_wrong_values_told() -> None:
    schema = {
        "type": "object",
        "properties": {
            "volume": {"type": "integer", "minimum": 0, "maximum": 100},
            "on": {"type": "boolean"},
            "name": {"type": "string"},
        },
        "required": ["volume"],
    }
    check = schema_check(schema)
    assert check({"volume": "50", "on": "true", "name": 3}) == {"volume": 50, "on": True, "name": "3"}
    assert isinstance(check({"volume": 50.0})["volume"], int)
    for wrong in ({"volume": 50.9}, {"volume": 101}, {}, {"volume": True}):
        with pytest.raises(BadArguments):
            check(wrong)


@pytest.mark.parametrize("schema", [{"type": 3}, {"$ref": "http://127.0.0.1:1/x"}, {"properties": 5}, {"$ref": "#"}])
def test_a_schema_that_is_wrong_lets_arguments_pass_and_fetches_nothing(schema: dict[str, Any]) -> None:
    assert schema_check(plain_schema(schema))({"a": 1}) == {"a": 1}


async def test_several_calls_run_at_once_and_are_answered_in_order() -> None:
    first_may_end = asyncio.Event()

    @tool()
    async def waits(context: ToolContext) -> str:
        """Waits for the other."""
        await first_may_end.wait()
        return "waited"

    @tool()
    async def frees(context: ToolContext) -> str:
        """Frees the other."""
        first_may_end.set()
        return "freed"

    answers = await box(waits, frees).run([call("waits", "a"), call("frees", "b")])
    assert [(each.message().tool_call_id, each.message().content) for each in answers] == [
        ("a", "waited"),
        ("b", "freed"),
    ]
    assert all(each.message().role == "tool" for each in answers)


async def test_mistakes_of_the_model_are_answered_and_not_raised() -> None:
    tools = box(echo)
    unknown, bad, missing, too_many, right = await tools.run(
        [
            call("nothing"),
            ToolCall("2", "echo", "{broken"),
            call("echo"),
            call("echo", text="x", times=9),
            call("echo", text="x", times=2),
        ]
    )
    assert unknown.result.failed and "no tool 'nothing'" in unknown.result.text
    assert bad.result.failed and "not valid JSON" in bad.result.text
    assert missing.result.text == "Not called. Argument 'text' is missing."
    assert "less than or equal to 3" in too_many.result.text
    assert right.result == ToolResult("x x")
    assert tools.counters.refused == 4 and tools.counters.calls == 1


async def test_errors_become_short_results_without_what_was_inside() -> None:
    crashed, refused = await box(broken, picky).run([call("broken"), call("picky")])
    assert crashed.result.failed and "secret" not in crashed.result.text
    assert refused.result == ToolResult("今天不行。", failed=True)


async def test_a_tool_that_takes_too_long_is_given_up_and_the_user_hears_something_meanwhile() -> None:
    @tool()
    async def hangs(context: ToolContext) -> str:
        """Never ends."""
        await asyncio.Event().wait()
        return ""

    said: list[str] = []
    tools = box(hangs, echo, timeout_s=0.05, filler_after_s=0.0)
    slow, quick = await tools.run([call("hangs"), call("echo", text="x")], said.append)
    assert slow.result.failed and "too long" in slow.result.text
    assert quick.result.text == "x"
    assert said == ["One moment, let me see."]
    assert tools.counters.timed_out == 1


async def test_cancelling_cancels_every_call() -> None:
    running = asyncio.Event()
    ended: list[str] = []

    @tool()
    async def hangs(context: ToolContext, name: str) -> str:
        """Never ends."""
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)
        return ""

    task = asyncio.create_task(box(hangs).run([call("hangs", name="a"), call("hangs", name="b")]))
    await running.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == ["a", "b"]


async def test_a_long_result_is_cut() -> None:
    (answer,) = await box(echo, result_max_chars=200).run([call("echo", text="x" * 5000)])
    assert len(answer.result.text) == 200


async def test_a_model_that_goes_round_in_circles_is_stopped() -> None:
    tools = box(echo, max_rounds=4, max_calls=2)
    for _ in range(2):
        (again,) = await tools.run([call("echo", text="x")])
        assert not again.result.failed
    (third,) = await tools.run([call("echo", text="x")])
    assert "already" in third.result.text
    _, _, third_at_once = await tools.run([call("echo", text=text) for text in "abc"])
    assert "at most 2 calls" in third_at_once.result.text
    assert tools.exhausted
    (late,) = await tools.run([call("echo", text="new")])
    assert "no more calls" in late.result.text
    tools.begin_turn("something else")
    (fresh,) = await tools.run([call("echo", text="x")])
    assert fresh.result.text == "x"


async def test_what_is_dangerous_waits_for_the_users_yes_and_only_for_that_very_call() -> None:
    tools = box(blow_up)
    (asked,) = await tools.run([call("blow_up", what="balloon")])
    (insists,) = await tools.run([call("blow_up", what="balloon")])
    assert asked.result.failed and insists.result.failed
    tools.begin_turn("yes, please")
    (other,) = await tools.run([call("blow_up", what="bridge")])
    (done,) = await tools.run([call("blow_up", what="balloon")])
    (once,) = await tools.run([call("blow_up", what="balloon")])
    assert other.result.failed and once.result.failed
    assert done.result.text == "balloon is gone"
    tools.begin_turn("no, don't")
    (refused,) = await tools.run([call("blow_up", what="bridge")])
    assert refused.result.failed


async def test_confirmation_can_be_switched_off_and_named_tools_need_it_too() -> None:
    (done,) = await box(blow_up, confirm=False).run([call("blow_up", what="balloon")])
    assert not done.result.failed
    (asked,) = await box(echo, dangerous=("ec*",)).run([call("echo", text="x")])
    assert "consent" in asked.result.text


@pytest.mark.parametrize("heard", ["好的", "嗯，可以", "是的！", "确认", "yes", "Yeah, do it.", "ok", "没问题", "Sure"])
def test_a_yes_is_a_yes(heard: str) -> None:
    assert affirms(heard)


@pytest.mark.parametrize(
    "heard", ["不要", "好像不行", "算了", "no", "yes, no wait", "什么？", "", "好了别弄了", "okay never mind", "不可以"]
)
def test_doubt_is_no(heard: str) -> None:
    assert not affirms(heard)


def test_a_yes_holds_for_one_turn() -> None:
    asked = Confirmations()
    assert not asked.granted("open", "{}")
    asked.begin_turn("今天天气怎么样")
    asked.begin_turn("好的")
    assert not asked.granted("open", "{}")


async def test_user_only_and_denied_tools_are_never_offered() -> None:
    async def run(arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        return ToolResult("did it")

    secret = remote_tool("self.reboot", "", {"type": "object"}, run, source="device", user_only=True)
    lamp = remote_tool("self.lamp.on", "See self.reboot.", {"type": "object"}, run, source="device")
    assert allowed([secret, lamp, echo], ["*"], []) == [lamp, echo]
    assert allowed([lamp, echo], ["device/*"], []) == [lamp]
    assert allowed([lamp, echo], ["*"], ["self.*"]) == [echo]
    tools = Toolbox(Registry([secret, lamp, echo]), ToolContext(), ToolsSettings(deny=("echo",)), allow=("self.*",))
    assert [spec.name for spec in tools.specs()] == ["self_lamp_on"]
    (refused,) = await tools.run([call("self_reboot")])
    assert refused.result.failed


async def test_the_order_is_stable_and_changes_come_between_turns_only() -> None:
    class Source:
        version = 0
        kept: tuple[Tool, ...] = ()

        def tools(self) -> tuple[Tool, ...]:
            return self.kept

    source = Source()
    tools = Toolbox(Registry([picky, echo]), ToolContext(), ToolsSettings(), device=source)
    before = tools.specs()
    assert [spec.name for spec in before] == ["echo", "picky"]
    source.kept, source.version = (broken, blow_up), 1
    assert tools.specs() is before
    tools.begin_turn("")
    assert [spec.name for spec in tools.specs()] == ["echo", "picky", "blow_up", "broken"]
    after = tools.specs()
    tools.begin_turn("")
    assert tools.specs() is after


async def test_tools_can_be_off_and_their_number_bounded() -> None:
    assert box(echo, enabled=False).specs() == ()
    assert len(box(echo, picky, broken, max_tools=2).specs()) == 2
