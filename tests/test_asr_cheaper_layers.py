from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xiaozhi.stages.asr.cheaper_layers import cheapen

WIDTH, KERNEL = 32, 5


def tensor(name: str, value: Any, kind: Any) -> Any:
    return numpy_helper.from_array(np.asarray(value, kind), name)


def network() -> Any:
    """One memory block and one norm as an export leaves them: x, float32[N, T, 32], to y of the same shape."""
    dice = np.random.default_rng(3)
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Pad", ["turned", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "kernel"], ["swept"], group=WIDTH, kernel_shape=[KERNEL]),
        helper.make_node("Transpose", ["swept"], ["back"], perm=[0, 2, 1]),
        helper.make_node("Add", ["back", "x"], ["memory"]),
        helper.make_node("ReduceMean", ["memory"], ["mean"], axes=[-1]),
        helper.make_node("Sub", ["memory", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["squared"]),
        helper.make_node("ReduceMean", ["squared"], ["variance"], axes=[-1]),
        helper.make_node("Add", ["variance", "epsilon"], ["raised"]),
        helper.make_node("Sqrt", ["raised"], ["root"]),
        helper.make_node("Div", ["centred", "root"], ["unit"]),
        helper.make_node("Mul", ["unit", "gain"], ["y"]),
    ]
    weights = [
        tensor("kernel", dice.standard_normal((WIDTH, 1, KERNEL)), np.float32),
        tensor("pads", [0, 0, 3, 0, 0, 1], np.int64),
        tensor("two", 2.0, np.float32),
        tensor("epsilon", 1e-5, np.float32),
        tensor("gain", dice.standard_normal(WIDTH), np.float32),
    ]
    shape: list[str | int | None] = ["N", "T", WIDTH]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(model: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return found


def kinds(model: Any) -> list[str]:
    return sorted(node.op_type for node in model.graph.node)


def node(model: Any, kind: str, number: int = 0) -> Any:
    return [one for one in model.graph.node if one.op_type == kind][number]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 54), (3, 17)])
def test_both_layers_compute_the_same(shape: tuple[int, int]) -> None:
    model = network()
    x = np.random.default_rng(1).standard_normal((*shape, WIDTH), np.float32)
    before = run(model, x)
    assert cheapen(model) == 2
    assert not {"Pad", "Pow", "ReduceMean", "Sqrt", "Div"} & set(kinds(model))
    np.testing.assert_allclose(run(model, x), before, rtol=1e-4, atol=1e-4)
    assert {one.name for one in model.graph.initializer}.isdisjoint({"pads", "two", "epsilon"}), "nothing is left over"
    assert cheapen(model) == 0, "once is enough"


def _computed_padding(model: Any) -> None:
    """As an export of the framework's own padding leaves it: computed from constants, in reverse order."""
    constant = helper.make_node("Constant", [], ["pairs"], value=tensor("", [[3, 1], [0, 0], [0, 0]], np.int64))
    turned = helper.make_node("Transpose", ["pairs"], ["columns"])  # before and behind, last axis first
    flipped = helper.make_node("Slice", ["columns", "last", "before_first", "axis", "backwards"], ["ordered"])
    flat = helper.make_node("Reshape", ["ordered", "flat"], ["computed_pads"])
    for name, value in [("last", -1), ("before_first", -4), ("axis", 1), ("backwards", -1), ("flat", -1)]:
        model.graph.initializer.append(tensor(name, [value], np.int64))
    for place, one in enumerate([constant, turned, flipped, flat]):
        model.graph.node.insert(place, one)
    node(model, "Pad").input[1] = "computed_pads"


def _bias(model: Any) -> None:
    model.graph.initializer.append(tensor("bias", np.arange(WIDTH), np.float32))
    node(model, "Conv").input.append("bias")


def _no_padding(model: Any) -> None:
    node(model, "Conv").input[0] = "turned"
    node(model, "Conv").attribute.append(helper.make_attribute("pads", [0, 0]))
    model.graph.node.remove(node(model, "Pad"))
    model.graph.node.remove(node(model, "Add"))
    node(model, "ReduceMean").input[0] = node(model, "Sub").input[0] = "back"


def _epsilon_first(model: Any) -> None:
    node(model, "Add", 1).input[:] = ["epsilon", "variance"]


def _last_axis_by_number(model: Any) -> None:
    node(model, "ReduceMean").attribute[0].CopyFrom(helper.make_attribute("axes", [2]))


@pytest.mark.parametrize("change", [_computed_padding, _bias, _no_padding, _epsilon_first, _last_axis_by_number])
def test_other_ways_to_say_the_same_are_understood(change: Callable[[Any], None]) -> None:
    model = network()
    change(model)
    x = np.random.default_rng(2).standard_normal((1, 20, WIDTH), np.float32)
    before = run(model, x)
    assert cheapen(model) == 2
    np.testing.assert_allclose(run(model, x), before, rtol=1e-4, atol=1e-4)


def _shared_kernel(model: Any) -> None:
    model.graph.node.append(helper.make_node("ReduceSum", ["kernel"], ["seen"]))
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))


def _swept_is_seen(model: Any) -> None:
    model.graph.output.append(helper.make_tensor_value_info("swept", TensorProto.FLOAT, None))


def _dilated(model: Any) -> None:
    node(model, "Conv").attribute.append(helper.make_attribute("dilations", [2]))


def _pads_at_run_time(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("later", TensorProto.INT64, [6]))
    node(model, "Pad").input[1] = "later"


def _pads_with_something(model: Any) -> None:
    model.graph.initializer.append(tensor("filling", 1.0, np.float32))
    node(model, "Pad").input.append("filling")


def _pads_channels(model: Any) -> None:
    pads = next(one for one in model.graph.initializer if one.name == "pads")
    pads.CopyFrom(tensor("pads", [0, 1, 3, 0, 0, 1], np.int64))


def _cubed(model: Any) -> None:
    next(one for one in model.graph.initializer if one.name == "two").CopyFrom(tensor("two", 3.0, np.float32))


def _over_time(model: Any) -> None:
    node(model, "ReduceMean", 1).attribute[0].CopyFrom(helper.make_attribute("axes", [1]))


def _mean_of_something_else(model: Any) -> None:
    node(model, "ReduceMean").input[0] = "x"


@pytest.mark.parametrize(
    "change",
    [
        _shared_kernel,
        _swept_is_seen,
        _dilated,
        _pads_at_run_time,
        _pads_with_something,
        _pads_channels,
        _cubed,
        _over_time,
        _mean_of_something_else,
    ],
)
def test_what_looks_otherwise_is_left_alone(change: Callable[[Any], None]) -> None:
    model = network()
    change(model)
    assert cheapen(model) == 1, "the other layer"


def test_an_older_opset_is_left_alone() -> None:
    model = network()
    model.opset_import[0].version = 12
    before = model.SerializeToString()
    assert cheapen(model) == 0
    assert model.SerializeToString() == before
