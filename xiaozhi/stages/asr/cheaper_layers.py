"""Layers that onnxruntime runs slowly, said in other operators that compute the same.

* **Depthwise convolution over time** (the FSMN memory of every SANM layer) is done channel by channel as long as it has
  one axis. As a convolution over an image one row high it takes the blocked kernels, which also swallow the transposes
  around it.
* **Layer norm** in the parts that an export leaves is fused into one operator, whose kernel in the onnxruntime 1.28
  inside sherpa-onnx 2.0 is slow (0.13 ms for 54 frames of 512). Instance norm over each frame is the same formula.

Measured on a full-size int8 model with signed weights through sherpa-onnx, CPU milliseconds of one thread for 1, 3 and
5 s of audio: 52, 96 and 140 become 44, 76 and 104. The sums are taken in another order, so results differ by rounding.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

_MIN_OPSET: Final = 13  # from here on Unsqueeze and Squeeze take their axes as an input
_MAX_FOLDED: Final = 64  # nodes that compute one constant; an export leaves about a dozen for a padding
_CHANNELS_FIRST: Final = [0, 2, 1]


def cheapen(model: Any) -> int:
    """Rewrite what is known to be slow, in place; return how many layers.

    Args:
        model: an `onnx.ModelProto` of any network. What does not look exactly like one of these layers is left alone.
    """
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if opset < _MIN_OPSET:
        return 0
    graph = _Graph(model)
    count = sum([graph.widen(node) for node in list(model.graph.node) if node.op_type == "Conv"])
    count += sum([graph.renorm(node) for node in list(model.graph.node) if node.op_type == "Div"])
    graph.apply()
    return count


class _Graph:
    """Who makes and who reads each value of a model, and what shall stand in place of which node."""

    def __init__(self, model: Any) -> None:
        self._graph = model.graph
        self._weights = {one.name: one for one in model.graph.initializer}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {one.name: [one] for one in model.graph.output}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._opsets = list(model.opset_import)
        self._instead: dict[str, list[Any]] = {}  # by the first output of the node that they replace
        self._units = ""  # the ones that every norm shares

    # What stands there --------------------------------------------------------------------------------------------

    def _made_by(self, name: str, kind: str) -> Any | None:
        node = self._makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def _only_reader(self, name: str, kind: str) -> Any | None:
        readers = self._readers.get(name, [])
        node = readers[0] if len(readers) == 1 else None
        return node if isinstance(node, onnx.NodeProto) and node.op_type == kind else None

    def _value(self, name: str) -> NDArray[Any] | None:
        """A constant, where it is one: a weight, or what nodes make of nothing but constants."""
        if name in self._weights:
            array: NDArray[Any] = numpy_helper.to_array(self._weights[name])
            return array
        nodes: dict[str, Any] = {}
        weights: dict[str, Any] = {}
        missing = [name]
        while missing:
            wanted = missing.pop()
            if wanted in self._weights:
                weights[wanted] = self._weights[wanted]
            elif wanted and wanted not in nodes:
                maker = self._makers.get(wanted)
                if maker is None or len(nodes) == _MAX_FOLDED:
                    return None  # it hangs on what the model is given
                nodes[wanted] = maker
                missing.extend(maker.input)
        inside = {id(node) for node in nodes.values()}
        ordered = [node for node in self._graph.node if id(node) in inside]
        output = helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)
        graph = helper.make_graph(ordered, "constant", [], [output], list(weights.values()))
        folded = ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets)).run(None, {})
        return np.asarray(next(iter(folded)))

    def _is(self, name: str, value: float) -> bool:
        array = self._value(name)
        return array is not None and array.size == 1 and float(array.reshape(())) == value

    # What shall stand there ---------------------------------------------------------------------------------------

    def _constant(self, name: str, values: Sequence[int]) -> str:
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.array(values, np.int64), name)
            self._graph.initializer.append(self._weights[name])
        return name

    def widen(self, conv: Any) -> bool:
        """Transpose, Pad, Conv over one axis, Transpose: as a convolution over an image one row high."""
        weight = self._weights.get(conv.input[1])
        before = self._transposed_and_padded(conv.input[0])
        after = self._only_reader(conv.output[0], "Transpose")
        if weight is None or before is None or after is None or _attributes(after).get("perm") != _CHANNELS_FIRST:
            return False
        source, pads = before
        attributes = _attributes(conv)
        depthwise = list(weight.dims[:2]) == [attributes.get("group", 1), 1] and len(weight.dims) == 3
        extra = {key: value for key, value in attributes.items() if key not in ("group", "kernel_shape")}
        # Strides, dilations and paddings of the convolution's own may be spelled out, as long as they say nothing.
        plain = all(set(value) <= {0 if key == "pads" else 1} for key, value in extra.items() if key != "auto_pad")
        if not depthwise or not plain or extra.get("auto_pad", b"NOTSET") != b"NOTSET":
            return False
        if any(reader is not conv for reader in self._readers[weight.name]):
            return False
        kernel = numpy_helper.to_array(weight)[:, :, None, :].copy()
        weight.CopyFrom(numpy_helper.from_array(kernel, weight.name))
        row, name = self._constant("image.row", [1]), conv.output[0]
        self._instead[after.output[0]] = [
            helper.make_node("Unsqueeze", [source, row], [f"{name}.image"]),
            helper.make_node("Transpose", [f"{name}.image"], [f"{name}.channels"], perm=[0, 3, 1, 2]),
            helper.make_node(
                "Conv",
                [f"{name}.channels", *conv.input[1:]],
                [f"{name}.swept"],
                group=len(kernel),
                kernel_shape=kernel.shape[2:],
                pads=[0, pads[0], 0, pads[1]],
            ),
            helper.make_node("Transpose", [f"{name}.swept"], [f"{name}.last"], perm=[0, 2, 3, 1]),
            helper.make_node("Squeeze", [f"{name}.last", row], list(after.output)),
        ]
        return True

    def _transposed_and_padded(self, name: str) -> tuple[str, tuple[int, int]] | None:
        """What stands before `name`, [N, T, C], and how many zeros are put before and behind it."""
        pads = (0, 0)
        pad = self._made_by(name, "Pad")
        if pad is not None:
            found = self._value(pad.input[1]) if len(pad.input) > 1 else None
            zero = len(pad.input) < 3 or not pad.input[2] or self._is(pad.input[2], 0.0)
            plain = zero and _attributes(pad).get("mode", b"constant") == b"constant"
            if not plain or found is None or found.shape != (6,) or np.delete(found, [2, 5]).any():
                return None
            pads, name = (int(found[2]), int(found[5])), pad.input[0]
        transpose = self._made_by(name, "Transpose")
        if transpose is None or _attributes(transpose).get("perm") != _CHANNELS_FIRST or min(pads) < 0:
            return None
        return transpose.input[0], pads

    def renorm(self, div: Any) -> bool:
        """(x - mean) / sqrt(variance + epsilon) over the last of three axes: as an instance norm of each frame."""
        centred, root = self._made_by(div.input[0], "Sub"), self._made_by(div.input[1], "Sqrt")
        added = root and self._made_by(root.input[0], "Add")
        if centred is None or not added:
            return False
        for mean_of_squares, epsilon in (added.input, reversed(added.input)):
            variance = self._made_by(mean_of_squares, "ReduceMean")
            squared = variance and self._made_by(variance.input[0], "Pow")
            mean = self._made_by(centred.input[1], "ReduceMean")
            if (
                squared
                and mean is not None
                and squared.input[0] == centred.output[0]
                and self._is(squared.input[1], 2.0)
                and mean.input[0] == centred.input[0]
                and _over_last(mean)
                and _over_last(variance)
                and (small := self._value(epsilon)) is not None
                and small.size == 1
            ):
                self._instead[div.output[0]] = [
                    *self._ones(centred.input[0]),
                    helper.make_node(
                        "InstanceNormalization",
                        [centred.input[0], f"{self._units}.ones", f"{self._units}.zeros"],
                        list(div.output),
                        epsilon=float(small.reshape(())),
                    ),
                ]
                return True
        return False

    def _ones(self, source: str) -> list[Any]:
        """Nodes that make a one and a zero for each frame of `source`, [N, T, C]; the first norm makes them for all."""
        if self._units:
            return []
        self._units = name = f"{source}.frames"
        first, second = self._constant("frames.first", [1]), self._constant("frames.second", [2])
        one, zero = (numpy_helper.from_array(np.array([value], np.float32)) for value in (1.0, 0.0))
        return [
            helper.make_node("Shape", [source], [f"{name}.shape"]),
            helper.make_node("Slice", [f"{name}.shape", first, second], [f"{name}.count"]),
            helper.make_node("ConstantOfShape", [f"{name}.count"], [f"{name}.ones"], value=one),
            helper.make_node("ConstantOfShape", [f"{name}.count"], [f"{name}.zeros"], value=zero),
        ]

    def apply(self) -> None:
        """Put the replacements into the model and drop what nothing reads any more."""
        if not self._instead:
            return
        nodes = [new for old in self._graph.node for new in self._instead.get(_first(old), [old])]
        wanted = {one.name for one in self._graph.output}
        kept = []
        for node in reversed(nodes):  # in order of computation, so readers are met before makers
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        weights = [one for one in self._graph.initializer if one.name in wanted]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(reversed(kept))
        self._graph.initializer.extend(weights)


def _first(node: Any) -> str:
    return str(node.output[0]) if node.output else ""


def _attributes(node: Any) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _over_last(mean: Any) -> bool:
    """Whether a ReduceMean goes over the last of three axes and keeps it."""
    attributes = _attributes(mean)
    return attributes.get("axes") in ([-1], [2]) and attributes.get("keepdims", 1) == 1
