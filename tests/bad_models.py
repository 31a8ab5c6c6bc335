"""Model folders that are broken in every way seen so far, for the tests of validation."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from bench.sense_voice_model import build_tiny
from tests.speech import SPEECH_DIR

ZIPFORMERS: Final = SPEECH_DIR / "models"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Load a model, change it, write it back."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def set_metadata(path: Path, key: str, value: str | None) -> None:
    """Set a metadata value, or drop it."""

    def change(model: Any) -> None:
        found = {one.key: one.value for one in model.metadata_props}
        found.pop(key, None)
        onnx.helper.set_model_props(model, found if value is None else {**found, key: value})

    edit(path, change)


def rename_input(path: Path, old: str, new: str) -> None:
    """Give an input another name, in the signature and in the graph."""

    def change(model: Any) -> None:
        for one in model.graph.input:
            one.name = new if one.name == old else one.name
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = new if name == old else name

    edit(path, change)


def truncate(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_at_run_time(path: Path) -> None:
    """Let a weight have a shape that only running the graph shows to be wrong."""

    def change(model: Any) -> None:
        node = next(one for one in model.graph.node if one.op_type == "Slice" and one.output[0] == "text_ids")
        node.input[2] = "n_t"  # two ends for one axis

    edit(path, change)


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def _metadata(key: str, value: str | None) -> Callable[[Path], None]:
    return lambda folder: set_metadata(folder / "model.int8.onnx", key, value)


def _tokens(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "tokens.txt"
        path.write_text("\n".join(change(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")

    return apply


# What is done to a good folder, and what the error must say.
SENSE_VOICE: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "missing folder": (shutil.rmtree, "no such folder"),
    "empty folder": (lambda folder: _clear(folder), "is empty"),
    "no model": (lambda folder: (folder / "model.int8.onnx").unlink(), "holds neither model.int8.onnx nor model.onnx"),
    "empty model": (_write("model.int8.onnx", b""), "model.int8.onnx: is empty"),
    "truncated model": (lambda folder: truncate(folder / "model.int8.onnx"), "is not a complete ONNX model"),
    "web page": (_write("model.int8.onnx", b"<!DOCTYPE html><html>" * 99), "is not a complete ONNX model"),
    "no vocab_size": (_metadata("vocab_size", None), "has no vocab_size in its metadata"),
    "empty with_itn": (_metadata("with_itn", ""), "has no with_itn in its metadata"),
    "no lang_yue": (_metadata("lang_yue", None), "has no lang_yue in its metadata"),
    "no neg_mean": (_metadata("neg_mean", None), "has no neg_mean in its metadata"),
    "wordy window": (_metadata("lfr_window_size", "seven"), "lfr_window_size = 'seven', not a whole number"),
    "huge window": (_metadata("lfr_window_size", "99999999"), "out of range"),
    "negative shift": (_metadata("lfr_window_shift", "-6"), "out of range"),
    "short mean": (_metadata("neg_mean", "-8.0,-8.0"), "has 2 values in the metadata neg_mean"),
    "wordy deviation": (_metadata("inv_stddev", "a,b"), "something that is not a number"),
    "Nano": (_metadata("comment", "FunASR Nano"), "is a Fun-ASR-Nano model"),
    "another vocabulary": (_metadata("vocab_size", "20"), "has"),
    "other input": (lambda folder: rename_input(folder / "model.int8.onnx", "x", "speech"), "takes the inputs speech"),
    "another model": (lambda folder: _other_model(folder / "model.int8.onnx"), "has no vocab_size in its metadata"),
    "does not run": (lambda folder: break_at_run_time(folder / "model.int8.onnx"), "loads but does not run"),
    "no tokens": (lambda folder: (folder / "tokens.txt").unlink(), "tokens.txt: no such file"),
    "empty tokens": (_write("tokens.txt", b""), "has 0 symbols"),
    "binary tokens": (_write("tokens.txt", bytes(range(256)) * 20), "is not a text file in UTF-8"),
    "web page as tokens": (
        _write("tokens.txt", b"<html>\n<b>404 not found</b>\n"),
        "line 1 is not a symbol and its number",
    ),
    "token without number": (_tokens(lambda lines: ["<unk> zero", *lines[1:]]), "line 1 is not a symbol"),
    "three columns": (_tokens(lambda lines: [*lines[:5], lines[5] + " x", *lines[6:]]), "line 6 is not a symbol"),
    "too few tokens": (_tokens(lambda lines: lines[:-1]), "is missing, the model needs"),
    "too many tokens": (_tokens(lambda lines: [*lines, f"more {len(lines)}"]), "belongs to another model"),
}


def _clear(folder: Path) -> None:
    for one in folder.iterdir():
        one.unlink()


def _other_model(path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [answer])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)


def make_sense_voice(folder: Path, fault: str) -> Path:
    """Build a tiny SenseVoice folder and break it."""
    build_tiny(folder)
    SENSE_VOICE[fault][0](folder)
    return folder


def copy_zipformer(name: str, folder: Path) -> Path:
    """A real streaming model with its files named as published: `encoder.int8.onnx` and so on."""
    folder.mkdir(parents=True)
    for part in ("encoder", "decoder", "joiner"):
        source = next((ZIPFORMERS / name).glob(f"{part}*.onnx"))
        shutil.copyfile(source, folder / f"{part}.onnx")
    shutil.copyfile(ZIPFORMERS / name / "tokens.txt", folder / "tokens.txt")
    return folder


def _borrow(part: str) -> Callable[[Path], None]:
    """Take one file from the other model."""

    def change(folder: Path) -> None:
        source = next((ZIPFORMERS / "zipformer-zh-pinyin").glob(f"{part}*"))
        shutil.copyfile(source, folder / (part if part.endswith(".txt") else f"{part}.onnx"))

    return change


def _encoder(key: str, value: str | None) -> Callable[[Path], None]:
    return lambda folder: set_metadata(folder / "encoder.onnx", key, value)


def _wide_joiner(folder: Path) -> None:
    """A joiner for encoders of another width."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = ("encoder_out", "decoder_out")
    inputs = [helper.make_tensor_value_info(name, kind, ["N", 512]) for name in names]
    output = helper.make_tensor_value_info("logit", kind, ["N", 500])
    weight = onnx.numpy_helper.from_array(np.zeros((512, 500), np.float32), "w")
    nodes = [helper.make_node("Add", names, ["sum"]), helper.make_node("MatMul", ["sum", "w"], ["logit"])]
    graph = helper.make_graph(nodes, "joiner", inputs, [output], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "joiner.onnx"
    )


def _misshapen_state(folder: Path) -> None:
    """An encoder whose first state is narrower than its weights need: it loads and cannot run."""

    def change(model: Any) -> None:
        state = next(one for one in model.graph.input if one.name == "cached_conv1_0")
        state.type.tensor_type.shape.dim[1].dim_value += 3

    edit(folder / "encoder.onnx", change)


ZIPFORMER: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "missing folder": (shutil.rmtree, "no such folder"),
    "no encoder": (lambda folder: (folder / "encoder.onnx").unlink(), "holds no encoder*.onnx"),
    "no joiner": (lambda folder: (folder / "joiner.onnx").unlink(), "holds no joiner*.onnx"),
    "truncated encoder": (lambda folder: truncate(folder / "encoder.onnx"), "encoder.onnx: is not a complete"),
    "empty decoder": (_write("decoder.onnx", b""), "decoder.onnx: is empty"),
    "no model_type": (_encoder("model_type", None), "has no model_type in its metadata"),
    "lstm": (_encoder("model_type", "lstm"), "is of type 'lstm'"),
    "wrong type": (_encoder("model_type", "zipformer"), "has no attention_dims in its metadata"),
    "no T": (_encoder("T", None), "has no T in its metadata"),
    "T too small": (_encoder("T", "32"), "where its metadata promise"),
    "chunk above T": (_encoder("decode_chunk_len", "64"), "decode_chunk_len in its metadata above T"),
    "uneven metadata": (_encoder("num_heads", "4,4"), "num_heads in its metadata that does not match"),
    "more layers": (_encoder("num_encoder_layers", "2,2,2,2,2,2"), "where its metadata promise 75"),
    "decoder without vocab_size": (
        lambda folder: set_metadata(folder / "decoder.onnx", "vocab_size", None),
        "decoder.onnx: has no vocab_size",
    ),
    "wrong context": (
        lambda folder: set_metadata(folder / "decoder.onnx", "context_size", "3"),
        "takes y as tensor(int64) [?, 2]",
    ),
    "joiner of another model": (_borrow("joiner"), "joiner.onnx: knows 197 symbols, its decoder 500"),
    "wide joiner": (_wide_joiner, "joiner.onnx: takes [512, 512] where its encoder and decoder give [320, 320]"),
    "tokens of another model": (_borrow("tokens.txt"), "tokens.txt: has 227 symbols"),
    "decoder of another model": (_borrow("decoder"), "tokens.txt: has 500 symbols where the model has 197"),
    "does not run": (_misshapen_state, "encoder.onnx: "),
}


def make_zipformer(folder: Path, fault: str) -> Path:
    """Copy the English streaming model and break it."""
    copy_zipformer("zipformer-en", folder)
    ZIPFORMER[fault][0](folder)
    return folder


def silence(seconds: float) -> Any:
    """float32[n] at 16 kHz."""
    return np.zeros(int(seconds * 16_000), np.float32)
