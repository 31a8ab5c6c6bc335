"""How well an echo is taken off: `python -m bench.echo_cancelling RECORDINGS [--json FILE]`.

RECORDINGS is a folder of 16 kHz mono WAV files with an `index.tsv` (columns file, language, kind, duration_s,
transcript) and `models/zipformer-zh-pinyin`. Half of its Mandarin sentences are what a device plays, the other half is
said over it; rooms are its recordings of the kind `rir`, or one that is made up. What is played and what is heard both
go through Opus. The server's canceller gets the packets with their timestamps, in audio time, and nothing else.

Of echo alone: how much quieter it is from the sixth second on (ERLE), and how often the server's voice activity
detection finds somebody, without the canceller and with it. Of speech over echo: wrong tokens of a real recogniser in
percent of those of the same speech without echo, and how many of the sentences are found. In brackets is where 95 of
100 such samples would have the share (Wilson). Processor time is for 60 ms of sound while the device plays.
"""

import argparse
import json
import math
import sys
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.endpointing_material import new_segmenter, read_index
from bench.room import made_up_room, read_room
from bench.stats import share, table
from bench.vad_quality import read_wav
from bench.word_errors import edits
from xiaozhi.audio.echo_canceller import EchoCanceller, SentSound
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.settings import VadSettings
from xiaozhi.stages.asr.model_files import find_transducer
from xiaozhi.stages.asr.zipformer import Zipformer
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, STATE_WIDTH, WINDOW_SAMPLES, SpeechModel, load_silero

FRAME_MS: Final = 60
FRAME: Final = UPLINK_RATE_HZ * FRAME_MS // 1000
_PER_MS: Final = UPLINK_RATE_HZ // 1000
_SENTENCES: Final = frozenset({"read", "spontaneous", "broadcast", "speech"})
_LEARNS_S: Final = 6
_PAUSE_S: Final = 1.5
# What boards send and play: speech at -20 dBFS from the loudspeaker, a user at -26 dBFS, a room at -70.
_PLAYED_DB: Final = -20.0
_SAID_DB: Final = -26.0
_NOISE_DB: Final = -70.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device stands.

    Attributes:
        name: in the tables.
        echo_db: how much quieter than digital its microphone hears what it plays.
        delay_ms: from the timestamp's frame to its echo.
        response: of the room, of unit power.
        clips_at: where the loudspeaker bends, as share of its peak; None for never.
        drift_ppm: by how much the microphone's clock is slower than the loudspeaker's.
    """

    name: str
    echo_db: float
    delay_ms: float
    response: PcmFloat
    clips_at: float | None = None
    drift_ppm: float = 0.0

    def echo(self, played: PcmFloat) -> PcmFloat:
        """What the microphone hears of it, float32[n] as long."""
        if self.clips_at is not None:
            at = self.clips_at * float(np.abs(played).max())
            played = np.tanh(played / at) * at
        if self.drift_ppm:
            steps = np.arange(len(played))
            played = np.interp(steps * (1.0 + self.drift_ppm * 1e-6), steps, played)
        heard = np.convolve(played, self.response)[: len(played)] * 10.0 ** (self.echo_db / 20.0)
        late: PcmFloat = np.concatenate([np.zeros(round(self.delay_ms * _PER_MS)), heard])[: len(played)]
        return late.astype(np.float32)


def loud(pcm: PcmFloat, db: float) -> PcmFloat:
    """Speech whose voiced samples have this power, in dB of full scale."""
    voiced = pcm[np.abs(pcm) > 0.005]
    raised: PcmFloat = pcm * np.float32(10.0 ** (db / 20.0) / math.sqrt(float(np.mean(voiced**2)) + 1e-9))
    return np.clip(raised, -1.0, 1.0)


def coded(pcm: PcmFloat, bitrate_bps: int = 16_000, complexity: int = 0) -> tuple[list[bytes], PcmFloat]:
    """As Opus packets of 60 ms, and what comes out of them."""
    packets = OpusEncoder(UPLINK_RATE_HZ, FRAME_MS, bitrate_bps, complexity).encode(to_int16(pcm))
    decoder = OpusDecoder(UPLINK_RATE_HZ)
    return packets, np.concatenate([decoder.decode(packet) for packet in packets])


def cancel(
    microphone: PcmFloat, sent: Sequence[bytes], lost: frozenset[int] = frozenset()
) -> tuple[PcmFloat, PcmFloat, EchoCanceller]:
    """A microphone's sound through the canceller: what is heard, in what somebody is looked for, and the canceller.

    Args:
        microphone: float32[n] at 16 kHz; each 60 ms say that the packet of the same number is being played.
        sent: what is played.
        lost: numbers of packets that come without their timestamp.
    """
    clock = SentSound()
    clock.kept = True
    canceller = EchoCanceller(clock)
    heard, judged = [], []
    for number in range(len(microphone) // FRAME):
        timestamp_ms = clock.sent(sent[number], FRAME_MS) if number < len(sent) else 0
        pcm = microphone[number * FRAME : (number + 1) * FRAME]
        left, clear = canceller.cancel(pcm, 0 if number in lost else timestamp_ms)
        heard.append(left)
        judged.append(clear)
    return np.concatenate(heard), np.concatenate(judged), canceller


def onsets_s(model: SpeechModel, pcm: PcmFloat) -> list[float]:
    """When the server's voice activity detection would find somebody, in seconds."""
    segmenter, state, found = new_segmenter(), np.zeros((2, 1, STATE_WIDTH), np.float32), []
    padded = np.concatenate([np.zeros(CONTEXT_SAMPLES, np.float32), pcm])
    for at in range(0, len(pcm) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        window = np.ascontiguousarray(padded[None, at : at + CONTEXT_SAMPLES + WINDOW_SAMPLES])
        probability, state = model.probabilities(window, state)
        if segmenter.feed(float(probability[0])):
            found.append(at / UPLINK_RATE_HZ)
        elif segmenter.in_speech and segmenter.silence_ms >= 500.0:
            segmenter.close()
    return found


def tokens(engine: Zipformer, pcm: PcmFloat) -> list[str]:
    """What a recogniser hears, letter by letter: its pinyin without tones has no blanks."""
    stream = engine.begin()
    stream.accept(np.concatenate([pcm, np.zeros(UPLINK_RATE_HZ // 2, np.float32)]))
    return [letter for letter in unicodedata.normalize("NFD", stream.finish().text) if letter.isalpha()]


@dataclass(frozen=True, slots=True)
class Result:
    """One place; shares are 0 to 1."""

    place: str
    erle_db: float
    learnt_after_s: float | None
    false_onsets_raw: int
    false_onsets: int
    echo_s: float
    said: int
    found: int
    tokens: int
    wrong: int
    wrong_raw: int
    us_per_frame: float


class Material:
    """Sentences to play and to say, what is heard of the second without echo, and the models that judge.

    Raises:
        SystemExit: the folder has no index, or fewer than four sentences.
    """

    def __init__(self, folder: Path, models: Path | None = None, most: int = 12) -> None:
        rows = [row for row in read_index(folder) if row["language"] == "zh" and row["kind"] in _SENTENCES]
        if len(rows) < 4:
            raise SystemExit(f"{folder}: need at least four Mandarin sentences")
        pcm = [read_wav(folder / row["file"]) for row in rows[: 2 * most]]
        self.said = [loud(one, _SAID_DB) for one in pcm[: len(pcm) // 2]]
        self.played = np.concatenate([loud(one, _PLAYED_DB) for one in pcm[len(pcm) // 2 :]])
        self.rooms = {
            Path(row["file"]).stem: read_room(folder / row["file"])
            for row in read_index(folder)
            if row["kind"] == "rir"
        } or {"made up": made_up_room()}
        self.model = load_silero(VadSettings())
        self.engine = Zipformer(find_transducer((models or folder / "models") / "zipformer-zh-pinyin"))
        self.clean = [tokens(self.engine, self._alone(one)) for one in self.said]

    @staticmethod
    def _alone(pcm: PcmFloat) -> PcmFloat:
        quiet = np.pad(pcm, (UPLINK_RATE_HZ // 5, UPLINK_RATE_HZ // 10))
        return coded(quiet + noise(len(quiet)))[1]


def noise(samples: int, db: float = _NOISE_DB) -> PcmFloat:
    """A quiet room, float32[samples]."""
    return np.random.default_rng(1).normal(0.0, 10.0 ** (db / 20.0), samples).astype(np.float32)


def measure(material: Material, place: Place) -> Result:
    """Echo alone, and every sentence over it."""
    starts, at = [], _LEARNS_S * UPLINK_RATE_HZ
    for one in material.said:
        starts.append(at)
        at += len(one) + round(_PAUSE_S * UPLINK_RATE_HZ)
    sent, played = coded(np.resize(material.played, -(-at // FRAME) * FRAME), 24_000, 5)
    echo = place.echo(played)
    alone = coded(echo + noise(len(echo)))[1]
    began = time.process_time()
    heard, judged, _ = cancel(alone, sent)
    us_per_frame = (time.process_time() - began) * 1e6 / (len(alone) / FRAME)
    learnt = np.flatnonzero(heard != alone[: len(heard)])
    late = slice(_LEARNS_S * UPLINK_RATE_HZ, len(heard))
    erle_db = 10.0 * math.log10(float(np.sum(alone[late] ** 2) / (np.sum(heard[late] ** 2) + 1e-12)))
    said = np.zeros(len(echo), np.float32)
    for first, one in zip(starts, material.said, strict=True):
        said[first : first + len(one)] = one
    both = coded(np.clip(echo + said + noise(len(echo)), -1.0, 1.0))[1]
    over, over_judged, _ = cancel(both, sent)
    onsets = onsets_s(material.model, over_judged)
    found = wrong = wrong_raw = 0
    for first, one, clean in zip(starts, material.said, material.clean, strict=True):
        around = slice(first - UPLINK_RATE_HZ // 5, first + len(one) + UPLINK_RATE_HZ // 10)
        wrong += edits(clean, tokens(material.engine, over[around]))
        wrong_raw += edits(clean, tokens(material.engine, both[around]))
        found += any(around.start <= onset * UPLINK_RATE_HZ < around.stop for onset in onsets)
    return Result(
        place.name,
        erle_db,
        float(learnt[0]) / UPLINK_RATE_HZ if len(learnt) else None,
        len(onsets_s(material.model, alone)),
        len(onsets_s(material.model, judged)),
        len(alone) / UPLINK_RATE_HZ,
        len(material.said),
        found,
        sum(map(len, material.clean)),
        wrong,
        wrong_raw,
        us_per_frame,
    )


def places(rooms: dict[str, PcmFloat]) -> list[Place]:
    """What is measured: every room at three levels, the first also with what is hard."""
    made = [
        Place(f"{name}, {echo_db:g} dB, {delay_ms:g} ms", echo_db, delay_ms, response)
        for name, response in rooms.items()
        for echo_db, delay_ms in ((-12.0, 120.0), (-20.0, 30.0), (-30.0, 200.0))
    ]
    name, response = next(iter(rooms.items()))
    return [
        *made,
        Place(f"{name}, -16 dB, 400 ms", -16.0, 400.0, response),
        Place(f"{name}, -12 dB, clips", -12.0, 120.0, response, clips_at=0.25),
        Place(f"{name}, -12 dB, 20 ppm", -12.0, 120.0, response, drift_ppm=20.0),
        Place(f"{name}, -12 dB, 100 ppm", -12.0, 120.0, response, drift_ppm=100.0),
    ]


def report(results: Sequence[Result]) -> str:
    """A Markdown table."""
    header = (
        "place", "ERLE dB", "learnt after s", "found in echo alone, raw", "cancelled", "s",
        "sentences found", "wrong tokens", "raw", "µs per 60 ms",
    )  # fmt: skip
    return table(
        header,
        (
            (
                one.place,
                one.erle_db,
                math.nan if one.learnt_after_s is None else one.learnt_after_s,
                one.false_onsets_raw,
                one.false_onsets,
                one.echo_s,
                share(one.found, one.said),
                share(min(one.wrong, one.tokens), one.tokens),
                f"{100.0 * one.wrong_raw / one.tokens:.0f} %",
                one.us_per_frame,
            )
            for one in results
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.echo_cancelling", description=__doc__)
    parser.add_argument("recordings", type=Path, help="a folder of 16 kHz mono WAV files with an index.tsv")
    parser.add_argument("--asr-models", type=Path, help="streaming recognisers; RECORDINGS/models otherwise")
    parser.add_argument("--most", type=int, default=12, help="sentences that are said")
    parser.add_argument("--json", type=Path, help="write every figure there")
    given = parser.parse_args(arguments)
    material = Material(given.recordings, given.asr_models, given.most)
    results = [measure(material, place) for place in places(material.rooms)]
    print(report(results))
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
