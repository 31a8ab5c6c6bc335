"""Two recognisers as one: a streaming one whose text is there at once, and a better one that confirms or corrects."""

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.stages.asr.engine import OfflineRecognizer, StreamingRecognizer, Transcript
from xiaozhi.stages.asr.known_languages import languages_of


class TwoPass:
    """A streaming recogniser in front of an offline one.

    By itself it is the offline one; `Ears` knows how to use both.

    Args:
        streaming: gives the text that a reply may be prepared on.
        offline: gives the text that counts.
    """

    name = "two-pass"

    def __init__(self, streaming: StreamingRecognizer, offline: OfflineRecognizer) -> None:
        self.streaming = streaming
        self.offline = offline
        self.languages = languages_of(offline)

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz with the offline recogniser.

        Raises:
            EngineError: it failed on this audio.
        """
        return self.offline.decode(pcm)

    def close(self) -> None:
        """Free what both hold."""
        self.streaming.close()
        self.offline.close()
