"""How well speech is found: `python -m bench.vad_quality RECORDINGS [--model FILE] [--sweep]`.

RECORDINGS is a folder of 16 kHz mono WAV files with an `index.tsv` (columns file, language, kind), or one whose
subfolders are named by language (`zh`, `en`, `noise`). Every file goes through Opus as the firmware encodes it, the
shared tick and the real model. Printed are onsets missed (as recorded, at -35 dBFS, after half a minute of room noise),
false onsets in noise, how late the onset is known, and the share of clips with an inner pause of at least 200, 400, 700
and 1000 ms, which is what a hangover of that length cuts off.
"""

import argparse
import asyncio
import csv
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_float, to_int16
from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import WINDOW_MS, SileroModel, load_silero
from xiaozhi.turn.segmenter import Segmenter

PAUSES_MS = (200, 400, 700, 1000)
LONGEST_CLIP_S = 16.0  # pauses are counted in clips up to this long: longer ones are not one utterance
QUIET_DBFS = -35.0
GAINS = (1.0, 0.3, 0.1)
OFFSETS_S = (0.0, 0.7, 1.9, 3.1, 6.2)


@dataclass(frozen=True)
class Clip:
    """A recording; `speech` is false for noise."""

    name: str
    language: str
    pcm: PcmFloat
    speech: bool


@dataclass(frozen=True)
class Judged:
    """A clip's probabilities, one for each window."""

    clip: Clip
    probabilities: list[float]


@dataclass(frozen=True)
class Segments:
    """What a segmenter makes of a clip."""

    found: bool
    delay_ms: float
    longest_pause_ms: float


def read_clips(folder: Path) -> list[Clip]:
    """All recordings below a folder, by its index where it has one."""
    index = folder / "index.tsv"
    if index.is_file():
        with index.open(encoding="utf-8") as file:
            rows = [
                (row["file"], row["language"], row["kind"])
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]
    else:
        rows = [
            (str(path.relative_to(folder)), path.parent.name, path.parent.name)
            for path in sorted(folder.rglob("*.wav"))
        ]
    return [
        Clip(name, language, read_wav(folder / name), speech=language != "noise")
        for name, language, kind in rows
        if kind not in ("rir", "noisy-speech")
    ]


def read_wav(path: Path) -> PcmFloat:
    """float32[n] of a 16 kHz mono 16-bit file.

    Raises:
        SystemExit: it is another kind of file.
    """
    with wave.open(str(path), "rb") as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (UPLINK_RATE_HZ, 1, 2):
            raise SystemExit(f"{path}: need 16 kHz mono 16-bit")
        return to_float(np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16))


def quiet(clip: Clip) -> Clip:
    """The clip at `QUIET_DBFS`."""
    gain = 10 ** (QUIET_DBFS / 20) / (np.sqrt(np.mean(clip.pcm**2)) + 1e-9)
    return Clip(clip.name, clip.language, (clip.pcm * gain).astype(np.float32), clip.speech)


def padded(clip: Clip, before_s: float = 1.0, after_s: float = 1.5, noise: PcmFloat | None = None) -> Clip:
    """The clip inside a room: faint hiss, or `noise` over all of it."""
    before, after = int(before_s * UPLINK_RATE_HZ), int(after_s * UPLINK_RATE_HZ)
    room = np.random.default_rng(1).normal(0, 1e-4, before + len(clip.pcm) + after)
    if noise is not None:
        room += np.resize(noise, len(room))
    room[before : before + len(clip.pcm)] += clip.pcm
    return Clip(clip.name, clip.language, room.astype(np.float32), clip.speech)


def noise_beginnings(clips: list[Clip]) -> list[Clip]:
    """Noise that begins at once, after 20 ms, and after a second of silence, at several volumes and places."""
    found = []
    for clip in clips:
        for gain in GAINS:
            for offset_s in OFFSETS_S:
                pcm = clip.pcm[int(offset_s * UPLINK_RATE_HZ) :][: 8 * UPLINK_RATE_HZ] * np.float32(gain)
                if len(pcm) < UPLINK_RATE_HZ // 4:
                    continue
                for silence_s in (0.0, 0.02, 1.0):
                    lead = np.zeros(int(silence_s * UPLINK_RATE_HZ), np.float32)
                    found.append(Clip(clip.name, clip.language, np.concatenate([lead, pcm]), speech=False))
    return found


async def judge(model: SileroModel, settings: VadSettings, clips: list[Clip]) -> list[Judged]:
    """Every clip as a device of its own, through Opus and the tick."""
    tick = VadBatcher(model, settings)

    async def one(clip: Clip) -> Judged:
        encoder = OpusEncoder(UPLINK_RATE_HZ, 60, 24_000, 0)
        packets = await asyncio.to_thread(lambda: encoder.encode(to_int16(clip.pcm)) + encoder.flush())
        ear = tick.open()
        probabilities: list[float] = []
        for first in range(0, len(packets), 16):
            probabilities += (await tick.hear(ear, packets[first : first + 16])).probabilities
        ear.close()
        return Judged(clip, probabilities)

    judged: list[Judged] = []
    for first in range(0, len(clips), settings.batch_max):
        judged += await asyncio.gather(*(one(clip) for clip in clips[first : first + settings.batch_max]))
    tick.close()
    return judged


def segment(judged: Judged, settings: VadSettings, from_ms: float = 0.0) -> Segments:
    """Follow one clip as the stage would; only what is found after `from_ms` counts."""
    segmenter = Segmenter(settings.threshold, settings.release_threshold, settings.min_speech_ms)
    delay_ms, pause_ms, last_voiced_ms, was_voiced = 0.0, 0.0, 0.0, False
    for probability in judged.probabilities:
        if segmenter.feed(probability):
            if segmenter.now_ms < from_ms:
                segmenter.close()
                continue
            delay_ms = segmenter.now_ms - segmenter.start_ms
        elif segmenter.voiced and not was_voiced:
            pause_ms = max(pause_ms, segmenter.now_ms - WINDOW_MS - last_voiced_ms)
        was_voiced, last_voiced_ms = segmenter.voiced, segmenter.last_voiced_ms
    return Segments(segmenter.in_speech, delay_ms, pause_ms)


def percent(part: int, whole: int) -> str:
    """A share for a table."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


@dataclass(frozen=True)
class Material:
    """Everything judged once; segmenter settings are tried on it without the model."""

    speech: list[Judged]
    quiet: list[Judged]
    after_noise: list[Judged]
    noise: list[Judged]


async def gather_material(model: SileroModel, settings: VadSettings, clips: list[Clip]) -> Material:
    """Run the model over all clips in all conditions."""
    speech = [clip for clip in clips if clip.speech]
    noise = [clip for clip in clips if not clip.speech]
    steady = next((clip.pcm for clip in noise if "office" in clip.name), noise[0].pcm if noise else None)
    faint = None if steady is None else steady * np.float32(0.1)
    return Material(
        speech=await judge(model, settings, [padded(clip) for clip in speech]),
        quiet=await judge(model, settings, [padded(quiet(clip)) for clip in speech]),
        after_noise=await judge(model, settings, [padded(clip, 30.0, noise=faint) for clip in speech[::4]]),
        noise=await judge(model, settings, noise_beginnings(noise)),
    )


def report(material: Material, settings: VadSettings) -> None:
    """Print the figures for one choice of settings."""
    print(
        f"\nthreshold {settings.threshold:g}, release {settings.release_threshold:g}, "
        f"min_speech {settings.min_speech_ms} ms"
    )
    for title, judged, from_ms in (
        ("as recorded", material.speech, 0.0),
        (f"at {QUIET_DBFS:g} dBFS", material.quiet, 0.0),
        ("after 30 s of faint noise", material.after_noise, 29_500.0),
    ):
        results = [(entry.clip.name, segment(entry, settings, from_ms)) for entry in judged]
        missed = [name for name, found in results if not found.found]
        delays = [found.delay_ms for _, found in results if found.found] or [0.0]
        print(
            f"  missed {title}: {len(missed)} of {len(results)}; onset known after "
            f"{np.median(delays):.0f} ms (median), {np.percentile(delays, 95):.0f} (p95)"
            + (f"; {', '.join(missed[:6])}" if missed else "")
        )
    alarms = [entry.clip.name for entry in material.noise if segment(entry, settings).found]
    print(
        f"  false onsets in noise: {len(alarms)} of {len(material.noise)} beginnings"
        + (f"; {', '.join(sorted(set(alarms)))}" if alarms else "")
    )
    for language in sorted({entry.clip.language for entry in material.speech}):
        short = [
            segment(entry, settings)
            for entry in material.speech
            if entry.clip.language == language and len(entry.clip.pcm) <= (LONGEST_CLIP_S + 2.5) * UPLINK_RATE_HZ
        ]
        shares = (
            f">= {pause_ms} ms {percent(sum(found.longest_pause_ms >= pause_ms for found in short), len(short))}"
            for pause_ms in PAUSES_MS
        )
        print(f"  inner pauses, {language}, {len(short)} clips: {', '.join(shares)}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.vad_quality", description="How well speech is found.")
    parser.add_argument("recordings", type=Path, help="a folder of 16 kHz mono WAV files")
    parser.add_argument("--model", default="auto", help="a silero .onnx file; otherwise what the server would take")
    parser.add_argument("--sweep", action="store_true", help="try other thresholds and onset lengths as well")
    args = parser.parse_args()
    settings = VadSettings(model=args.model, tick_ms=0)
    clips = read_clips(args.recordings)
    if not any(clip.speech for clip in clips):
        raise SystemExit(f"{args.recordings}: no recordings of speech")
    model = load_silero(settings)
    print(f"{model.name}; {len(clips)} recordings, {sum(len(clip.pcm) for clip in clips) / UPLINK_RATE_HZ:.0f} s")
    material = asyncio.run(gather_material(model, settings, clips))
    report(material, settings)
    if args.sweep:
        for threshold, release in ((0.4, 0.25), (0.5, 0.2), (0.5, 0.5), (0.6, 0.45), (0.7, 0.5)):
            report(material, settings.model_copy(update={"threshold": threshold, "release_threshold": release}))
        for min_speech_ms in (64, 96, 160, 192):
            report(material, settings.model_copy(update={"min_speech_ms": min_speech_ms}))


if __name__ == "__main__":
    main()
