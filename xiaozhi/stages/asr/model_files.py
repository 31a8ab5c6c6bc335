"""Finding and validating the files of a recogniser before sherpa-onnx sees them.

What is checked, and why: sherpa-onnx ends the process where metadata or a line of `tokens.txt` cannot be read, reads
beyond its arrays where sizes in the metadata contradict each other, and decodes to nothing where a model loads but
does not run (known from its sources and from trying). So the metadata it reads are read first, sizes are compared,
and every graph runs once on zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from xiaozhi.models.sherpa_build import without_cuda
from xiaozhi.program import program
from xiaozhi.settings.section import Precision, Provider
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.onnx_check import ModelFile, read_tokens

SENSE_VOICE_ADVICE: Final = f"run: {program()} models pull sense-voice"
ZIPFORMER_ADVICE: Final = f"run: {program()} models pull zipformer"
# FBANK bins of every published model; sherpa-onnx's default.
_BINS: Final = 80
# Of which precision a file is.
FilePrecision: TypeAlias = Literal["int8", "fp16", "fp32"]
_ON_CPU: Final[tuple[FilePrecision, ...]] = ("int8", "fp32", "fp16")
_SENSE_VOICE_NAMES: Final[dict[FilePrecision, str]] = {
    "int8": "model.int8.onnx",
    "fp16": "model.fp16.onnx",
    "fp32": "model.onnx",
}
_LANGUAGES: Final = ("auto", "zh", "en", "ja", "ko", "yue")


@dataclass(frozen=True, slots=True)
class SenseVoiceFiles:
    """A SenseVoice folder that is fit to load."""

    model: Path
    tokens: Path


@dataclass(frozen=True, slots=True)
class TransducerFiles:
    """A streaming transducer folder that is fit to load.

    Attributes:
        encoder: the file, like `decoder`, `joiner` and `tokens`.
        decoder: see `encoder`.
        joiner: see `encoder`.
        tokens: see `encoder`.
        kind: sherpa-onnx's model type: `zipformer` or `zipformer2`.
        chunk_frames: frames of 10 ms that one step of the encoder looks at.
        step_frames: by how many it goes on.
        symbols: the vocabulary by number.
    """

    encoder: Path
    decoder: Path
    joiner: Path
    tokens: Path
    kind: str
    chunk_frames: int
    step_frames: int
    symbols: tuple[str, ...]


def require_provider(provider: Provider) -> None:
    """Refuse an execution provider that this build of sherpa-onnx does not have.

    Raises:
        EngineError: this build has no CUDA.
    """
    if provider == "cuda" and (why := without_cuda("asr.provider")):
        raise EngineError(why)


def precisions(wanted: Precision, provider: Provider) -> Sequence[FilePrecision]:
    """Which files to look for, the best first. int8 is no faster with CUDA, and fp16 not on a CPU."""
    if wanted != "auto":
        return (wanted,)
    return _ON_CPU if provider == "cpu" else ("fp16", "fp32", "int8")


def find_sense_voice(folder: Path, wanted: Sequence[FilePrecision] = _ON_CPU) -> SenseVoiceFiles:
    """Find `model.int8.onnx`, `model.onnx` or `model.fp16.onnx` and `tokens.txt` in `folder` and validate them.

    Args:
        folder: as it was published; fp16 files have float32 inputs and outputs, as sherpa-onnx wants them.
        wanted: precisions, the best first.

    Raises:
        EngineError: something is missing or unfit; one line that names it.
    """
    _need_folder(folder, SENSE_VOICE_ADVICE)
    names = [_SENSE_VOICE_NAMES[precision] for precision in wanted]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        missing = f"neither {' nor '.join(names)}" if len(names) > 1 else f"no {names[0]} (asr.precision)"
        raise EngineError(f"{folder}: holds {missing}; {SENSE_VOICE_ADVICE}")
    model = ModelFile(path, SENSE_VOICE_ADVICE)
    if "Nano" in model.text("comment"):  # sherpa-onnx then feeds it another way
        raise model.wrong("is a Fun-ASR-Nano model, not SenseVoice")
    vocabulary = model.number("vocab_size", 1)
    window = model.number("lfr_window_size", 1)
    model.number("lfr_window_shift", 1)
    model.number("normalize_samples")
    normal = model.number("with_itn")
    model.number("without_itn")
    languages = [model.number(f"lang_{language}") for language in _LANGUAGES]
    width = window * _BINS
    model.floats("neg_mean", width)
    model.floats("inv_stddev", width)
    ids = [(name, "tensor(int32)", (None,)) for name in ("x_length", "language", "text_norm")]
    model.expect_inputs([("x", "tensor(float)", (None, None, width)), *ids])
    tokens = folder / "tokens.txt"
    read_tokens(tokens, vocabulary, SENSE_VOICE_ADVICE)
    frames = 10
    logits, *_ = model.run(
        {
            "x": np.zeros((1, frames, width), np.float32),
            "x_length": np.array([frames], np.int32),
            "language": np.array([languages[0]], np.int32),
            "text_norm": np.array([normal], np.int32),
        }
    )
    # Four frames come before the speech: language, emotion, event, text norm.
    if logits.dtype != np.float32 or logits.shape != (1, frames + 4, vocabulary):
        raise model.wrong(f"answers {frames} frames with {logits.shape}, not (1, {frames + 4}, {vocabulary})")
    return SenseVoiceFiles(path, tokens)


def find_transducer(folder: Path, wanted: Sequence[FilePrecision] = _ON_CPU) -> TransducerFiles:
    """Find and validate `encoder*.onnx`, `decoder*.onnx`, `joiner*.onnx` and `tokens.txt`.

    Args:
        folder: as it was published.
        wanted: precisions, the best first; the decoder is often published in one only, and is taken as it is.

    Raises:
        EngineError: something is missing or unfit; one line that names it.
    """
    _need_folder(folder, ZIPFORMER_ADVICE)
    encoder = ModelFile(_part(folder, "encoder", wanted), ZIPFORMER_ADVICE)
    decoder = ModelFile(_part(folder, "decoder", (*wanted, *_ON_CPU)), ZIPFORMER_ADVICE)
    joiner = ModelFile(_part(folder, "joiner", (*wanted, *_ON_CPU)), ZIPFORMER_ADVICE)

    kind = encoder.text("model_type")
    chunk = _check_encoder(encoder, kind)
    vocabulary = decoder.number("vocab_size", 1)
    context = decoder.number("context_size", 1)
    decoder.expect_inputs([("y", "tensor(int64)", (None, context))])
    tokens = folder / "tokens.txt"
    symbols = read_tokens(tokens, vocabulary, ZIPFORMER_ADVICE)

    # Run the three as a chain: what does not fit together shows here.
    heard = encoder.run(encoder.blank_feeds())[0]
    said = decoder.run({"y": np.zeros((1, context), np.int64)})[0]
    if heard.ndim != 3 or said.ndim not in (2, 3):
        raise encoder.wrong(f"and its decoder answer with {heard.shape} and {said.shape}, which is no transducer")
    said = said.reshape(1, -1)
    widths = (heard.shape[2], said.shape[1])
    takes = [port.shape[-1] if port.shape else None for port in joiner.inputs]
    if len(takes) != 2 or any(take not in (None, width) for take, width in zip(takes, widths, strict=True)):
        raise joiner.wrong(f"takes {takes} where its encoder and decoder give {list(widths)}: files of two models")
    first, second = joiner.inputs
    logits = joiner.run({first.name: heard[:, 0, :], second.name: said})[0]
    if logits.shape[-1] != vocabulary:
        raise joiner.wrong(f"knows {logits.shape[-1]} symbols, its decoder {vocabulary}: files of two models")
    step = encoder.number("decode_chunk_len", 1)
    parts = (encoder.path, decoder.path, joiner.path, tokens)
    return TransducerFiles(*parts, kind, chunk_frames=chunk, step_frames=step, symbols=tuple(symbols))


def _check_encoder(encoder: ModelFile, kind: str) -> int:
    """Check the metadata and the number of states of a streaming encoder; return the frames it looks at."""
    per_stack = {
        "zipformer": ("attention_dims", "num_encoder_layers", "cnn_module_kernels", "left_context_len"),
        "zipformer2": (
            "query_head_dims",
            "value_head_dims",
            "num_heads",
            "num_encoder_layers",
            "cnn_module_kernels",
            "left_context_len",
        ),
    }.get(kind)
    if per_stack is None:
        what = f"is of type {kind!r}" if kind else "has no model_type in its metadata"
        raise encoder.wrong(f"{what}; needed is a streaming zipformer or zipformer2")
    stacks = len(encoder.numbers("encoder_dims", 1))
    for key in per_stack:
        if len(encoder.numbers(key, 1)) != stacks:
            raise encoder.wrong(f"has a {key} in its metadata that does not match encoder_dims")
    chunk = encoder.number("T", 1)
    if encoder.number("decode_chunk_len", 1) > chunk:
        raise encoder.wrong("has a decode_chunk_len in its metadata above T")
    layers = sum(encoder.numbers("num_encoder_layers", 1))
    states = 7 * stacks if kind == "zipformer" else 6 * layers + 2
    shape = encoder.inputs[0].shape if encoder.inputs else ()
    if len(encoder.inputs) != 1 + states or len(encoder.outputs) != 1 + states or shape[1:] != (chunk, _BINS):
        raise encoder.wrong(f"takes {len(encoder.inputs)} inputs where its metadata promise {1 + states}")
    return chunk


def _part(folder: Path, name: str, wanted: Sequence[FilePrecision]) -> Path:
    """The file `name*.onnx` of the first precision that is there."""
    found = sorted(folder.glob(f"{name}*.onnx"), key=lambda path: path.name)
    for precision in wanted:
        for path in found:
            if _precision(path) == precision:
                return path
    which = f" ({wanted[0]}, asr.precision)" if found else ""
    raise EngineError(f"{folder}: holds no {name}*.onnx{which}; {ZIPFORMER_ADVICE}")


def _precision(path: Path) -> FilePrecision:
    return "int8" if "int8" in path.name else "fp16" if "fp16" in path.name else "fp32"


def _need_folder(folder: Path, advice: str) -> None:
    if not folder.is_dir():
        raise EngineError(f"{folder}: no such folder; {advice}")
    if not any(folder.iterdir()):
        raise EngineError(f"{folder}: is empty; {advice}")
