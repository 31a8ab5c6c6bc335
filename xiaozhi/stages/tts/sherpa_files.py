"""The files of a local voice, checked before sherpa-onnx sees them: it ends the whole process on some bad ones.

What is required of each kind was read in sherpa-onnx's C++ sources (offline-tts-*-model.cc, lexicon.cc, vocoder.cc).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from xiaozhi.models.onnx_session import ORT_ERRORS, quiet_session
from xiaozhi.program import program
from xiaozhi.stages.tts.engine import VoiceError

Kind: TypeAlias = Literal["matcha", "vits", "kokoro"]

KNOWN_FOLDERS: Final = (
    *("matcha-zh", "matcha-icefall-zh-en", "matcha-icefall-zh-baker"),
    *("vits-zh-ll", "sherpa-onnx-vits-zh-ll", "vits-icefall-zh-aishell3", "kokoro-multi-lang-v1_0"),
)
"""Where a voice is looked for under `models.dir` when no folder is named, best first."""

_REQUIRED: Final[dict[Kind, tuple[str, ...]]] = {
    "vits": ("sample_rate", "n_speakers", "language", "comment"),
    "matcha": ("sample_rate", "n_speakers", "use_eos_bos", "pad_id"),
    "kokoro": ("sample_rate", "n_speakers", "has_espeak", "style_dim"),
}
_RULES: Final = ("phone*.fst", "date*.fst", "number*.fst", "new_heteronym*.fst")
_ESPEAK_FILES: Final = ("phontab", "phonindex", "phondata", "intonations")
_VOCODER_KINDS: Final = ("hifigan", "vocos", "matcha-tts vocos")


@dataclass(frozen=True, slots=True)
class VoiceFiles:
    """A voice that can be loaded. Paths that the model has no use for are empty.

    Attributes:
        kind: which family of models.
        model: the network that takes text.
        tokens, lexicon, data_dir, dict_dir: what turns text into its input.
        voices: Kokoro's speakers.
        vocoder: Matcha's second network.
        rules: comma-separated FSTs that spell numbers and dates.
        rate_hz, speakers: of the model.
    """

    kind: Kind
    model: str
    tokens: str
    lexicon: str
    data_dir: str
    dict_dir: str
    voices: str
    vocoder: str
    rules: str
    rate_hz: int
    speakers: int


def default_voice_dir(models_dir: Path) -> Path:
    """The folder of the best known voice that is there.

    Raises:
        VoiceError: there is none; says how to get one.
    """
    for name in KNOWN_FOLDERS:
        if (models_dir / name).is_dir():
            return models_dir / name
    raise VoiceError(f"sherpa: no voice in {models_dir}; get one with: {program()} models pull matcha-zh")


def voice_files(folder: Path) -> VoiceFiles:
    """Find and check the files of a voice as published.

    Raises:
        VoiceError: something is missing, empty or damaged; names the file and what to do.
    """
    if not folder.is_dir():
        raise _bad(folder, "the folder does not exist")
    tokens = _tokens(folder)
    voices = folder / "voices.bin"
    model = _model(folder, kokoro=voices.exists())
    kind: Kind = "vits"
    if voices.exists():
        kind = "kokoro"
    elif model.name.startswith("model-steps") or any(_is_vocoder(path) for path in folder.glob("*.onnx")):
        kind = "matcha"
    metadata = _metadata(model)
    for key in _REQUIRED[kind]:
        if key not in metadata:
            raise _bad(model, f"is not a {kind} voice for sherpa-onnx: no {key!r} in its metadata")
    rate_hz = _number(model, metadata, "sample_rate")
    speakers = _number(model, metadata, "n_speakers")
    if kind == "kokoro":
        _check_speakers(voices, model, metadata, speakers)
    vocoder = str(_checked_vocoder(folder)) if kind == "matcha" else ""
    lexicon = ",".join(str(path) for path in sorted(folder.glob("lexicon*.txt")) if path.stat().st_size)
    data_dir = folder / "espeak-ng-data"
    _check_frontend(folder, kind, metadata, lexicon, data_dir)
    dict_dir = folder / "dict"
    return VoiceFiles(
        kind=kind,
        model=str(model),
        tokens=str(tokens),
        lexicon=lexicon,
        data_dir=str(data_dir) if data_dir.is_dir() else "",
        # Only releases before 1.12.15 want it, and refuse it where the model was not made for it.
        dict_dir=str(dict_dir) if dict_dir.is_dir() and metadata.get("jieba", "0") != "0" else "",
        voices=str(voices) if kind == "kokoro" else "",
        vocoder=vocoder,
        rules=",".join(str(path) for rule in _RULES for path in sorted(folder.glob(rule)) if path.stat().st_size),
        rate_hz=rate_hz,
        speakers=speakers,
    )


def _bad(path: Path, what: str) -> VoiceError:
    return VoiceError(f"sherpa: {path}: {what}; get a voice with: {program()} models pull matcha-zh")


def _number(model: Path, metadata: dict[str, str], key: str) -> int:
    try:
        value = int(metadata[key])
    except ValueError as error:
        raise _bad(model, f"{key} is {metadata[key]!r} in its metadata, not a number") from error
    if value < (1 if key == "sample_rate" else 0):
        raise _bad(model, f"{key} is {value} in its metadata")
    return value


def _model(folder: Path, *, kokoro: bool) -> Path:
    """The network that takes text; the smaller int8 file only where there is no other."""
    found = [path for path in folder.glob("*.onnx") if not _is_vocoder(path)]
    if not found:
        raise _bad(folder, "holds no model (*.onnx)")
    found.sort(key=lambda path: (".int8." in path.name and not kokoro, not path.name.startswith("model"), path.name))
    return found[0]


def _is_vocoder(path: Path) -> bool:
    return path.name.startswith(("vocos", "hifigan"))


def _vocoder(folder: Path) -> Path:
    """In the voice's folder, or beside it: vocoders are published on their own."""
    found = [path for place in (folder, folder.parent) for path in sorted(place.glob("*.onnx")) if _is_vocoder(path)]
    if not found:
        raise _bad(folder, "a Matcha voice needs a vocoder beside it (vocos-22khz-univ.onnx)")
    # The published pairs: the bilingual voice speaks at 16 kHz, the others at 22.05 kHz.
    low_rate = "zh-en" in folder.name
    return min(
        found, key=lambda path: (("16khz" in path.name) != low_rate, path.parent != folder, "vocos" not in path.name)
    )


def _tokens(folder: Path) -> Path:
    path = folder / "tokens.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise _bad(path, error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise _bad(path, "is not UTF-8 text") from error
    if not any(line.strip() for line in lines):
        raise _bad(path, "is empty")
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if len(parts) not in (1, 2) or not parts[-1].isdecimal():  # one part: the token is a blank
            raise _bad(path, f'line {number} is not "token number"')
    return path


def _metadata(model: Path) -> dict[str, str]:
    """The model's own description; opening it finds truncated files as well."""
    try:
        session = quiet_session(model, optimize=False)
    except ORT_ERRORS as error:
        raise _bad(model, f"is not a whole ONNX model ({str(error).splitlines()[0][:160]})") from error
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return found


def _checked_vocoder(folder: Path) -> Path:
    vocoder = _vocoder(folder)
    kind = _metadata(vocoder).get("model_type", "")
    if kind not in _VOCODER_KINDS:
        raise _bad(vocoder, f"is not a vocoder for sherpa-onnx (model_type {kind!r})")
    return vocoder


def _check_speakers(voices: Path, model: Path, metadata: dict[str, str], speakers: int) -> None:
    try:
        frames, one, width = (int(part) for part in metadata["style_dim"].split(","))
    except ValueError as error:
        raise _bad(model, f"style_dim is {metadata['style_dim']!r} in its metadata") from error
    wanted = 4 * frames * width * speakers
    if one != 1 or voices.stat().st_size != wanted:
        raise _bad(voices, f"has {voices.stat().st_size} bytes, not {wanted}")


def _check_frontend(folder: Path, kind: Kind, metadata: dict[str, str], lexicon: str, data_dir: Path) -> None:
    """Whether what turns text into tokens is there."""
    if data_dir.is_dir():
        for name in _ESPEAK_FILES:
            if not (data_dir / name).is_file():
                raise _bad(data_dir / name, "is missing")
    voice = metadata.get("voice", "")
    spelled = metadata.get("frontend") == "characters"
    phonemised = any(name in metadata.get("comment", "") for name in ("piper", "coqui", "icefall"))
    match kind:
        case "vits":
            if not spelled and not lexicon and not (phonemised and data_dir.is_dir()):
                raise _bad(folder / "lexicon.txt", "is missing or empty")
        case "matcha":
            chinese = metadata.get("jieba", "0") != "0" or "zh" in voice
            if chinese and not lexicon:
                raise _bad(folder / "lexicon.txt", "is missing or empty")
            if not chinese and metadata.get("has_espeak", "0") == "0":
                raise _bad(folder, "a Matcha voice of a kind that sherpa-onnx does not know")
            if ("zh en" in voice or not chinese) and not data_dir.is_dir():
                raise _bad(data_dir, "is missing")
        case "kokoro":
            if not data_dir.is_dir():
                raise _bad(data_dir, "is missing")
            if int(metadata.get("version", "1")) >= 2 and not lexicon:
                raise _bad(folder / "lexicon-zh.txt", "is missing or empty")
