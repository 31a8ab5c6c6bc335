"""When a microphone heard what the network brings."""

from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.turn.microphone_clock import MicrophoneClock


def test_before_any_sound_nothing_is_known() -> None:
    assert MicrophoneClock().heard_ms(0.0) is None


def test_a_stall_of_the_network_moves_no_sample() -> None:
    clock = MicrophoneClock()
    for packet in range(1, 11):
        clock.came(60.0 * packet, 5000.0 + 60.0 * packet)
    clock.came(660.0, 5000.0 + 1660.0)
    assert clock.heard_ms(660.0) == (5660.0, 6660.0)
    clock.came(1660.0, 5000.0 + 1661.0)
    assert clock.heard_ms(660.0) == (5660.0, 5661.0)


def test_a_client_that_sends_no_silence_is_known_again_after_a_while() -> None:
    clock = MicrophoneClock()
    clock.came(60.0, 60.0)
    for packet in range(500):  # after half a minute in which nothing was sent
        clock.came(60.0 * packet, 30_000.0 + 60.0 * packet)
    assert clock.heard_ms(30_000.0) == (60_000.0, 60_000.0)


@given(st.lists(st.floats(0.0, 3000.0), min_size=1, max_size=60))
def test_a_sample_is_never_placed_after_it_has_come_nor_far_before(lateness: list[float]) -> None:
    clock = MicrophoneClock()
    for packet, late_ms in enumerate(lateness):
        end_ms = 60.0 * packet
        clock.came(end_ms, end_ms + late_ms)
        between = clock.heard_ms(end_ms)
        assert between is not None
        earliest, latest = between
        assert earliest <= latest <= end_ms + late_ms + 1e-6
        assert earliest >= latest - 2000.0 - 1e-6
