"""Upstreams that do not come to an end: a model that repeats itself, thoughts, a voice. Nobody listens for ever."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bench.standins.sound import tone
from tests.house import House, brief, house
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.client.device import Device
from xiaozhi.text.messages import message

SENTENCES = "".join(f"This is sentence number {number} of a story. " for number in range(1, 2000))


async def remembered(home: House, device: Device) -> str:
    """What the model is told of the last reply."""
    home.chat.answer = "🙂 Yes."
    assert (await device.turn_text("and now?")).text == "Yes."
    told: str = home.asked[-1][-2]["content"]
    return told


@pytest.mark.parametrize("circle", ["I love you so much. ", "好的，没问题。请问还有什么可以帮您的吗？", "no "])
async def test_a_model_that_goes_round_in_circles_is_ended(tmp_path: Path, circle: str) -> None:
    async with house(tmp_path, llm={"reply_max_chars": 100_000}) as home, home.device() as device:
        home.chat.answer, home.chat.tokens_per_s = "🙂 " + circle * 3000, 400.0
        report = await device.turn_text("what do you think of me?", reply_timeout_s=40.0)
        assert report.answered
        assert circle.strip(" 。.") in report.text and len(report.text) < 1000
        async with asyncio.timeout(5):
            await home.chat.idle()
        assert home.chat.aborted == 1, "its request is closed"
        told = await remembered(home, device)
        assert told.removeprefix("🙂 ").replace(" ", "") == report.text.replace(" ", "")


async def test_a_reply_ends_behind_a_whole_sentence_when_it_has_been_spoken_for_long_enough(tmp_path: Path) -> None:
    llm = {"reply_max_chars": 100_000, "reply_max_s": 5.0}
    async with house(tmp_path, llm=llm) as home, home.device() as device:
        home.chat.answer, home.chat.tokens_per_s = SENTENCES, 400.0
        report = await device.turn_text("tell me a story", reply_timeout_s=40.0)
        assert report.answered
        assert 5000.0 <= report.reply_ms < 10_000.0
        assert SENTENCES.startswith(report.text) and report.text.endswith("of a story.")
        async with asyncio.timeout(5):
            await home.chat.idle()
        assert home.chat.aborted == 1
        assert (await remembered(home, device)).removeprefix("😶 ") == report.text


@pytest.mark.parametrize("words", ["", "Let me see. "])
async def test_thinking_without_end_is_given_up_for_another_endpoint_or_an_excuse(tmp_path: Path, words: str) -> None:
    llm = {"thinking_timeout_s": 1.0, "reply_max_chars": 100_000}
    async with house(tmp_path, llm=llm) as home, home.device() as device:
        home.chat.answer, home.chat.tokens_per_s = f"🙂 {words}<think>" + "and then again " * 5000, 200.0
        report = await device.turn_text("how are you?")
        assert report.answered
        if not words:
            assert report.text == message("apology", "en")
        async with asyncio.timeout(5):
            await home.chat.idle()
        home.chat.answer = "🙂 Yes."
        assert (await device.turn_text("and now?")).text == "Yes."


async def test_a_voice_that_does_not_end_leaves_the_rest_of_the_reply_to_the_next(tmp_path: Path) -> None:
    def endless(text: str) -> PcmInt:
        return np.resize(tone("."), 120 * DOWNLINK_RATE_HZ) if "Hm" in text else brief(text)

    async with house(tmp_path, "🙂 Hm. That is hard to say.") as home, home.device() as device:
        home.speech.sound, home.speech.speed = endless, 2.0
        report = await device.turn_text("is there life on Mars?", reply_timeout_s=60.0)
        assert report.answered and report.text == "Hm. That is hard to say."
        assert report.reply_ms < 12_000.0
        states = {state.name: state for state in home.server.services.voice.states}
        assert "does not end" in states["openai"].last_error
        home.chat.answer = "🙂 Yes."
        assert (await device.turn_text("and now?")).text == "Yes."
        assert states["espeak"].spoken == 1, "what follows is spoken by the next voice"
        async with asyncio.timeout(5):
            await home.speech.idle()
