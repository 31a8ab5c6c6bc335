import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bench import sense_voice_full
from bench.sense_voice_model import build_tiny, ctc_path, pieces, save
from xiaozhi.overload.cpu import CpuClass, cpu_class
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr import rewritten
from xiaozhi.stages.asr.recogniser import Quickest
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.rewritten import fastest, shift
from xiaozhi.stages.asr.sense_voice import SenseVoice
from xiaozhi.stages.asr.signed_weights import sign_weights

needs_vnni = pytest.mark.skipif(
    cpu_class() is not CpuClass.VNNI, reason="this CPU has no VNNI, so the signed kernel would be wrong"
)


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A CPU that says it has VNNI, and a cache folder of its own."""
    monkeypatch.setattr(rewritten, "cpu_class", lambda: CpuClass.VNNI)
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real architecture with real quantised operators, three layers high."""
    monkeypatch.setattr(sense_voice_full, "LAYERS", 2)
    monkeypatch.setattr(sense_voice_full, "TP_LAYERS", 1)
    monkeypatch.setattr(sense_voice_full, "VOCABULARY", 64)
    tokens = ["<unk>", "<|zh|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>", *pieces("今天天气")[:2], "气"]
    tokens += [f"▁other{number}" for number in range(64 - len(tokens))]
    path = [1, 2, 3, 4, *ctc_path([5, 6, 6, 7]), 0]
    nodes, weights = sense_voice_full.full_graph(path, 1)
    save(tmp_path / "sense-voice", nodes, weights, tokens, "model.int8.onnx")
    return tmp_path / "sense-voice"


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("model.int8.rewritten-*.onnx"))


def test_every_weight_becomes_signed_and_keeps_its_value(folder: Path) -> None:
    model = onnx.load(folder / "model.int8.onnx")
    before = {one.name: onnx.numpy_helper.to_array(one).copy() for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert sign_weights(model) == len(products) == 13
    after = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in products:
        weight, zero = node.input[1], node.input[3]
        assert after[weight].dtype == after[zero].dtype == np.int8
        np.testing.assert_array_equal(
            after[weight].astype(int) - int(after[zero]), before[weight].astype(int) - int(before[zero])
        )
    changed = {node.input[index] for node in products for index in (1, 3)}
    assert all(after[name] is before[name] or (after[name] == before[name]).all() for name in set(before) - changed)
    onnx.checker.check_model(model)
    assert sign_weights(model) == 0, "once is enough"


def _share_weight(model: Any) -> None:
    """The first weight is an output of the graph as well."""
    name = next(node.input[1] for node in model.graph.node if node.op_type == "MatMulInteger")
    model.graph.node.append(onnx.helper.make_node("Cast", [name], ["seen"], to=onnx.TensorProto.FLOAT))


def _share_zero_point(model: Any) -> None:
    """Two products have one zero point, and one of them a weight that something else reads."""
    first, second, *_ = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    second.input[3] = first.input[3]
    _share_weight(model)


def _no_zero_point(model: Any) -> None:
    first = next(node for node in model.graph.node if node.op_type == "MatMulInteger")
    del first.input[3]


@pytest.mark.parametrize(("change", "left"), [(_share_weight, 12), (_share_zero_point, 11), (_no_zero_point, 12)])
def test_weights_that_something_else_reads_stay_as_they_are(
    folder: Path, change: Callable[[Any], None], left: int
) -> None:
    model = onnx.load(folder / "model.int8.onnx")
    change(model)
    assert sign_weights(model) == left


@needs_vnni
def test_the_copy_is_as_near_as_a_breath_of_noise(folder: Path, vnni: Path) -> None:
    copy = fastest(folder / "model.int8.onnx")
    assert copies(folder) == [copy]
    assert 0.0 < shift(folder / "model.int8.onnx", copy) < 3.0
    assert not vnni.exists()


@needs_vnni
def test_the_copy_is_made_once(folder: Path, vnni: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = fastest(folder / "model.int8.onnx")
    monkeypatch.setattr(rewritten, "_make", None)  # calling it again would fail
    assert fastest(folder / "model.int8.onnx") == copy


@needs_vnni
def test_another_model_under_the_same_name_gets_its_own_copy(folder: Path, vnni: Path) -> None:
    old = fastest(folder / "model.int8.onnx")
    model = onnx.load(folder / "model.int8.onnx")
    model.doc_string = "another"
    onnx.save(model, folder / "model.int8.onnx")
    new = fastest(folder / "model.int8.onnx")
    assert new != old
    assert copies(folder) == [new]


@needs_vnni
def test_a_read_only_folder_puts_the_copy_into_the_cache(
    folder: Path, vnni: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    copy = fastest(folder / "model.int8.onnx")
    assert copy.parent == vnni / "xiaozhi"
    assert not copies(folder)
    assert fastest(folder / "model.int8.onnx") == copy


def test_a_copy_that_differs_is_not_used(
    folder: Path, vnni: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rewritten, "shift", lambda *_: 3.75)
    assert fastest(folder / "model.int8.onnx") == folder / "model.int8.onnx"
    assert "moves it 3.75 times" in caplog.text
    assert sorted(one.name for one in folder.iterdir()) == ["model.int8.onnx", "tokens.txt"]


def test_no_room_for_a_copy_leaves_the_original(
    folder: Path, vnni: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save", full)
    assert fastest(folder / "model.int8.onnx") == folder / "model.int8.onnx"
    assert "No space left on device" in caplog.text
    assert sorted(one.name for one in folder.iterdir()) == ["model.int8.onnx", "tokens.txt"]


@needs_vnni
def test_where_the_layers_come_out_otherwise_the_weights_alone_are_signed(
    folder: Path, vnni: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewritten, "_FAIR", 0.0)  # only what is the same to the last bit
    copy = fastest(folder / "model.int8.onnx")
    assert copies(folder) == [copy]
    assert shift(folder / "model.int8.onnx", copy) == 0.0


def test_without_vnni_weights_stay_unsigned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewritten, "cpu_class", lambda: CpuClass.AVX2)
    copy = fastest(folder / "model.int8.onnx")
    assert copies(folder) == [copy]
    weights = {one.name: one.data_type for one in onnx.load(copy).graph.initializer}
    assert {kind for name, kind in weights.items() if name.endswith("_quantized")} == {onnx.TensorProto.UINT8}
    assert shift(folder / "model.int8.onnx", copy) < 3.0


def test_a_copy_for_another_kind_of_cpu_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewritten, "cpu_class", lambda: CpuClass.AVX2)
    plain = fastest(folder / "model.int8.onnx")
    monkeypatch.setattr(rewritten, "cpu_class", lambda: CpuClass.VNNI)
    monkeypatch.setattr(rewritten, "shift", lambda *_: 0.0)
    assert fastest(folder / "model.int8.onnx") != plain


def test_logits_that_mean_something_else_are_infinitely_far(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "model.int8.onnx")
    steering = next(one for one in model.graph.initializer if one.name == "steering")
    steering.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(steering)[::-1].copy(), "steering"))
    onnx.save(model, tmp_path / "other.int8.onnx")
    assert shift(folder / "model.int8.onnx", tmp_path / "other.int8.onnx") == float("inf")


def test_a_model_with_nothing_to_rewrite_is_left_alone(
    tmp_path: Path, vnni: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = build_tiny(tmp_path / "m") / "model.int8.onnx"
    assert fastest(model) == model
    assert "nothing to rewrite" in caplog.text
    assert fastest(model.rename(model.with_name("model.onnx"))).name == "model.onnx"


@needs_vnni
def test_the_recogniser_uses_the_copy_unless_told_not_to(folder: Path, vnni: Path) -> None:
    fast = build_recognizer(AsrSettings(engine="sense-voice", model_dir=folder), folder, ())
    assert isinstance(fast.recognizer, SenseVoice)
    assert [fast.recognizer.model] == copies(folder)
    assert "rewritten for this CPU" in fast.why
    plain = build_recognizer(AsrSettings(engine="sense-voice", model_dir=folder, rewrite=False), folder, ())
    assert isinstance(plain.recognizer, SenseVoice)
    assert plain.recognizer.model.name == "model.int8.onnx"
    pcm = (np.random.default_rng(1).standard_normal(24_000) * 0.1).astype(np.float32)
    assert fast.recognizer.decode(pcm) == plain.recognizer.decode(pcm)
    assert plain.recognizer.decode(pcm).text == "今天天气"


@needs_vnni
def test_a_damaged_copy_is_thrown_away(folder: Path, vnni: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy = fastest(folder / "model.int8.onnx")
    copy.write_bytes(copy.read_bytes()[:1000])
    built = build_recognizer(AsrSettings(engine="sense-voice", model_dir=folder), folder, ())
    assert isinstance(built.recognizer, SenseVoice)
    assert built.recognizer.model.name == "model.int8.onnx"
    assert "going on with" in caplog.text
    assert not copy.exists()


@needs_vnni
def test_what_was_measured_to_be_quickest_is_loaded(folder: Path, vnni: Path) -> None:
    def built(quickest: Quickest, **asr: Any) -> SenseVoice:
        settings = AsrSettings(engine="sense-voice", model_dir=folder, **asr)
        engine = build_recognizer(settings, folder, (), quickest).recognizer
        engine.close()
        assert isinstance(engine, SenseVoice)
        return engine

    usual = built(Quickest())
    assert usual.model == copies(folder)[0] and usual.lone is None
    assert built(Quickest("published")).model == folder / "model.int8.onnx"
    assert built(Quickest("of an earlier version")).model == copies(folder)[0]
    lone = built(Quickest("published", 2)).lone
    assert isinstance(lone, SenseVoice) and lone.model == folder / "model.int8.onnx"
    # The owner has the last word.
    assert built(Quickest("", 2), lone_threads=1).lone is None
    assert built(Quickest(), lone_threads=2).lone is not None
    assert built(Quickest("rewritten"), rewrite=False).model == folder / "model.int8.onnx"
