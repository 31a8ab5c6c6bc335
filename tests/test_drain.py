"""A server that stops: what it has taken is answered, who does nothing is hung up soon, and one after the other."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cluster_verdict import Asked, LetGo, Record, let_go, lost, said_again, verdict
from tests.house import SPEED, House, house, question, settings_for
from tests.test_serve_cli import Running, free_port
from tests.virtual_loop import in_virtual_time
from xiaozhi.app.server import serving
from xiaozhi.client.device import Device
from xiaozhi.client.microphone import SpeechMicrophone, SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.logs import TextFormatter
from xiaozhi.transport.draining import ONSET_S, Drain, Report, moments_s

# One connection that is let go, in virtual time -----------------------------------------------------------------------


class User:
    """A connection that does what a script says: (seconds after the signal, state), the last state for good."""

    def __init__(self, number: int, *script: tuple[float, str]) -> None:
        self.device_id = f"02:00:00:00:00:{number:02x}"
        self.ears_shut_s: float | None = None
        self.ended_s: float | None = None
        self.refused_turns = 0
        self._script = script
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()

    @property
    def now_s(self) -> float:
        return self._loop.time() - self._began_s

    @property
    def doing(self) -> str:
        return [state for at_s, state in self._script if at_s <= self.now_s][-1]

    @property
    def listens(self) -> bool:
        return self.doing == "waiting"

    @property
    def busy(self) -> bool:
        return self.doing not in ("idle", "waiting", "just idle")

    @property
    def settled(self) -> bool:
        return self.doing in ("idle", "waiting")

    def finish(self) -> None:
        if self.ears_shut_s is None:
            self.ears_shut_s = self.now_s

    def end(self, why: str) -> None:
        assert why
        self.ended_s = self.now_s


def drained(within_s: float, *scripts: tuple[tuple[float, str], ...]) -> tuple[list[User], Report]:
    """What becomes of devices that do what their scripts say."""

    async def run() -> tuple[list[User], Report]:
        users = [User(number, *script) for number, script in enumerate(scripts, 1)]
        return users, await Drain(lambda: [one for one in users if one.ended_s is None], within_s).run()

    return in_virtual_time(run())


def test_a_device_that_does_not_listen_is_hung_up_at_once() -> None:
    (one,), report = drained(15.0, ((0.0, "idle"),))
    assert one.ended_s == 0.0
    assert (dict(report.doing), report.cut) == ({"idle": 1}, 0)
    assert report.took_s < 0.1


def test_a_device_that_listens_is_hung_up_when_a_word_begun_before_would_have_been_found() -> None:
    (one,), _ = drained(15.0, ((0.0, "waiting"),))
    assert one.ended_s == pytest.approx(ONSET_S, abs=0.06)


@pytest.mark.parametrize("state", ["hearing", "paused", "replying", "overlap", "probing"])
def test_whoever_is_in_a_turn_finishes_it_and_begins_no_other(state: str) -> None:
    (one,), report = drained(15.0, ((0.0, state), (2.0, "replying"), (4.0, "just idle"), (4.3, "idle")))
    assert one.ears_shut_s == 0.0
    assert one.ended_s == pytest.approx(4.3, abs=0.06)
    assert (report.doing, report.cut) == ({state: 1}, 0)


def test_a_word_that_is_found_late_makes_a_turn_that_is_answered() -> None:
    (one,), report = drained(15.0, ((0.0, "waiting"), (0.3, "hearing"), (1.5, "replying"), (3.0, "idle")))
    assert one.ended_s == pytest.approx(3.0, abs=0.06)
    assert one.ears_shut_s is not None and 0.3 <= one.ears_shut_s < 0.5
    assert report.cut == 0


def test_a_device_that_has_just_been_answered_keeps_its_ears_until_it_is_hung_up() -> None:
    (one,), _ = drained(15.0, ((0.0, "just idle"), (0.2, "replying"), (2.0, "idle")))
    assert one.ended_s == pytest.approx(2.0, abs=0.06)


def test_a_turn_that_takes_too_long_is_cut_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "xiaozhi")
    (one, other), report = drained(5.0, ((0.0, "replying"),), ((0.0, "idle"),))
    assert one.ended_s == pytest.approx(5.0, abs=0.06)
    assert other.ended_s is not None and other.ended_s < 1.0
    assert report.cut == 1
    assert "1 turns still running after 5 s are cut" in caplog.text
    assert {(record.at_signal, record.at_close) for record in caplog.records if record.msg == "let go"} == {  # type: ignore[attr-defined] # what a log line says beside its text
        ("idle", "idle"),
        ("replying", "replying"),
    }


def test_without_time_everybody_is_hung_up_at_once() -> None:
    users, report = drained(0.0, ((0.0, "waiting"),), ((0.0, "replying"),))
    assert [one.ended_s for one in users] == [0.0, 0.0]
    assert report.cut == 1


def test_twenty_devices_do_not_come_back_in_one_instant() -> None:
    users, _ = drained(15.0, *[((0.0, "waiting"),)] * 20)
    ended = sorted(one.ended_s or 0.0 for one in users)
    assert ended[-1] < 1.0
    most = max(sum(abs(other - at_s) < 0.025 for other in ended) for at_s in ended)
    assert most <= 6


@given(st.lists(st.booleans(), max_size=3000), st.floats(0.0, 600.0))
def test_moments_come_in_order_within_their_share_of_the_time(listening: list[bool], within_s: float) -> None:
    moments = moments_s(listening, within_s)
    assert len(moments) == len(listening)
    assert all(0.0 <= at_s <= min(2.0 + ONSET_S, within_s / 2.0) for at_s in moments)
    if within_s >= 2.0:
        assert all(at_s >= ONSET_S for at_s, listens in zip(moments, listening, strict=True) if listens)


# A whole server -------------------------------------------------------------------------------------------------------


def doing(home: House) -> str:
    """What the conversation of the one device is doing."""
    connection = home.session()
    return connection.doing


async def until(condition: Callable[[], bool]) -> None:
    """A state of the server that nobody tells a device of."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("state", ["unheard", "hearing", "paused"])
async def test_speech_under_way_when_the_signal_comes_is_answered(state: str, tmp_path: Path) -> None:
    # Real time where the moment counts: a word is found at most 0.4 s after it began.
    speed, microphone = 1.0 if state == "unheard" else SPEED, SpeechMicrophone()
    async with house(tmp_path) as home:
        settings = settings_for(tmp_path / "two", home.chat.url, home.speech.url, server={"drain_s": 20.0})
        async with serving(settings) as server:
            stopping_home = House(server, home.chat, home.speech)
            async with stopping_home.device(speed=speed, microphone=microphone) as device:
                device.listen()
                await until(lambda: doing(stopping_home) == "waiting")
                turn = asyncio.create_task(device.turn(SpokenUtterance.encode(question(), 60)))
                if state == "unheard":
                    await until(lambda: microphone._position > 1)  # a packet of it has left
                    assert doing(stopping_home) == "waiting"
                else:
                    await until(lambda: doing(stopping_home) == state)
                await server.devices.drain(20.0)
                report = await turn
                assert report.answered and report.text == "It is ten past nine." and not report.dropped
                assert server.devices.drained is not None and server.devices.drained.cut == 0


async def test_a_text_that_comes_when_the_ears_are_shut_is_counted_and_not_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        turn = asyncio.create_task(device.turn_text("hello there"))
        await until(lambda: doing(home) == "replying")
        stopping = asyncio.create_task(home.server.devices.drain(20.0))
        connection = home.session()
        await until(lambda: connection._conversation._machine.finishing)
        device.detect("and what else")
        assert (await turn).answered
        await stopping
        assert home.server.devices.drained is not None and home.server.devices.drained.refused == 1
        assert len(home.asked) == 1


@pytest.mark.real_time
async def test_the_same_signal_twice_still_lets_a_reply_end(tmp_path: Path) -> None:
    with closing(await asyncio.to_thread(Running, tmp_path, free_port())) as server:
        async with Device(ClientIdentity.of("02:00:00:00:00:01")) as device:
            ota = await device.boot(f"http://127.0.0.1:{server.port}/xiaozhi/ota/")
            await device.connect(ota.url, ota.token)
            turn = asyncio.create_task(device.turn_text("what is two plus three"))
            await device.until(lambda: device.manners.speaker.playback.heard_ms > 100)
            server.process.send_signal(signal.SIGINT)
            await until(lambda: any("stopping" in line for line in server.log))
            server.process.send_signal(signal.SIGINT)  # Ctrl-C through a wrapper comes twice
            assert (await turn).answered
        assert await asyncio.to_thread(server.process.wait, 10) == 0


# The verdict of the drill ---------------------------------------------------------------------------------------------


def drill(at_close: str, turn: Asked) -> Record:
    record = Record(phases=["calm", "drain b", "b again"], turns=[turn])
    record.drains["drain b"] = [LetGo("b", "d1", "waiting", at_close, 0.5)]
    return record


def test_a_turn_on_a_draining_node_is_lost_unless_its_log_says_that_the_device_did_nothing() -> None:
    turn = Asked("drain b", "b", "d1", "connection lost", took_s=0.1)
    assert said_again(turn, drill("waiting", turn))
    for at_close, other in (
        ("hearing", turn),
        ("waiting", Asked("drain b", "b", "d1", "connection lost", begun=True, took_s=0.1)),
        ("waiting", Asked("drain b", "b", "d1", "connection lost", took_s=3.0)),
        ("waiting", Asked("drain b", "b", "d1", "no answer", took_s=0.1)),
        ("waiting", Asked("drain b", "a", "d1", "connection lost", took_s=0.1)),
        ("waiting", Asked("drain b", "b", "d2", "connection lost", took_s=0.1)),
        ("waiting", Asked("b again", "b", "d1", "connection lost", took_s=0.1)),
    ):
        record = drill(at_close, other)
        assert lost(other, record)
        assert any("turns lost" in line for line in verdict(record))


def test_the_drill_reads_what_the_node_writes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "xiaozhi")
    drained(15.0, ((0.0, "replying"), (2.0, "waiting")))
    log = "\n".join(TextFormatter().format(record) for record in caplog.records)
    (one,) = let_go("b", log)
    assert (one.node, one.device) == ("b", "02:00:00:00:00:01")
    assert (one.at_signal, one.at_close) == ("replying", "waiting")
    assert one.after_s == pytest.approx(2.0, abs=0.06)
