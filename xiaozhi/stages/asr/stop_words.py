"""Words that ask for silence, found by the acoustic model of a streaming zipformer before its text is decoded."""

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import sherpa_onnx

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.stages.asr.model_files import TransducerFiles

# Each with its syllables for vocabularies of pinyin initials and finals.
_PHRASES: Final = {
    "停": "t íng", "停下": "t íng x ià", "停一下": "t íng y í x ià", "别说了": "b ié sh uō l e",
    "等一下": "d ěng y í x ià", "等等": "d ěng d ěng", "安静": "ān j ìng", "闭嘴": "b ì z uǐ",
    "stop": "", "wait": "", "hold on": "", "be quiet": "", "shut up": "",
}  # fmt: skip
# The model is loaded a second time: 20 MB of memory for the small published ones of 5 MB.
_MAX_ENCODER_BYTES: Final = 32 * 2**20
# Measured on 110 recordings in which nobody says so (two of them have the syllable of 停) and 20 that espeak-ng says,
# in English: nothing else is found in the former, and 18 of the latter; with 0.25, 15.
_THRESHOLD: Final = 0.1
_SPELLINGS: Final = 3


class StopWordSpotter:
    """Finds the phrases in sound. Thread-safe: each search is a stream of its own.

    Args:
        files: validated files of a `zipformer2`.
        flush: the quiet behind the sound that makes the last word come out, float32[n] at 16 kHz.
        threads: of one step.
    """

    def __init__(self, files: TransducerFiles, flush: PcmFloat, threads: int) -> None:
        self._flush = flush
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as keywords:
            keywords.write("".join(f"{line}\n" for line in _lines(files.symbols)))
            keywords.flush()
            self._spotter: Any = sherpa_onnx.KeywordSpotter(
                tokens=str(files.tokens),
                encoder=str(files.encoder),
                decoder=str(files.decoder),
                joiner=str(files.joiner),
                keywords_file=keywords.name,
                num_threads=threads,
                keywords_threshold=_THRESHOLD,
            )

    @classmethod
    def build(cls, files: TransducerFiles, flush: PcmFloat, threads: int) -> "StopWordSpotter | None":
        """None where the model is too large to be loaded twice, of another kind, or cannot spell any of the phrases."""
        small = files.encoder.stat().st_size <= _MAX_ENCODER_BYTES
        able = small and files.kind == "zipformer2" and any(_lines(files.symbols))
        return cls(files, flush, threads) if able else None

    def find(self, pcm: PcmFloat) -> str:
        """The first phrase in float32[n] at 16 kHz, empty for none. Blocking: 20 ms of one core for a second.

        Raises:
            RuntimeError: sherpa-onnx failed.
        """
        stream = self._spotter.create_stream()
        stream.accept_waveform(UPLINK_RATE_HZ, np.concatenate([pcm, self._flush]))
        while self._spotter.is_ready(stream):
            self._spotter.decode_stream(stream)
            if found := self._spotter.get_result(stream):
                return str(found).replace("_", " ")
        return ""


def _lines(symbols: Sequence[str]) -> Iterator[str]:
    """The phrases that a vocabulary can spell, as sherpa-onnx reads them; a token it does not know ends the process."""
    known = frozenset(symbols)
    for phrase, syllables in _PHRASES.items():
        name = phrase.replace(" ", "_")
        for spelling in (tuple(phrase), tuple(syllables.split())):
            if spelling and phrase[0] > "z" and known.issuperset(spelling):
                yield f"{' '.join(spelling)} @{name}"
        word = "▁" + phrase.replace(" ", "▁")
        written = [*_spellings(word.upper(), known), *_spellings(word, known)]
        for pieces in sorted(written, key=len)[:_SPELLINGS]:
            yield f"{' '.join(pieces)} @{name}"


def _spellings(rest: str, known: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """Every way to put a word together from BPE pieces: which of them a model was trained with is not in its files."""
    if not rest:
        yield ()
    for end in range(1, len(rest) + 1):
        if rest[:end] in known and (end > 1 or rest[0] != "▁"):
            for following in _spellings(rest[end:], known):
                yield (rest[:end], *following)
