"""The published int8 SenseVoice runs 1.7 times faster or more with its weights rewritten from unsigned to signed.

Weights `w` and their zero points become `w - 128`: the same products and sums, bit-identical logits, but on a CPU with
VNNI onnxruntime takes its kernel for unsigned activations and signed weights. Without VNNI that kernel saturates and is
wrong, so the rewrite is made for this CPU: once, cached, and compared with the original before it is trusted.

Measured on a full-size model, 3 s of audio, one thread: 201 ms become 116 ms (AMD EPYC, AVX512-VNNI); through
sherpa-onnx 242 ms become 100 ms (Intel with AMX, whose int8 tiles the signed kernel uses as well), 10 s 723 to 267 ms.
What did not help then: a graph optimised and saved beforehand (loading takes as long, decoding is 1 % faster), running
without the memory arena or memory patterns.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from xiaozhi.onnx_quiet import ORT_ERRORS, quiet_session
from xiaozhi.stages.asr.one_line import one_line

_log = logging.getLogger(__name__)
_CPU_INFO: Final = Path("/proc/cpuinfo")
_VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})
# Operators with (activations, weights, their zero points) and where the weights and the weights' zero point stand.
_OPERATORS: Final = {"MatMulInteger": (1, 3)}
_SIGN: Final = np.uint8(0x80)
_PROBE_FRAMES: Final = 40
_FORMAT: Final = "1"


def has_vnni(cpu_info: Path | None = None) -> bool:
    """Whether this CPU multiplies unsigned by signed bytes without saturating in between (x86 VNNI)."""
    try:
        text = (cpu_info or _CPU_INFO).read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux: unknown, so no
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _VNNI.isdisjoint(flags.split())


def fastest(model: Path) -> Path:
    """The file to load instead of `model`: its signed copy where that is possible and proven, else `model` itself.

    Blocking. A copy that exists costs the time of reading `model` once; making it takes some seconds and twice the
    model's memory. Nothing here is an error: what stands in the way is logged, and the original is as right.

    Args:
        model: an int8 SenseVoice file that is fit to load. The copy goes beside it, or into the user's cache folder
            where that is read-only.
    """
    if not has_vnni() or ".int8." not in model.name:
        return model
    try:
        name = f"{model.name.removesuffix('.onnx')}.signed-{_fingerprint(model)}.onnx"
        for folder in _places(model):
            if (folder / name).is_file():
                return folder / name
        return _make(model, name) or model
    except (OSError, ValueError, *ORT_ERRORS) as error:
        _log.warning("%s: not rewritten for this CPU (%s)", model, one_line(error))
        return model


def _fingerprint(model: Path) -> str:
    """Changes with the file's size, time and content, and with the way of rewriting."""
    stat = model.stat()
    digest = hashlib.blake2b(f"{_FORMAT} {stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=8)
    with model.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _places(model: Path) -> tuple[Path, Path]:
    """Where the copy may lie: beside the model, in the cache folder (systemd's, the user's)."""
    cache = os.environ.get("CACHE_DIRECTORY") or os.environ.get("XDG_CACHE_HOME")
    return model.parent, (Path(cache) if cache else Path.home() / ".cache") / "xiaozhi"


def _make(model: Path, name: str) -> Path | None:
    """Rewrite, compare, put into place; None where there is nothing to rewrite or it is not the same."""
    signed = onnx.load(model)
    count = rewrite(signed)
    if not count:
        _log.info("%s: has no unsigned weights to rewrite", model)
        return None
    _log.info("%s: rewriting %d weights for this CPU's VNNI, once", model, count)
    beside, cache = _places(model)
    folder = beside if os.access(beside, os.W_OK) else cache
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    os.close(handle)
    try:
        onnx.save(signed, part)
        del signed
        difference = largest_difference(model, Path(part))
        if difference != 0.0:
            _log.warning("%s: its rewrite differs by %g and is not used", model, difference)
            return None
        Path(part).chmod(0o644)
        with Path(part).open("rb") as file:
            os.fsync(file.fileno())
        Path(part).replace(folder / name)
    finally:
        Path(part).unlink(missing_ok=True)
    for old in beside.glob(f"{model.name.removesuffix('.onnx')}.signed-*.onnx"):
        if old.name != name:  # of an earlier file under the same name
            old.unlink(missing_ok=True)
    return folder / name


def rewrite(model: Any) -> int:
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


def largest_difference(one: Path, other: Path) -> float:
    """The largest difference of any logit between two files of one model on a probe; infinite where it has no number.

    The files are loaded one after the other, so memory is claimed for one at a time.
    """
    first, second = _probe(one), _probe(other)
    if first.shape != second.shape:
        return float("inf")
    difference = float(np.max(np.abs(first - second)))
    return difference if np.isfinite(difference) else float("inf")


def _probe(path: Path) -> NDArray[np.float32]:
    session = quiet_session(path, prepack=True)
    width = session.get_inputs()[0].shape[2]
    logits: NDArray[np.float32] = session.run(
        None,
        {
            "x": np.random.default_rng(0).standard_normal((1, _PROBE_FRAMES, width), np.float32),
            "x_length": np.array([_PROBE_FRAMES], np.int32),
            "language": np.zeros(1, np.int32),
            "text_norm": np.array([int(session.get_modelmeta().custom_metadata_map["with_itn"])], np.int32),
        },
    )[0]
    return logits
