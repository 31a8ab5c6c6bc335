"""How quick a box is: measured once with what is installed, kept, chosen by, shown and planned with."""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bench.sense_voice_model import build_tiny
from tests.house import house, question
from tests.recognisers import Offline, sound, until
from xiaozhi.checks import machine
from xiaozhi.cli import main
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.overload.cpu import CpuClass, cpu_class
from xiaozhi.overload.usage import cores
from xiaozhi.plan.calibration import (
    Calibration,
    Decode,
    Ground,
    ground_of,
    keep,
    model_folders,
    read_calibration,
    this_box,
)
from xiaozhi.plan.costs import read_costs
from xiaozhi.plan.measuring import measure
from xiaozhi.reload import calibrating
from xiaozhi.settings import AsrSettings, Settings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.recogniser import Question, Quickest
from xiaozhi.stages.asr.sense_voice import SenseVoice

CPU_INFO = "processor\t: 0\nmodel name\t: One\n{name}\t\t: {first}\n\nprocessor\t: 1\n{name}\t\t: {second}\n"


@pytest.mark.parametrize(
    ("name", "first", "second", "expected"),
    [
        ("flags", "fpu avx2 avx512_vnni sse", "fpu avx2 avx512_vnni", CpuClass.VNNI),
        ("flags", "avx2 avx_vnni", "avx2 avx_vnni", CpuClass.VNNI),
        ("flags", "avx2 avx512f avx_vnni2", "avx2", CpuClass.AVX2),
        ("flags", "fpu sse4_2", "fpu sse4_2", CpuClass.OTHER),
        ("Features", "fp asimd asimddp i8mm", "fp asimd asimddp i8mm", CpuClass.I8MM),
        ("Features", "fp asimd asimddp i8mm", "fp asimd asimddp", CpuClass.DOTPROD),  # two kinds of cores
        ("Features", "fp asimd crc32", "fp asimd", CpuClass.ARM),
        ("Features", "half thumb", "half thumb", CpuClass.OTHER),
        ("nothing", "avx2", "avx2", CpuClass.OTHER),
    ],
)
def test_the_class_of_a_processor_is_what_all_its_cores_can_do(
    tmp_path: Path, name: str, first: str, second: str, expected: CpuClass
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(CPU_INFO.format(name=name, first=first, second=second))
    assert cpu_class(info) is expected


def test_where_nobody_tells_the_class_is_unknown(tmp_path: Path) -> None:
    assert cpu_class(tmp_path / "none") is CpuClass.OTHER


def decode(variant: str, cpu_s: float, *, threads: int = 1, engine: str = "sense-voice", wall_s: float = 0.0) -> Decode:
    return Decode(engine=engine, variant=variant, threads=threads, cpu_s=cpu_s, wall_s=wall_s or cpu_s)


def calibration(
    *decodes: Decode, ground: Ground | None = None, encode_s: float = 0.00014, slower: float = 1.0, **more: Any
) -> Calibration:
    own = ground or Ground(cpu=cpu_class(), cores=cores(), runtimes={}, models={})
    frames = {0: encode_s / 2, 5: encode_s, 10: encode_s * 2}
    return Calibration(ground=own, date="2026-11-30", decodes=decodes, encode_s=frames, vad_s=6e-5,
        interpreter_s=slower * 0.00072, **more)  # fmt: skip


def settings_for(tmp_path: Path, **asr: Any) -> Settings:
    tables = {"server": {"data_dir": tmp_path / "data"}, "models": {"dir": tmp_path / "models"}, "asr": asr}
    return Settings.model_validate(tables)


# What follows from it -------------------------------------------------------------------------------------------------


def test_another_way_than_the_usual_one_is_chosen_where_it_is_clearly_quicker() -> None:
    assert calibration().quickest == Quickest()
    assert calibration(decode("rewritten", 0.10), decode("published", 0.095)).quickest == Quickest()
    assert calibration(decode("rewritten", 0.10), decode("published", 0.05)).quickest == Quickest("published")
    assert calibration(decode("rewritten", 0.10), decode("fp32", 0.06), decode("published", 0.2)).quickest == Quickest(
        "fp32"
    )


def test_a_lone_talker_gets_all_cores_where_that_saves_a_fifth() -> None:
    alone = decode("rewritten", 0.25)
    assert calibration(alone, decode("rewritten", 0.2, threads=2, wall_s=0.19)).quickest == Quickest("", 2)
    assert calibration(alone, decode("rewritten", 0.2, threads=2, wall_s=0.21)).quickest == Quickest("", 1)
    assert calibration(alone, decode("published", 0.1, threads=2, wall_s=0.1)).quickest == Quickest("", 1)
    busy = calibration(alone, decode("rewritten", 0.2, threads=2, wall_s=0.1), disturbed=True)
    assert busy.quickest == Quickest(), "they could not be compared"


def test_a_slower_box_carries_fewer_talkers_and_more_of_them_with_a_lighter_recogniser() -> None:
    auto = AsrSettings()
    quick = calibration(decode("rewritten", 0.08))
    slow = calibration(decode("rewritten", 0.25), encode_s=0.0003, slower=1.3)
    talkers = [box.talkers(auto) for box in (quick, slow)]
    assert None not in talkers and talkers[0] > 1.5 * talkers[1] > 0  # type: ignore[operator]
    light = calibration(decode("published", 0.06, engine="zipformer"), encode_s=0.0003, slower=1.3).talkers(auto)
    assert light is not None and light > talkers[1]  # type: ignore[operator]
    assert calibration().talkers(auto) is None
    assert calibration().talkers(AsrSettings(engine="funasr")), "others recognise"
    hopeless = calibration(decode("rewritten", 9.0))
    assert hopeless.talkers(auto) == 0 and "too slow" in hopeless.lines(auto)[0]


def test_costs_of_this_box_are_the_measured_ones() -> None:
    shipped = read_costs()
    costs = calibration(decode("rewritten", 0.3), encode_s=0.0006, slower=2.0).costs(shipped)
    whole = costs.recognition["sense-voice"]
    assert whole.fixed_s + 3.0 * whole.per_audio_s == pytest.approx(0.3)
    assert costs.recognition["zipformer"] == shipped.recognition["zipformer"]
    assert costs.encode_s == pytest.approx(0.01) and costs.vad_s == pytest.approx(6e-5 / 0.032)
    assert costs.other_s / shipped.other_s == pytest.approx(2.0)
    assert "this box" in costs.provenance.machine


# The file -------------------------------------------------------------------------------------------------------------


def test_what_was_kept_is_read_again_on_the_same_ground_only(tmp_path: Path) -> None:
    build_tiny(tmp_path / "models" / "sense-voice", "hello")
    settings = settings_for(tmp_path)
    ground = ground_of(settings)
    assert set(ground.models) == {"sense-voice"}
    kept = calibration(decode("published", 0.1), ground=ground)
    keep(tmp_path, kept)
    assert read_calibration(tmp_path, ground) == read_calibration(tmp_path) == kept
    assert this_box(tmp_path) == (cpu_class(), kept)
    others: list[dict[str, Any]] = [
        {"cpu": CpuClass.ARM}, {"cores": 96}, {"runtimes": {"onnxruntime": "0.1"}}, {"models": {}}
    ]  # fmt: skip
    for other in others:
        assert read_calibration(tmp_path, ground.model_copy(update=other)) is None
    keep(tmp_path, calibration(ground=ground.model_copy(update={"cpu": CpuClass.ARM})))
    assert read_calibration(tmp_path) is None, "another machine's"
    build_tiny(tmp_path / "models" / "sense-voice", "another model")
    assert ground_of(settings).models != ground.models


def test_models_are_known_by_what_is_in_their_files_and_where_the_settings_say(tmp_path: Path) -> None:
    first, second = build_tiny(tmp_path / "first", "hello"), build_tiny(tmp_path / "second", "hello")
    settings = [settings_for(tmp_path, model_dir=folder) for folder in (first, second)]
    assert ground_of(settings[0]) == ground_of(settings[1])
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "encoder.int8.onnx").write_bytes(b"small")
    assert model_folders(AsrSettings(model_dir=tmp_path / "small"), tmp_path) == {"zipformer": tmp_path / "small"}
    both = AsrSettings(model_dir=first, streaming_model_dir=tmp_path / "small")
    assert model_folders(both, tmp_path) == {"sense-voice": first, "zipformer": tmp_path / "small"}


def _json(change: Callable[[dict[str, Any]], None]) -> bytes:
    content = calibration(decode("published", 0.1)).model_dump(mode="json")
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"version": 1}',
        b"[" * 100_000,
        _json(lambda found: found.update(version=2)),
        _json(lambda found: found.update(vad_s=-1)),
        _json(lambda found: found.update(vad_s="NaN")),
        _json(lambda found: found["decodes"][0].update(threads=10**9)),
        _json(lambda found: found.update(decodes=found["decodes"] * 1000)),
    ],
)
def test_a_damaged_file_is_said_and_measured_again(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "calibration.json").write_bytes(content)
    assert read_calibration(tmp_path) is None
    assert "calibration.json: damaged; it is measured again" in caplog.text


def test_where_nothing_can_be_written_it_is_said_and_nothing_else_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").write_bytes(b"a file, not a folder")
    keep(tmp_path / "data", calibration())
    assert "calibration.json cannot be written" in caplog.text
    assert read_calibration(tmp_path / "data") is None


# Measuring ------------------------------------------------------------------------------------------------------------


@pytest.mark.real_time
def test_measuring_finds_what_is_installed_and_leaves_out_what_is_unfit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_tiny(tmp_path / "models" / "sense-voice", "hello")
    (tmp_path / "models" / "zipformer").mkdir()
    (tmp_path / "models" / "zipformer" / "encoder.onnx").write_bytes(b"no model")
    settings = settings_for(tmp_path)
    found = measure(settings, ground_of(settings))
    assert {(one.engine, one.variant) for one in found.decodes} == {("sense-voice", "published")}
    assert [one.threads for one in found.decodes] == [1, *[min(8, cores())] * (cores() > 1)]
    assert set(found.encode_s) == {0, 5, 10} and found.date >= date(2026, 1, 1).isoformat()
    assert "zipformer is not measured" in caplog.text
    keep(tmp_path, found)
    assert read_calibration(tmp_path, ground_of(settings)) == found


# The command line -----------------------------------------------------------------------------------------------------


def test_the_check_measures_when_asked_and_shows_it_from_then_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tiny(tmp_path / "models" / "sense-voice", "hello")
    words = ["--set", f"models.dir={tmp_path / 'models'}", "--set", f"server.data_dir={tmp_path / 'data'}"]
    words += ["--set", 'tts.engines=["espeak"]', "check", "--port", "0"]
    assert main(words) == 0
    assert "not measured yet" in capsys.readouterr().out and not (tmp_path / "data").exists()
    assert main([*words, "--measure"]) == 0
    told = capsys.readouterr().out
    assert "this box: about " in told and "人同时使用" in told and "sense-voice published" in told
    assert main(words) == 0
    again = capsys.readouterr().out
    assert [line for line in again.splitlines() if "capacity" in line or "measured" in line] == [
        line for line in told.splitlines() if "capacity" in line or "measured" in line
    ]
    (tmp_path / "data" / "calibration.json").write_text("{")
    assert main(words) == 0
    assert "not measured yet" in capsys.readouterr().out


def test_the_plan_is_for_this_box_where_it_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", f"server.data_dir={tmp_path}", "plan", "--devices", "100", "--turns-per-minute", "3", "--json"]
    assert main(words) == 0
    shipped = json.loads(capsys.readouterr().out)
    keep(tmp_path, calibration(decode("published", 0.3), encode_s=0.0002))
    assert main(words) == 0
    own = json.loads(capsys.readouterr().out)
    assert own["fleet"]["most_per_node"] < shipped["fleet"]["most_per_node"]
    assert "this box" in own["provenance"]["machine"] and any("this box" in line for line in own["assumptions"])
    costs = tmp_path / "costs.json"
    costs.write_text(read_costs().model_dump_json())
    assert main([*words, "--costs", str(costs)]) == 0
    assert json.loads(capsys.readouterr().out)["fleet"] == shipped["fleet"]


def test_a_box_too_slow_for_anybody_is_a_warning(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    keep(tmp_path / "data", calibration(decode("published", 9.0), ground=ground_of(settings)))
    # Whatever is in the file: without a model here it says nothing of what would recognise.
    assert [finding.level.value for finding in machine.capacity(settings)] == ["warn", "ok"]


# In a server ----------------------------------------------------------------------------------------------------------


async def test_a_server_measures_beside_its_turns_and_goes_on_with_what_is_quickest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tiny(tmp_path / "models" / "sense-voice", "what time is it")
    measured: list[Calibration] = []

    def two_threads_are_quickest(settings: Settings, ground: Ground) -> Calibration:
        found = measure(settings, ground)
        alone = found.best("sense-voice")
        assert alone is not None
        both = alone.model_copy(update={"threads": 2, "wall_s": 0.5 * alone.wall_s})
        measured.append(found.model_copy(update={"decodes": (alone, both)}))
        return measured[-1]

    monkeypatch.setattr(calibrating, "measure", two_threads_are_quickest)
    tables: dict[str, Any] = {
        "asr": {"engine": "sense-voice"},
        "models": {"dir": tmp_path / "models", "auto_pull": False},
    }
    with caplog.at_level(logging.INFO):
        async with house(tmp_path, **tables) as home:
            services, server = home.server.services, home.server
            before = services.recognition.engine
            assert isinstance(before, SenseVoice) and before.lone is None and "not measured yet" in services.banner[-1]
            calibrate = asyncio.create_task(calibrating.calibrate(services, server.reloader))
            async with home.device() as device:
                assert (await device.turn(question())).answered, "nobody waits for it"
                await until(lambda: services.recognition.engine is not before)
                now = services.recognition.engine
                assert isinstance(now, SenseVoice) and now.lone is not None
                report = await device.turn(question())
                assert (report.answered, report.heard) == (True, "what time is it")
            await asyncio.sleep(3600.0)
            calibrate.cancel()
    assert len(measured) == 1, "once"
    assert "this box: about" in caplog.text
    data_dir = services.settings.server.data_dir
    assert read_calibration(data_dir, ground_of(services.settings)) == measured[0]
    async with house(tmp_path, **tables) as home:  # from the start now
        engine = home.server.services.recognition.engine
        assert isinstance(engine, SenseVoice) and engine.lone is not None
        assert "this box: about" in home.server.services.banner[-1]


async def test_a_box_that_was_busy_is_measured_again_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Calibration] = []

    def busy(settings: Settings, ground: Ground) -> Calibration:
        measured.append(calibration(ground=ground, disturbed=True))
        return measured[-1]

    monkeypatch.setattr(calibrating, "measure", busy)
    async with house(tmp_path) as home:
        async with asyncio.timeout(24 * 3600.0):
            await calibrating.calibrate(home.server.services, home.server.reloader)
    assert len(measured) == 4


async def test_nothing_is_measured_where_the_owner_does_not_want_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "measure", None)
    async with house(tmp_path, asr={"calibrate": False}) as home:
        assert not any("this box" in line for line in home.server.services.banner)
        await calibrating.calibrate(home.server.services, home.server.reloader)


async def test_all_cores_are_for_who_is_recognised_alone() -> None:
    pool, engine, lone = WorkerPool(2, "asr"), Offline(), Offline()
    engine.lone = lone
    try:
        async with asyncio.TaskGroup() as tasks:
            lone.free.clear()
            for number in (1, 2):
                utterance = engine.open(Decoding(pool))
                utterance.feed(sound(1.0))
                tasks.create_task(utterance.transcribe(Question()))
                await until(lambda number=number: len(lone.decoded) + len(engine.decoded) == number)  # type: ignore[misc]
            lone.free.set()
        assert (len(lone.decoded), len(engine.decoded)) == (1, 1)
    finally:
        pool.close()
