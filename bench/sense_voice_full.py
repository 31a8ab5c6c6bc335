"""The graph of SenseVoice-Small's encoder (50 + 20 SANM layers) with random weights, quantised as the published one.

Architecture from the published training code: sinusoidal positions, pre-norm layers of multi-head attention with an
FSMN memory block (depthwise convolution over the values) and a ReLU feed-forward block, a norm after the first 50
layers and after the last 20, one linear layer to the vocabulary. Weights are 8 bit per tensor with unsigned zero
points, activations are quantised dynamically: the operators that onnxruntime's dynamic quantisation leaves behind.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

WIDTH: Final = 512
HEADS: Final = 4
FEED_FORWARD: Final = 2048
KERNEL: Final = 11
LAYERS: Final = 50
TP_LAYERS: Final = 20
VOCABULARY: Final = 25055
INPUT: Final = 560
QUERIES: Final = 16
# How far the encoder's output is moved towards the column of the token that is to win: 20 times a column of length 1
# gives that token's logit 20, while the others stay below 8 (4 from random weights, 4 from chance alignment).
_STEER: Final = 20.0


class _Graph:
    """Collects nodes and weights; every method returns the name of its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}
        self._random = np.random.default_rng(seed)
        self._count = 0
        self._quantised: dict[str, tuple[str, str, str]] = {}

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        self._count += 1
        names = [f"{kind}_{self._count}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, kind: Any) -> str:
        array = np.asarray(value, kind)
        name = f"constant_{array.dtype}_{array.tobytes().hex()[:64]}_{'x'.join(map(str, array.shape))}"
        self.weights.setdefault(name, array)
        return name

    def weight(self, name: str, array: Any) -> str:
        self.weights[name] = array
        return name

    def random_weight(self, rows: int, columns: int) -> NDArray[np.float32]:
        return self._random.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))

    def linear(self, x: str, name: str, rows: int, columns: int, matrix: NDArray[np.float32] | None = None) -> str:
        """A linear layer with bias, its weight quantised to unsigned 8 bit per tensor."""
        matrix = self.random_weight(rows, columns) if matrix is None else matrix
        low, high = float(matrix.min()), float(matrix.max())
        scale = (high - low) / 255
        zero = round(-low / scale)
        matrix /= np.float32(scale)
        matrix += np.float32(zero)
        quantised = np.clip(np.rint(matrix, out=matrix), 0, 255).astype(np.uint8)
        if x not in self._quantised:
            self._quantised[x] = tuple(self.op("DynamicQuantizeLinear", x, outputs=3))
        x8, x_scale, x_zero = self._quantised[x]
        weight = self.weight(f"{name}.weight_quantized", quantised)
        weight_zero = self.weight(f"{name}.weight_zero_point", np.array(zero, np.uint8))
        weight_scale = self.weight(f"{name}.weight_scale", np.array(scale, np.float32))
        product = self.op("MatMulInteger", x8, weight, x_zero, weight_zero)
        scales = self.op("Mul", x_scale, weight_scale)
        bias = self.weight(f"{name}.bias", np.zeros(columns, np.float32))
        return str(self.op("Add", bias, self.op("Mul", self.op("Cast", product, to=TensorProto.FLOAT), scales)))

    def norm(self, x: str, name: str, width: int) -> str:
        """Layer norm, in the parts that an export at opset 13 leaves."""
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        squared = self.op("Pow", centred, self.constant(2.0, np.float32))
        variance = self.op("Add", self.op("ReduceMean", squared, axes=[-1]), self.constant(1e-5, np.float32))
        unit = self.op("Div", centred, self.op("Sqrt", variance))
        gain = self.weight(f"{name}.weight", np.ones(width, np.float32))
        bias = self.weight(f"{name}.bias", np.zeros(width, np.float32))
        return str(self.op("Add", self.op("Mul", unit, gain), bias))

    def heads(self, x: str, order: Sequence[int]) -> str:
        shape = self.constant([0, 0, HEADS, WIDTH // HEADS], np.int64)
        return str(self.op("Transpose", self.op("Reshape", x, shape), perm=list(order)))

    def layer(self, x: str, name: str, width: int, mask: str, column_mask: str) -> str:
        """One SANM layer from `width` to 512; the first has no residual around its attention, as its widths differ."""
        qkv = self.linear(self.norm(x, f"{name}.norm1", width), f"{name}.qkv", width, 3 * WIDTH)
        query, key, value = self.op("Split", qkv, self.constant([WIDTH] * 3, np.int64), outputs=3, axis=-1)
        # FSMN memory: a depthwise convolution over time of the masked values, plus the values themselves.
        masked = self.op("Mul", value, column_mask)
        pad = KERNEL // 2
        padded = self.op("Pad", self.op("Transpose", masked, perm=[0, 2, 1]), self.constant([0, 0, pad] * 2, np.int64))
        kernel = self.weight(f"{name}.fsmn.weight", self.random_weight(KERNEL, WIDTH).T[:, None, :].copy())
        swept = self.op("Conv", padded, kernel, group=WIDTH, kernel_shape=[KERNEL])
        memory = self.op("Mul", self.op("Add", self.op("Transpose", swept, perm=[0, 2, 1]), masked), column_mask)
        # Attention.
        scaled = self.op("Mul", self.heads(query, (0, 2, 1, 3)), self.constant((WIDTH // HEADS) ** -0.5, np.float32))
        scores = self.op("MatMul", scaled, self.heads(key, (0, 2, 3, 1)))
        scores = self.op("Where", mask, scores, self.constant(-np.inf, np.float32))
        shares = self.op("Where", mask, self.op("Softmax", scores, axis=-1), self.constant(0.0, np.float32))
        mixed = self.op("Transpose", self.op("MatMul", shares, self.heads(value, (0, 2, 1, 3))), perm=[0, 2, 1, 3])
        joined = self.op("Reshape", mixed, self.constant([0, 0, WIDTH], np.int64))
        attended = self.op("Add", self.linear(joined, f"{name}.out", WIDTH, WIDTH), memory)
        x = self.op("Add", x, attended) if width == WIDTH else attended
        hidden = self.linear(self.norm(x, f"{name}.norm2", WIDTH), f"{name}.ffn1", WIDTH, FEED_FORWARD)
        return str(self.op("Add", x, self.linear(self.op("Relu", hidden), f"{name}.ffn2", FEED_FORWARD, WIDTH)))


def full_graph(path: Sequence[int], seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Nodes and weights from the four inputs to `logits`.

    Args:
        path: the token that wins at each frame (tags first); the last one wins at every frame after.
        seed: of the random weights.
    """
    graph = _Graph(seed)
    op, constant = graph.op, graph.constant
    one = constant([1], np.int64)
    embedding = graph.weight("embed.weight", graph.random_weight(QUERIES, INPUT))

    def query(ids: str) -> str:
        return str(op("Unsqueeze", op("Gather", embedding, ids), one))

    language, norm = query("language"), query("text_norm")
    event = op("Gather", embedding, constant([1], np.int64))  # [1, 560]
    emotion = op("Gather", embedding, constant([2], np.int64))
    zeros = op("Mul", language, constant(0.0, np.float32))
    frames = op("Concat", language, op("Add", zeros, event), op("Add", zeros, emotion), norm, "x", axis=1)

    length = op("Gather", op("Shape", frames), constant(1, np.int64))
    positions = op("Range", constant(0, np.int64), length, constant(1, np.int64))  # [T]
    heard = op("Add", op("Cast", "x_length", to=TensorProto.INT64), constant(4, np.int64))
    inside = op("Less", op("Unsqueeze", positions, constant([0], np.int64)), op("Unsqueeze", heard, one))  # [N, T]
    column_mask = op("Unsqueeze", op("Cast", inside, to=TensorProto.FLOAT), constant([2], np.int64))
    mask = op("Unsqueeze", inside, constant([1, 2], np.int64))

    rates = np.exp(np.arange(INPUT // 2) * (-np.log(10000) / (INPUT / 2 - 1))).astype(np.float32)
    counted = op("Cast", op("Add", positions, constant(1, np.int64)), to=TensorProto.FLOAT)
    angles = op("Mul", op("Unsqueeze", counted, one), graph.weight("position.rates", rates))
    position = op("Concat", op("Sin", angles), op("Cos", angles), axis=1)
    x = op("Add", op("Mul", frames, constant(WIDTH**0.5, np.float32)), position)

    for number in range(LAYERS):
        x = graph.layer(x, f"encoders.{number}", INPUT if number == 0 else WIDTH, mask, column_mask)
    x = graph.norm(x, "after_norm", WIDTH)
    for number in range(TP_LAYERS):
        x = graph.layer(x, f"tp_encoders.{number}", WIDTH, mask, column_mask)
    x = graph.norm(x, "tp_norm", WIDTH)

    output = graph.random_weight(WIDTH, VOCABULARY)
    steering = graph.weight("steering", np.ascontiguousarray(output[:, list(path)].T) * np.float32(_STEER))
    frame = op("Min", positions, constant(len(path) - 1, np.int64))
    x = op("Add", x, op("Gather", steering, frame))
    logits = graph.linear(x, "ctc", WIDTH, VOCABULARY, output)
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    return graph.nodes, graph.weights
