"""Whole turns: a simulated device over a real socket, real Silero, real sherpa-onnx, real Opus, stand-in upstreams."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.house import house, noise, question
from tests.recognisers import until
from xiaozhi.client.manners import DesktopManners, DeviceState, Manners
from xiaozhi.client.microphone import SpeechMicrophone, SpokenUtterance
from xiaozhi.turn.machine import ListeningMode

LONG_ANSWER = "🙂 " + "".join(f"This is sentence number {n} of a long reply. " for n in range(1, 16))


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_a_question_is_heard_answered_and_spoken_in_every_framing(tmp_path: Path, version: int) -> None:
    async with house(tmp_path) as home, home.device(version=version) as device:
        report = await device.turn(question())
    assert report.answered
    assert report.heard == "what time is it"
    assert report.text == "It is ten past nine."
    assert report.emotion == "happy"
    assert report.dropped == {}
    assert report.starved_count == 0
    assert report.reply_pcm is not None
    assert float(np.abs(report.reply_pcm).max()) > 0.05
    assert report.tts_stop_ms is not None and report.play_end_ms is not None
    assert report.tts_stop_ms > report.play_end_ms, "tts/stop comes after the last frame was played"
    assert report.trace is not None
    spans = report.trace["spans"]
    order = ["text", "first_token", "first_clause", "first_speech", "first_packet", "end"]
    times = [spans[name] for name in order]
    assert None not in times and spans["soft_end"] < spans["first_packet"], "the words may be known before the soft end"
    assert times == sorted(times)
    assert spans["commit"] <= spans["first_packet"]


@pytest.mark.parametrize("mode", list(ListeningMode))
async def test_every_mode_takes_several_turns_on_one_connection(tmp_path: Path, mode: ListeningMode) -> None:
    async with house(tmp_path) as home, home.device(mode=mode) as device:
        for _ in range(3):
            report = await device.turn(question())
            assert (report.outcome.value, report.heard, report.dropped) == ("answered", "what time is it", {})
        assert len(home.asked) == 3
        last = home.asked[-1]
    roles = [message["role"] for message in last]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[2]["content"].strip().endswith("It is ten past nine.")


@pytest.mark.parametrize("frame_ms", [20, 40, 120])
async def test_other_uplink_frames_are_heard(tmp_path: Path, frame_ms: int) -> None:

    async with house(tmp_path) as home, home.device(microphone=SpeechMicrophone(frame_ms)) as device:
        report = await device.turn(question())
    assert report.heard == "what time is it"


@pytest.mark.parametrize("manners", [Manners(plays_out=False), DesktopManners()])
async def test_old_firmware_and_desktop_clients_hear_the_last_word(tmp_path: Path, manners: Manners) -> None:
    """They clear their queue on `tts/stop`, so it must not come early."""
    async with house(tmp_path) as home, home.device(manners=manners, speed=1.0) as device:
        report = await device.turn(question())
    assert report.answered
    assert report.dropped == {}


async def test_typed_text_is_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        report = await device.turn_text("turn on the light")
        assert report.answered
        assert home.asked[-1][-1]["content"] == "turn on the light"


async def test_a_wake_burst_is_not_taken_for_a_command(tmp_path: Path) -> None:

    async with house(tmp_path) as home, home.device() as device:
        device.detect("你好小智", wake_audio=SpokenUtterance.encode(question(), 60))
        report = await device.turn(question())
        assert report.heard == "what time is it"
        assert len(home.asked) == 1


async def test_abort_silences_the_reply_and_the_history_holds_what_was_heard(tmp_path: Path) -> None:
    async with house(tmp_path, LONG_ANSWER) as home, home.device() as device:
        device.listen()
        turn = asyncio.create_task(device.turn(question()))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 2500)
        device.abort()
        report = await turn
        assert report.answered
        assert report.reply_ms < 4000
        home.chat.answer = "🙂 Yes."
        assert (await device.turn(question())).answered
        remembered = home.asked[-1][-2]["content"]
    assert "number 1" in remembered
    assert "number 9" not in remembered


async def test_noise_and_silence_raise_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device(speed=20.0) as device:
        report = await device.turn(noise(60.0), answer_timeout_s=2.0)
        assert not report.answered
        assert home.asked == []
        assert device.manners.state is DeviceState.LISTENING


async def test_speech_for_three_minutes_is_capped_and_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device(speed=30.0) as device:
        once = question()
        speech = np.tile(once, int(180 * 16_000 / len(once)) + 1)
        report = await device.turn(speech)
    assert report.answered
    assert report.trace is not None
    assert report.trace["speech_ms"] < 40_000


async def test_the_newest_connection_of_a_device_wins(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as old, home.device() as new:
        await old.until(lambda: not old.connected)
        assert (await new.turn(question())).answered
        assert len(home.server.devices) == 1


async def test_devices_do_not_hear_each_other(tmp_path: Path) -> None:
    async with house(tmp_path) as home:

        async def talk(number: int) -> None:
            async with home.device(number) as device:
                for turn in range(2):
                    report = await device.turn_text(f"device {number} turn {turn}")
                    assert report.heard == f"device {number} turn {turn}"

        await asyncio.gather(*(talk(number) for number in range(1, 7)))
        for messages in home.asked:
            texts = [message["content"] for message in messages if message["role"] == "user"]
            assert len({text.split(" turn")[0] for text in texts}) == 1


async def test_a_device_that_goes_away_frees_everything(tmp_path: Path) -> None:
    async with house(tmp_path, LONG_ANSWER) as home:
        async with home.device() as device:
            turn = asyncio.create_task(device.turn(question()))
            await device.until(lambda: device.manners.speaker.playback.heard_ms > 100)
            await device.close()
            await turn
        async with asyncio.timeout(5):
            await home.chat.idle()
            await home.speech.idle()
            await home.server.devices.empty()


async def test_a_turn_is_not_committed_because_its_device_goes_away(tmp_path: Path) -> None:
    turn = {"soft_end_ms": 96, "complete_ms": 96, "neutral_ms": 96, "commit_max_ms": 20_000}
    async with house(tmp_path, turn=turn, llm={"first_token_timeout_s": 60.0}) as home:
        home.chat.fault = "hang"
        finished: list[object] = []
        home.server.services.on_turn.append(lambda _device, trace: finished.append(trace))
        async with home.device() as device:
            device.listen()
            device.say(SpokenUtterance.encode(question(), 60))
            await until(lambda: len(home.asked) == 1)
            stats = home.server.services.batcher.stats
            asked_at = stats.packets
            await until(lambda: stats.packets >= asked_at + 20)  # silence after which any reply would be let out
        async with asyncio.timeout(5):
            await home.server.devices.empty()
        assert home.server.services.speculation.committed == 0
        assert finished == []


async def test_the_device_is_told_nothing_before_its_token_is_right(tmp_path: Path) -> None:
    import aiohttp

    async with house(tmp_path, auth={"mode": "token"}) as home:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(home.url, headers={"Authorization": "Bearer test-token"})
            assert refused.value.status == 401
        async with home.device(connect=False) as device:
            ota = await device.boot(f"http://127.0.0.1:{home.server.port}/xiaozhi/ota/")
            await device.connect(ota.url, ota.token)
            assert (await device.turn(question())).answered


async def test_barge_in_stops_the_reply_in_realtime_mode(tmp_path: Path) -> None:
    async with house(tmp_path, LONG_ANSWER) as home, home.device(mode=ListeningMode.REALTIME, speed=1.0) as device:
        turn = asyncio.create_task(device.turn(question()))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 600, 20)
        home.chat.answer = "🙂 Of course."

        device.say(SpokenUtterance.encode(question(), 60))
        assert (await turn).reply_ms < 8000
        await device.until(lambda: any("Of course" in message.get("text", "") for _, message in device.received), 10)
        assert device.manners.state is DeviceState.SPEAKING


async def test_an_abort_empties_the_queue_of_a_device_that_speaks(tmp_path: Path) -> None:
    """`tts/stop` alone lets the firmware play out what it holds: up to 300 ms here, two seconds with other servers."""
    async with house(tmp_path, LONG_ANSWER) as home, home.device(speed=1.0) as device:
        turn = asyncio.create_task(device.turn(question()))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 900)
        aborted_ms = device.now_ms()
        device.abort()
        await turn
        ended_ms = device.manners.speaker.playback.ended_ms
        assert ended_ms is not None
        assert ended_ms - aborted_ms < 150
        assert device.manners.state is DeviceState.LISTENING
        home.chat.answer = "🙂 Yes."
        assert (await device.turn(question())).text == "Yes."
