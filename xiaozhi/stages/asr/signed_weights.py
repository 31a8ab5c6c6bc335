"""Unsigned weights of integer matrix products become signed ones: the same arithmetic, by a faster kernel.

Weights `w` and their zero points become `w - 128`: the same products and sums, bit-identical logits, but on a CPU with
VNNI onnxruntime takes its kernel for unsigned activations and signed weights. Without VNNI that kernel saturates and is
wrong.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# Operators with (activations, weights, their zero points) and where the weights and the weights' zero point stand.
_OPERATORS: Final = {"MatMulInteger": (1, 3)}
_SIGN: Final = np.uint8(0x80)


def sign_weights(model: Any) -> int:
    """Turn unsigned weights of integer matrix products into signed ones, in place; return how many.

    Args:
        model: an `onnx.ModelProto`. Weights or zero points that anything else uses as well stay as they are.
    """
    weights = {one.name: one for one in model.graph.initializer}
    uses: dict[str, list[tuple[Any, int]]] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            uses.setdefault(name, []).append((node, index))

    def is_ours(name: str, place: int) -> bool:
        return (
            name in weights
            and weights[name].data_type == onnx.TensorProto.UINT8
            and all(
                node.op_type in _OPERATORS and _OPERATORS[node.op_type][place] == index for node, index in uses[name]
            )
        )

    pairs = [
        (node.input[weight], node.input[zero])
        for node in model.graph.node
        if node.op_type in _OPERATORS
        for weight, zero in [_OPERATORS[node.op_type]]
        if len(node.input) > zero and is_ours(node.input[weight], 0) and is_ours(node.input[zero], 1)
    ]
    # A zero point may serve several weights; all of them must change with it, and the other way round.
    steady = _shared_with_others(pairs, uses)
    changing = [pair for pair in pairs if not steady.intersection(pair)]
    for name in dict.fromkeys(name for pair in changing for name in pair):
        unsigned: NDArray[np.uint8] = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array((unsigned ^ _SIGN).view(np.int8), name))
    return len({weight for weight, _ in changing})


def _shared_with_others(pairs: list[tuple[str, str]], uses: Mapping[str, list[tuple[Any, int]]]) -> set[str]:
    """Names in `pairs` that some product uses outside `pairs`, and all that hang together with them."""
    counts: dict[str, int] = {}
    for pair in pairs:
        for name in pair:
            counts[name] = counts.get(name, 0) + 1
    steady = {name for name, count in counts.items() if count != len(uses[name])}
    while more := {name for pair in pairs if steady.intersection(pair) for name in pair} - steady:
        steady |= more
    return steady
