"""Whether this build of sherpa-onnx has the wanted execution provider."""

from pathlib import Path

import sherpa_onnx

from xiaozhi.settings.section import Provider
from xiaozhi.stages.asr.engine import EngineError


def require_provider(provider: Provider) -> None:
    """Refuse a provider that is not there: sherpa-onnx itself would fall back to the CPU with a line on standard error.

    Raises:
        EngineError: this build has no CUDA.
    """
    if provider == "cpu":
        return
    libraries = Path(sherpa_onnx.__file__).parent / "lib"
    if not any(libraries.glob("*onnxruntime_providers_cuda*")):
        raise EngineError(
            'asr.provider = "cuda" needs sherpa-onnx built for CUDA, which this one is not; '
            'install its +cuda wheel or set asr.provider = "cpu"'
        )
