"""Devices that talk at once never share a word: the bench itself, its scripts, and what a cache could give away."""

import random
from pathlib import Path

import numpy as np
import pytest

from bench import secret_words
from bench.apart import Seen, Upstreams, apart, look_at_store, show
from bench.secret_words import Words
from bench.verdict import broken
from tests.house import house
from tests.speech import say
from xiaozhi.audio.pcm import to_float
from xiaozhi.store import Store
from xiaozhi.store.turns import TurnRecord


def test_every_device_has_words_and_tones_of_its_own() -> None:
    words = Words(secret_words.MAX_DEVICES)
    assert len({word for own in words.of for word in own}) == secret_words.MAX_DEVICES * secret_words.WORDS_EACH
    first, second = words.of[0][0], words.of[1][0]
    assert words.owners(f"so {first.upper()}, then {second}!") == {0, 1}
    assert words.strangers(0, first, f"{second}很好") == [second]
    assert words.owners("an ordinary sentence, 一句平常的话") == set()
    with pytest.raises(ValueError, match="devices have tones"):
        Words(secret_words.MAX_DEVICES + 1)


def test_a_voice_is_known_by_its_marker_and_a_reply_by_its_tone() -> None:
    speech, dice = say("what time is it"), random.Random(1)
    for device in range(secret_words.MAX_DEVICES):
        assert secret_words.speaker_of(secret_words.marked(speech, device, dice), secret_words.MAX_DEVICES) == device
        reply = to_float(secret_words.reply_sound("a sentence", {device}))
        assert secret_words.foreign_windows(reply, device)[1] == 0
        loud, foreign = secret_words.foreign_windows(reply, (device + 1) % secret_words.MAX_DEVICES)
        assert loud == foreign > 0
    neutral = to_float(secret_words.reply_sound("a sentence", ()))
    assert secret_words.foreign_windows(neutral, 3)[1] == 0
    assert secret_words.foreign_windows(np.zeros(48_000, np.float32), 3) == (0, 0)


async def test_what_is_mixed_up_is_found_wherever_it_turns_up(tmp_path: Path) -> None:
    words, seen = Words(2), Seen()
    mine, other = words.of[0][0], words.of[1][1]
    upstreams = Upstreams(words, seen)
    prompt = [{"role": "user", "content": f"{mine} lives here"}]
    assert mine in upstreams.think(prompt)
    assert seen.leaks == []
    upstreams.think([{"role": "system", "content": f"Knows {other}."}, *prompt])
    upstreams.speak(f"{mine} and {other}")
    store = await Store.open(tmp_path / "xiaozhi.db")
    past = await store.turns.begin("02:00:00:00:00:00", "", 1)
    store.turns.add(TurnRecord(1, "02:00:00:00:00:00", past.conversation, "", 1.0, mine, mine, other))
    await store.close()
    look_at_store(tmp_path / "xiaozhi.db", words, seen)
    assert [leak.split()[1] for leak in seen.leaks] == ["prompt", "sentence", "row"]
    assert broken(seen.lines)
    assert other in show(seen, 2, 1.0)


@pytest.mark.real_time
async def test_five_seconds_of_two_devices_at_once() -> None:
    seen = await apart(2, 5.0)
    assert seen.leaks == []
    assert min(seen.turns, seen.spoken, seen.prompts, seen.messages, seen.windows, seen.rows) > 0
    assert seen.answered == seen.turns - seen.broken_off


@pytest.mark.parametrize(
    ("told", "question", "name"),
    [
        ("Zarubo lives next to Kelimo", "why do cats purr", "Zarubo"),
        ("岚霁珩住在湖边", "猫为什么会打呼噜", "岚霁珩"),
    ],
)
async def test_an_answer_that_leans_on_one_conversation_is_not_kept_for_another(
    tmp_path: Path, told: str, question: str, name: str
) -> None:
    async with house(tmp_path, cache={"answers": True, "premake": False}) as home:
        home.chat.answer = lambda messages: (
            f"🙂 They purr when content, as {name} does." if name in str(messages) else "🙂 They purr when content."
        )
        async with home.device() as device:
            await device.turn_text(told)
            assert name in (await device.turn_text(question)).text
        async with home.device(2) as device:
            assert (await device.turn_text(question)).text == "They purr when content."
