"""When turns end: `python -m bench.endpointing RECORDINGS [--json FILE]`.

RECORDINGS is a folder of 16 kHz mono WAV files with an `index.tsv`. Its sentences, Mandarin and English, are heard as
they were recorded and with pauses put into their quiet places: one in short sentences, two in those over 3.5 s. The
real Silero model, the segmenter and the turn machine of the server decide in audio time when each is committed;
recognition and the upstreams are delays. Compared are the profiles and fixed hangovers.

With `--server URL` the same utterances are said to a server that runs, in real time, by devices in software, one for
each; its own recogniser, models and upstreams count, and so does everything that makes it late.

A folder with a file HELD-OUT in it is there to judge by, never to choose by: `--set` refuses it.

A false cut-off is a commit, or a discard as nothing, while more of the utterance follows. Delays run from the end of
the last voiced window of the utterances that were not cut off. Texts: English by the streaming recogniser in
`RECORDINGS/models`, its mistakes included; Mandarin is the transcript, cut at a pause where as large a share of the
letters of the streaming recogniser's pinyin has come. Opus and the network are left out. In
brackets is where 95 of 100 such samples would have the share (Wilson). A known user says all
utterances of a row, so that the machine learns the pace; everywhere else each utterance has a new user.
"""

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.endpointing_material import (
    RecognisedTexts,
    Texts,
    Utterance,
    make_utterances,
    read_clips,
    refuse_held_out,
)
from bench.endpointing_run import Hangover, Outcome, Policy, Profile, Upstreams
from bench.running_server import ServerUnfit, hear_all
from bench.stats import percentile, share, table
from xiaozhi.settings import TurnSettings, VadSettings
from xiaozhi.stages.vad.silero import load_silero

GAPS_MS: Final = (200, 300, 400, 500, 600, 700, 800, 1000, 1200, 1500)
HANGOVERS_MS: Final = (200, 400, 700, 1000)
PROFILES: Final = ("conservative", "balanced", "aggressive")
# Of the comparison with other servers: first token 300 ms, three tokens at 40 a second, first byte of speech 150 ms.
REPLY_MS: Final = 525.0


@dataclass(frozen=True)
class Result:
    """One policy on one kind of utterances."""

    policy: str
    upstreams: str
    gap_ms: int
    outcomes: list[Outcome]

    def row(self) -> dict[str, object]:
        """The figures, as in the JSON file: shares are 0 to 1, times milliseconds, None where there are none."""

        def at(part: float, values: Sequence[float | None]) -> float | None:
            found = percentile([value for value in values if value is not None], part)
            return None if math.isnan(found) else round(found, 1)

        commits = [outcome.commit_ms for outcome in self.outcomes]
        audio = [outcome.first_audio_ms for outcome in self.outcomes]
        return {
            "policy": self.policy,
            "upstreams": self.upstreams,
            "gap_ms": self.gap_ms,
            "utterances": len(self.outcomes),
            "cut_off": self.share_cut_off,
            "missed": sum(outcome.missed for outcome in self.outcomes) / len(self.outcomes),
            "commit_p50_ms": at(0.5, commits),
            "commit_p95_ms": at(0.95, commits),
            "first_audio_p50_ms": at(0.5, audio),
            "first_audio_p95_ms": at(0.95, audio),
            "replies": sum(outcome.replies for outcome in self.outcomes) / len(self.outcomes),
        }

    @property
    def share_cut_off(self) -> float:
        """0 to 1."""
        return sum(outcome.cut_off for outcome in self.outcomes) / len(self.outcomes)


def policies(overrides: dict[str, object] | None = None) -> list[Policy]:
    """All that are compared, new for every row: a profile that remembers must not carry over."""
    chosen: list[Policy] = [Hangover(hangover_ms) for hangover_ms in HANGOVERS_MS]
    for name in PROFILES:
        chosen.append(Profile(name, TurnSettings.model_validate({"profile": name, **(overrides or {})})))
    balanced = TurnSettings.model_validate({"profile": "balanced", **(overrides or {})})
    return [*chosen, Profile("balanced, known user", balanced, remembers=True)]


def measure(
    utterances: Sequence[Utterance],
    texts: Texts,
    upstreams: Sequence[Upstreams],
    overrides: dict[str, object] | None = None,
) -> list[Result]:
    """Every policy on the utterances of every gap with every set of delays."""
    results = []
    for gap_ms in sorted({utterance.gap_ms for utterance in utterances}):
        of_gap = sorted((one for one in utterances if one.gap_ms == gap_ms), key=lambda one: one.clip.name)
        for delays in upstreams:
            for policy in policies(overrides):
                outcomes = [policy.run(utterance, texts, delays) for utterance in of_gap]
                results.append(Result(policy.name, delays.name, gap_ms, outcomes))
    return results


def measure_server(url: str, utterances: Sequence[Utterance], at_once: int) -> list[Result]:
    """A server that runs on the utterances of every gap, in real time."""
    results = []
    for gap_ms in sorted({utterance.gap_ms for utterance in utterances}):
        of_gap = [utterance for utterance in utterances if utterance.gap_ms == gap_ms]
        outcomes = asyncio.run(hear_all(url, of_gap, at_once))
        results.append(Result("running server", "Real time", gap_ms, outcomes))
    return results


def _cut_off(result: Result) -> str:
    return share(sum(outcome.cut_off for outcome in result.outcomes), len(result.outcomes))


def report(results: Sequence[Result]) -> str:
    """The tables, in Markdown."""
    lines = []
    gaps_ms = sorted({result.gap_ms for result in results} - {0})
    for delays in dict.fromkeys(result.upstreams for result in results):
        of_delays = [result for result in results if result.upstreams == delays]
        lines.append(f"\n**{delays}, as recorded**\n")
        header = ["ends turns", "cut off", "missed", "commit p50", "p95", "first audio p50", "p95", "replies begun"]
        rows = []
        for result in of_delays:
            if result.gap_ms == 0:
                row = result.row()
                times = (row[f"{what}_{part}_ms"] for what in ("commit", "first_audio") for part in ("p50", "p95"))
                rows.append(
                    [
                        result.policy,
                        _cut_off(result),
                        share(sum(outcome.missed for outcome in result.outcomes), len(result.outcomes)),
                        *(math.nan if value is None else value for value in times),
                        f"{float(str(row['replies'])):.2f}",
                    ]
                )
        lines.append(table(header, rows))
        lines.append(f"\n**{delays}, share cut off with pauses of … ms**\n")
        names = list(dict.fromkeys(result.policy for result in of_delays))
        shares = {(result.policy, result.gap_ms): _cut_off(result) for result in of_delays}
        lines.append(
            table(
                ["ends turns", *map(str, gaps_ms)], [[name, *(shares[name, gap] for gap in gaps_ms)] for name in names]
            )
        )
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.endpointing", description="When turns end.")
    parser.add_argument("recordings", type=Path, help="a folder of 16 kHz mono WAV files with an index.tsv")
    parser.add_argument("--asr-models", type=Path, help="streaming recognisers; RECORDINGS/models otherwise")
    parser.add_argument("--vad-model", default="auto", help="a silero .onnx file; otherwise what the server would take")
    parser.add_argument("--recognition-ms", type=float, default=110.0, help="from the question to the text")
    parser.add_argument("--reply-ms", type=float, default=REPLY_MS, help="from the text to the first audio")
    parser.add_argument("--gaps", type=int, nargs="*", default=GAPS_MS, help="lengths of the pauses put in, ms")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=MS", help="a [turn] setting for all profiles"
    )
    parser.add_argument("--server", metavar="URL", help="judge a server that runs, by its WebSocket or OTA address")
    parser.add_argument("--at-once", type=int, default=4, help="devices that talk to it at once")
    parser.add_argument("--json", type=Path, help="write every figure there")
    args = parser.parse_args()
    if args.set:
        refuse_held_out(args.recordings)
    began = time.perf_counter()
    clips = read_clips(args.recordings)
    if not clips:
        raise SystemExit(f"{args.recordings}: no sentences")
    model = load_silero(VadSettings(model=args.vad_model))
    utterances = make_utterances(model, clips, args.gaps)
    upstreams = [
        Upstreams(f"Reply after {args.reply_ms:g} ms", args.recognition_ms, args.reply_ms),
        Upstreams("Reply at once", args.recognition_ms, 0.0),
        Upstreams(f"Streaming recognition, reply after {args.reply_ms:g} ms", 10.0, args.reply_ms),
    ]
    overrides: dict[str, object] = dict(pair.split("=", 1) for pair in args.set)
    if args.server:
        try:
            results = measure_server(args.server, utterances, args.at_once)
        except ServerUnfit as error:
            raise SystemExit(str(error)) from None
    else:
        texts = RecognisedTexts(args.asr_models or args.recordings / "models")
        results = measure(utterances, texts, upstreams, overrides)
    spoken_s = sum(len(utterance.pcm) for utterance in utterances) / 16_000
    unheard = len(clips) - sum(utterance.gap_ms == 0 for utterance in utterances)
    print(
        f"{model.name}; {len(clips)} sentences ({unheard} not heard by the VAD), {len(utterances)} utterances with "
        f"pauses, {spoken_s:.0f} s of audio; recognition {args.recognition_ms:g} ms"
    )
    print(report(results))
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps([result.row() for result in results], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
