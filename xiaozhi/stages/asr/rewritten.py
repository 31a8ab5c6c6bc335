"""A copy of the published int8 SenseVoice that this CPU runs in half the time, made once and proven before it is used.

Two rewrites: signed weights (`signed_weights`, only with VNNI, bit-identical) and cheaper layers (`cheaper_layers`, the
same but for rounding). Measured on a full-size model through sherpa-onnx 2.0, one thread, CPU milliseconds for 3 s of
audio: 242 as published, 96 to 100 with signed weights, 76 with both (Intel with AMX, whose int8 tiles the signed kernel
uses as well); signed weights alone 201 to 116 on an AMD EPYC with AVX512-VNNI.

What did not help: a graph optimised and saved beforehand (loading takes as long, decoding is 1 % faster), running
without the memory arena or memory patterns.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from xiaozhi.models.onnx_session import ORT_ERRORS, digest_of, quiet_session
from xiaozhi.overload.cpu import CpuClass, cpu_class
from xiaozhi.overload.usage import give_back
from xiaozhi.stages.asr.cheaper_layers import cheapen
from xiaozhi.stages.asr.signed_weights import sign_weights
from xiaozhi.text.one_line import one_line

_log = logging.getLogger(__name__)
_PROBE_FRAMES: Final = 40
# Activations are rounded to 8 bit, so a difference in the last bit of a float is enough to move logits visibly. How far
# is fair is asked of the original itself: its input is changed by a hundred-thousandth, 100 dB below the signal and far
# below any microphone's noise. Measured on a full-size model: that moves the mean logit by 0.026, the rewrite by 0.023.
_SHAKE: Final = 1e-5
_FAIR: Final = 3.0
_FORMAT: Final = "2"


def fastest(model: Path) -> Path:
    """The file to load instead of `model`: its rewritten copy where that is proven, else `model` itself.

    Blocking. A copy that exists costs the time of reading `model` once; making it takes some seconds and twice the
    model's memory. Nothing here is an error: what stands in the way is logged, and the original is as right.

    Args:
        model: an int8 SenseVoice file that is fit to load. The copy goes beside it, or into the user's cache folder
            where that is read-only.
    """
    if ".int8." not in model.name:
        return model
    vnni = cpu_class() is CpuClass.VNNI
    try:
        name = f"{model.name.removesuffix('.onnx')}.rewritten-{_fingerprint(model, vnni)}.onnx"
        for folder in _places(model):
            if (folder / name).is_file():
                return folder / name
        return _make(model, name, vnni) or model
    except (OSError, ValueError, *ORT_ERRORS) as error:
        _log.warning("%s: not rewritten for this CPU (%s)", model, one_line(error))
        return model


def _fingerprint(model: Path, vnni: bool) -> str:
    """Changes with the file's content, and with the way of rewriting and the kind of CPU."""
    return hashlib.blake2b(f"{_FORMAT} {vnni} {digest_of(model)}".encode(), digest_size=8).hexdigest()


def _places(model: Path) -> tuple[Path, Path]:
    """Where the copy may lie: beside the model, in the cache folder (systemd's, the user's)."""
    cache = os.environ.get("CACHE_DIRECTORY") or os.environ.get("XDG_CACHE_HOME")
    return model.parent, (Path(cache) if cache else Path.home() / ".cache") / "xiaozhi"


def _make(model: Path, name: str, vnni: bool) -> Path | None:
    """Rewrite, compare, put into place; None where there is nothing to rewrite or nothing comes out the same."""
    beside, cache = _places(model)
    folder = beside if os.access(beside, os.W_OK) else cache
    folder.mkdir(parents=True, exist_ok=True)
    handle, name_of_part = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    os.close(handle)
    part = Path(name_of_part)
    ways: list[tuple[Callable[[Any], int], ...]] = [(sign_weights, cheapen), (sign_weights,)] if vnni else [(cheapen,)]
    try:
        for passes in ways:
            if _rewrite(model, part, passes) and _same(model, part):
                part.chmod(0o644)
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                part.replace(folder / name)
                break
        else:
            return None
    finally:
        part.unlink(missing_ok=True)
        give_back()
    for old in folder.glob(f"{model.name.removesuffix('.onnx')}.rewritten-*.onnx"):
        if old.name != name:  # of an earlier file under the same name
            old.unlink(missing_ok=True)
    return folder / name


def _rewrite(model: Path, part: Path, passes: tuple[Callable[[Any], int], ...]) -> bool:
    """Write `model` to `part` after `passes`; False where they found nothing to do."""
    copy = onnx.load(model)
    counts = {one.__name__: one(copy) for one in passes}
    if not any(counts.values()):
        _log.info("%s: has nothing to rewrite", model)
        return False
    _log.info("%s: rewriting it for this CPU, once (%s)", model, counts)
    onnx.save(copy, part)
    return True


def _same(model: Path, copy: Path) -> bool:
    """Whether a copy may stand for a model: `shift` is fair."""
    found = shift(model, copy)
    if found > _FAIR:
        _log.warning("%s: its rewrite moves it %g times as far as a breath of noise and is not used", model, found)
        return False
    return True


def shift(model: Path, copy: Path) -> float:
    """How far the logits of a copy lie from the model's, in units of what a breath of noise does to the model itself.

    0 when they are the same to the last bit; infinite where a frame that the noise leaves alone gets another best
    token, or the copy's logits are none. The files are loaded one after the other, so memory is claimed for one at a
    time.
    """
    before, moved = _logits(model, 0.0, _SHAKE)
    (after,) = _logits(copy, 0.0)
    if after.shape != before.shape or not np.isfinite(after).all():
        return float("inf")
    if np.array_equal(before, after):
        return 0.0
    best = before.argmax(-1)
    if (after.argmax(-1) != best)[moved.argmax(-1) == best].any():
        return float("inf")
    noise = float(np.abs(before - moved).mean())
    return float(np.abs(before - after).mean()) / noise if noise else float("inf")


def _logits(path: Path, *shakes: float) -> list[NDArray[np.float32]]:
    """The logits of one and the same probe, shaken by each of these shares of itself."""
    session = quiet_session(path, prepack=True)
    width = session.get_inputs()[0].shape[2]
    with_itn = int(session.get_modelmeta().custom_metadata_map["with_itn"])
    dice = np.random.default_rng(0)
    probe, noise = dice.standard_normal((2, 1, _PROBE_FRAMES, width), np.float32)
    rest = {
        "x_length": np.array([_PROBE_FRAMES], np.int32),
        "language": np.zeros(1, np.int32),
        "text_norm": np.array([with_itn], np.int32),
    }
    return [session.run(None, {"x": probe + probe * noise * np.float32(shake), **rest})[0] for shake in shakes]
