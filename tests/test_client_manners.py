"""The device's manners against what was observed of firmware 2.4.2, older firmware and py-xiaozhi 2.1.1."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.client.manners import DesktopManners, DeviceState, Flush, Manners, Send, transition
from xiaozhi.client.speaker import LossReason
from xiaozhi.turn.machine import ListeningMode

AUTO, MANUAL, REALTIME = ListeningMode.AUTO, ListeningMode.MANUAL, ListeningMode.REALTIME
PACKET = b"\x58opus"


class Bench:
    """A device and a clock that only moves when it is told to."""

    def __init__(self, manners: Manners, mode: ListeningMode = AUTO) -> None:
        self.device = manners
        self.now_ms = 1000.0
        self.sent: list[dict[str, object]] = []
        self.flushes = 0
        self.device.listen(mode, self.now_ms)
        self.wait(500)

    def wait(self, ms: float) -> None:
        self.now_ms += ms
        self.device.advance(self.now_ms)
        self.take()

    def take(self) -> None:
        for action in self.device.actions():
            if isinstance(action, Send):
                self.sent.append(action.message)
            elif isinstance(action, Flush):
                self.flushes += 1

    def start(self) -> None:
        self.device.tts_start(self.now_ms)
        self.take()

    def stop(self) -> None:
        self.device.tts_stop(self.now_ms)
        self.take()

    def speaking(self) -> None:
        self.start()
        self.wait(100)

    def burst(self, count: int, duration_ms: float = 60.0) -> None:
        for _ in range(count):
            self.device.audio(PACKET, duration_ms, self.now_ms)
        self.take()

    def paced(self, total_ms: float, lead_ms: float, frame_ms: float = 60.0) -> None:
        """Send `total_ms` of audio as a server does that stays `lead_ms` ahead; ends when the last frame has left."""
        began_ms = self.now_ms
        for index in range(round(total_ms / frame_ms)):
            due_ms = began_ms + index * frame_ms - lead_ms
            self.wait(max(0.0, due_ms - self.now_ms))
            self.burst(1, frame_ms)

    def state(self) -> DeviceState:
        return self.device.state

    def replying(self) -> bool:
        return self.device.replying

    @property
    def starts(self) -> int:
        return sum(message.get("state") == "start" for message in self.sent)

    @property
    def heard_ms(self) -> float:
        return self.device.speaker.playback.heard_ms

    def dropped(self, reason: LossReason) -> int:
        return self.device.speaker.playback.dropped[reason]


@pytest.mark.parametrize("state", DeviceState)
@pytest.mark.parametrize("to", DeviceState)
def test_the_table_refuses_what_the_firmware_refuses(state: DeviceState, to: DeviceState) -> None:
    refused = {
        (DeviceState.CONNECTING, DeviceState.SPEAKING),
        (DeviceState.LISTENING, DeviceState.CONNECTING),
        (DeviceState.SPEAKING, DeviceState.CONNECTING),
    }
    for other in {*DeviceState} - {DeviceState.IDLE, DeviceState.NOTIFYING}:
        refused |= {(other, DeviceState.NOTIFYING), (DeviceState.NOTIFYING, other)}
    assert transition(state, to) is (state if (state, to) in refused else to)


def test_a_burst_of_six_seconds_is_heard_for_forty_four_packets() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.burst(100)
    bench.wait(10_000)
    assert len(bench.device.speaker.playback.heard) == 44
    assert bench.heard_ms == pytest.approx(2640.0)
    assert bench.dropped(LossReason.QUEUE_FULL) == 56


def test_a_burst_of_short_packets_is_heard_for_less_than_a_second() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.burst(300, 20.0)
    bench.wait(10_000)
    assert 820.0 <= bench.heard_ms <= 900.0


def test_a_minute_paced_with_a_lead_is_heard_to_the_last_packet() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.paced(60_000, lead_ms=240)
    bench.wait(500)
    bench.stop()
    bench.wait(500)
    playback = bench.device.speaker.playback
    assert bench.heard_ms == pytest.approx(60_000.0)
    assert not playback.dropped
    assert playback.starved_count == 0
    assert 240.0 <= playback.lead_max_ms <= 300.0


@pytest.mark.parametrize("lead_packets", [5, 33])
def test_after_an_abort_the_queue_is_played_before_the_microphone_opens(lead_packets: int) -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.burst(lead_packets)
    aborted_ms = bench.now_ms
    bench.device.abort(bench.now_ms)
    bench.take()
    assert bench.sent[-1] == {"type": "abort"}
    assert bench.state() is DeviceState.SPEAKING
    bench.stop()
    bench.wait(5000)
    ended_ms = bench.device.speaker.playback.ended_ms
    assert ended_ms is not None
    lead_ms = lead_packets * 60.0
    assert lead_ms - 30.0 <= ended_ms - aborted_ms <= lead_ms
    assert bench.device.microphone_from_ms == pytest.approx(ended_ms + 120.0)
    assert bench.starts == 2


def test_without_a_stop_the_device_stays_in_speaking_for_ever() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.device.abort(bench.now_ms)
    bench.wait(3_600_000)
    assert bench.state() is DeviceState.SPEAKING
    assert bench.starts == 1


@pytest.mark.parametrize(
    ("manners", "mode", "heard_ms", "state"),
    [
        (Manners(), AUTO, 600.0, DeviceState.LISTENING),
        (Manners(plays_out=False), AUTO, 20.0, DeviceState.LISTENING),
        (Manners(), MANUAL, 600.0, DeviceState.IDLE),
        (Manners(plays_out=False), MANUAL, 600.0, DeviceState.IDLE),
        (Manners(), REALTIME, 600.0, DeviceState.LISTENING),
        (DesktopManners(), AUTO, 0.0, DeviceState.LISTENING),
        (DesktopManners(), REALTIME, 0.0, DeviceState.LISTENING),
        (DesktopManners(), MANUAL, 600.0, DeviceState.IDLE),
    ],
)
def test_what_is_left_of_the_tail_when_the_stop_comes_early(
    manners: Manners, mode: ListeningMode, heard_ms: float, state: DeviceState
) -> None:
    bench = Bench(manners, mode)
    bench.speaking()
    bench.burst(10)
    bench.stop()
    bench.wait(5000)
    assert bench.heard_ms == pytest.approx(heard_ms)
    assert bench.state() is state


def test_old_firmware_loses_exactly_what_was_still_queued() -> None:
    bench = Bench(Manners(plays_out=False))
    bench.speaking()
    bench.paced(3000, lead_ms=300)
    bench.stop()
    bench.wait(1000)
    assert 2600.0 <= bench.heard_ms <= 2800.0
    assert bench.dropped(LossReason.CLEARED_BY_STOP) > 0
    assert bench.flushes == 1


def test_a_stop_after_the_audio_has_been_played_loses_nothing_anywhere() -> None:
    for manners in (Manners(), Manners(plays_out=False), DesktopManners()):
        bench = Bench(manners)
        bench.speaking()
        bench.paced(3000, lead_ms=240)
        bench.wait(240 + 200)
        bench.stop()
        bench.wait(1000)
        assert bench.heard_ms == pytest.approx(3000.0)


def test_audio_before_the_device_has_got_round_to_the_start_is_lost() -> None:
    bench = Bench(Manners(task_ms=10, handler_ms=10))
    bench.start()
    bench.burst(1)  # still listening: dropped on arrival
    bench.wait(15)
    bench.burst(1)  # speaking already, but the queue is about to be cleared
    bench.wait(10)
    bench.burst(1)
    bench.wait(500)
    assert bench.dropped(LossReason.NOT_SPEAKING) == 1
    assert bench.heard_ms == pytest.approx(5.0 + 60.0)  # 5 ms of the second sounded before it was cut


def test_audio_is_accepted_in_speaking_only() -> None:
    bench = Bench(Manners())
    bench.burst(3)
    assert bench.dropped(LossReason.NOT_SPEAKING) == 3
    idle = Manners()
    assert not idle.audio(PACKET, 60.0, 0.0)


def test_a_server_may_speak_to_an_idle_device_but_not_to_one_that_connects() -> None:
    idle = Manners()
    idle.tts_start(0.0)
    idle.advance(100.0)
    assert idle.state is DeviceState.SPEAKING
    connecting = Manners()
    connecting.connecting(0.0)
    connecting.tts_start(10.0)
    connecting.advance(100.0)
    assert connecting.state is DeviceState.CONNECTING
    assert not connecting.replying


def test_a_second_start_while_speaking_flushes_nothing() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.burst(10)
    bench.start()
    bench.wait(2000)
    assert bench.heard_ms == pytest.approx(600.0)


@pytest.mark.parametrize("mode", [AUTO, REALTIME])
def test_stop_start_pause_stop_silences_the_device_at_once(mode: ListeningMode) -> None:
    bench = Bench(Manners(), mode)
    bench.speaking()
    bench.burst(33)
    bench.stop()
    bench.start()
    bench.wait(50)
    bench.stop()
    bench.wait(5000)
    assert bench.heard_ms <= 60.0
    assert bench.state() is DeviceState.LISTENING
    assert bench.starts == (2 if mode is AUTO else 1)


def test_without_the_pause_the_changes_collapse_and_nothing_is_flushed() -> None:
    bench = Bench(Manners(), REALTIME)
    bench.speaking()
    bench.burst(33)
    bench.stop()
    bench.start()
    bench.stop()
    bench.wait(5000)
    assert bench.heard_ms == pytest.approx(33 * 60.0)


def test_a_start_that_comes_while_the_device_plays_out_waits_for_the_end_of_playback() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.burst(33)
    bench.stop()
    bench.wait(30)  # the main loop now waits for the loudspeaker
    bench.start()
    bench.wait(60)
    bench.stop()
    bench.wait(5000)
    assert bench.heard_ms == pytest.approx(33 * 60.0)


def test_the_microphone_needs_120_ms_after_listen_start() -> None:
    bench = Bench(Manners())
    opened_ms = bench.device.microphone_from_ms
    assert opened_ms == pytest.approx(1000.0 + 10.0 + 120.0)


def test_the_microphone_is_shut_while_speaking_except_in_realtime() -> None:
    auto, realtime = Bench(Manners()), Bench(Manners(), REALTIME)
    opened_ms = realtime.device.microphone_from_ms
    for bench in (auto, realtime):
        bench.speaking()
        bench.burst(3)
    assert auto.device.microphone_from_ms is None
    assert realtime.device.microphone_from_ms == opened_ms
    for bench in (auto, realtime):
        bench.stop()
        bench.wait(1000)
    assert (auto.starts, realtime.starts) == (2, 1)


def test_push_to_talk_goes_idle_on_release_and_flushes_when_it_interrupts() -> None:
    bench = Bench(Manners(), MANUAL)
    bench.device.stop(bench.now_ms)
    bench.wait(20)
    assert bench.state() is DeviceState.IDLE
    assert bench.sent[-1] == {"type": "listen", "state": "stop"}
    assert bench.device.microphone_from_ms is None
    bench.speaking()
    bench.burst(20)
    bench.wait(100)
    bench.device.listen(MANUAL, bench.now_ms)
    bench.wait(1000)
    assert [message["type"] for message in bench.sent[-2:]] == ["abort", "listen"]
    assert bench.heard_ms <= 120.0
    assert bench.flushes == 1
    bench.stop()  # the server's answer to the abort changes nothing now
    bench.wait(100)
    assert bench.state() is DeviceState.LISTENING


def test_a_wake_word_interrupts_with_its_reason_and_drains_before_listening() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.burst(5)
    bench.device.listen(AUTO, bench.now_ms, "wake_word_detected")
    bench.take()
    assert bench.sent[-1] == {"type": "abort", "reason": "wake_word_detected"}
    bench.wait(1000)
    assert bench.heard_ms == pytest.approx(300.0)
    assert bench.starts == 2


def test_starvation_is_counted_inside_a_reply_only() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.wait(1000)  # before the first packet
    bench.burst(2)
    bench.wait(120 + 80)
    bench.burst(1)
    bench.wait(60 + 300)
    bench.stop()
    bench.wait(2000)  # after the stop
    bench.speaking()
    bench.burst(1)
    bench.wait(100)
    playback = bench.device.speaker.playback
    assert playback.starved_count == 1
    assert playback.starved_ms == pytest.approx(80.0)


def test_a_lost_connection_makes_the_device_idle_and_the_rest_is_played() -> None:
    bench = Bench(Manners())
    bench.speaking()
    bench.burst(10)
    bench.device.go_idle(bench.now_ms)
    bench.wait(1000)
    assert bench.state() is DeviceState.IDLE
    assert bench.heard_ms == pytest.approx(600.0)


def test_the_desktop_client_plays_whatever_arrives_and_keeps_ten_seconds() -> None:
    bench = Bench(DesktopManners())
    bench.burst(10)  # while listening
    bench.wait(1000)
    assert bench.heard_ms == pytest.approx(600.0)
    bench.start()
    bench.burst(300)
    bench.wait(60_000)
    # One packet sounds already and is not forgotten any more.
    assert bench.heard_ms == pytest.approx(600.0 + 10_000.0, abs=60.0)
    assert bench.dropped(LossReason.QUEUE_FULL) == 300 - 166


def test_the_desktop_client_listens_at_once_after_its_abort_and_again_after_the_stop() -> None:
    bench = Bench(DesktopManners())
    bench.start()
    bench.burst(5)
    bench.device.abort(bench.now_ms)
    bench.take()
    assert [message["type"] for message in bench.sent] == ["listen", "abort", "listen"]
    bench.stop()
    assert bench.starts == 3
    assert bench.state() is DeviceState.LISTENING


def test_the_desktop_client_stays_listening_in_realtime() -> None:
    bench = Bench(DesktopManners(), REALTIME)
    bench.start()
    assert bench.state() is DeviceState.LISTENING
    assert bench.replying()
    bench.stop()
    assert not bench.replying()
    assert bench.starts == 1


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 400.0),
        st.sampled_from(["start", "stop", "audio", "listen", "manual", "release", "abort", "idle", "connect"]),
    ),
    max_size=60,
)


def play(manners: Manners, events: list[tuple[float, str]], step_ms: float | None) -> list[object]:
    """Let the events happen, looking in between every `step_ms` or not at all; returns what was sent and heard."""
    now_ms = 0.0
    sent: list[object] = []
    for gap_ms, event in [*events, (20_000.0, "end")]:
        at_ms = now_ms + gap_ms
        if step_ms is not None:
            for step in range(int(gap_ms / step_ms) + 1):
                manners.advance(now_ms + step * step_ms)
        now_ms = at_ms
        match event:
            case "start":
                manners.tts_start(now_ms)
            case "stop":
                manners.tts_stop(now_ms)
            case "audio":
                for _ in range(7):
                    manners.audio(PACKET, 60.0, now_ms)
            case "listen":
                manners.listen(AUTO, now_ms)
            case "manual":
                manners.listen(MANUAL, now_ms)
            case "release":
                manners.stop(now_ms)
            case "abort":
                manners.abort(now_ms)
            case "idle":
                manners.go_idle(now_ms)
            case "connect":
                manners.connecting(now_ms)
            case "end":
                manners.advance(now_ms)
        sent += manners.actions()
        assert manners.state is not DeviceState.IDLE or not manners.settled or manners.microphone_from_ms is None
    playback = manners.speaker.playback
    heard = [(played.at_ms, played.heard_ms) for played in playback.heard]
    return [*sent, manners.state, *heard, *sorted(playback.dropped.items()), playback.starved_count]


@given(EVENTS, st.booleans())
def test_looking_more_often_changes_nothing(events: list[tuple[float, str]], plays_out: bool) -> None:
    assert play(Manners(plays_out=plays_out), events, None) == play(Manners(plays_out=plays_out), events, 7.0)


@given(EVENTS, st.sampled_from([Manners, DesktopManners]))
def test_every_packet_is_heard_once_or_dropped_once_and_nothing_overlaps(
    events: list[tuple[float, str]], kind: type[Manners]
) -> None:
    manners = kind()
    play(manners, events, None)
    playback = manners.speaker.playback
    assert len(playback.heard) + playback.dropped.total() == playback.received
    for earlier, later in itertools.pairwise(playback.heard):
        assert earlier.at_ms + earlier.heard_ms <= later.at_ms + 1e-6
    assert all(0.0 < heard.heard_ms <= 60.0 for heard in playback.heard)


@given(EVENTS)
def test_after_a_stop_the_firmware_is_never_left_in_speaking(events: list[tuple[float, str]]) -> None:
    manners = Manners()
    play(manners, [*events, (1.0, "stop")], None)
    assert manners.state is not DeviceState.SPEAKING
    assert manners.settled
