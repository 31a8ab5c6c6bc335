"""Completeness, the user's pace, backchannels and echoes, by tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.settings import TurnSettings
from xiaozhi.turn.endpointing import Completeness, UserPace, completeness, hangover_ms, interrupts, is_echo, plain

RULES = TurnSettings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("现在几点了", Completeness.COMPLETE),
        ("今天天气怎么样？", Completeness.COMPLETE),
        ("你吃饭了吗。", Completeness.COMPLETE),
        ("谢谢", Completeness.COMPLETE),
        ("我想去北京，因为", Completeness.TRAILING),
        ("帮我查一下那个", Completeness.TRAILING),
        ("如果明天下雨的", Completeness.TRAILING),
        ("嗯", Completeness.TRAILING),
        ("我今天看了一本书", Completeness.NEUTRAL),
        ("what time is it now", Completeness.COMPLETE),
        ("Turn the volume up, please.", Completeness.COMPLETE),
        ("Thank you", Completeness.COMPLETE),
        ("I went to the shop and", Completeness.TRAILING),
        ("tell me about the", Completeness.TRAILING),
        ("my dog likes cheese", Completeness.NEUTRAL),
        ("really?", Completeness.COMPLETE),
        ("帮我查一下", Completeness.TRAILING),
        ("我想听这首", Completeness.NEUTRAL),
        ("给我来一个这种", Completeness.TRAILING),
        ("你等一下", Completeness.COMPLETE),
        ("我要去首都", Completeness.NEUTRAL),
        ("他们都", Completeness.TRAILING),
        ("对", Completeness.COMPLETE),
        ("不对", Completeness.COMPLETE),
        ("我对", Completeness.TRAILING),
        ("是的", Completeness.COMPLETE),
        ("turn the light on", Completeness.COMPLETE),
        ("turn on", Completeness.TRAILING),
        ("where are you from", Completeness.NEUTRAL),
        ("what is the", Completeness.TRAILING),
        ("can i get a single shot", Completeness.NEUTRAL),
        ("could you tell me", Completeness.TRAILING),
        ("i like it", Completeness.NEUTRAL),
        ("", Completeness.NEUTRAL),
        ("…", Completeness.NEUTRAL),
        ("42", Completeness.NEUTRAL),
    ],
)
def test_completeness_reads_the_end_of_the_text(text: str, expected: Completeness) -> None:
    assert completeness(text) is expected


def test_known_commands_are_complete_whatever_their_words_say() -> None:
    pace = UserPace()
    text = "play it for"
    assert hangover_ms(text, pace, RULES) == RULES.trailing_ms
    assert hangover_ms(text, pace, RULES, frozenset({plain(text)})) == RULES.complete_ms


def test_a_user_who_pauses_long_is_given_longer() -> None:
    pace = UserPace()
    before = hangover_ms("我今天看了一本书", pace, RULES)
    for _ in range(5):
        pace.paused_and_went_on(800)
    after = hangover_ms("我今天看了一本书", pace, RULES)
    assert before == RULES.neutral_ms
    assert 900 < after <= RULES.trailing_ms
    for _ in range(30):
        pace.finished()
    assert hangover_ms("我今天看了一本书", pace, RULES) == RULES.neutral_ms


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
        ("uh huh", False),
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
