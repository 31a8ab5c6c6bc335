"""A toy recogniser: this file and its settings are all there is."""

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.recogniser import RecognizerContext


class Parrot(OfflineRecognizer):
    """Hears its sentence in everything."""

    name = "parrot"
    languages = frozenset({"en"})

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        self.about = f"parrot, says {sentence!r}"

    @classmethod
    def build(cls, context: RecognizerContext) -> "Parrot":
        """With the sentence of `[asr.parrot]`."""
        return cls(context.settings.parrot.sentence)  # type: ignore[attr-defined]  # the table of this package

    def decode(self, pcm: PcmFloat) -> Transcript:
        """The sentence, whatever is heard."""
        return Transcript(self._sentence, language="en")
