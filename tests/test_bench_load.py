"""The benches with many devices: schedules, pranks, errors, verdicts, the search for capacity, drift, and one run."""

import asyncio
import math
import os
import random
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.capacity import Search
from bench.devices import Scene, conditions, main, measure, numbers, recordings_of, sweep_table
from bench.drift import Drift, drifts, judged, slope_margin, slope_per_hour
from bench.idle import Idle
from bench.load import Tally
from bench.misbehaviour import Mischief, Prankster, garbage
from bench.outcome import Outcome, show
from bench.peer import Peer, draw, side_by_side, tables
from bench.plot import line_chart
from bench.sampling import Sample, Series, Watcher, cpu_class, gauge, parts_s
from bench.soak import Soaked, ends_table, errors_in, events_table
from bench.soak import verdict as soak_verdict
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from bench.upstreams import CHAT_FAULTS, SPEECH_FAULTS
from bench.user import Load, Turn, gaps_ms, starts_s
from bench.verdict import broken, capacity, row_s1
from tests.house import house
from xiaozhi.client.speaker import HeardPacket
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.transport.protocol import Abort, Detect, DeviceProtocol, Hello, ListenStart, ListenStop

pytestmark = pytest.mark.real_time  # a server in a process of its own


def answered(first_ms: float = 800.0, starved_ms: float = 0.0, error: str = "") -> Turn:
    return Turn("answered", 1.0, first_packet_ms=first_ms, starved_ms=starved_ms, frames=40, error=error)


def sample(at_s: float, *, rss_mb: float = 500.0, cpu: float = 0.5, threads: int = 20, fds: int = 50) -> Sample:
    return Sample(at_s, cpu, 0.5, rss_mb, 0.4, threads, fds)


def outcome(turns: list[Turn], samples: list[Sample] | None = None, due: int | None = None) -> Outcome:
    load = Load(10, 60.0)
    return Outcome(load, turns, samples or [], [Tally(len(turns) if due is None else due)])


# The load ------------------------------------------------------------------------------------------------------------


def test_over_many_devices_turns_come_as_often_as_was_asked() -> None:
    load = Load(1, 60.0, turns_per_minute=3.0)
    counts = [len(starts_s(load, random.Random(seed))) for seed in range(500)]
    assert 2.85 < sum(counts) / len(counts) < 3.15
    assert max(counts) <= 5


def test_the_same_seed_gives_the_same_schedule_and_none_lies_outside_the_run() -> None:
    load = Load(1, 30.0, turns_per_minute=12.0)
    first, second = (starts_s(load, random.Random(4)) for _ in range(2))
    assert first == second == sorted(first)
    assert all(0.0 <= due < 30.0 for due in first)


def test_a_gap_is_silence_between_packets_and_not_a_timers_rounding() -> None:
    heard = [HeardPacket(0.0, b"a", 60.0), HeardPacket(60.5, b"b", 60.0), HeardPacket(200.5, b"c", 60.0)]
    assert gaps_ms(heard) == [80.0]
    assert gaps_ms(heard[:1]) == []


class FakeVictim:
    """A device that notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.lost = asyncio.Event()
        self.hit = asyncio.Event()

    def abort(self, reason: str = "") -> None:
        self.done.append("abort")
        self.lost.set()

    def send_raw(self, message: str | bytes) -> None:
        self.done.append("garbage")
        self.hit.set()

    async def close(self) -> None:
        self.done.append("drop")
        self.lost.set()

    async def turn(self) -> str:
        await self.lost.wait()
        return "over"


class Early(random.Random):
    """Dice that always choose the earliest moment."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


@pytest.mark.parametrize("prank", ["abort", "drop"])
async def test_a_prank_strikes_while_the_turn_runs_and_the_turn_is_still_reported(prank: str) -> None:
    victim = FakeVictim()
    prankster = Prankster(Mischief(), victim, Early(1))
    assert await prankster.spoil(prank, victim.turn(), 0.0) == "over"
    assert victim.done == [prank]
    assert prankster.played == {prank: 1}
    assert prankster.breaks_off(prank)


async def test_garbage_is_sent_beside_a_turn_that_goes_on() -> None:
    victim = FakeVictim()
    prankster = Prankster(Mischief(), victim, Early(1))
    spoiling = asyncio.ensure_future(prankster.spoil("garbage", victim.turn(), 0.0))
    await victim.hit.wait()
    victim.lost.set()
    assert await spoiling == "over"
    assert set(victim.done) == {"garbage"}
    assert not prankster.breaks_off("garbage")


def test_pranks_come_as_often_as_was_asked() -> None:
    prankster = Prankster(Mischief(abort=0.1, drop=0.2, garbage=0.3), FakeVictim(), random.Random(1))
    chosen = [prankster.choose() for _ in range(4000)]
    shares = {prank: chosen.count(prank) / len(chosen) for prank in ("abort", "drop", "garbage", "")}
    assert shares == pytest.approx({"abort": 0.1, "drop": 0.2, "garbage": 0.3, "": 0.4}, abs=0.03)


@given(st.integers(0, 10_000))
def test_garbage_starts_and_stops_no_turn(seed: int) -> None:
    message = garbage(random.Random(seed))
    protocol = DeviceProtocol()
    protocol.receive_text('{"type": "hello"}')
    event = protocol.receive_text(message) if isinstance(message, str) else protocol.receive_binary(message)
    assert not isinstance(event, Hello | ListenStart | ListenStop | Detect | Abort)


def test_the_stand_ins_know_every_fault_of_the_soak() -> None:
    assert set(CHAT_FAULTS) <= ChatStandIn.FAULTS
    assert set(SPEECH_FAULTS) <= SpeechStandIn.FAULTS


# What came of it -----------------------------------------------------------------------------------------------------


def test_a_turn_broken_off_on_purpose_is_neither_success_nor_error() -> None:
    found = outcome([answered(), Turn("drop on purpose", 1.0, meant=False)])
    assert found.success == 1.0
    assert not found.errors()
    assert "drop on purpose: 1" in show(found)


def test_an_apology_is_an_answer_and_an_error() -> None:
    found = outcome([answered(), answered(error="upstream went silent")])
    assert found.success == 1.0
    assert found.error_share == 0.5
    assert dict(found.errors()) == {"answered, but: upstream went silent": 1}


def test_a_refused_call_is_an_error_but_no_turn() -> None:
    found = outcome([answered(), Turn("call: ConnectFailed 503", 1.0, is_call=True)], due=1)
    assert found.success == 1.0
    assert found.begun == 1.0
    assert found.error_share == 1.0


def test_without_a_single_turn_nothing_holds_and_the_tables_are_still_shown() -> None:
    found = outcome([])
    assert {line.demand for line in broken(row_s1(found))} >= {"success over 99 %", "first audio p95 under 2 s"}
    assert "first packet at the device" in show(found)
    assert broken(capacity(found))


def test_the_server_is_judged_while_all_devices_are_there() -> None:
    found = outcome([answered()], [sample(100.0 + second) for second in range(70)])
    found.load = Load(10, 60.0, ramp_s=5.0)
    assert [found.busy_samples()[index].at_s for index in (0, -1)] == [105.0, 160.0]


# Verdicts ------------------------------------------------------------------------------------------------------------


def test_row_s1_holds_for_a_good_run() -> None:
    found = outcome([answered()] * 200, [sample(float(second)) for second in range(60)])
    lines = row_s1(found, cores=2)
    assert all(line.holds for line in lines)
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("turns", "samples", "demand"),
    [
        ([answered()] * 98 + [Turn("no answer", 1.0)] * 2, [], "success over 99 %"),
        ([answered()] * 98 + [answered(error="x")] * 2, [], "errors under 1 %"),
        ([answered()] * 90 + [answered(2500.0)] * 10, [], "first audio p95 under 2 s"),
        ([answered()] * 98 + [answered(starved_ms=61.0)] * 2, [], "under 1 % of turns starved over 60 ms"),
        ([answered()] * 100, [sample(0.0, cpu=1.5)], "CPU under 70 %"),
    ],
)
def test_row_s1_names_what_broke(turns: list[Turn], samples: list[Sample], demand: str) -> None:
    missed = broken(row_s1(outcome(turns, samples), cores=2))
    assert demand in [line.demand for line in missed]


def test_turns_that_never_began_break_the_row() -> None:
    missed = broken(row_s1(outcome([answered()] * 9, due=10)))
    assert [line.demand for line in missed] == ["3 turns a minute each"]


def test_a_server_elsewhere_is_judged_without_cpu_and_memory() -> None:
    lines = row_s1(outcome([answered()] * 10))
    assert [line.demand for line in lines if line.holds is None] == ["memory under 80 %", "CPU under 70 %"]
    assert not broken(lines)


def test_a_server_that_ended_holds_nothing() -> None:
    found = outcome([answered()] * 10)
    found.server_ended = True
    assert broken(row_s1(found))
    assert broken(capacity(found))


def test_capacity_names_the_worst_first() -> None:
    found = outcome([answered(1800.0)] * 80 + [answered(1800.0, starved_ms=500.0)] * 20)
    missed = broken(capacity(found))
    assert [line.demand for line in missed] == [
        "under 1 % of turns starved over 60 ms",
        "first audio p95 at most 1.5 s",
    ]


# The search ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1500), st.integers(1, 200))
def test_the_search_ends_close_below_where_it_breaks(limit: int, first: int) -> None:
    search = Search(first, most=1000)
    tried = []
    while (number := search.next()) is not None:
        tried.append(number)
        search.tell(number, number <= limit)
        assert len(tried) < 30
    assert search.last_good <= min(limit, 1000)
    assert len(set(tried)) == len(tried)
    if limit >= 1000:
        assert search.last_good == 1000
        assert search.first_bad is None
    else:
        assert min(limit, 1000) - search.last_good <= max(2, search.last_good // 20)


def test_the_search_doubles_and_then_halves_the_gap() -> None:
    search = Search(20)
    tried: list[int] = []
    while (number := search.next()) is not None and len(tried) < 20:
        tried.append(number)
        search.tell(number, number <= 120)
    assert tried == [20, 40, 80, 160, 120, 140, 130, 125]
    assert (search.last_good, search.first_bad) == (120, 125)


def test_a_search_needs_somewhere_to_begin() -> None:
    with pytest.raises(ValueError, match="between 1 and most"):
        Search(0)


# Growth --------------------------------------------------------------------------------------------------------------


def test_the_slope_is_growth_per_hour() -> None:
    assert slope_per_hour([0.0, 1800.0, 3600.0], [100.0, 105.0, 110.0]) == pytest.approx(10.0)
    assert math.isnan(slope_per_hour([1.0], [2.0]))
    assert math.isnan(slope_per_hour([1.0, 1.0], [2.0, 3.0]))


def test_a_slope_is_told_with_how_sure_it_is() -> None:
    dice = random.Random(1)
    times = [float(second) for second in range(0, 3600, 10)]
    growing = [500.0 + second / 360.0 + dice.gauss(0.0, 3.0) for second in times]  # 10 an hour, in noise
    margin = slope_margin(times, growing)
    assert 0.0 < margin < 5.0
    assert abs(slope_per_hour(times, growing) - 10.0) < 2.0 * margin
    assert slope_margin(times, [500.0 + second / 360.0 for second in times]) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(slope_margin([1.0, 2.0], [1.0, 2.0]))


def test_an_hour_is_judged_from_minute_ten_and_a_minute_from_its_half() -> None:
    hour = [sample(float(second)) for second in range(0, 3601, 10)]
    assert judged(hour)[0].at_s == 600.0
    minute = [sample(float(second)) for second in range(61)]
    assert judged(minute)[0].at_s == 30.0
    assert judged([]) == []


def test_warming_up_is_no_growth_but_a_leak_is() -> None:
    warming = [sample(float(second), rss_mb=400.0 + min(second, 600) / 6) for second in range(0, 3600, 10)]
    leaking = [sample(float(second), rss_mb=500.0 + second / 60) for second in range(0, 3600, 10)]
    assert next(drift for drift in drifts(warming) if drift.name == "rss_mb").flat
    leak = next(drift for drift in drifts(leaking) if drift.name == "rss_mb")
    assert not leak.flat
    assert leak.per_hour == pytest.approx(60.0, rel=0.01)


def test_a_few_connections_more_are_no_leak() -> None:
    assert Drift("fds", 30.0, 36.0, 0.0).flat
    assert not Drift("fds", 30.0, 40.0, 0.0).flat
    assert not Drift("rss_mb", 100.0, 104.0, 0.0).flat


def soaked(samples: list[Sample], after: Sample, errors: list[str] | None = None) -> Soaked:
    return Soaked(outcome([answered()], samples), sample(0.0, fds=20), after, errors or [])


def test_a_soak_in_which_nothing_grew_holds() -> None:
    steady = [sample(float(second)) for second in range(60)]
    found = soaked(steady, sample(70.0, fds=24))
    assert not broken(soak_verdict(found))
    assert "after the last device" in ends_table(found)


def test_a_soak_finds_what_stays_behind_and_what_the_log_says() -> None:
    steady = [sample(float(second)) for second in range(60)]
    missed = broken(soak_verdict(soaked(steady, sample(70.0, fds=90), ["12:00 ERROR outbox failed"])))
    assert [line.demand.split()[0] for line in missed] == ["file", "no"]


def test_a_soak_says_how_often_what_was_done_to_the_server() -> None:
    found = soaked([], sample(70.0))
    found.outcome.tallies = [Tally(9, 0.0, {"drop": 2, "garbage": 1}, calls=5), Tally(1, 0.0, {"drop": 1}, calls=2)]
    rows = events_table(found)
    assert "| connections | 7 |" in rows and "| drop on purpose | 3 |" in rows and "| abort on purpose | 0 |" in rows


def test_errors_of_the_server_are_found_in_its_log() -> None:
    good = "12:00 INFO connected\n12:01 WARNING turn 1: refused\n"
    log = good + "12:02 ERROR conversation failed\nTraceback (most recent call last):"
    assert errors_in(good) == []
    assert len(errors_in(log)) == 2


def test_idle_devices_are_judged_in_proportion() -> None:
    found = Idle(500, 100.0, 150.0, 155.0, 120.0, 0.0, 500, None)
    assert found.kb_each == pytest.approx(110.0)
    assert not broken(found.verdict())
    assert broken(Idle(500, 100.0, 150.0, 165.0, 120.0, 0.0, 500, None).verdict())
    assert broken(Idle(500, 100.0, 110.0, 110.0, 100.0, 0.0, 499, None).verdict())


# Watching ------------------------------------------------------------------------------------------------------------


async def test_a_process_is_watched_from_outside() -> None:
    found = await Watcher(os.getpid()).look()
    assert found.rss_mb > 10
    assert found.threads >= 1
    assert found.fds
    assert 0.0 < found.box_memory < 1.0


async def test_a_process_that_has_ended_is_noticed() -> None:
    child = await asyncio.create_subprocess_exec("sleep", "60")
    watcher = Watcher(child.pid)
    child.kill()
    await child.wait()
    with pytest.raises(ProcessLookupError, match="has ended"):
        await watcher.look()


def test_the_count_of_tasks_is_read_from_the_metrics() -> None:
    exposition = "# TYPE xiaozhi_tasks gauge\nxiaozhi_tasks 42.0\nxiaozhi_tasks_other 7.0\n"
    assert gauge(exposition, "xiaozhi_tasks") == 42
    assert gauge(exposition, "xiaozhi_missing") is None


def test_a_long_series_is_thinned_out_and_a_short_one_kept() -> None:
    series = Series.of([sample(float(second), rss_mb=float(second)) for second in range(100)], most=10)
    assert [point.rss_mb for point in series.points] == [4.5 + 10 * number for number in range(10)]
    assert len(Series.of([sample(0.0)]).points) == 1
    assert Series.of([]).points == []


# Words and pictures --------------------------------------------------------------------------------------------------


def test_numbers_of_a_sweep_rise() -> None:
    assert numbers("40,1,20,20") == [1, 20, 40]
    with pytest.raises(ValueError, match="at least one"):
        numbers("0,5")


def test_folders_of_recordings_are_opened_and_missing_ones_named(tmp_path: Path) -> None:
    (tmp_path / "zh").mkdir()
    (tmp_path / "zh" / "a.wav").touch()
    assert recordings_of([tmp_path]) == (tmp_path / "zh" / "a.wav",)
    with pytest.raises(FileNotFoundError, match=r"b\.wav is no WAV file"):
        recordings_of([tmp_path / "b.wav"])


@pytest.mark.parametrize("wrong", ["--devices=0", "--drop-percent=101", "--jitter-ms=-1", "--mix=/nowhere.wav"])
def test_options_that_make_no_sense_are_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([wrong])
    assert wrong.split("=")[0] in capsys.readouterr().err


def test_a_line_chart_is_xml_and_leaves_out_what_is_no_number(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    line_chart(
        file, "a < b", "devices", "ms", [1, 20, 40], {"p50": [700, 800, math.nan], "p95": [800, 900, 2000]}, 1500
    )
    root = ET.fromstring(file.read_text())
    drawn = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in drawn] == [2, 3]


async def test_real_devices_talk_to_a_real_server() -> None:
    load = Load(2, 4.0, turns_per_minute=20.0, ramp_s=0.2, jitter_ms=30.0)
    found = await measure(load, Scene(processes=1, tiny=True))
    assert found.due == len(found.fair) > 0
    assert found.success == 1.0, found.errors()
    assert not found.errors()
    assert found.first_audio()["n"] == len(found.fair)
    assert found.samples
    assert not found.died
    assert all(turn.voice == "openai" for turn in found.answered)
    assert "| 2 |" in sweep_table([found])


async def test_another_server_is_driven_beside_ours_by_the_same_devices(tmp_path: Path) -> None:
    load = Load(1, 3.0, turns_per_minute=20.0, ramp_s=0.2)
    async with house(tmp_path) as peer:
        found = await side_by_side(Peer(peer.url, os.getpid()), load, [1, 2], Scene(processes=1, tiny=True))
        assert peer.asked, "its own upstreams were asked"
    for outcomes in found.values():
        assert [outcome.load.devices for outcome in outcomes] == [1, 2]
        assert all(outcome.answered and outcome.success == 1.0 and outcome.samples for outcome in outcomes)
    assert tables(found).count("| 2 |") == 2
    draw(found, [1, 2], tmp_path / "peer.svg")
    root = ET.fromstring((tmp_path / "peer.svg").read_text())
    assert len([node for node in root.iter() if node.tag.endswith("polyline")]) == 4


def test_what_a_turn_costs_is_told_by_the_servers_threads() -> None:
    parts = {"loop": 0.2, "asr": 0.5}
    found = outcome([answered()] * 60, [replace(sample(at_s), parts=parts) for at_s in (0.0, 30.0, 60.0)])
    assert found.turns_a_minute == 60.0
    assert found.budget_ms() == pytest.approx({"loop": 200.0, "asr": 500.0})
    assert "| together | 700 |" in show(found)
    assert outcome([]).budget_ms() == {}


async def test_the_threads_of_a_pool_are_known_from_outside() -> None:
    pool = WorkerPool(1, "asr", niceness=0)
    before = parts_s(os.getpid())
    await pool.run(lambda: sum(range(3_000_000)))
    spent = parts_s(os.getpid())["asr"] - before.get("asr", 0.0)
    assert spent > 0.0 and before["loop"] > 0.0
    pool.close()


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("flags : fpu avx2 avx512_vnni\nflags : fpu avx2 avx512_vnni", "VNNI"),
        ("flags : fpu avx2 avx_vnni\nflags : fpu avx2", "AVX2 only"),
        ("Features : fp asimd asimddp i8mm", "ARM i8mm"),
        ("Features : fp asimd asimddp", "ARM dotprod"),
        ("Features : fp asimd", "ARM"),
        ("", "other"),
    ],
)
def test_the_class_of_a_processor_is_what_all_its_cores_can_do(flags: str, found: str) -> None:
    assert cpu_class(flags) == found


def test_the_conditions_say_whether_caches_are_on() -> None:
    assert "recognition: off" in conditions(Scene())
    assert "recognition: on" in conditions(Scene(extra="[cache]\n"))
    assert "as its settings say" in conditions(Scene(ota_url="http://127.0.0.1:1/"))
