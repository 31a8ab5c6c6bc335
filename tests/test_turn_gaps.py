"""Silence that is not sent, and sound that comes late."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.turn.gaps import PacketGaps


@dataclass
class Client:
    """A microphone by a clock of its own."""

    gaps: PacketGaps = field(default_factory=lambda: PacketGaps(150.0))
    now_ms: float = 5000.0

    def send(self, count: int, *, every_ms: float = 60.0, open_utterance: bool = True) -> None:
        for _ in range(count):
            self.now_ms += every_ms
            self.gaps.packets(60.0, self.now_ms, open_utterance=open_utterance)

    def unsent(self, after_ms: float = 0.0, *, faded: bool = True) -> tuple[float, bool]:
        self.now_ms += after_ms
        return self.gaps.unsent_ms(self.now_ms, faded=faded)


def test_packets_that_come_in_time_and_a_little_late_leave_no_gap() -> None:
    client = Client()
    assert client.unsent(1000.0) == (0.0, False), "nothing has come yet"
    client.send(10)
    assert client.unsent(140.0) == (0.0, False)
    client.send(2, every_ms=0.0)
    assert client.unsent() == (0.0, False)


def test_a_gap_after_a_voice_that_was_fading_is_silence_from_its_beginning() -> None:
    client = Client()
    client.send(10)
    assert client.unsent(150.0) == (150.0, False)
    assert client.unsent(250.0) == (400.0, False)


def test_a_gap_in_the_midst_of_a_word_counts_later_and_is_doubtful() -> None:
    client = Client()
    client.send(10)
    assert client.unsent(200.0, faded=False) == (0.0, True)
    assert client.unsent(300.0, faded=False) == (250.0, True)


def test_so_does_every_gap_of_a_client_that_has_always_sent_its_silence() -> None:
    client = Client()
    client.send(51, open_utterance=False)
    client.send(10)
    assert client.unsent(500.0) == (250.0, True)
    client.send(1)
    client.send(1, every_ms=2000.0, open_utterance=False)
    client.gaps.restart()
    client.send(1)
    assert client.unsent(500.0) == (500.0, False), "it does not send it any more"


def test_what_comes_late_makes_up_for_the_gap() -> None:
    client = Client()
    client.send(10)
    assert client.unsent(480.0) == (480.0, False)
    client.send(3, every_ms=0.0)
    assert client.unsent() == (300.0, False)
    client.send(5, every_ms=0.0)
    assert client.unsent() == (0.0, False)
    client.send(5)
    assert client.unsent() == (0.0, False)


def test_a_client_that_goes_on_in_time_had_been_silent() -> None:
    client = Client()
    client.send(10)
    client.send(1, every_ms=460.0)
    client.send(5)
    assert client.unsent() == (400.0, False)
    client.send(1, every_ms=460.0)  # as libopus does in silence
    assert client.unsent() == (800.0, False)
    client.gaps.restart()  # a voice
    assert client.unsent() == (0.0, False)


def test_packets_that_always_come_in_bundles_leave_no_gap() -> None:
    client = Client()
    for _ in range(3):
        client.now_ms += 240.0
        client.gaps.packets(240.0, client.now_ms, open_utterance=True)
    assert client.unsent(239.0) == (0.0, False)
    assert client.unsent(81.0) == (320.0, False), "this is longer than is usual"
    client.send(2000)
    client.gaps.restart()
    assert client.unsent(170.0) == (170.0, False), "and it was long ago"


def test_what_follows_nothing_has_no_gap_before_it() -> None:
    client = Client()
    client.send(10)
    client.now_ms += 5000.0
    client.gaps.forget()
    client.send(1)
    assert client.unsent() == (0.0, False)


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 120)), max_size=40), st.integers(0, 3000))
def test_sound_and_silence_together_are_never_longer_than_the_time_that_has_passed(
    packets: list[tuple[int, int]], after_ms: int
) -> None:
    gaps, now_ms = PacketGaps(150.0), 0.0
    for wait_ms, sound_ms in packets:
        now_ms += wait_ms
        gaps.packets(sound_ms, now_ms, open_utterance=True)
    unsent_ms, _ = gaps.unsent_ms(now_ms + after_ms, faded=True)
    assert 0.0 <= unsent_ms <= now_ms + after_ms


@pytest.mark.parametrize("every_ms", [20.0, 60.0, 120.0])
def test_a_clock_of_the_client_that_is_slow_by_far_adds_up_to_nothing(every_ms: float) -> None:
    gaps, now_ms = PacketGaps(150.0), 0.0
    for _ in range(10_000):
        now_ms += every_ms * 1.01
        gaps.packets(every_ms, now_ms, open_utterance=True)
    assert gaps.unsent_ms(now_ms, faded=True) == (0.0, False)
