"""Whole turns with tools: a scripted model over the real chat wire, a simulated device with its own MCP tools."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
import pytest

from tests.house import House, house, question
from xiaozhi.client.device import Device
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.tools.external import ServerState
from xiaozhi.turn.decisions import StartReply
from xiaozhi.turn.machine import ListeningMode

VOLUME = "self_audio_speaker_set_volume"
STATUS = "self_get_device_status"
MCP_SERVER = str(Path(__file__).with_name("mcp_server.py"))


def call(name: str, **arguments: Any) -> tuple[str, str]:
    return name, json.dumps(arguments)


def in_pieces(calls: tuple[tuple[str, str], ...]) -> list[list[dict[str, Any]]]:
    """Calls as OpenAI streams them: a head with the name, then the arguments in two halves, all calls in parallel."""
    heads = [
        {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        for index, (name, _) in enumerate(calls)
    ]
    halves = [
        {"index": index, "function": {"arguments": part}}
        for index, (_, text) in enumerate(calls)
        for part in (text[: len(text) // 2], text[len(text) // 2 :])
    ]
    return [*([head] for head in heads), *([half] for half in halves)]


class Model:
    """Says and calls what its rounds say; after the last of them that one again and again."""

    def __init__(self, *rounds: tuple[str, tuple[tuple[str, str], ...]]) -> None:
        self._rounds = rounds

    def _round(self, messages: list[dict[str, Any]]) -> tuple[str, tuple[tuple[str, str], ...]]:
        since = 0
        for message in messages:
            since = 0 if message["role"] == "user" else since + bool(message.get("tool_calls"))
        return self._rounds[min(since, len(self._rounds) - 1)]

    def install(self, home: House) -> None:
        home.chat.answer = lambda messages: self._round(messages)[0]
        home.chat.tool_pieces = lambda messages: in_pieces(self._round(messages)[1])


@asynccontextmanager
async def talk(
    folder: Path, *rounds: tuple[str, tuple[tuple[str, str], ...]], gear: DeviceMcpServer | None = None, **tables: Any
) -> AsyncIterator[tuple[House, Device]]:
    """A house with a scripted model and a device whose tools are known."""
    async with house(folder, **tables) as home, home.device(tools=gear) as device:
        Model(*rounds).install(home)
        await known(home, device)
        yield home, device


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.005)


async def known(home: House, device: Device) -> None:
    """Wait until the server has listed the device's tools."""
    wanted = sum(not tool.user_only for tool in device.tools.tools.values())

    def all_listed() -> bool:
        return any(len(home.session(each).tools.tools()) == wanted for each in home.server.devices.online())

    await come_true(all_listed)


def offered(home: House, number: int = -1) -> list[str]:
    body = [request.body for request in home.chat.requests if "messages" in request.body][number]
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def used(report: Any) -> list[tuple[str, bool]]:
    assert report.trace is not None
    return [(use["name"], use["failed"]) for use in report.trace["tools"]]


async def test_speech_before_and_after_two_calls_in_pieces_is_one_reply(tmp_path: Path) -> None:
    both = (call(VOLUME, volume=40), call("calculate", expression="6*7"))
    async with talk(tmp_path, ("Let me see.", both), ("Done, and 42.", ())) as (home, device):
        report = await device.turn_text("volume to forty and a sum please")
        assert report.text == "Let me see. Done, and 42."
        assert device.tools.volume == 40
        assert used(report) == [(VOLUME, False), ("calculate", False)]
        assert [message["state"] for _, message in device.received if message["type"] == "tts"].count("start") == 1
        results = home.asked[-1][-2:]
        assert [(each["role"], each["tool_call_id"], each["content"]) for each in results] == [
            ("tool", "call_0", "true"),
            ("tool", "call_1", "42"),
        ]
        assert offered(home, 0) == offered(home, 1)

        Model(("Yes.", ())).install(home)
        await device.turn_text("and now?")
        last = home.asked[-1]
    assert {message["role"] for message in last} == {"system", "user", "assistant"}, "calls belong to their turn alone"
    assert "calculate: 42" in last[1]["content"], "but the model knows that it has called them"
    assert last[2]["content"].endswith("Let me see. Done, and 42.")


async def test_a_spoken_turn_calls_nothing_before_it_is_committed(tmp_path: Path) -> None:
    """The user pauses: a reply is prepared and wants a tool; the user goes on, and only then it is called, once."""
    rounds = ("", (call(VOLUME, volume=11),)), ("Done.", ())
    pause = np.zeros(int(0.3 * 16_000), np.int16)
    async with talk(tmp_path, *rounds, turn={"complete_ms": 600, "neutral_ms": 900}) as (_, device):
        report = await device.turn(np.concatenate([question(), pause, question()]))
        order = [message.get("state") or message.get("payload", {}).get("method") for _, message in device.received]
    assert report.text == "Done."
    assert device.tools.calls == [("self.audio_speaker.set_volume", {"volume": 11})]
    assert order.index("start") < order.index("tools/call")


async def test_a_dropped_reply_has_called_nothing(tmp_path: Path) -> None:
    async with talk(tmp_path, ("", (call(VOLUME, volume=11),)), ("Done.", ())) as (home, device):
        connection = home.session()
        conversation = connection._conversation
        device.listen()
        await come_true(lambda: conversation._machine.state.value == "waiting")
        machine = conversation._machine
        machine.speech_began(machine.utterance, 0.0, 500.0)
        conversation._apply([StartReply(1, 0, machine.generation, "make it quiet in here")])
        reply = conversation._reply
        assert reply is not None
        ready = asyncio.Event()
        reply._notify = lambda _reply, _event: ready.set()
        await asyncio.wait_for(ready.wait(), 10)
        assert len(home.asked) == 1, "the model has asked for the tool"
        conversation._drop_reply()
        Model(("Fine.", ())).install(home)
        conversation.abort("")
        await device.turn_text("never mind")
    assert device.tools.calls == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [((VOLUME, '{"volume": '), "not valid JSON"), (call("self_fly", height=3), "no tool"), (call(VOLUME), "volume")],
)
async def test_wrong_calls_are_told_to_the_model_and_do_nothing(
    tmp_path: Path, wrong: tuple[str, str], told: str
) -> None:
    async with talk(tmp_path, ("", (wrong,)), ("I cannot do that.", ())) as (home, device):
        report = await device.turn_text("do something odd")
        assert report.text == "I cannot do that."
        assert used(report) == [(wrong[0], True)]
        assert told in home.asked[-1][-1]["content"]
        assert device.tools.calls == []


async def test_a_model_that_calls_without_end_is_stopped_and_apologised_for(tmp_path: Path) -> None:
    endless = ("", (call("calculate", expression="1+1"),))
    async with talk(tmp_path, endless, tools={"max_rounds": 2}) as (home, device):
        report = await device.turn_text("what do you think of sums")
        assert offered(home) == [], "asked once more, without tools"
        assert len(home.asked) == 3
    assert "Sorry" in report.text
    assert report.trace is not None and "without end" in report.trace["error"]


async def test_a_model_that_calls_something_else_each_time_and_talks_about_it_is_stopped_too(tmp_path: Path) -> None:
    async with talk(tmp_path, ("", ()), tools={"max_rounds": 3}) as (home, device):

        def next_call(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
            return in_pieces((call("calculate", expression=f"1+{len(messages)}"),))

        home.chat.answer, home.chat.tool_pieces = "Let me see.", next_call
        report = await device.turn_text("what do you think of sums")
        assert len(home.asked) == 4 and offered(home) == []
        assert used(report) == [("calculate", False)] * 3
        assert report.text == " ".join(["Let me see."] * 4), "what it says without tools is its answer"
        home.chat.answer, home.chat.tool_pieces = "I am here.", ()
        assert (await device.turn_text("are you there")).text == "I am here."


async def test_of_parallel_calls_each_gets_its_own_result_good_or_bad(tmp_path: Path) -> None:
    wanted = (
        (VOLUME, '{"volume": "lou'),
        call("calculate", expression="6*7"),
        call("self_fly", height=3),
        call(VOLUME, volume=30),
        call("calculate", expression="1+1"),
    )
    async with talk(tmp_path, ("", wanted), ("Partly done.", ()), tools={"max_calls": 4}) as (home, device):
        report = await device.turn_text("do a lot at once")
        assert report.text == "Partly done."
        results = {each["tool_call_id"]: each["content"] for each in home.asked[-1] if each["role"] == "tool"}
        assert list(results) == [f"call_{number}" for number in range(5)]
        assert "not valid JSON" in results["call_0"] and "no tool" in results["call_2"]
        assert (results["call_1"], results["call_3"]) == ("42", "true")
        assert "at most 4" in results["call_4"]
        assert [failed for _, failed in used(report)] == [True, False, True, False, True]
        assert device.tools.volume == 30


async def test_broken_arguments_may_be_mended_in_the_next_round(tmp_path: Path) -> None:
    rounds = ("", ((VOLUME, '{"volume": }'),)), ("", (call(VOLUME, volume=25),)), ("Done.", ())
    async with talk(tmp_path, *rounds) as (_, device):
        report = await device.turn_text("quieter than that")
        assert (report.text, device.tools.volume) == ("Done.", 25)
        assert used(report) == [(VOLUME, True), (VOLUME, False)]


@pytest.mark.real_time
async def test_an_external_server_killed_in_the_middle_of_a_call_is_told_to_the_model(tmp_path: Path) -> None:
    server = {"name": "sums", "command": sys.executable, "args": [MCP_SERVER, "stdio"], "timeout_s": 60.0}
    both = (call("sums_hang"), call("sums_crash"))
    async with talk(tmp_path, ("", both), ("It has gone.", ()), tools={"servers": [server]}) as (home, device):
        (sums,) = home.server.services.tools.external.servers
        async with asyncio.timeout(30):
            await sums.reached(ServerState.READY)
        report = await device.turn_text("ask the other server")
        assert report.text == "It has gone."
        results = [each["content"] for each in home.asked[-1] if each["role"] == "tool"]
        assert results == ["The service sums is not available right now."] * 2
        assert "sums_add" in offered(home), "it stays offered, so that prompt caches hold"
        async with asyncio.timeout(30):
            await sums.reached(ServerState.READY)
        Model(("", (call("sums_add", a=2, b=3),)), ("Five.", ())).install(home)
        assert (await device.turn_text("and two and three")).text == "Five."
        assert home.asked[-1][-1]["content"] == "5"


class Lazy(DeviceMcpServer):
    """A device that never answers a call."""

    def answer(self, payload: dict[str, Any]) -> dict[str, object] | None:
        return None if payload.get("method") == "tools/call" else super().answer(payload)


async def test_a_slow_tool_is_bridged_by_a_filler_and_an_abort_cancels_it(tmp_path: Path) -> None:
    rounds = ("", (call(STATUS),)), ("Never said.", ())
    async with talk(tmp_path, *rounds, gear=Lazy(), tools={"filler_after_s": 0.05}) as (home, device):
        turn = asyncio.create_task(device.turn_text("how is the battery"))
        await device.until(lambda: any("One moment" in str(message) for _, message in device.received), 15)
        connection = home.session()
        mcp = connection.tools.mcp
        assert mcp is not None and len(mcp._waiting) == 1
        device.abort()
        report = await turn
        assert report.answered
        assert report.text.startswith("One moment") and "Never" not in report.text
        await come_true(lambda: not mcp._waiting)
        Model(("I am here.", ())).install(home)
        assert (await device.turn_text("are you there")).text == "I am here."


async def test_a_tool_that_gives_no_answer_becomes_a_sentence(tmp_path: Path) -> None:
    rounds = ("", (call(STATUS),)), ("It does not answer.", ())
    quick = {"device": {"timeout_s": 0.2}}
    async with talk(tmp_path, *rounds, gear=Lazy(), tools=quick) as (home, device):
        report = await device.turn_text("how is the battery")
        assert report.text == "It does not answer."
        assert "did not answer in time" in home.asked[-1][-1]["content"]


def music(folder: Path, seconds: float) -> Path:
    """A folder with one piece of music."""
    folder.mkdir()
    with av.open(str(folder / "moon.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=24_000, layout="mono")
        samples = (8000 * np.sin(np.arange(int(seconds * 24_000)) / 12.0)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.sample_rate = 24_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return folder


async def test_music_plays_to_its_end_as_part_of_the_reply(tmp_path: Path) -> None:
    folder = music(tmp_path / "music", 1.5)
    async with talk(tmp_path, ("", (call("play_music"),)), tools={"music": {"folder": folder}}) as (
        home,
        device,
    ):
        report = await device.turn_text("play some music")
        assert report.text == "Playing: moon ♪"
        assert report.starved_count == 0
        assert report.reply_ms > 1500 + 500
        assert len(home.asked) == 1
        Model(("It was the moon.", ())).install(home)
        await device.turn_text("what was that")
        assert "Playing: moon" in home.asked[-1][2]["content"]


@pytest.mark.parametrize("mode", [ListeningMode.AUTO, ListeningMode.REALTIME])
async def test_music_stops_when_told(tmp_path: Path, mode: ListeningMode) -> None:
    folder = music(tmp_path / "music", 60.0)
    async with (
        house(tmp_path, tools={"music": {"folder": folder}}) as home,
        home.device(mode=mode) as device,
    ):
        Model(("", (call("play_music"),))).install(home)
        turn = asyncio.create_task(device.turn_text("play some music"))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 3000, 20)
        told_ms = device.now_ms()
        device.abort("wake_word_detected")
        report = await turn
        stops = [at for at, message in device.received if message.get("state") == "stop"]
        await come_true(lambda: not {task.get_name() for task in asyncio.all_tasks()} & {"music", "tts-sound"})
    assert report.answered and report.starved_count == 0
    assert 0 <= stops[0] - told_ms < 200, "an acceptance of the device's owners: silence within 200 ms"
    assert report.reply_ms < 10_000


async def test_music_that_cannot_be_decoded_becomes_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "moon.mp3").write_bytes(b"\x00" * 4000)
    async with talk(tmp_path, ("Here it is.", (call("play_music"),)), tools={"music": {"folder": folder}}) as (
        _,
        device,
    ):
        report = await device.turn_text("play some music")
    assert report.text == "Here it is. Sorry, I can't play that."


async def test_exact_wishes_ask_no_model(tmp_path: Path) -> None:
    async with talk(tmp_path, ("Asked.", ())) as (home, device):
        report = await device.turn_text("set the volume to thirty")
        assert (device.tools.volume, report.text) == (30, "Okay, volume is at 30 now.")
        assert report.trace is not None and report.trace["route"] == "intent: volume"
        assert used(report) == [("volume", False)]
        report = await device.turn_text("大声一点")
        assert (device.tools.volume, report.text.replace(" ", "")) == (45, "好的，音量调到45了。")
        assert (await device.turn_text("what is 12 times 12")).text == "That makes 144."
        assert "公里" in (await device.turn_text("3英里是多少公里")).text
        assert home.asked == []
        assert (await device.turn_text("what is love")).text == "Asked."


async def test_a_translator_translates_a_sum_and_has_no_tools(tmp_path: Path) -> None:
    async with talk(tmp_path, ("三乘以四。", ()), agents={"default": "translator"}) as (home, device):
        assert (await device.turn_text("three times four")).text == "三乘以四。"
        assert offered(home) == []


async def test_a_dangerous_call_waits_for_a_spoken_yes(tmp_path: Path) -> None:
    rounds = ("", (call(VOLUME, volume=100),)), ("So?", ())
    async with talk(tmp_path, *rounds, tools={"dangerous": ["self.audio_speaker.*"]}) as (home, device):
        await device.turn_text("shout as loud as you can")
        assert device.tools.calls == []
        assert "consent" in home.asked[-1][-1]["content"]
        await device.turn_text("yes, please do")
        assert device.tools.volume == 100


async def test_the_model_may_end_the_conversation(tmp_path: Path) -> None:
    async with talk(tmp_path, ("", (call("end_conversation"),)), ("See you!", ())) as (_, device):
        device.detect("I have to leave now")
        await device.until(lambda: device.close_code is not None or not device.connected, 15)
        assert any(message.get("text") == "See you!" for _, message in device.received)


async def test_the_tools_of_a_device_come_in_pages(tmp_path: Path) -> None:
    """Desktop clients have dozens, on three pages."""
    async with talk(tmp_path, ("Hello.", ()), gear=DeviceMcpServer(page_bytes=330)) as (home, device):
        await device.turn_text("hello there")
        names = offered(home)
        pages = [message["payload"] for _, message in device.received if message["type"] == "mcp"]
        cursors = [page["params"]["cursor"] for page in pages if page.get("method") == "tools/list"]
    assert len(cursors) == 3 and cursors[0] == ""
    assert {VOLUME, STATUS, "self_screen_set_brightness"} <= set(names)
    assert "self_get_system_info" not in names, "that one is for people"


async def test_a_model_without_tools_is_asked_without_them(tmp_path: Path) -> None:
    async with talk(tmp_path, ("Hello.", ())) as (home, device):
        home.chat.fault = "no-tools"
        for _ in range(2):
            assert (await device.turn_text("hello there, model")).text == "Hello."
        bodies = [request.body for request in home.chat.requests if "messages" in request.body]
    assert ["tools" in body for body in bodies] == [True, False, False], "remembered after the first refusal"


async def test_old_firmware_is_told_by_iot_commands(tmp_path: Path) -> None:
    descriptor = {
        "name": "Speaker",
        "description": "扬声器",
        "properties": {"volume": {"description": "当前音量值", "type": "number"}},
        "methods": {
            "SetVolume": {
                "description": "设置音量",
                "parameters": {"volume": {"description": "0到100之间的整数", "type": "number", "required": True}},
            }
        },
    }
    states = [{"name": "Speaker", "state": {"volume": 50}}]
    async with house(tmp_path) as home, aiohttp.ClientSession() as session:
        Model(("", (call("iot_Speaker_SetVolume", volume=20),)), ("Done.", ())).install(home)
        async with session.ws_connect(home.url) as socket:
            await socket.send_json({"type": "hello", "version": 1, "transport": "websocket"})
            await socket.send_json({"type": "iot", "update": True, "descriptors": [descriptor]})
            await socket.send_json({"type": "iot", "update": True, "states": states})
            commands: list[dict[str, Any]] = []
            for text in ("大声一点", "whisper, please"):
                await socket.send_json({"type": "listen", "state": "detect", "text": text})
                stopped = False
                while not stopped:
                    message = await asyncio.wait_for(socket.receive(), 15)
                    if message.type is aiohttp.WSMsgType.TEXT:
                        said = message.json()
                        stopped = said.get("state") == "stop"
                        commands += said["commands"] if said["type"] == "iot" else []
                        assert said["type"] != "mcp"
    assert commands == [
        {"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 65}},
        {"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 20}},
    ]
    assert "iot_get_state" in offered(home)


class LateTools(DeviceMcpServer):
    """The tools of a device that takes a while to list them, or never does."""

    late_s: float | None = 0.3
    device: Device

    def answer(self, payload: dict[str, Any]) -> dict[str, object] | None:
        reply = super().answer(payload)
        if payload.get("method") != "tools/list":
            return reply
        if self.late_s is not None:
            asyncio.get_running_loop().call_later(self.late_s, self.device._put, {"type": "mcp", "payload": reply})
        return None


@asynccontextmanager
async def just_connected(folder: Path, late_s: float | None, **manners: Any) -> AsyncIterator[tuple[House, Device]]:
    """A house and a device that has not listed its tools yet."""
    gear = LateTools()
    gear.late_s = late_s
    async with house(folder) as home, home.device(tools=gear, **manners) as device:
        gear.device = device
        yield home, device


@pytest.mark.parametrize("typed", [True, False])
async def test_the_very_first_command_has_the_tools_of_the_device(tmp_path: Path, typed: bool) -> None:
    mode = ListeningMode.AUTO if typed else ListeningMode.MANUAL
    async with just_connected(tmp_path, 0.9, mode=mode, speed=30.0) as (home, device):
        Model(("", (call(VOLUME, volume=40),)), ("🙂 Done.", ())).install(home)
        report = await (device.turn_text("make it a little more quiet in here") if typed else device.turn(question()))
        assert report.text == "Done."
        assert device.tools.calls == [("self.audio_speaker.set_volume", {"volume": 40})]


async def test_the_very_first_wish_that_needs_no_model_is_carried_out_by_the_device(tmp_path: Path) -> None:
    async with just_connected(tmp_path, 0.3) as (home, device):
        report = await device.turn_text("set the volume to 40")
        assert report.text == "Okay, volume is at 40 now."
        assert device.tools.volume == 40 and not home.asked


async def test_a_device_that_never_lists_its_tools_is_answered_all_the_same(tmp_path: Path) -> None:
    async with just_connected(tmp_path, None) as (_home, device):
        assert (await device.turn_text("hello")).text == "It is ten past nine."
        assert (await device.turn_text("hello again")).text == "It is ten past nine."
