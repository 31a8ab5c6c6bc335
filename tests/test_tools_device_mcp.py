"""The device's own tools, against the device in software and against devices that misbehave."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.tool_host import tool_host
from xiaozhi.client.mcp import DeviceMcpServer, Parameter
from xiaozhi.client.mcp import DeviceTool as ClientTool
from xiaozhi.events import ToolCall
from xiaozhi.settings import ToolsSettings
from xiaozhi.settings.tools import DeviceToolSettings
from xiaozhi.tools.built_in import volume
from xiaozhi.tools.built_in.volume import Wish, carry_out, wish
from xiaozhi.tools.device_mcp import DeviceMcp, call_text
from xiaozhi.tools.tool import ToolContext, ToolError
from xiaozhi.tools.toolbox import Registry, Toolbox

Answer = Callable[[dict[str, Any]], object]


class Wire:
    """Carries messages to a device and its answers back, as a socket does: later, in order."""

    def __init__(self, answer: Answer, **settings: float) -> None:
        self.sent: list[dict[str, Any]] = []
        self.first_sent = asyncio.Event()
        self.mcp = DeviceMcp(self.send, DeviceToolSettings.model_validate({"timeout_s": 0.05, **settings}))
        self._answer = answer

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.first_sent.set()
        reply = self._answer(message)
        if reply is not None:
            asyncio.get_running_loop().call_soon(self.mcp.receive, reply)


def paged_device() -> DeviceMcpServer:
    device = DeviceMcpServer(page_bytes=700)
    for number in range(12):
        name = f"self.lamp{number}.set"
        parameters = (Parameter("level", "integer", minimum=0, maximum=9), Parameter("name", "string", default=""))
        device.tools[name] = ClientTool(name, f"Lamp {number}.", parameters, lambda level, name: f"{name}{level}")
    return device


async def test_a_real_device_lists_its_pages_and_keeps_tools_for_people_to_itself() -> None:
    device = paged_device()
    wire = Wire(device.answer)
    await wire.mcp.start("http://192.0.2.1/vision", "token")
    assert device.vision == {"url": "http://192.0.2.1/vision", "token": "token"}
    assert wire.mcp.server == "software 2.4.2"
    names = [each.name for each in wire.mcp.tools()]
    assert len(names) == 15 and "self.get_system_info" not in names
    methods = [message["method"] for message in wire.sent]
    assert methods[0] == "initialize" and methods.count("tools/list") >= 3
    ids = [message["id"] for message in wire.sent]
    assert ids == list(range(1, len(ids) + 1))
    assert all(type(number) is int for number in ids) and all(isinstance(m["params"], dict) for m in wire.sent)


async def test_the_model_sets_the_volume_of_the_device() -> None:
    device = DeviceMcpServer()
    wire = Wire(device.answer)
    await wire.mcp.start()
    context = ToolContext(language="en", device=wire.mcp)
    tools = Toolbox(Registry(volume.tools(tool_host())), context, ToolsSettings(), device=wire.mcp)
    tools.begin_turn("louder")
    names = [spec.name for spec in tools.specs()]
    assert names[0] == "adjust_device" and "self_audio_speaker_set_volume" in names
    done, wrong, relative = await tools.run(
        [
            ToolCall("1", "self_audio_speaker_set_volume", '{"volume": "50"}'),
            ToolCall("2", "self_audio_speaker_set_volume", '{"volume": 300}'),
            ToolCall("3", "adjust_device", '{"dial": "volume", "change_percent": -20}'),
        ]
    )
    assert done.result.text == "true"
    assert wrong.result.failed and "300" in wrong.result.text
    assert relative.result.text == "Okay, volume is at 30 now."
    assert device.calls[0] == ("self.audio_speaker.set_volume", {"volume": 50})
    assert device.volume == 30


async def test_errors_of_the_firmware_and_of_desktop_clients_are_told() -> None:
    firmware = Wire(DeviceMcpServer().answer)
    with pytest.raises(ToolError, match="Value exceeds maximum allowed: 100"):
        await firmware.mcp.call("self.audio_speaker.set_volume", {"volume": 101})

    def desktop(message: dict[str, Any]) -> object:
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        if message["params"]["name"] == "raises":
            return {**reply, "result": {"content": [{"type": "text", "text": "no camera"}], "isError": True}}
        return {**reply, "error": {"code": -32603, "message": "Internal error"}}

    client = Wire(desktop)
    result = await client.mcp.call("raises", {})
    assert result.failed and result.text == "no camera"
    with pytest.raises(ToolError, match="Internal error"):
        await client.mcp.call("other", {})


async def test_a_device_that_never_answers_costs_its_time_and_nothing_more() -> None:
    wire = Wire(lambda message: None, timeout_s=0.01)
    await wire.mcp.start()
    assert wire.mcp.tools() == ()
    with pytest.raises(ToolError, match="did not answer in time"):
        await wire.mcp.call("self.get_device_status", {})
    assert wire.mcp.timeouts == 4  # initialize, the list twice, the call


async def test_a_lost_first_page_is_asked_for_again() -> None:
    device = DeviceMcpServer()
    lost: list[dict[str, Any]] = []

    def answer(message: dict[str, Any]) -> object:
        if message["method"] == "tools/list" and not lost:
            lost.append(message)
            return None
        return device.answer(message)

    wire = Wire(answer, timeout_s=0.02)
    await wire.mcp.start()
    assert len(wire.mcp.tools()) == 3


async def test_a_late_answer_is_not_taken_for_another_call() -> None:
    wire = Wire(lambda message: None, timeout_s=0.01)
    with pytest.raises(ToolError):
        await wire.mcp.call("a", {})
    wire.mcp.receive({"jsonrpc": "2.0", "id": wire.sent[0]["id"], "result": {"content": []}})
    assert wire.mcp.late == 1


@pytest.mark.parametrize(
    "payload",
    [None, [], "x", {}, {"id": "1", "result": {}}, {"id": True, "result": {}}, {"id": 1}, {"id": 1, "result": [1]}],
)
async def test_malformed_answers_are_counted_and_answer_nothing(payload: object) -> None:
    wire = Wire(lambda message: None)
    calling = asyncio.create_task(wire.mcp.call("lamp", {}))
    await wire.first_sent.wait()
    wire.mcp.receive(payload)
    with pytest.raises(ToolError, match="did not answer in time"):
        await calling
    assert (wire.mcp.malformed, wire.mcp.timeouts) == (1, 1)


async def test_notifications_are_ignored_and_float_ids_understood() -> None:
    wire = Wire(lambda message: {"id": float(message["id"]), "error": "odd"})
    wire.mcp.receive({"jsonrpc": "2.0", "method": "notifications/x"})
    with pytest.raises(ToolError, match="The device says: odd"):
        await wire.mcp.call("lamp", {})
    assert wire.mcp.malformed == 0


async def test_a_cursor_that_comes_back_and_endless_tools_end_the_list() -> None:
    def circle(message: dict[str, Any]) -> object:
        if message["method"] != "tools/list":
            return {"id": message["id"], "result": {}}
        tools = [{"name": f"t{message['id']}", "description": "x", "inputSchema": {"type": "object"}}]
        return {"id": message["id"], "result": {"tools": tools, "nextCursor": "again"}}

    wire = Wire(circle)
    await wire.mcp.start()
    assert len(wire.mcp.tools()) == 2

    def endless(message: dict[str, Any]) -> object:
        number = message["id"]
        tools = [{"name": f"t{number}-{index}", "inputSchema": {}} for index in range(10)]
        return {"id": number, "result": {"tools": tools, "nextCursor": f"c{number}"}}

    bounded = Wire(endless, max_tools=25)
    await bounded.mcp.start()
    assert len(bounded.mcp.tools()) == 25


async def test_entries_that_make_no_sense_are_left_out_one_by_one_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = [
        {"name": "good", "inputSchema": {"type": "object", "properties": {}, "required": []}},
        {"name": 3},
        {"name": ""},
        {"name": "line\nbreak"},
        "x",
        {"name": "list", "inputSchema": [3]},
        {"name": "large", "inputSchema": {"type": "object", "x": "y" * 40_000}},
        {"name": "deep", "inputSchema": nested(400)},
        {"name": "php", "inputSchema": []},
        {"name": "good"},
        {"name": "people", "annotations": {"audience": ["user"]}},
    ]

    def answer(message: dict[str, Any]) -> object:
        page = {"tools": entries, "nextCursor": 5} if message["method"] == "tools/list" else {}
        return {"jsonrpc": "2.0", "id": message["id"], "result": page}

    wire = Wire(answer)
    await wire.mcp.start()
    assert [(each.name, each.user_only) for each in wire.mcp.tools()] == [
        ("good", False),
        ("php", False),
        ("people", True),
    ]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("7 tools of the device cannot be offered: 3 is no name; ")
    assert "large: its schema has more than 32768 bytes" in warning and "\n" not in warning


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_pictures_in_a_result_are_mentioned() -> None:
    text, failed = call_text({"content": [{"type": "text", "text": "a"}, {"type": "image", "image": "{}"}, 3]})
    assert text == "a\n(a picture that cannot be shown here)" and not failed


async def test_a_device_that_goes_away_fails_its_calls_at_once() -> None:
    wire = Wire(lambda message: None, timeout_s=100)
    calling = asyncio.create_task(wire.mcp.call("a", {}))
    waiting = asyncio.create_task(wire.mcp.call("b", {}))
    await wire.first_sent.wait()
    wire.mcp.close()
    for task in (calling, waiting):
        with pytest.raises(ToolError, match="no longer connected"):
            await task
    assert len(wire.sent) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("音量调到50", Wish("volume", 50)),
        ("把声音调到百分之三十。", Wish("volume", 30)),
        ("大声一点", Wish("volume", None, 15)),
        ("太吵了", Wish("volume", None, -15)),
        ("静音", Wish("volume", 0)),
        ("把音量调到最大", Wish("volume", 100)),
        ("亮度调到八十", Wish("brightness", 80)),
        ("Turn the volume up.", Wish("volume", None, 15)),
        ("set the volume to fifty percent", Wish("volume", 50)),
        ("speak louder please", Wish("volume", None, 15)),
        ("今天天气怎么样", None),
        ("音量调到三百", None),
        ("tell me about volume", None),
        ("", None),
    ],
)
def test_wishes_about_the_volume_are_understood_without_a_model(text: str, wanted: Wish | None) -> None:
    assert wish(text) == wanted


async def test_a_wish_is_carried_out_within_the_range_of_the_dial() -> None:
    device = DeviceMcpServer()
    wire = Wire(device.answer)
    await wire.mcp.start()
    device.volume = 95
    assert await carry_out(Wish("volume", None, 15), wire.mcp, "zh") == "好的，音量调到100了。"
    assert device.volume == 100
    assert await carry_out(Wish("brightness", 5), wire.mcp, "en") == "Okay, brightness is at 5 now."
    del device.tools["self.screen.set_brightness"]
    bare = Wire(device.answer)
    await bare.mcp.start()
    with pytest.raises(ToolError):
        await carry_out(Wish("brightness", 5), bare.mcp, "en")


async def test_a_socket_that_is_closed_already_is_a_device_that_is_gone() -> None:
    async def send(message: dict[str, Any]) -> None:
        raise ConnectionResetError

    mcp = DeviceMcp(send, DeviceToolSettings())
    await mcp.start()
    with pytest.raises(ToolError, match="no longer connected"):
        await mcp.call("self.get_device_status", {})
