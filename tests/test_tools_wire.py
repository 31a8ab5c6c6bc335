"""Tools through the real chat client: calls arrive in pieces over the wire, results go back over it."""

from collections.abc import Sequence
from typing import Any

from bench.standins.chat import ChatStandIn
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.events import Message, ToolSpec
from xiaozhi.settings import LlmEndpoint, LlmSettings, ToolsSettings
from xiaozhi.settings.tools import DeviceToolSettings
from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.stages.llm.stage import ModelAnswer
from xiaozhi.tools.device_mcp import DeviceMcp
from xiaozhi.tools.rounds import with_tools
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.tools.tool import ToolContext


def piece(index: int, number: str = "", name: str = "", arguments: str = "") -> dict[str, Any]:
    start = {"id": number, "type": "function"} if number else {}
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"index": index, **start, "function": function}


async def test_two_calls_in_pieces_reach_the_device_and_the_calculator_and_their_results_the_model() -> None:
    device = DeviceMcpServer()

    async def send(message: dict[str, Any]) -> None:
        mcp.receive(device.answer(message))

    mcp = DeviceMcp(send, DeviceToolSettings(timeout_s=1))
    await mcp.start()
    house = SharedTools(ToolsSettings())
    box = house.toolbox(ToolContext(language="en", device=mcp), device=mcp)
    box.begin_turn("volume to 40, and what is 6 times 7?")
    pieces = [
        [piece(0, "c1", "self_audio_speaker_set_volume")],
        [piece(0, arguments='{"volu'), piece(1, "c2", "calculate", '{"expression"')],
        [piece(0, arguments='me": 40}'), piece(1, arguments=': "6*7"}')],
    ]
    endpoint = {"name": "stand-in", "model": "bench", "api_key": "k"}
    async with ChatStandIn(["One moment.", "Done, and 42."], tool_pieces=pieces) as server:
        chat = OpenAIChat(LlmEndpoint(base_url=f"{server.url}/v1", **endpoint), LlmSettings())

        async def ask(messages: Sequence[Message], specs: tuple[ToolSpec, ...]) -> ModelAnswer:
            deltas = [delta async for delta in chat.stream(ChatRequest(messages, "en", tools=specs))]
            server.tool_pieces = ()
            return ModelAnswer("".join(each.text for each in deltas), tool_calls=deltas[-1].tool_calls)

        done = await with_tools(ask, box, [Message("user", "volume to 40, and what is 6 times 7?")])
        await chat.close()
    await house.close()
    assert device.volume == 40
    assert done.spoken == ("One moment.", "Done, and 42.")
    first, second = (request.body for request in server.requests if request.path.endswith("completions"))
    names = [each["function"]["name"] for each in first["tools"]]
    assert "self_audio_speaker_set_volume" in names and first["tools"] == second["tools"]
    assert [(each["role"], each.get("tool_call_id"), each["content"]) for each in second["messages"][2:]] == [
        ("tool", "c1", "true"),
        ("tool", "c2", "42"),
    ]
    assert [each["id"] for each in second["messages"][1]["tool_calls"]] == ["c1", "c2"]
