"""The planner: its queue against exact results and a simulation, what must rise and fall together, and the command."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench import quiet
from bench.plan_check import Compared, against_run, against_wire, shown, wait_error
from bench.plan_costs import line_through, merge
from bench.plan_runs import Run
from bench.plan_simulation import Queue, simulate
from bench.plan_wire import Frames, frame_length
from xiaozhi.cli import main
from xiaozhi.plan.costs import DEFAULT_FILE, Costs, CostsError, RecognitionCost, read_costs
from xiaozhi.plan.planner import (
    FUNCTIONS,
    Box,
    Demand,
    EngineName,
    Limits,
    Unplannable,
    broken_limit,
    erlang_c,
    explain,
    load_of,
    month,
    numbers_of,
    plan,
)

COSTS = read_costs()


@pytest.fixture(autouse=True)
def _nothing_measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ENGINES = st.sampled_from(["sense-voice", "zipformer", "two-pass", "remote"])
DEMANDS = st.builds(
    Demand,
    devices=st.integers(1, 20_000),
    turns_per_minute=st.floats(0.1, 3.0),
    speech_s=st.floats(0.5, 8.0),
    reply_s=st.floats(0.5, 10.0),
    engine=ENGINES,
)
BOXES = st.builds(Box, cores=st.integers(2, 32), memory_gb=st.floats(4.0, 64.0), speed=st.floats(0.5, 4.0))


def test_one_worker_with_exponential_service_waits_as_the_books_say() -> None:
    queue = Queue(arrivals_per_s=0.8, service_s=1.0, service_cv=1.0, workers=1)
    planned = queue.planned()
    assert planned["waits"] == pytest.approx(0.8)
    assert planned["mean_wait_s"] == pytest.approx(4.0)  # rho / (mu - lambda)
    assert planned["wait_p95_s"] == pytest.approx(5.0 * math.log(0.8 / 0.05))
    # Always the same: half as long.
    assert replace(queue, service_cv=0.0).planned()["mean_wait_s"] == pytest.approx(2.0)


def test_erlang_c_of_a_known_table() -> None:
    assert erlang_c(8.0, 10) == pytest.approx(0.4092, abs=1e-4)
    assert erlang_c(1.0, 2) == pytest.approx(1 / 3)


def test_an_overloaded_queue_waits_longer_than_anybody_and_an_empty_one_not_at_all() -> None:
    full, empty = Queue(10.0, 1.0, 0.5, 3).planned(), Queue(0.0, 1.0, 0.5, 3).planned()
    assert full["waits"] == 1.0 and min(full["mean_wait_s"], full["wait_p95_s"]) > 1e6
    assert (empty["waits"], empty["mean_wait_s"], empty["wait_p95_s"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("workers", [1, 3, 7])
@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("cv", [0.3, 0.6, 1.0])
def test_formula_and_simulation_agree_within_a_tenth_or_a_seventh_of_a_service_time(
    workers: int, busy: float, cv: float
) -> None:
    queue = Queue(busy * workers / 0.1, 0.1, cv, workers)
    found = simulate(queue, 60_000, seed=4)
    assert found.utilisation == pytest.approx(busy, rel=0.05)
    assert found.mean_s == pytest.approx(queue.planned()["mean_wait_s"], rel=0.1, abs=0.002)
    assert wait_error(queue.planned()["wait_p95_s"], found.p95_s, queue.service_s) <= 1


def test_a_simulation_is_the_same_twice_and_refuses_what_never_rests() -> None:
    queue = Queue(5.0, 0.1, 0.6, 1)
    assert simulate(queue, 1000) == simulate(queue, 1000)
    assert simulate(queue, 1000) != simulate(queue, 1000, seed=2)
    with pytest.raises(ValueError, match="comes to rest"):
        simulate(Queue(50.0, 0.1, 0.6, 1))


@settings(deadline=None)  # a shared machine may be slow
@given(DEMANDS, BOXES, st.integers(1, 5000))
def test_more_devices_never_need_fewer_nodes(demand: Demand, box: Box, more: int) -> None:
    try:
        fewer = plan(demand, box, COSTS)
    except Unplannable:
        return
    assert plan(replace(demand, devices=demand.devices + more), box, COSTS).nodes >= fewer.nodes


@settings(deadline=None)  # a shared machine may be slow
@given(DEMANDS, BOXES, st.floats(1.01, 4.0))
def test_quicker_cores_more_memory_and_more_patience_never_need_more_nodes(
    demand: Demand, box: Box, factor: float
) -> None:
    try:
        nodes = plan(demand, box, COSTS).nodes
    except Unplannable:
        return
    assert plan(demand, replace(box, speed=box.speed * factor), COSTS).nodes <= nodes
    assert plan(demand, replace(box, memory_gb=box.memory_gb * factor), COSTS).nodes <= nodes
    assert plan(replace(demand, p95_s=demand.p95_s * factor), box, COSTS).nodes <= nodes


@settings(deadline=None)  # a shared machine may be slow
@given(DEMANDS, BOXES)
def test_what_is_planned_keeps_every_limit_and_one_device_more_on_a_node_breaks_one(demand: Demand, box: Box) -> None:
    limits = Limits()
    try:
        fleet = plan(demand, box, COSTS, limits)
    except Unplannable as no:
        assert "one device is too much" in str(no)
        return
    assert broken_limit(fleet.node, demand, box, limits) == ""
    assert fleet.node.devices <= fleet.most_per_node
    assert fleet.nodes * fleet.node.devices >= demand.devices
    one_more = replace(demand, devices=fleet.most_per_node + 1)
    assert broken_limit(load_of(one_more, box, COSTS), one_more, box, limits) == fleet.bottleneck != ""


@settings(deadline=None)  # a shared machine may be slow
@given(DEMANDS, BOXES, st.floats(1.1, 3.0))
def test_processor_memory_and_wire_are_linear_in_devices_and_longer_talk_costs_more(
    demand: Demand, box: Box, factor: float
) -> None:
    one, two = load_of(demand, box, COSTS), load_of(replace(demand, devices=2 * demand.devices), box, COSTS)
    assert two.up_bps == pytest.approx(2 * one.up_bps)
    assert two.down_bps == pytest.approx(2 * one.down_bps)
    base = COSTS.base_cores / box.speed
    assert two.cpu_cores - base == pytest.approx(2 * (one.cpu_cores - base))
    assume(demand.turns_per_minute * (demand.speech_s * factor + demand.reply_s) <= 60)
    longer = load_of(replace(demand, speech_s=demand.speech_s * factor), box, COSTS)
    assert longer.cpu_cores > one.cpu_cores
    assert longer.recognition_share >= one.recognition_share


def test_each_engine_says_what_it_costs() -> None:
    nodes = {name: load_of(Demand(100, engine=name), Box(), COSTS) for name in ("sense-voice", "two-pass", "remote")}
    assert nodes["two-pass"].cpu_cores > nodes["sense-voice"].cpu_cores > nodes["remote"].cpu_cores
    assert nodes["two-pass"].memory_gb > nodes["sense-voice"].memory_gb > nodes["remote"].memory_gb
    assert nodes["remote"].up_bps == 2 * nodes["sense-voice"].up_bps
    assert nodes["remote"].recognition_share == 0.0


def test_the_bottleneck_is_what_there_is_too_little_of() -> None:
    demand = Demand(1000)
    assert "memory" in plan(demand, Box(64, 0.7, speed=4.0), COSTS).bottleneck
    assert "event loop" in plan(demand, Box(64, 64.0), COSTS).bottleneck
    slow = COSTS.model_copy(
        update={"recognition": {"sense-voice": RecognitionCost(fixed_s=0.5, per_audio_s=0.02, memory_mb=400)}}
    )
    assert "first sound" in plan(demand, Box(), slow).bottleneck
    with pytest.raises(Unplannable, match="first sound later than 1500 ms"):
        plan(replace(demand, first_token_s=3.0), Box(), COSTS)
    with pytest.raises(Unplannable, match="nothing about zipformer"):
        plan(replace(demand, engine="zipformer"), Box(), slow)


@pytest.mark.parametrize(
    "bad", [{"devices": 0}, {"speech_s": 0.0}, {"turns_per_minute": 10.0}, {"voice_s": -1.0}, {"devices": 2_000_000}]
)
def test_demands_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|cannot"):
        Demand(**{"devices": 10, **bad})


def test_a_month_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    demand = Demand(60, turns_per_minute=1.0, reply_s=10.0)  # a turn each second
    bought = month(demand, COSTS.model_copy(update={"replies_per_turn": 1.0}), hours_per_day=1.0, request_tokens=1000)
    assert bought == pytest.approx(
        {
            "turns": 108_000,
            "requests": 113_400,
            "tokens_in": 113.4e6,
            "tokens_out": 113_400 * 45,
            "voice_chars": 108_000 * 45,
        }
    )
    with pytest.raises(ValueError, match="24 hours"):
        month(demand, COSTS, hours_per_day=25.0, request_tokens=1)
    prices = "--price-in 1 --price-out 2 --price-voice 10 --node-price 40 --currency CNY".split()
    assert main(["plan", "--devices", "60", "--reply-s", "10", "--hours-per-day", "1", "--json", *prices]) == 0
    told = json.loads(capsys.readouterr().out)
    replies = COSTS.replies_per_turn
    assert told["month"]["costs"] == pytest.approx(
        {
            "tokens in": 113_400 * replies * 900 / 1e6,
            "tokens out": 2 * 113_400 * replies * 45 / 1e6,
            "voice": 48.6 * replies,
            "nodes": 40.0 * told["fleet"]["nodes"],
        }
    )
    assert told["month"]["currency"] == "CNY"


def test_the_shipped_figures_say_where_they_come_from() -> None:
    assert COSTS.provenance.machine
    assert any("bench.devices" in command for command in COSTS.provenance.commands)
    assert set(COSTS.recognition) == {"sense-voice", "zipformer"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(None, "No such file"), ("{", "Invalid JSON"), ("{}", "version: Field required"), ("bad", "vad_s")],
)
def test_figures_that_cannot_be_used_are_named(tmp_path: Path, text: str | None, complaint: str) -> None:
    file = tmp_path / "costs.json"
    if text == "bad":
        text = json.dumps({**json.loads(DEFAULT_FILE.read_bytes()), "vad_s": -1})
    if text is not None:
        file.write_text(text)
    with pytest.raises(CostsError, match=complaint) as caught:
        read_costs(file)
    assert str(file) in str(caught.value)


def bench_run(devices: int, turns_a_minute: float, cores: float) -> dict[str, Any]:
    """A run as `bench.devices --json` writes it."""
    samples = [{"cpu_share": cores, "rss_mb": 600.0 + number} for number in range(10)]
    spans = {"first packet at the device": {"p95": 900.0}}
    return {
        "devices": devices,
        "turns": 50,
        "turns_a_minute": turns_a_minute,
        "frames": 2000,
        "server": samples,
        "device_lag_ms": 20.0,
        "spans": spans,
    }


MICRO = [
    {"part": "VAD window of 32 ms, 8 at once", "value": 64.0},
    {"part": "Opus decode 60 ms, resampled to 16 kHz", "value": 60.0},
    {"part": "Opus encode 60 ms, complexity 5", "value": 120.0},
    {"part": "memory of an idle connection", "value": 40.0},
    {"part": "memory of a session that listens", "value": 400.0},
]


def test_figures_merged_from_benches_give_their_runs_back() -> None:
    engine = RecognitionCost(fixed_s=0.02, per_audio_s=0.03, memory_mb=400)
    runs = [bench_run(20, 60.0, 0.3), bench_run(40, 180.0, 0.7)]
    costs = merge(MICRO, runs, engine, 2.0, "a machine")
    assert (costs.vad_s, costs.decode_s, costs.encode_s) == pytest.approx((0.002, 0.001, 0.002))
    assert costs.base_cores == pytest.approx(0.1)
    assert costs.process_mb == 200
    for run in runs:
        cpu, memory, first = against_run(Run(run), Box(2), costs, 2.0)
        assert cpu.good and abs(cpu.off) < 0.01
        assert memory.name == "memory, MB" and memory.measured == 609.0
        assert first.measured == 900.0
    assert isinstance(Costs.model_validate_json(costs.model_dump_json()), Costs)
    with pytest.raises(ValueError, match="Opus decode"):
        merge(MICRO[:1], runs, engine, 2.0, "a machine")
    with pytest.raises(ValueError, match="use a calm machine"):
        merge(MICRO, [{**runs[0], "device_lag_ms": 400.0}], engine, 2.0, "a machine")
    late = merge(MICRO, [{**runs[0], "device_lag_ms": 400.0}], engine, 2.0, "a machine", 0.4, anyway=True)
    assert "others took 40% of it" in late.provenance.note
    with pytest.raises(ValueError, match="no turns"):
        merge(MICRO, [], engine, 2.0, "a machine")


def test_a_figure_is_judged_by_how_far_it_is_planned_over_and_under() -> None:
    def judged(planned: float, measured: float = 100.0) -> bool:
        return Compared("x", planned, measured, over=0.3, under=0.1).good

    assert [judged(planned) for planned in (89.0, 90.1, 100.0, 129.9, 131.0)] == [False, True, True, True, False]
    assert not judged(100.0, math.nan)
    up, down = against_wire((COSTS.up_bps, COSTS.down_bps * 1.2), COSTS)
    assert up.good and not down.good
    assert "MISSED" in shown([down]) and "-5% to +50%" in shown([down])


def test_a_run_is_no_ground_for_a_judgement_when_others_were_busy_or_its_devices_starved() -> None:
    figures = bench_run(20, 60.0, 0.3)
    assert Run(figures).disturbed == ""
    assert "others took 20%" in Run(figures, others=0.2).disturbed
    assert "400 ms late" in Run({**figures, "device_lag_ms": 400.0}).disturbed


def test_what_we_do_ourselves_is_not_counted_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    box, own, now = [0.0], [0.0], [0.0]
    monkeypatch.setattr(quiet, "box_busy_s", lambda: box[0])
    monkeypatch.setattr(quiet, "own_cpu_s", lambda: own[0])
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    others = quiet.Others()
    box[0], own[0], now[0] = 12.0, 10.0, 10.0
    assert others.share() == pytest.approx(0.1)  # 2 of 20 core-seconds
    own[0] = 13.0
    assert others.share() == 0.0


def test_frames_on_the_wire_are_counted_however_they_are_cut() -> None:
    def frame(opcode: int, length: int, *, masked: bool) -> bytes:
        sizes = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big")
        return bytes([0x80 | opcode, sizes[0] | 0x80 * masked]) + sizes[1:] + bytes(4 * masked) + bytes(length)

    text, short, long = frame(1, 300, masked=True), frame(2, 100, masked=True), frame(2, 200, masked=True)
    data = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + text + short + long
    for step in (1, 7, 1000):
        frames = Frames()
        for begin in range(0, len(data), step):
            frames.take(data[begin : begin + step])
        assert (frames.count, frames.wire_bytes) == (2, 106 + 208)
    assert frames.bps == pytest.approx((157 + 74) * 8 / 0.06)
    assert frame_length(b"\x82\x7f" + (70_000).to_bytes(8, "big")) == 70_010
    with pytest.raises(ValueError, match="no sound"):
        _ = Frames().bps


def test_a_line_through_points_never_falls_and_never_begins_below_zero() -> None:
    assert line_through([(1.0, 3.0), (2.0, 5.0)]) == pytest.approx((1.0, 2.0))
    assert line_through([(1.0, 1.0), (2.0, 4.0)])[0] == 0.0
    assert line_through([(1.0, 4.0), (2.0, 1.0)])[1] == 0.0


def test_the_command_prints_a_plan_with_its_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--devices", "1000", "--price-in", "0.5", "--price-out", "1.5", "--currency", "CNY"]) == 0
    told = capsys.readouterr().out
    for words in ("nodes", "bottleneck:", "documents plan 20 nodes of 50", "documents plan 8 nodes", "CNY", "M/G/c"):
        assert words in told
    assert main(["plan", "--devices", "10"]) == 0
    assert "no cost: give --price-in" in capsys.readouterr().out


def test_the_command_speaks_json_and_explains_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "--devices", "1000", "--engine", "remote", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fleet"]["nodes"] >= 1
    assert told["provenance"]["machine"]
    for words, code, complaint in (
        (["--devices", "0"], 2, "devices must lie"),
        (["--devices", "5", "--price-in", "-1"], 2, "price must not be negative"),
        (["--devices", "5", "--cores", "0"], 2, "at least one core"),
        (["--devices", "5", "--first-token-ms", "9000"], 1, "one device is too much"),
        (["--devices", "5", "--costs", str(tmp_path / "none.json")], 1, "No such file"),
    ):
        assert main(["plan", *words]) == code
        assert complaint in capsys.readouterr().err


# By hand --------------------------------------------------------------------------------------------------------------


def test_the_plan_for_a_thousand_devices_recomputed_by_hand_from_the_figures() -> None:
    """From the numbers of the file alone, with the formulas as the books have them, and none of the planner's code."""
    figures = json.loads(DEFAULT_FILE.read_bytes())
    ear = figures["recognition"]["sense-voice"]
    speech_s, reply_s, cores = 3.0, 6.0, 4

    def node(devices: int) -> dict[str, float]:
        turns = devices / 60.0
        loop = figures["base_cores"] + turns * figures["other_s"] * (speech_s + reply_s)
        threads = turns * (4.0 * (figures["vad_s"] + figures["decode_s"]) + reply_s * figures["encode_s"])
        decode_s = ear["fixed_s"] + ear["per_audio_s"] * 4.0
        arrivals = turns * figures["decodes_per_turn"]
        service_s = decode_s * 3 / min(3.0, cores - loop - threads)
        load = arrivals * service_s
        busy = load / 3
        tail = load**3 / 6 / (1 - busy)
        erlang_c = tail / (1 + load + load**2 / 2 + tail)
        cv = 0.6 * ear["per_audio_s"] * 4.0 / decode_s
        mean_s = erlang_c * service_s / 3 / (1 - busy) * (1 + cv**2) / 2
        wait_s = mean_s / erlang_c * math.log(erlang_c / 0.05) if erlang_c > 0.05 else 0.0
        return {
            "loop": loop,
            "cpu": loop + threads + arrivals * decode_s,
            "busy": busy,
            "wait": wait_s,
            "first": 0.096 + wait_s + service_s * (1 + 2 * cv) + 0.4 + 0.2,
            "memory": (figures["process_mb"] + ear["memory_mb"]) / 1e3
            + (devices * figures["connection_kb"] + turns * 10.0 * figures["turn_kb"]) / 1e6,
            "up": turns * 4.0 * figures["up_bps"],
            "down": turns * reply_s * figures["down_bps"],
        }

    def carried(devices: int) -> bool:
        one = node(devices)
        return (
            one["busy"] <= 0.8
            and one["loop"] <= 0.6
            and one["cpu"] <= 0.7 * cores
            and one["memory"] <= 0.8 * 8
            and one["first"] <= 1.5
        )

    most = next(devices for devices in range(1, 2000) if not carried(devices + 1))
    nodes = -(-1000 // most)
    fleet = plan(Demand(1000), Box(), COSTS)
    assert (fleet.nodes, fleet.most_per_node, fleet.node.devices) == (nodes, most, -(-1000 // nodes))
    by_hand, found = node(fleet.node.devices), fleet.node
    assert found.loop_share == pytest.approx(by_hand["loop"])
    assert found.cpu_cores == pytest.approx(by_hand["cpu"])
    assert found.recognition_share == pytest.approx(by_hand["busy"])
    assert found.wait_p95_s == pytest.approx(by_hand["wait"])
    assert found.first_audio_p95_s == pytest.approx(by_hand["first"])
    assert found.memory_gb == pytest.approx(by_hand["memory"])
    assert (found.up_bps, found.down_bps) == pytest.approx((by_hand["up"], by_hand["down"]))


@settings(deadline=None)  # a shared machine may be slow
@given(DEMANDS, BOXES)
def test_what_is_explained_comes_to_what_is_planned(demand: Demand, box: Box) -> None:
    try:
        fleet = plan(demand, box, COSTS)
    except Unplannable:
        return
    told = {step.name: values[step.name] for step, values in explain(demand, box, COSTS, fleet)}
    assert (told["nodes"], told["node_devices"]) == (fleet.nodes, fleet.node.devices)
    for name, value in asdict(fleet.node).items():
        assert name == "devices" or told[name] == value


@pytest.mark.parametrize("engine", ["sense-voice", "zipformer", "two-pass", "remote"])
def test_the_numbers_put_in_can_be_worked_out_again(engine: EngineName) -> None:
    """With a calculator: here Python's, on the very text that is shown, whose numbers have six digits."""
    demand = Demand(1000, turns_per_minute=1.5, engine=engine)
    fleet = plan(demand, Box(8, 16.0, speed=1.25), COSTS)
    for step, values in explain(demand, Box(8, 16.0, speed=1.25), COSTS, fleet):
        assert eval(numbers_of(step, values), dict(FUNCTIONS)) == pytest.approx(values[step.name], rel=0.005, abs=1e-6)


def test_the_command_shows_the_sums_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--devices", "1000"]) == 0
    assert "other_s" not in capsys.readouterr().out
    assert main(["plan", "--devices", "1000", "--explain"]) == 0
    told = capsys.readouterr().out
    assert "turns * other_s * (speech_s + reply_s)" in told and f"{COSTS.other_s:g}" in told
    assert main(["plan", "--devices", "1000", "--json"]) == 0
    assert {"loop_share", "memory_gb", "first_audio_p95_s"} <= {
        step["name"] for step in json.loads(capsys.readouterr().out)["steps"]
    }
