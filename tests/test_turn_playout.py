"""The playout clock under virtual time."""

from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.turn.playout import PlayoutClock


def test_frames_leave_at_real_time_with_a_fixed_lead() -> None:
    clock = PlayoutClock(lead_ms=240)
    now_ms = 1000.0
    left: list[float] = []
    for _ in range(1000):
        now_ms = max(now_ms, clock.due_ms(now_ms))
        clock.sent(60, now_ms)
        left.append(now_ms)
    assert left[:5] == [1000.0] * 5
    assert left[5] == 1060.0
    assert left[-1] == 1000.0 + 999 * 60 - 240  # a minute later nothing has drifted
    assert clock.starved_ms == 0
    assert clock.ends_ms() == 1000.0 + 60_000


def test_a_short_lead_starves_nobody_ends_by_the_clock_and_is_made_up_for() -> None:
    clock = PlayoutClock(lead_ms=180)
    now_ms, waits = 1000.0, []
    for count in range(60):
        if count >= 20:  # sound that is likely speech goes on
            clock.shorten_lead(now_ms)
        now_ms = max(now_ms, clock.due_ms(now_ms, 60))
        clock.sent(60, now_ms)
        waits.append(clock.sent_ms - clock.played_ms(now_ms))
    assert clock.starved_ms == 0
    assert min(waits[20:26]) == 90 and max(waits) == 180
    assert waits[27:40].count(180.0) > 9, "it is not kept short for long"


def test_a_starvation_is_counted_once_and_the_lead_does_not_grow() -> None:
    clock = PlayoutClock(lead_ms=240)
    for _ in range(5):
        clock.sent(60, 0)
    clock.sent(60, 500)  # 300 ms were there, so 200 ms of silence
    assert (clock.gaps, clock.starved_ms) == (1, 200)
    assert clock.ends_ms() == 560
    assert clock.due_ms(500) == 560 - 240


def test_played_is_never_more_than_was_sent() -> None:
    clock = PlayoutClock(lead_ms=240)
    assert clock.played_ms(5) == 0
    clock.sent(60, 10)
    assert clock.played_ms(40) == 30
    assert clock.played_ms(1000) == 60


def test_a_reply_held_on_purpose_does_not_count_as_starved() -> None:
    clock = PlayoutClock(lead_ms=240)
    for _ in range(4):
        clock.sent(60, 0)
    clock.held(760)  # resumed at 1000, 760 ms after the queue ran dry
    clock.sent(60, 1000)
    assert clock.starved_ms == 0
    assert clock.ends_ms() == 1060


@given(st.lists(st.floats(0, 400), min_size=1, max_size=100), st.sampled_from([20, 40, 60]))
def test_the_lead_is_bounded_whatever_the_delays(delays_ms: list[float], frame_ms: int) -> None:
    clock = PlayoutClock(lead_ms=240)
    now_ms = 0.0
    for delay_ms in delays_ms:
        now_ms = max(now_ms + delay_ms, clock.due_ms(now_ms))
        clock.sent(frame_ms, now_ms)
        assert clock.sent_ms - clock.played_ms(now_ms) <= 240 + frame_ms + 1e-6
