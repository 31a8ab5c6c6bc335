"""Opening ONNX files to look at them: one thread, and no word on stderr about what is wrong, which is for us to say.

sherpa-onnx ends the whole process on files it does not like; onnxruntime raises. So every file is opened here before
sherpa-onnx sees it.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Final

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _errors

# onnxruntime's errors share no base class of their own.
ORT_ERRORS: Final = (
    _errors.Fail,
    _errors.EPFail,
    _errors.InvalidArgument,
    _errors.InvalidGraph,
    _errors.InvalidProtobuf,
    _errors.NoModel,
    _errors.NoSuchFile,
    _errors.NotImplemented,
    _errors.RuntimeException,
    RuntimeError,  # what pybind11 makes of C++ exceptions onnxruntime has no class for
    ValueError,
)
"""What opening and running a file that is missing, truncated, garbage or unfit raises."""

_SILENT: Final = 4  # log severity: fatal only


def quiet_session(path: Path, *, optimize: bool = True, prepack: bool = False) -> onnxruntime.InferenceSession:
    """Open a model on the CPU with one thread. Blocking: seconds for a full-size model.

    Args:
        path: the file.
        optimize: fuse the graph. Loading takes time by the square of the nodes that are left: measured for SenseVoice
            2 s with fusions, 10 s without any. Only a model of few nodes that is not run loads faster without.
        prepack: keep weights as the fastest kernels want them as well; for a model that is run in earnest.

    Raises:
        ORT_ERRORS: the file is no complete model.
    """
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    if not optimize:
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
    else:
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if prepack else levels.ORT_ENABLE_EXTENDED
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def digest_of(path: Path) -> str:
    """By what is in a file, in hexadecimal; read once for each state of it. Blocking: 0.3 s for a full-size model.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=32)
def _digest(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
