"""What `vad.quiet_dbfs` saves and whether it changes anything: `python -m bench.vad_quiet RECORDINGS [--devices 100]`.

Every clip of speech (RECORDINGS as for `bench.vad_quality`) is heard in rooms of several noises and levels, through
Opus, the shared tick and the real model, twice: with every window judged, and with quiet ones skipped. Then the
processor time of the tick is measured for many devices that stream nothing but such a room. Exit code 1 when speech was
lost.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.stats import table
from bench.vad_quality import Clip, judge, read_clips
from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import SileroModel, load_silero
from xiaozhi.turn.segmenter import Segmenter

JUDGE_ALL: Final = -120.0
_LONGEST_S: Final = 16.0
_LEAD_S: Final = 4.0
_AFTER_S: Final = 1.5
# An utterance is over after this much silence, as with the profile "balanced".
_CLOSE_AFTER_MS: Final = 650.0
# Later than this, a user would lose more than the pre-roll brings back.
_LATE_MS: Final = 128.0
# Single letters at -40 dBFS lie so near the threshold that a probability of 0.79 for 0.80 decides about one or other.
_BY_A_HAIR: Final = 0.01


@dataclass(frozen=True, slots=True)
class Room:
    """A noise over everything, and how loud somebody speaks in it (None: as recorded); RMS in dBFS."""

    noise: str
    noise_dbfs: float
    speech_dbfs: float | None = None

    def __str__(self) -> str:
        speech = "as recorded" if self.speech_dbfs is None else f"at {self.speech_dbfs:g} dBFS"
        return f"{self.noise} {self.noise_dbfs:g} dBFS, speech {speech}"


ROOMS: Final = (
    Room("hiss", -75.0), Room("hiss", -65.0, -35.0), Room("hiss", -60.0),
    Room("office", -65.0, -40.0), Room("office", -55.0, -35.0), Room("office", -45.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Utterance:
    """When speech began, when that was known, and when it ended; audio time in milliseconds."""

    start_ms: float
    known_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One room: clips in which speech was lost or only found with windows skipped, and how far times are apart."""

    room: Room
    clips: int
    lost: int
    gained: int
    split: int
    latest_ms: float
    ends_ms: float


def at(pcm: PcmFloat, dbfs: float) -> PcmFloat:
    """The sound with this RMS."""
    gain = np.float32(10 ** (dbfs / 20) / (np.sqrt(np.mean(pcm**2)) + 1e-9))
    return np.asarray(pcm * gain, np.float32)


def noise_of(room: Room, office: PcmFloat, samples: int) -> PcmFloat:
    """The room without anybody in it."""
    if room.noise == "office":
        return np.resize(at(office, room.noise_dbfs), samples)
    return at(np.random.default_rng(5).normal(0.0, 1.0, samples).astype(np.float32), room.noise_dbfs)


def spoken_in(room: Room, clip: Clip, office: PcmFloat) -> Clip:
    """The clip in this room, after some seconds in which nobody speaks."""
    speech = clip.pcm if room.speech_dbfs is None else at(clip.pcm, room.speech_dbfs)
    lead = int(_LEAD_S * UPLINK_RATE_HZ)
    pcm = noise_of(room, office, lead + len(speech) + int(_AFTER_S * UPLINK_RATE_HZ))
    pcm[lead : lead + len(speech)] += speech
    return Clip(clip.name, clip.language, pcm, clip.speech)


def utterances(probabilities: Sequence[float], settings: VadSettings) -> list[Utterance]:
    """What a segmenter finds; each is closed by silence as a turn would be."""
    segmenter = Segmenter(settings.threshold, settings.release_threshold, settings.min_speech_ms)
    found: list[Utterance] = []
    for probability in probabilities:
        if segmenter.feed(probability):
            found.append(Utterance(segmenter.start_ms, segmenter.now_ms, segmenter.now_ms))
        if segmenter.in_speech:
            found[-1] = Utterance(found[-1].start_ms, found[-1].known_ms, segmenter.last_voiced_ms)
            if segmenter.now_ms - segmenter.last_voiced_ms > _CLOSE_AFTER_MS:
                segmenter.close()
    return found


def compare(room: Room, every: list[list[Utterance]], skipping: list[list[Utterance]]) -> Compared:
    """Two hearings of the same clips."""
    pairs = list(zip(every, skipping, strict=True))
    both = [(a, b) for a, b in pairs if a and b]
    return Compared(
        room,
        len(pairs),
        lost=sum(bool(a) and not b for a, b in pairs),
        gained=sum(bool(b) and not a for a, b in pairs),
        split=sum(len(a) != len(b) for a, b in both),
        latest_ms=max((b[0].known_ms - a[0].known_ms for a, b in both), default=0.0),
        ends_ms=max((abs(b[-1].end_ms - a[-1].end_ms) for a, b in both), default=0.0),
    )


async def hear(model: SileroModel, settings: VadSettings, clips: list[Clip]) -> list[list[Utterance]]:
    """Every clip through Opus and the tick."""
    return [utterances(judged.probabilities, settings) for judged in await judge(model, settings, clips)]


async def in_rooms(
    model: SileroModel, settings: VadSettings, clips: list[Clip], office: PcmFloat, rooms: Sequence[Room] = ROOMS
) -> list[Compared]:
    """All rooms, each heard twice."""
    all_judged = settings.model_copy(update={"quiet_dbfs": JUDGE_ALL})
    found = []
    for room in rooms:
        spoken = [spoken_in(room, clip, office) for clip in clips]
        found.append(compare(room, await hear(model, all_judged, spoken), await hear(model, settings, spoken)))
    return found


async def cost(
    model: SileroModel, settings: VadSettings, room: PcmFloat, devices: int, seconds: float
) -> tuple[float, float]:
    """Many devices that stream a room: share of one core that the tick takes, and share of windows that were judged."""
    encoder = OpusEncoder(UPLINK_RATE_HZ, 60, 24_000, 0)
    packets = encoder.encode(to_int16(room[: int(seconds * UPLINK_RATE_HZ)])) + encoder.flush()
    tick = VadBatcher(model, settings)
    ears = [tick.open() for _ in range(devices)]
    began_s = time.process_time()
    for packet in packets:
        await asyncio.gather(*(tick.hear(ear, [packet]) for ear in ears))
    used_s = time.process_time() - began_s
    judged = tick.stats.windows / max(1, tick.stats.windows + tick.stats.still_windows)
    tick.close()
    return used_s / (len(packets) * 0.060), judged


def lost(compared: Sequence[Compared]) -> bool:
    """Whether skipping changed what is heard for the worse: more than one clip in a hundred is lost, or found late."""
    clips = sum(one.clips for one in compared)
    return sum(one.lost for one in compared) > _BY_A_HAIR * clips or any(one.latest_ms > _LATE_MS for one in compared)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.vad_quiet", description=__doc__)
    parser.add_argument("recordings", type=Path, help="a folder of 16 kHz mono WAV files")
    parser.add_argument("--quiet-dbfs", type=float, default=VadSettings().quiet_dbfs)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="of room, for the processor time")
    given = parser.parse_args(arguments)
    settings = VadSettings(tick_ms=0, quiet_dbfs=given.quiet_dbfs, batch_max=128)
    clips = read_clips(given.recordings)
    speech = [clip for clip in clips if clip.speech and len(clip.pcm) <= _LONGEST_S * UPLINK_RATE_HZ]
    office = next((clip.pcm for clip in clips if not clip.speech), None)
    if not speech or office is None:
        parser.error(f"{given.recordings}: needs recordings of speech and one of noise")
    model = load_silero(settings)
    compared = asyncio.run(in_rooms(model, settings, speech, office))
    header = ("room", "clips", "lost", "only found so", "cut otherwise", "known later, ms at most", "end differs, ms")
    rows = ((str(c.room), c.clips, c.lost, c.gained, c.split, c.latest_ms, c.ends_ms) for c in compared)
    print(f"{model.name}, quiet below {given.quiet_dbfs:g} dBFS\n\n{table(header, rows)}\n")
    costs = []
    for room in (Room("hiss", -75.0), Room("hiss", -62.0), Room("office", -65.0), Room("office", -45.0)):
        pcm = noise_of(room, office, int(given.seconds * UPLINK_RATE_HZ))
        every = settings.model_copy(update={"quiet_dbfs": JUDGE_ALL})
        before, _ = asyncio.run(cost(model, every, pcm, given.devices, given.seconds))
        after, judged = asyncio.run(cost(model, settings, pcm, given.devices, given.seconds))
        name = f"{room.noise} {room.noise_dbfs:g} dBFS"
        costs.append((name, f"{judged:.0%}", f"{100 * before:.0f}", f"{100 * after:.0f}"))
    print(table((f"nobody speaks, {given.devices} devices", "windows judged", "% of one core before", "now"), costs))
    return 1 if lost(compared) else 0


if __name__ == "__main__":
    sys.exit(main())
