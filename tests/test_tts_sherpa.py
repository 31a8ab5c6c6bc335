"""Local voices through the real sherpa-onnx, with a small model in the layout of a VITS voice."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.sounds import heard, loudest_hz
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.settings import SherpaVoiceSettings
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.sherpa import SherpaVoice
from xiaozhi.stages.tts.sherpa_files import default_voice_dir, voice_files

RATE_HZ = 22_050
SAMPLES_PER_TOKEN = 2205
VITS_METADATA = {
    "sample_rate": RATE_HZ,
    "n_speakers": 2,
    "language": "Chinese",
    "comment": "test",
    "frontend": "characters",
    "add_blank": 0,
    "use_eos_bos": 0,
}


def write_model(path: Path, metadata: dict[str, object]) -> None:
    """A network with the inputs and the output of a VITS voice that says 0.1 s of 440 Hz for each token."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.INT64, [1, "tokens"]),
        helper.make_tensor_value_info("x_length", TensorProto.INT64, [1]),
        *(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
            for name in ("noise_scale", "length_scale", "noise_scale_w")
        ),
    ]
    constants = {
        "samples_per_token": np.int64(SAMPLES_PER_TOKEN),
        "zero": np.int64(0),
        "one": np.int64(1),
        "step": np.float32(2 * np.pi * 440 / RATE_HZ),
        "volume": np.float32(0.4),
        "shape": np.array([1, 1, -1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["x_length", "zero"], ["tokens"], axis=0),
        helper.make_node("Mul", ["tokens", "samples_per_token"], ["samples"]),
        helper.make_node("Range", ["zero", "samples", "one"], ["index"]),
        helper.make_node("Cast", ["index"], ["time"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["time", "step"], ["phase"]),
        helper.make_node("Sin", ["phase"], ["wave"]),
        helper.make_node("Mul", ["wave", "volume"], ["loud"]),
        helper.make_node("Reshape", ["loud", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "vits",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "samples"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.save(model, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "matcha-zh"
    path.mkdir()
    write_model(path / "model.onnx", VITS_METADATA)
    tokens = "".join(f"{char} {number}\n" for number, char in enumerate("你好吗天气!."))
    (path / "tokens.txt").write_text(tokens, "utf-8")
    return path


def voice_in(folder: Path, **settings: object) -> SherpaVoice:
    return SherpaVoice(SherpaVoiceSettings.model_validate({"model_dir": folder} | settings), folder.parent)


async def test_it_speaks(folder: Path) -> None:
    voice = voice_in(folder)
    pcm = await heard(voice.speak("你好吗", language="zh"))
    assert pcm.dtype == np.int16
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(0.3, abs=0.01)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(440, abs=3)
    assert np.abs(pcm).max() == pytest.approx(0.4 * 32768, rel=0.03)
    await voice.close()


async def test_sentences_come_one_by_one(folder: Path) -> None:
    voice = voice_in(folder)
    pieces = [len(piece) async for piece in voice.speak("你好!天气好!你好吗", language="zh")]
    assert len(pieces) == 4  # three sentences and what was inside the resampler
    assert sum(pieces) / DOWNLINK_RATE_HZ == pytest.approx(1.0, abs=0.01)
    await voice.close()


async def test_closing_stops_the_model_after_the_sentence_it_is_at(folder: Path) -> None:
    voice = voice_in(folder)
    pieces = voice.speak("你好!" * 2000, language="zh")
    await anext(pieces)
    await pieces.aclose()
    # One thread: this is spoken only when the other text has ended.
    async with asyncio.timeout(20):
        assert len(await heard(voice.speak("你好", language="zh"))) > 2000
    await voice.close()


async def test_a_text_that_waits_and_is_not_wanted_any_more_is_never_spoken(folder: Path) -> None:
    voice = voice_in(folder)
    texts = [voice.speak("你好!你好!", language="zh") for _ in range(3)]
    tasks = [asyncio.create_task(heard(text)) for text in texts]
    await asyncio.sleep(0)
    tasks[1].cancel()
    first, cancelled, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(first, np.ndarray) and isinstance(last, np.ndarray)
    assert len(first) == len(last) > 0
    await voice.close()


async def test_text_the_model_does_not_know_is_silent(folder: Path) -> None:
    voice = voice_in(folder)
    assert len(await heard(voice.speak("xyz", language="en"))) == 0
    await voice.warm()
    await voice.close()


def test_the_best_voice_that_is_there_is_found(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "vits-zh-ll").mkdir()
    assert default_voice_dir(tmp_path) == folder
    assert SherpaVoice(SherpaVoiceSettings(), tmp_path).about == "vits matcha-zh, local"
    with pytest.raises(VoiceError, match=r"no voice in .*xiaozhi models pull matcha-zh"):
        default_voice_dir(tmp_path / "elsewhere")


def test_a_speaker_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(VoiceError, match="has 2 speakers, so none is 5"):
        voice_in(folder, speaker=5)


def _write(name: str, content: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def _metadata(**changes: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        metadata = {key: value for key, value in (VITS_METADATA | changes).items() if value is not None}
        write_model(folder / "model.onnx", metadata)

    return write


def _truncate(folder: Path) -> None:
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-40])


def _vocoder(model_type: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_model(folder / "model.onnx", VITS_METADATA | {"use_eos_bos": 1, "pad_id": 0, "jieba": 1})
        (folder / "lexicon.txt").write_text("你 n i\n")
        write_model(folder / "vocos-22khz-univ.onnx", {"model_type": model_type})

    return write


def _matcha_without_vocoder(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "model-steps-3.onnx")
    write_model(folder / "model-steps-3.onnx", VITS_METADATA | {"use_eos_bos": 1, "pad_id": 0, "jieba": 1})


def _kokoro(folder: Path) -> None:
    write_model(folder / "model.onnx", VITS_METADATA | {"has_espeak": 1, "style_dim": "510,1,256"})
    (folder / "voices.bin").write_bytes(bytes(1000))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "matcha-zh: the folder does not exist"),
        (lambda folder: (folder / "tokens.txt").unlink(), r"tokens\.txt: No such file"),
        (_write("tokens.txt", ""), r"tokens\.txt: is empty"),
        (_write("tokens.txt", "你 0\n好 x\n"), r"tokens\.txt: line 2 is not"),
        (_write("tokens.txt", b"\xff\xfe\x00"), r"tokens\.txt: is not UTF-8"),
        (lambda folder: (folder / "model.onnx").unlink(), "holds no model"),
        (_write("model.onnx", b""), r"model\.onnx: is not a whole ONNX model"),
        (_truncate, r"model\.onnx: is not a whole ONNX model"),
        (_metadata(sample_rate=None), "no 'sample_rate' in its metadata"),
        (_metadata(comment=None), "no 'comment' in its metadata"),
        (_metadata(sample_rate="fast"), "sample_rate is 'fast'"),
        (_metadata(sample_rate=0), "sample_rate is 0"),
        (_metadata(frontend=None), r"lexicon\.txt: is missing or empty"),
        (_vocoder("vovos"), r"vocos-22khz-univ\.onnx: is not a vocoder"),
        (_matcha_without_vocoder, "needs a vocoder beside it"),
        (_kokoro, r"voices\.bin: has 1000 bytes, not 1044480"),
    ],
)
def test_a_damaged_voice_is_named_before_sherpa_sees_it(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(VoiceError, match=message) as caught:
        voice_in(folder)
    assert "xiaozhi models pull" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_matcha_voice_finds_its_vocoder_beside_it(folder: Path) -> None:
    _matcha_without_vocoder(folder)
    (folder / "lexicon.txt").write_text("你 n i\n")
    for name in ("hifigan_v2.onnx", "vocos-16khz-univ.onnx", "vocos-22khz-univ.onnx"):
        write_model(folder.parent / name, {"model_type": "hifigan" if "hifigan" in name else "vocos"})
    (folder / "phone.fst").write_bytes(b"fst")
    files = voice_files(folder)
    assert (files.kind, files.rate_hz) == ("matcha", RATE_HZ)
    assert Path(files.vocoder).name == "vocos-22khz-univ.onnx"
    assert Path(files.lexicon).name == "lexicon.txt"
    assert files.rules.endswith("phone.fst")
