"""Completeness, the user's pace, backchannels and echoes, by tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.settings import TurnSettings
from xiaozhi.turn.endpointing import UserPace, hangover_ms, interrupts, is_echo, is_to_reply, joined, plain

RULES = TurnSettings()
NEUTRAL = "привет"  # no language of the model of completeness


@pytest.mark.parametrize(
    ("text", "wait_ms"),
    [
        ("你吃饭了吗。", RULES.complete_ms),
        ("谢谢", RULES.complete_ms),
        ("下一首", RULES.complete_ms),
        ("hello", RULES.complete_ms),
        ("what time is it now", RULES.complete_ms),
        ("我想去北京，因为", RULES.trailing_ms),
        ("如果明天下雨的话", RULES.trailing_ms),
        ("I went to the shop and", RULES.trailing_ms),
        ("tell me about the", RULES.trailing_ms),
        ("", RULES.neutral_ms),
        ("…", RULES.neutral_ms),
        ("привет", RULES.neutral_ms),
        ("今日はいい天気ですね", RULES.neutral_ms),
        ("오늘 날씨", RULES.neutral_ms),
    ],
)
def test_what_is_whole_is_answered_soon_and_what_goes_on_is_waited_for(text: str, wait_ms: float) -> None:
    assert hangover_ms(text, UserPace(), RULES) == wait_ms


def test_known_commands_are_complete_whatever_their_words_say() -> None:
    pace = UserPace()
    text = "play it for"
    assert hangover_ms(text, pace, RULES) == RULES.trailing_ms
    assert hangover_ms(text, pace, RULES, frozenset({plain(text)})) == RULES.complete_ms


def test_a_user_who_pauses_long_is_given_longer() -> None:
    pace = UserPace()
    before = hangover_ms(NEUTRAL, pace, RULES)
    for _ in range(5):
        pace.paused_and_went_on(800)
    after = hangover_ms(NEUTRAL, pace, RULES)
    assert before == RULES.neutral_ms
    assert 900 < after <= RULES.trailing_ms
    for _ in range(30):
        pace.finished()
    assert hangover_ms(NEUTRAL, pace, RULES) == RULES.neutral_ms


def test_one_long_pause_counts_at_once_and_short_ones_do_not_hide_it() -> None:
    pace = UserPace()
    for pause_ms in (150, 620, 150):
        pace.paused_and_went_on(pause_ms)
    after_one = pace.habit_ms
    assert after_one is not None
    assert 350 <= after_one <= 450
    for pause_ms in (620, 150, 620):
        pace.paused_and_went_on(pause_ms)
    assert pace.habit_ms is not None
    assert 500 <= pace.habit_ms < 620


@given(st.lists(st.floats(0, 60_000), max_size=20), st.text(max_size=30))
def test_the_wait_stays_within_its_bounds(pauses_ms: list[float], text: str) -> None:
    pace = UserPace()
    for pause_ms in pauses_ms:
        pace.paused_and_went_on(pause_ms)
    assert RULES.complete_ms <= hangover_ms(text, pace, RULES) <= RULES.trailing_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("换一个", True),
        ("停", True),
        ("stop", True),
        ("wait a minute", True),
        ("嗯", False),
        ("嗯嗯。", False),
        ("好的", False),
        ("对对对，嗯", False),
        ("是不是", True),
        ("ènèn", False),
        ("búshì", True),
        ("xiànzàizhègè", True),
        ("gāng", False),
        ("uh huh", False),
        ("yeah, yeah", False),
        ("oh no", True),
        ("I see", False),
        ("啊", False),
        ("hello", False),
        ("", False),
    ],
)
def test_only_words_with_an_intent_interrupt(text: str, expected: bool) -> None:
    assert interrupts(text) is expected


def test_the_device_hearing_itself_is_an_echo() -> None:
    said = "今天北京晴，最高气温二十度。"
    assert is_echo("北京晴最高气温", said)
    assert not is_echo("明天上海呢", said)
    assert not is_echo("", said)
    assert not is_echo("停", said)
    assert is_echo("停", "地铁现在停运。"), "a reply that says so does not stop itself"
    assert is_echo("stop", "The next stop is the museum.")


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("我想去。", "北京", "我想去北京"),
        ("I want to go.", "to Paris", "I want to go to Paris"),
        ("播放", "hello", "播放 hello"),
        ("", "北京", "北京"),
        ("我想去。", " ", "我想去"),
        ("真的吗？", "不会吧", "真的吗？ 不会吧"),
    ],
)
def test_two_parts_of_what_was_said_are_one_text(first: str, second: str, both: str) -> None:
    assert joined(first, second) == both


@pytest.mark.parametrize(
    "text", ["北京", "不要辣的", "今天的", "notes for tomorrow", "in the kitchen", "stopwatch", ""]
)
def test_what_may_go_on_with_a_question_is_not_taken_for_a_word_to_the_reply(text: str) -> None:
    assert not is_to_reply(text)
