"""Models in the layout of SenseVoice-Small that yield a known text: a tiny one for tests, a full-size one for benches.

Both carry the inputs (`x` float32[N, T, 560] after FBANK, LFR and CMVN, `x_length`, `language`, `text_norm` int32[N]),
the output (`logits` float32[N, T+4, V]) and the metadata of the published ONNX export, so sherpa-onnx loads and decodes
them with the code a real model takes. What they say is fixed when they are built; it is not recognition.

    python -m bench.sense_voice_model FOLDER [--size tiny|full] [--text TEXT]
"""

import argparse
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LFR_WINDOW: Final = 7
LFR_SHIFT: Final = 6
FEATURES: Final = 80 * LFR_WINDOW
BLANK: Final = 0
# Ids of the `language` and `text_norm` inputs, from the published export's metadata.
LANGUAGE_IDS: Final = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
TEXT_NORM_IDS: Final = {"withitn": 14, "woitn": 15}
# FBANK of 16-bit samples: speech lies around 12 with a deviation of 4 (natural logarithm); zeros lie at -15.9.
FBANK_MEAN: Final = 12.0
FBANK_DEVIATION: Final = 4.0
OPSET: Final = 13
IR_VERSION: Final = 8
_TAGS: Final = (
    *(f"<|{name}|>" for name in LANGUAGE_IDS if name != "auto"),
    *(f"<|{name}|>" for name in ("HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED")),
    *(f"<|{name}|>" for name in ("EMO_UNKNOWN", "Speech", "BGM", "Laughter", "Applause", "Cough", "Sneeze", "Cry")),
    *(f"<|{name}|>" for name in TEXT_NORM_IDS),
)
_PIECE: Final = re.compile(r"<\|[^|]*\|>|[A-Za-z0-9']+|\S")


def pieces(text: str) -> list[str]:
    """Split a text into the tokens that spell it: words with the leading `▁` of BPE, single characters otherwise."""
    return [f"▁{piece}" if re.match(r"[A-Za-z0-9']", piece) else piece for piece in _PIECE.findall(text)]


def ctc_path(tokens: Iterable[int]) -> list[int]:
    """The shortest CTC path of `tokens`: a blank only between equal ones."""
    path: list[int] = []
    for token in tokens:
        if path and path[-1] == token:
            path.append(BLANK)
        path.append(token)
    return path


def metadata(vocab_size: int) -> dict[str, str]:
    """The metadata of the published export, with a plain CMVN."""
    ids = {f"lang_{name}": str(number) for name, number in LANGUAGE_IDS.items()}
    return {
        "lfr_window_size": str(LFR_WINDOW),
        "lfr_window_shift": str(LFR_SHIFT),
        "normalize_samples": "0",
        "neg_mean": ",".join([str(-FBANK_MEAN)] * FEATURES),
        "inv_stddev": ",".join([str(1 / FBANK_DEVIATION)] * FEATURES),
        "model_type": "sense_voice_ctc",
        "version": "2",
        "model_author": "bench",
        "vocab_size": str(vocab_size),
        "comment": "SenseVoice layout with a fixed text",
        **ids,
        "with_itn": str(TEXT_NORM_IDS["withitn"]),
        "without_itn": str(TEXT_NORM_IDS["woitn"]),
    }


def save(folder: Path, nodes: Sequence[Any], weights: dict[str, Any], tokens: Sequence[str], name: str) -> None:
    """Write `name` and `tokens.txt` into `folder`, all or nothing (a folder renamed into place).

    Args:
        folder: replaced when it exists.
        nodes: the graph from the four inputs to `logits`.
        weights: initialisers by name, as arrays.
        tokens: the vocabulary in the order of its ids.
        name: file name of the model.
    """
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", FEATURES])]
    inputs += [
        helper.make_tensor_value_info(key, TensorProto.INT32, ["N"]) for key in ("x_length", "language", "text_norm")
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "T_out", len(tokens)])
    initialisers = [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()]
    graph = helper.make_graph(list(nodes), "sense_voice", inputs, [logits], initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, metadata(len(tokens)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        onnx.save(model, part / name)
        lines = "".join(f"{token} {number}\n" for number, token in enumerate(tokens))
        (part / "tokens.txt").write_text(lines, encoding="utf-8")
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def build_tiny(
    folder: Path,
    text: str = "hello world",
    *,
    loud_text: str | None = None,
    silent_text: str | None = None,
    long_text: str | None = None,
    long_from_s: float = 2.0,
    itn_text: str | None = None,
    language: str = "en",
    emotion: str = "NEUTRAL",
    event: str = "Speech",
) -> Path:
    """Build a model of a few kilobytes that says `text` whatever it hears, and return `folder`.

    Each token takes one frame of 60 ms: audio too short for the text gets its beginning. The language tag follows the
    `language` input where that is not `auto`, the text-norm tag follows `text_norm`, as in the real model.

    Args:
        folder: where `model.int8.onnx` and `tokens.txt` go.
        text: what it says. Tags such as `<|BGM|>` may stand inside.
        loud_text: said instead when the loudest frame's mean FBANK is above 14 (measured: speech as recorded 16, a
            tenth of its amplitude 11).
        silent_text: said instead when it is below 2 (digital silence), with the tag `<|nospeech|>`.
        long_text: said instead of `text` and `loud_text` from `long_from_s` seconds on.
        long_from_s: see `long_text`.
        itn_text: said instead of `text` when inverse text normalisation is asked for.
        language: the tag where the input says `auto`.
        emotion: the second tag, such as `HAPPY`.
        event: the third tag, such as `Laughter`.
    """
    said = (text, loud_text, silent_text, long_text, itn_text)
    words = dict.fromkeys(piece for one in said if one is not None for piece in pieces(one))
    tokens = ["<unk>", "<s>", "</s>", *dict.fromkeys((*_TAGS, *words))]
    ids = {token: number for number, token in enumerate(tokens)}
    paths = [ctc_path(ids[piece] for piece in pieces(text if one is None else one)) for one in said]
    width = max(1, *(len(path) for path in paths))
    table = np.array([path + [BLANK] * (width - len(path)) for path in paths], np.int64)

    by_language = np.full(16, ids[f"<|{language}|>"], np.int64)
    for name, number in LANGUAGE_IDS.items():
        if name != "auto":
            by_language[number] = ids[f"<|{name}|>"]
    by_norm = np.full(16, ids["<|woitn|>"], np.int64)
    by_norm[TEXT_NORM_IDS["withitn"]] = ids["<|withitn|>"]

    def level(fbank: float) -> Any:
        return np.array((fbank - FBANK_MEAN) / FBANK_DEVIATION, np.float32)

    long_frames = long_from_s * 1000 / 10 / LFR_SHIFT if long_text is not None else 1e9
    weights = {
        "table": table,
        "by_language": by_language,
        "by_norm": by_norm,
        "loud": level(14.0 if loud_text is not None else 1e9),
        "silent": level(2.0 if silent_text is not None else -1e9),
        "long": np.array(int(min(long_frames, 2**31 - 1)), np.int32),
        "emotion": np.array(ids[f"<|{emotion}|>"], np.int64),
        "event": np.array(ids[f"<|{event}|>"], np.int64),
        "nospeech": np.array(ids["<|nospeech|>"], np.int64),
        "by_norm_row": np.array([4 if number == TEXT_NORM_IDS["withitn"] else 0 for number in range(16)], np.int64),
        "row_loud": np.array(1, np.int64),
        "row_silent": np.array(2, np.int64),
        "row_long": np.array(3, np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "depth": np.array(len(tokens), np.int64),
        "off_on": np.array([0.0, 10.0], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["frame_level"], axes=[2], keepdims=0),
        node("ReduceMax", ["frame_level"], ["peak"], axes=[1], keepdims=0),
        node("Greater", ["peak", "loud"], ["is_loud"]),
        node("Less", ["peak", "silent"], ["is_silent"]),
        node("GreaterOrEqual", ["x_length", "long"], ["is_long"]),
        node("Gather", ["by_norm_row", "text_norm"], ["row_text"]),
        node("Where", ["is_loud", "row_loud", "row_text"], ["row_a"]),
        node("Where", ["is_long", "row_long", "row_a"], ["row_b"]),
        node("Where", ["is_silent", "row_silent", "row_b"], ["row"]),
        node("Gather", ["table", "row"], ["said"], axis=0),
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "zero", "two", "zero"], ["n_t"]),
        node("Slice", ["shape", "one", "two", "zero"], ["t"]),
        node("ConstantOfShape", ["n_t"], ["blanks"], value=numpy_helper.from_array(np.array([BLANK], np.int64))),
        node("Concat", ["said", "blanks"], ["endless"], axis=1),
        node("Slice", ["endless", "zero", "t", "one"], ["text_ids"]),
        node("Gather", ["by_language", "language"], ["asked_tag"]),
        node("Where", ["is_silent", "nospeech", "asked_tag"], ["language_tag"]),
        node("Gather", ["by_norm", "text_norm"], ["norm_tag"]),
        node("Where", ["is_silent", "emotion", "emotion"], ["emotion_tag"]),
        node("Where", ["is_silent", "event", "event"], ["event_tag"]),
        *(
            node("Unsqueeze", [f"{tag}_tag", "one"], [f"{tag}_column"])
            for tag in ("language", "emotion", "event", "norm")
        ),
        node(
            "Concat",
            ["language_column", "emotion_column", "event_column", "norm_column", "text_ids"],
            ["ids"],
            axis=1,
        ),
        node("OneHot", ["ids", "depth", "off_on"], ["logits"], axis=-1),
    ]
    save(folder, nodes, weights, tokens, "model.int8.onnx")
    return folder


def build_full(folder: Path, text: str = "今天天气怎么样", *, language: str = "zh", seed: int = 20240717) -> Path:
    """Build the full-size int8 model (236 MB, random weights) unless `folder` holds it already; return `folder`.

    It costs what the published model costs and says `text` whatever it hears.
    """
    from bench.sense_voice_full import VOCABULARY, full_graph

    label = f"text={text!r} language={language} seed={seed} version=1"
    mark = folder / "built.txt"
    if mark.is_file() and mark.read_text(encoding="utf-8") == label:
        return folder
    tokens = [f"▁piece{number}" for number in range(VOCABULARY)]
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    for number, tag in enumerate(_TAGS):
        tokens[24884 + number] = tag  # where the published vocabulary has its tags
    for number, piece in enumerate(dict.fromkeys(pieces(text))):
        tokens[9000 + number] = piece
    ids = {token: number for number, token in enumerate(tokens)}
    tags = [f"<|{language}|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>"]
    path = [ids[tag] for tag in tags] + ctc_path(ids[piece] for piece in pieces(text)) + [BLANK]
    nodes, weights = full_graph(path, seed)
    save(folder, nodes, weights, tokens, "model.int8.onnx")
    mark.write_text(label, encoding="utf-8")
    return folder


def main() -> None:
    """Build a model from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.sense_voice_model", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where model.int8.onnx and tokens.txt go")
    parser.add_argument("--size", choices=("tiny", "full"), default="full")
    parser.add_argument("--text", help="what it says")
    given = parser.parse_args()
    build = build_tiny if given.size == "tiny" else build_full
    folder = build(given.folder, given.text) if given.text else build(given.folder)
    size = (folder / "model.int8.onnx").stat().st_size
    print(f"{folder / 'model.int8.onnx'}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
