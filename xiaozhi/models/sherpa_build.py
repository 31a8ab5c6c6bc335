"""What this build of sherpa-onnx can do, and where the one for CUDA is."""

from pathlib import Path
from typing import Final

import sherpa_onnx

# The project publishes its CUDA wheels on this page, not on PyPI.
_CUDA_WHEELS: Final = "https://k2-fsa.github.io/sherpa/onnx/cuda.html"


def without_cuda(setting: str) -> str:
    """Why `setting = "cuda"` cannot be obeyed, one line that names the wheel to install; empty when it can.

    sherpa-onnx itself would fall back to the CPU with a line on standard error.
    """
    libraries = Path(sherpa_onnx.__file__).parent / "lib"
    if any(libraries.glob("*onnxruntime_providers_cuda*")):
        return ""
    version = str(getattr(sherpa_onnx, "__version__", "")) or "VERSION"
    return (
        f'{setting} = "cuda" needs sherpa-onnx built for CUDA, which this one is not; install its +cuda wheel '
        f'(pip install "sherpa-onnx=={version.partition("+")[0]}+cuda" -f {_CUDA_WHEELS}) or set {setting} = "cpu"'
    )
