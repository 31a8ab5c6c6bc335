"""Side by side in one run: profiles, speculation, the int8 rewrite, streaming recognition. Ratios to the default.

Absolute times drift with the machine; the ratios of one run hold. With `--peer URL` another server of this protocol,
which runs already, is driven instead by the devices that drive ours, in turns; see `bench.peer`.
"""

import argparse
import asyncio
import itertools
import json
import sys
from pathlib import Path

from bench import peer
from bench.devices import numbers, recordings_of
from bench.first_word import Upstreams, run
from bench.plot import stacked_bars
from bench.stats import table

RESULTS = Path(__file__).parent / "results"


def _fixed(hangover_ms: int) -> str:
    """Turn-taking as most servers do it: one silence for everything, and work begins when it is over."""
    names = ("soft_end_ms", "complete_ms", "neutral_ms", "trailing_ms")
    return "[turn]\nspeculate = false\n" + "".join(f"{name} = {hangover_ms}\n" for name in names)


# Name, further tables, further keys of [asr]. The first is what the others are compared with.
VARIANTS = [
    ("balanced (default)", '[turn]\nprofile = "balanced"\n', ""),
    ("conservative", '[turn]\nprofile = "conservative"\n', ""),
    ("aggressive", '[turn]\nprofile = "aggressive"\n', ""),
    ("without speculation", "[turn]\nspeculate = false\n", ""),
    ("published int8 weights", "", "rewrite = false\n"),
    ("fixed 700 ms hangover, nothing ahead", _fixed(700), "rewrite = false\n"),
    ("fixed 200 ms hangover, nothing ahead", _fixed(200), "rewrite = false\n"),
]
PARTS = ("soft_end", "text", "first_token", "first_clause", "first_speech", "first_packet")


async def compare(turns: int, recordings: list[Path], streaming: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    """Measure every variant, one after the other."""
    variants = list(VARIANTS)
    if streaming is not None:
        variants.append(("streaming zipformer", "", f'engine = "zipformer"\nmodel_dir = "{streaming}"\n'))
        variants.append(("two-pass", "", f'engine = "two-pass"\nstreaming_model_dir = "{streaming}"\n'))
    results = {}
    for name, extra, asr in variants:
        results[name], _ = await run(turns, recordings, Upstreams(), extra, asr, name)
    return results


def rows_of(results: dict[str, dict[str, dict[str, float]]]) -> list[tuple[object, ...]]:
    """One row for each variant: percentiles, own share, and the ratios to the first variant."""
    first = next(iter(results.values()))["first_packet"]
    rows: list[tuple[object, ...]] = []
    for name, result in results.items():
        heard, own = result["first_packet"], result["own share"]
        ratio50, ratio95 = heard["p50"] / first["p50"], heard["p95"] / first["p95"]
        rows.append((name, heard["n"], heard["p50"], heard["p95"], own["p50"], f"{ratio50:.2f}", f"{ratio95:.2f}"))
    return rows


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("recordings", nargs="*", type=Path, help="WAV files to say; the embedded voice without any")
    parser.add_argument("--turns", type=int, default=12, help="for each variant")
    parser.add_argument("--streaming-model", type=Path, help="folder of a zipformer, to compare streaming recognition")
    parser.add_argument("--plot", type=Path, default=RESULTS / "compare.svg")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", default="", metavar="URL", help="its WebSocket or OTA address")
    parser.add_argument("--peer-pid", type=int, help="its process, to watch CPU and memory")
    parser.add_argument("--devices", type=numbers, default=[1, 10, 20], metavar="1,10,20", help="with --peer")
    parser.add_argument("--duration", type=float, default=40.0, help="with --peer: seconds of each measurement")
    parser.add_argument("--tiny", action="store_true", help="with --peer: a small recogniser for ours, a quick trial")
    parser.add_argument(
        "--ports", type=int, nargs=2, default=(9101, 9102), metavar=("CHAT", "SPEECH"), help="with --peer: of stand-ins"
    )
    given = parser.parse_args()
    if given.peer:
        of_peer = peer.Peer(given.peer, given.peer_pid, tuple(given.ports))
        plot = given.plot if given.plot != RESULTS / "compare.svg" else RESULTS / "peer.svg"
        return peer.main(of_peer, given.devices, given.duration, recordings_of(given.recordings), plot, tiny=given.tiny)
    streaming = given.streaming_model.resolve() if given.streaming_model else None
    results = asyncio.run(compare(given.turns, given.recordings, streaming))
    header = ("variant", "n", "first audio p50 ms", "p95 ms", "own share p50 ms", "ratio p50", "ratio p95")
    print(table(header, rows_of(results)))
    given.plot.parent.mkdir(parents=True, exist_ok=True)
    bars = []
    for name, result in results.items():
        times = [0.0, *(result[part]["p50"] for part in PARTS)]
        bars.append((name, [max(0.0, after - before) for before, after in itertools.pairwise(times)]))
    names = ("silence", "recognition", "first token", "first clause", "voice", "gate and packet")
    stacked_bars(given.plot, "From the last voiced sample to the first audio packet (p50)", "ms", names, bars)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
