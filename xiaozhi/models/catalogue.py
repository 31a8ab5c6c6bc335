"""The published models that `xiaozhi models` knows: their files, where they lie, and the folder each belongs in.

File names and repositories are those of the publishers' own listings (k2-fsa releases, csukuangfj and k2-fsa on Hugging
Face). Archives hold more than is needed (fp32 weights, test sounds); only `Model.files` are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from xiaozhi.settings.operation import Mirror

Role: TypeAlias = Literal["recognition", "voice"]

_RELEASES = "https://github.com/k2-fsa/sherpa-onnx/releases/download"
_MODELSCOPE = "https://www.modelscope.cn/models/pengzhendong/sherpa-onnx-sense-voice-zh-en-ja-ko-yue/resolve/master"
_HUGGING_FACE: dict[Mirror, str] = {"huggingface": "https://huggingface.co", "hf-mirror": "https://hf-mirror.com"}


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch.

    Attributes:
        url: where it lies.
        file: its name in the model's folder; empty for an archive, whose needed members are unpacked.
    """

    url: str
    file: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked."""
        return not self.file


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One mirror's way to the whole model.

    Attributes:
        mirror: its name.
        downloads: all that has to be fetched.
        wasteful: it brings several times what is needed, so it is only tried when the others fail.
    """

    mirror: str
    downloads: tuple[Download, ...]
    wasteful: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A published model.

    Attributes:
        name: what one types.
        role: what it is for.
        about: one line for people.
        size_mb: what it takes on disk, roughly, in MB of 10^6 bytes.
        files: every file that must be there, relative to the folder.
        sources: where it can be fetched.
        settings: the line of `settings.toml` that uses it; empty when it is found by itself.
        sha256: known checksums of files, where several publications agree on them.
        about_zh: `about` in Chinese.
    """

    name: str
    role: Role
    about: str
    size_mb: int
    files: tuple[str, ...]
    sources: tuple[ModelSource, ...]
    settings: str = ""
    sha256: tuple[tuple[str, str], ...] = ()
    about_zh: str = ""

    def folder(self, models_dir: Path) -> Path:
        """Where it lies under `models.dir`."""
        return models_dir / self.name

    def missing(self, models_dir: Path) -> list[str]:
        """The files that are not there, or empty; all of them where nobody may look."""
        folder = self.folder(models_dir)
        try:
            return [file for file in self.files if not (folder / file).is_file() or not (folder / file).stat().st_size]
        except OSError:
            return list(self.files)

    def installed(self, models_dir: Path) -> bool:
        """Whether every file is there."""
        return not self.missing(models_dir)

    def sources_in(self, mirrors: Sequence[str]) -> list[ModelSource]:
        """The sources in the order of `mirrors`, wasteful ones last; several of one mirror stay in their order."""
        chosen = [source for mirror in mirrors for source in self.sources if source.mirror == mirror]
        return sorted(chosen, key=lambda source: source.wasteful)

    def source_at(self, base_url: str) -> ModelSource:
        """A private copy: the address of an archive, or of a folder that holds the files one by one."""
        if base_url.endswith((".tar.bz2", ".tar.gz", ".tar.xz", ".tar", ".zip")):
            return ModelSource(base_url, (Download(base_url),))
        return ModelSource(base_url, tuple(Download(f"{base_url.rstrip('/')}/{file}", file) for file in self.files))


def _hugging_face(repository: str, files: Sequence[str]) -> tuple[ModelSource, ...]:
    return tuple(
        ModelSource(mirror, tuple(Download(f"{host}/{repository}/resolve/main/{file}", file) for file in files))
        for mirror, host in _HUGGING_FACE.items()
    )


def _zipformer(name: str, published: str, about: tuple[str, str], size_mb: int, settings: str = "") -> Model:
    files = (
        "encoder-epoch-99-avg-1.int8.onnx",
        "decoder-epoch-99-avg-1.onnx",  # the int8 decoder saves nothing and is less exact
        "joiner-epoch-99-avg-1.int8.onnx",
        "tokens.txt",
    )
    return Model(
        name,
        "recognition",
        about[0],
        size_mb,
        files,
        (
            # The archive also holds the fp32 encoder: several times as much to fetch.
            ModelSource("github", (Download(f"{_RELEASES}/asr-models/{published}.tar.bz2"),), wasteful=True),
            *_hugging_face(f"csukuangfj/{published}", files),
        ),
        settings or f'[asr] engine = "zipformer", model_dir = "models/{name}"',
        about_zh=about[1],
    )


_SENSE_VOICE_FILES = ("model.int8.onnx", "tokens.txt")
_MATCHA_FILES = ("model-steps-3.onnx", "lexicon.txt", "tokens.txt", "date.fst", "number.fst", "phone.fst")
_VOCODER = "vocos-22khz-univ.onnx"
_VITS_FILES = ("model.onnx", "lexicon.txt", "tokens.txt", "date.fst", "number.fst", "phone.fst", "new_heteronym.fst")

MODELS: tuple[Model, ...] = (
    Model(
        "sense-voice",
        "recognition",
        "SenseVoice Small int8: Chinese, English, Japanese, Korean, Cantonese; hears emotion too",
        240,
        _SENSE_VOICE_FILES,
        (
            ModelSource(
                "github",
                (Download(f"{_RELEASES}/asr-models/sherpa-onnx-sense-voice-zh-en-ja-ko-yue-int8-2024-07-17.tar.bz2"),),
            ),
            # The int8 file lies in the repository of all precisions.
            *_hugging_face("csukuangfj/sherpa-onnx-sense-voice-zh-en-ja-ko-yue-2024-07-17", _SENSE_VOICE_FILES),
            ModelSource("modelscope", tuple(Download(f"{_MODELSCOPE}/{file}", file) for file in _SENSE_VOICE_FILES)),
        ),
        about_zh="SenseVoice Small int8：中文、英文、日文、韩文、粤语，还能听出情绪",
    ),
    _zipformer(
        "zipformer",
        "sherpa-onnx-streaming-zipformer-small-bilingual-zh-en-2023-02-16",
        ("streaming, Chinese and English, small: fits a 4-core box best", "流式，中英文，小巧：最适合四核机器"),
        65,
        '[asr] engine = "zipformer"',
    ),
    _zipformer(
        "zipformer-bilingual",
        "sherpa-onnx-streaming-zipformer-bilingual-zh-en-2023-02-20",
        ("streaming, Chinese and English, larger and better", "流式，中英文，更大更准"),
        200,
    ),
    _zipformer(
        "zipformer-zh-14m",
        "sherpa-onnx-streaming-zipformer-zh-14M-2023-02-23",
        ("streaming, Chinese, tiny", "流式，中文，极小"),
        25,
    ),
    _zipformer(
        "zipformer-en-20m",
        "sherpa-onnx-streaming-zipformer-en-20M-2023-02-17",
        ("streaming, English, tiny", "流式，英文，极小"),
        45,
    ),
    Model(
        "matcha-zh",
        "voice",
        "Matcha, Mandarin, one woman, natural (for non-commercial use: Baker corpus)",
        130,
        (*_MATCHA_FILES, _VOCODER),
        (
            ModelSource(
                "github",
                (
                    Download(f"{_RELEASES}/tts-models/matcha-icefall-zh-baker.tar.bz2"),
                    Download(f"{_RELEASES}/vocoder-models/{_VOCODER}", _VOCODER),
                ),
            ),
            *(
                ModelSource(
                    source.mirror,
                    (
                        *source.downloads,
                        Download(
                            f"{host}/k2-fsa/sherpa-onnx-models/resolve/main/vocoder-models/{_VOCODER}",
                            _VOCODER,
                        ),
                    ),
                )
                for source, host in zip(
                    _hugging_face("csukuangfj/matcha-icefall-zh-baker", _MATCHA_FILES),
                    _HUGGING_FACE.values(),
                    strict=True,
                )
            ),
        ),
        '[tts] engines = ["sherpa", "espeak"]; [tts.sherpa] model_dir = "models/matcha-zh"',
        about_zh="Matcha，普通话女声，自然（Baker 语料，仅限非商业用途）",
    ),
    Model(
        "vits-zh-ll",
        "voice",
        "VITS, Mandarin, several voices, small and fast",
        122,
        _VITS_FILES,
        (
            ModelSource("github", (Download(f"{_RELEASES}/tts-models/sherpa-onnx-vits-zh-ll.tar.bz2"),)),
            *_hugging_face("csukuangfj/sherpa-onnx-vits-zh-ll", _VITS_FILES),
        ),
        '[tts] engines = ["sherpa", "espeak"]; [tts.sherpa] model_dir = "models/vits-zh-ll"',
        about_zh="VITS，普通话，多个声音，小而快",
    ),
)
"""Every known model, in the order in which `xiaozhi models list` shows them."""


def find(name: str) -> Model | None:
    """The model of that name, `None` when there is none."""
    return next((model for model in MODELS if model.name == name), None)
