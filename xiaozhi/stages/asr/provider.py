"""Whether this build of sherpa-onnx has the wanted execution provider."""

from xiaozhi.models.sherpa_build import without_cuda
from xiaozhi.settings.section import Provider
from xiaozhi.stages.asr.engine import EngineError


def require_provider(provider: Provider) -> None:
    """Refuse a provider that is not there.

    Raises:
        EngineError: this build has no CUDA.
    """
    if provider == "cuda" and (why := without_cuda("asr.provider")):
        raise EngineError(why)
