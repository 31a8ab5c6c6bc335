"""What cutting an utterance costs in words: `python -m bench.prefix_cut RECORDINGS --model DIR`.

A recogniser of whole utterances decodes a long one in parts: its first part is fixed at a pause and only what follows
is decoded (`MIN_PREFIX_S` of `stages/asr/offline.py`), and the last part is decoded at the first silence
rather than at the soft end (`EARLY_SILENCE_MS`). Here the server's own code does both on recordings, against decoding
everything at once.

RECORDINGS is a folder of 16 kHz mono WAV files with an `index.tsv`. Utterances are neighbours of one language in it,
joined as they are, so that the pauses are the quiet ends of recordings; a cut falls where the real Silero and the
server's segmenter find a soft end. The recogniser is a streaming zipformer that is given each part as a whole. Where it
writes what the transcripts hold (English), errors are counted against these; otherwise (a vocabulary of pinyin) only
what the cut changed, in letters.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.endpointing_material import SAMPLES_PER_MS, Clip, Utterance, judge, new_segmenter, read_clips, with_gaps
from bench.stats import table
from bench.word_errors import edits, pieces
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import TurnSettings, VadSettings
from xiaozhi.stages.asr.decoding import Decoding, EarlyDecodes
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.model_files import find_transducer
from xiaozhi.stages.asr.offline import OfflineRecognizer, OfflineUtterance
from xiaozhi.stages.asr.recogniser import Question
from xiaozhi.stages.asr.zipformer import Zipformer
from xiaozhi.stages.vad.silero import WINDOW_SAMPLES, SpeechModel, load_silero

MIN_S: Final = 5.0  # of an utterance: there must be room for a first part of three seconds


class Whole(OfflineRecognizer):
    """A streaming recogniser that is given whole utterances; keeps how much it has decoded."""

    name = "whole"

    def __init__(self, engine: Zipformer) -> None:
        self._engine = engine
        self.decoded: list[int] = []

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz."""
        self.decoded.append(len(pcm))
        stream = self._engine.begin()
        stream.accept(pcm)
        return stream.finish()

    def close(self) -> None:
        """Free the model."""
        self._engine.close()


@dataclass(frozen=True)
class Way:
    """How an utterance is decoded: in parts at pauses, and at the first silence."""

    name: str
    in_parts: bool
    early: bool


WAYS: Final = (
    Way("all at once, at the soft end", in_parts=False, early=False),
    Way("all at once, at the first silence", in_parts=False, early=True),
    Way("in parts, at the soft ends", in_parts=True, early=False),
    Way("in parts, at the first silences", in_parts=True, early=True),
)


@dataclass(frozen=True)
class Heard:
    """What became of one utterance."""

    text: str
    parts: int
    tail_s: float
    """How much was decoded for the last answer."""


def join_neighbours(clips: Sequence[Clip], min_s: float = MIN_S) -> list[Clip]:
    """Each clip with the ones of its language behind it, until the whole is long enough, round and round."""
    joined = []
    for language in dict.fromkeys(clip.language for clip in clips):
        same = [clip for clip in clips if clip.language == language]
        for index in range(len(same)):
            parts = [same[index], same[(index + 1) % len(same)]]
            while sum(len(part.pcm) for part in parts) < min_s * UPLINK_RATE_HZ and len(parts) < len(same):
                parts.append(same[(index + len(parts)) % len(same)])
            text = " ".join(part.transcript for part in parts)
            pcm = np.concatenate([part.pcm for part in parts])
            joined.append(Clip("+".join(part.name for part in parts), language, pcm, text))
    return joined


async def hear(
    engine: OfflineRecognizer, pool: WorkerPool, utterance: Utterance, way: Way, soft_end_ms: float, pre_roll_ms: float
) -> Heard:
    """Feed an utterance window by window, ask at soft ends as the session does, and return the last answer."""
    counted = _Counted(engine)
    hearing = OfflineUtterance(counted, Decoding(pool, EarlyDecodes(wanted=way.early)))
    segmenter = new_segmenter()
    text, asked, fed = "", False, 0
    for index, probability in enumerate(utterance.probabilities):
        onset = segmenter.feed(probability)
        end = (index + 1) * WINDOW_SAMPLES
        if onset:
            fed = max(0, round((segmenter.start_ms - pre_roll_ms) * SAMPLES_PER_MS))
        if not segmenter.in_speech:
            continue
        hearing.feed(utterance.pcm[fed:end], segmenter.silence_ms)
        fed = end
        if way.early:
            await pool.run(lambda: None)  # recognition is done before the next audio comes, as it is in real time
        asked = asked and not segmenter.voiced
        if segmenter.silence_ms >= soft_end_ms and not asked:
            asked = True
            if way.in_parts or segmenter.last_voiced_ms >= utterance.last_voiced_ms:
                text = (await hearing.transcribe(Question())).text
    hearing.close()
    return Heard(text, counted.parts, counted.last_s)


class _Counted(OfflineRecognizer):
    """Counts the parts an utterance is decoded in: a decode that is shorter than one before begins at a cut."""

    name = "counted"

    def __init__(self, engine: OfflineRecognizer) -> None:
        self._engine = engine
        self.parts = 1
        self.last_s = 0.0

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Decode and count."""
        seconds = len(pcm) / UPLINK_RATE_HZ
        self.parts += seconds < self.last_s
        self.last_s = seconds
        return self._engine.decode(pcm)


async def measure(
    engine: OfflineRecognizer, utterances: Sequence[Utterance], soft_end_ms: float, pre_roll_ms: float
) -> dict[str, list[Heard]]:
    """Every utterance in every way."""
    pool = WorkerPool(1, "asr")
    try:
        return {
            way.name: [await hear(engine, pool, one, way, soft_end_ms, pre_roll_ms) for one in utterances]
            for way in WAYS
        }
    finally:
        pool.close()


def report(utterances: Sequence[Utterance], heard: dict[str, list[Heard]], *, transcribed: bool) -> str:
    """The table, in Markdown."""
    languages = [utterance.clip.language for utterance in utterances]

    def split(texts: Iterable[str]) -> list[list[str]]:
        return [pieces(text, language) for text, language in zip(texts, languages, strict=True)]

    plain = split(one.text for one in heard[WAYS[0].name])
    said = split(utterance.clip.transcript for utterance in utterances)
    rows = []
    for name, found in heard.items():
        texts = split(one.text for one in found)
        cut = [one.parts > 1 for one in found]
        errors = sum(edits(one, other) for one, other in zip(said, texts, strict=True))
        changed = sum(edits(one, other) for one, other in zip(plain, texts, strict=True))
        rows.append(
            [
                name,
                f"{sum(cut)} of {len(found)}",
                f"{100.0 * errors / max(1, sum(map(len, said))):.1f} %" if transcribed else "",
                f"{100.0 * changed / max(1, sum(map(len, plain))):.1f} %",
                f"{sum(one.tail_s for one in found) / len(found):.1f} s",
            ]
        )
    return table(["decoded", "utterances cut", "errors", "changed by it", "decoded for the answer"], rows)


def make_utterances(model: SpeechModel, clips: Sequence[Clip]) -> list[Utterance]:
    """The clips joined, in a quiet room, judged by the VAD; those in which it finds no speech are left out."""
    return [one for one in judge(model, [with_gaps(clip, 0, ()) for clip in join_neighbours(clips)]) if one.onset_found]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.prefix_cut", description="What cutting utterances costs.")
    parser.add_argument("recordings", type=Path, help="a folder of 16 kHz mono WAV files with an index.tsv")
    parser.add_argument("--model", type=Path, required=True, help="folder of a streaming zipformer")
    parser.add_argument("--language", choices=["en", "zh"], default="en", help="which recordings")
    parser.add_argument("--most", type=int, default=1000, help="utterances at the most")
    parser.add_argument("--vad-model", default="auto", help="a silero .onnx file; otherwise what the server would take")
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    args = parser.parse_args()
    began = time.perf_counter()
    vad = VadSettings(model=args.vad_model)
    clips = [clip for clip in read_clips(args.recordings) if clip.language == args.language and clip.transcript]
    clips = [clip for clip in clips if not clip.transcript.startswith(('"', "INTENT"))][: args.most]
    if len(clips) < 2:
        raise SystemExit(f"{args.recordings}: needs two or more recordings in {args.language} with a transcript")
    silero = load_silero(vad, args.models_dir)
    utterances = make_utterances(silero, clips)
    engine = Whole(Zipformer(find_transducer(args.model)))
    heard = asyncio.run(measure(engine, utterances, TurnSettings().soft_end_ms, vad.pre_roll_ms))
    spoken_s = sum(len(utterance.clip.pcm) for utterance in utterances) / UPLINK_RATE_HZ
    first = " ".join(one.text for one in heard[WAYS[0].name])
    transcribed = args.language == "en" or any("\u4e00" <= char <= "\u9fff" for char in first)
    print(f"{args.model.name}; {silero.name}; {len(utterances)} utterances, {spoken_s:.0f} s of audio\n")
    print(report(utterances, heard, transcribed=transcribed))
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
