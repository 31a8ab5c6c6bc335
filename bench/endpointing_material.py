"""What the endpointing bench listens to: recordings, the same with pauses put in, what Silero and a recogniser hear."""

import csv
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from bench.vad_quality import read_wav
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.settings import VadSettings
from xiaozhi.stages.asr.model_files import find_transducer
from xiaozhi.stages.asr.zipformer import Zipformer
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, STATE_WIDTH, WINDOW_MS, WINDOW_SAMPLES, SpeechModel
from xiaozhi.turn.segmenter import Segmenter

SAMPLES_PER_MS: Final = UPLINK_RATE_HZ // 1000
# One utterance each; single words, letters and wake words have no inside to be cut off in, and longer recordings are
# several utterances.
SENTENCES: Final = frozenset({"read", "command", "intent", "spontaneous", "broadcast", "speech", "whisper"})
HELD_OUT: Final = "HELD-OUT"
"""A folder in which a file has this name is never read by what chooses settings or trains."""
_COLUMNS: Final = ("file", "language", "kind", "duration_s", "transcript")
LONGEST_CLIP_S: Final = 16.0
_LEAD_MS: Final = 1000
_ROOM_MS: Final = 5000  # behind the speech: longer than any commit may take
_ROOM: Final = 1e-4  # rms of the quietest room's hiss, -80 dBFS
_FADE_SAMPLES: Final = 5 * SAMPLES_PER_MS
_FRAME_SAMPLES: Final = 10 * SAMPLES_PER_MS
_QUIET_POWER: Final = 1e-3  # 30 dB below the loud parts
# A recogniser at a pause has heard this much of it.
_HEARD_OF_PAUSE_MS: Final = 128
# Voiced stretches shorter than this make one cut, longer ones two.
_TWO_CUTS_FROM_MS: Final = 3500
_ONE_CUT_FROM_MS: Final = 1000
# Clips with a longer pause of their own are not cut: the length of the pauses put in would say little about them.
_MAX_OWN_PAUSE_MS: Final = 300.0


@dataclass(frozen=True, eq=False)
class Clip:
    """A recording: float32[n] at 16 kHz, its language, and its transcript where it is Mandarin."""

    name: str
    language: str
    pcm: PcmFloat
    transcript: str = ""


@dataclass(frozen=True)
class Cut:
    """A place of a clip to pause at: samples from `first` up to `last` are quiet, and left out for the pause."""

    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Utterance:
    """A clip in a room, with pauses put in.

    Attributes:
        clip: what is said.
        gap_ms: length of each pause that was put in; 0 for none.
        cuts: where, in order.
        pcm: the whole, float32[n] at 16 kHz.
        probabilities: one for each window of 32 ms.
        last_voiced_ms: the end of the last voiced window.
        onset_found: the VAD found speech at all.
    """

    clip: Clip
    gap_ms: int
    cuts: tuple[Cut, ...]
    pcm: PcmFloat
    probabilities: list[float] = field(default_factory=list)
    last_voiced_ms: float = 0.0
    onset_found: bool = False

    def clip_sample(self, at_ms: float) -> int:
        """Which sample of the clip sounds at `at_ms`; in a pause that was put in, the last one before it."""
        at = round((at_ms - _LEAD_MS) * SAMPLES_PER_MS)
        gap = self.gap_ms * SAMPLES_PER_MS
        for cut in self.cuts:
            if at <= cut.first + gap:
                return min(max(at, 0), cut.first)
            at += cut.last - cut.first - gap
        return min(max(at, 0), len(self.clip.pcm))


def read_index(folder: Path) -> list[dict[str, str]]:
    """The lines of a folder's `index.tsv`, by their columns: file, language, kind, duration_s, transcript at least.

    Raises:
        SystemExit: there is none, or it lacks a column.
    """
    index = folder / "index.tsv"
    if not index.is_file():
        raise SystemExit(f"{folder}: need an index.tsv with the columns {', '.join(_COLUMNS)}")
    with index.open(encoding="utf-8") as file:
        rows = [
            {key: value or "" for key, value in row.items()}
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
        ]
    missing = [column for column in _COLUMNS if rows and column not in rows[0]]
    if missing:
        raise SystemExit(f"{index}: has no column {', '.join(missing)}")
    return rows


def refuse_held_out(folder: Path) -> None:
    """What is chosen by a folder cannot be judged by it any more. Raises `SystemExit` for one that is marked so."""
    if (folder / HELD_OUT).exists():
        raise SystemExit(f"{folder}: held out, there to judge by; choose by other recordings")


def read_clips(folder: Path) -> list[Clip]:
    """The sentences of a folder with an index, see `read_index`.

    Mandarin without a transcript is left out: nothing would say what has been said at a pause.
    """
    rows = read_index(folder)
    clips = []
    for row in rows:
        language, transcript = row["language"], row["transcript"]
        if row["kind"] not in SENTENCES or float(row["duration_s"]) > LONGEST_CLIP_S:
            continue
        if language == "en" or (language == "zh" and transcript):
            clips.append(Clip(row["file"], language, read_wav(folder / row["file"]), transcript))
    return clips


def _room(clip: Clip, samples: int) -> PcmFloat:
    """Hiss as loud as the clip where it is quietest, so that a pause sounds like the room it was recorded in."""
    rms = max(_ROOM, float(np.sqrt(np.percentile(_frame_power(clip.pcm), 5))))
    seed = int.from_bytes(hashlib.sha256(clip.name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(samples, np.float32) * np.float32(rms)


def _frame_power(pcm: PcmFloat) -> PcmFloat:
    frames = len(pcm) // _FRAME_SAMPLES
    return np.asarray(np.mean(pcm[: frames * _FRAME_SAMPLES].reshape(frames, -1) ** 2, axis=1), np.float32)


def with_gaps(clip: Clip, gap_ms: int, cuts: Sequence[Cut]) -> Utterance:
    """The clip in a quiet room, with `gap_ms` of the room in place of each cut."""
    bounds = [0, *(sample for cut in cuts for sample in (cut.first, cut.last)), len(clip.pcm)]
    parts = [clip.pcm[first:last].copy() for first, last in zip(bounds[::2], bounds[1::2], strict=True)]
    fade = np.linspace(0.0, 1.0, _FADE_SAMPLES, dtype=np.float32)
    for before, after in pairwise(parts):
        before[-_FADE_SAMPLES:] *= fade[::-1]
        after[:_FADE_SAMPLES] *= fade
    gap = gap_ms * SAMPLES_PER_MS
    samples = sum(len(part) for part in parts) + gap * len(cuts)
    room = _room(clip, (_LEAD_MS + _ROOM_MS) * SAMPLES_PER_MS + samples)
    at = _LEAD_MS * SAMPLES_PER_MS
    for part in parts:
        room[at : at + len(part)] = part
        at += len(part) + gap
    return Utterance(clip, gap_ms, tuple(cuts), room)


def quiet_cuts(clip: Clip, first_voiced_ms: float, last_voiced_ms: float) -> list[Cut]:
    """Where a user could pause inside the sentence. Empty for speech shorter than a second.

    It is the quietest 60 ms in the middle of a short sentence, and in the second and fourth fifth of a long one, with
    all the quiet around.
    """
    length_ms = last_voiced_ms - first_voiced_ms
    if length_ms < _ONE_CUT_FROM_MS:
        return []
    spans = ((0.2, 0.45), (0.55, 0.8)) if length_ms >= _TWO_CUTS_FROM_MS else ((0.35, 0.65),)
    power = _frame_power(clip.pcm)
    quiet = power < np.percentile(power, 95) * _QUIET_POWER
    smooth = np.convolve(power, np.ones(6), mode="same")
    cuts = []
    for low, high in spans:
        first_frame, last_frame = (
            min(len(power), round((first_voiced_ms + share * length_ms) * SAMPLES_PER_MS / _FRAME_SAMPLES))
            for share in (low, high)
        )
        first = last = first_frame + int(np.argmin(smooth[first_frame:last_frame]))
        while first > first_frame and quiet[first - 1]:
            first -= 1
        while last < last_frame and quiet[last]:
            last += 1
        cuts.append(Cut(first * _FRAME_SAMPLES, last * _FRAME_SAMPLES))
    return cuts


def judge(model: SpeechModel, utterances: Sequence[Utterance], together: int = 64) -> list[Utterance]:
    """What the model says about every window, and where speech ends in truth: as the segmenter sees it afterwards."""
    judged = []
    by_length = sorted(utterances, key=lambda utterance: len(utterance.pcm))
    for first in range(0, len(by_length), together):
        group = by_length[first : first + together]
        windows = [len(utterance.pcm) // WINDOW_SAMPLES for utterance in group]
        stacked = np.zeros((len(group), CONTEXT_SAMPLES + max(windows) * WINDOW_SAMPLES), np.float32)
        for row, utterance in enumerate(group):
            pcm = utterance.pcm[: windows[row] * WINDOW_SAMPLES]
            stacked[row, CONTEXT_SAMPLES : CONTEXT_SAMPLES + len(pcm)] = pcm
        states = np.zeros((2, len(group), STATE_WIDTH), np.float32)
        found = np.zeros((len(group), max(windows)), np.float32)
        for window in range(max(windows)):
            at = window * WINDOW_SAMPLES
            found[:, window], states = model.probabilities(
                np.ascontiguousarray(stacked[:, at : at + CONTEXT_SAMPLES + WINDOW_SAMPLES]), states
            )
        for row, utterance in enumerate(group):
            judged.append(_followed(utterance, found[row, : windows[row]].tolist()))
    return judged


def _followed(utterance: Utterance, probabilities: list[float]) -> Utterance:
    segmenter = new_segmenter()
    for probability in probabilities:
        segmenter.feed(probability)
    return Utterance(
        utterance.clip,
        utterance.gap_ms,
        utterance.cuts,
        utterance.pcm,
        probabilities,
        segmenter.last_voiced_ms,
        segmenter.in_speech,
    )


def new_segmenter() -> Segmenter:
    """A segmenter as the server makes one."""
    settings = VadSettings()
    return Segmenter(settings.threshold, settings.release_threshold, settings.min_speech_ms, WINDOW_MS)


def make_utterances(model: SpeechModel, clips: Sequence[Clip], gaps_ms: Sequence[int]) -> list[Utterance]:
    """Every clip as recorded and, where it is long enough and has no long pause already, with pauses put in; judged.

    Clips in which the VAD finds no speech are left out.
    """
    plain = [one for one in judge(model, [with_gaps(clip, 0, ()) for clip in clips]) if one.onset_found]
    made = []
    for utterance in plain:
        first_ms, last_ms, pause_ms = _voiced(utterance.probabilities)
        cuts = quiet_cuts(utterance.clip, first_ms - _LEAD_MS, last_ms - _LEAD_MS)
        if cuts and pause_ms <= _MAX_OWN_PAUSE_MS:
            made += [with_gaps(utterance.clip, gap_ms, cuts) for gap_ms in gaps_ms]
    return plain + judge(model, made)


def _voiced(probabilities: Sequence[float]) -> tuple[float, float, float]:
    """Where the first voiced window begins, the last one ends, and the longest pause between, in milliseconds."""
    segmenter, pause_ms, last_voiced_ms = new_segmenter(), 0.0, 0.0
    for probability in probabilities:
        onset = segmenter.feed(probability)
        if segmenter.voiced and not onset:
            pause_ms = max(pause_ms, segmenter.last_voiced_ms - WINDOW_MS - last_voiced_ms)
        last_voiced_ms = segmenter.last_voiced_ms
    return segmenter.start_ms, segmenter.last_voiced_ms, pause_ms


class Texts(Protocol):
    """What a recogniser has of an utterance at a pause."""

    def at(self, utterance: Utterance, voiced_ms: float) -> str:
        """The text of everything up to the last voiced sample so far, `voiced_ms`, and a short silence."""
        ...


_TONES: Final = re.compile("[\u0300-\u036f \\W]")


class RecognisedTexts:
    """Texts by real streaming recognisers.

    English is what the recogniser writes. The Mandarin one writes pinyin, so the transcript is cut where as large a
    share of the letters of its pinyin has come; without it, the transcript is cut in proportion to time.

    Args:
        models_dir: holds `zipformer-en` and, better, `zipformer-zh-pinyin`.

    Raises:
        EngineError: the English recogniser is missing or unfit.
    """

    def __init__(self, models_dir: Path) -> None:
        self._english = Zipformer(find_transducer(models_dir / "zipformer-en"), language="en")
        pinyin = models_dir / "zipformer-zh-pinyin"
        self._pinyin = Zipformer(find_transducer(pinyin)) if pinyin.is_dir() else None
        self._known: dict[tuple[str, int], str] = {}

    def at(self, utterance: Utterance, voiced_ms: float) -> str:
        """See `Texts.at`; what was heard at one place of a clip is kept."""
        clip = utterance.clip
        whole = voiced_ms >= utterance.last_voiced_ms - WINDOW_MS / 2
        end = len(clip.pcm) if whole else utterance.clip_sample(voiced_ms)
        key = (clip.name, end // (2 * WINDOW_SAMPLES))
        if key not in self._known:
            self._known[key] = self._text(clip, end)
        return self._known[key]

    def _text(self, clip: Clip, end: int) -> str:
        if clip.language == "en":
            return self._decode(self._english, clip, end)
        if end == len(clip.pcm):
            return clip.transcript
        share = end / len(clip.pcm)
        if self._pinyin is not None:
            some, all_of_it = (len(_letters(self._decode(self._pinyin, clip, up_to))) for up_to in (end, len(clip.pcm)))
            share = min(1.0, some / all_of_it) if all_of_it else share
        return clip.transcript[: round(share * len(clip.transcript))]

    @staticmethod
    def _decode(engine: Zipformer, clip: Clip, end: int) -> str:
        stream = engine.begin()
        pause = _room(clip, _HEARD_OF_PAUSE_MS * SAMPLES_PER_MS)
        stream.accept(np.concatenate([clip.pcm[:end], pause]))
        return stream.finish().text


def _letters(pinyin: str) -> str:
    return _TONES.sub("", unicodedata.normalize("NFD", pinyin))
