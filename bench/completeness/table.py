"""How the model of completeness does on the table: `python -m bench.completeness.table`."""

import csv
import time
from pathlib import Path
from typing import Final

import numpy as np

from xiaozhi.turn.completeness import CompletenessModel, shipped_model

TABLE: Final = Path(__file__).parents[2] / "tests" / "data" / "completeness.tsv"


def rows() -> list[tuple[str, str, bool, str]]:
    """Language, kind, whether it is whole, and the text of every sentence of the table."""
    with TABLE.open(encoding="utf-8") as file:
        return [
            (row["language"], row["kind"], row["whole"] == "1", row["text"])
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def main() -> None:
    """Entry point."""
    import sys

    model = CompletenessModel(Path(sys.argv[1])) if len(sys.argv) > 1 else shipped_model()
    table = rows()
    began = time.perf_counter()
    odds = np.array([model.log_odds(text) for *_, text in table])
    each_us = (time.perf_counter() - began) / len(table) * 1e6
    language = np.array([row[0] for row in table])
    kind = np.array([row[1] for row in table])
    whole = np.array([row[2] for row in table])
    print(f"{len(table)} sentences, {each_us:.0f} us each")
    print("| language | kind | whole | n | AUC against the other side | p10 | p50 | p90 of probability | on the right side of 0.5 |\n|---|---|---|---|---|---|---|---|---|")
    for one in ("zh", "en"):
        for name in dict.fromkeys(kind):
            mine = (language == one) & (kind == name)
            is_whole = bool(whole[mine][0])
            other = (language == one) & (whole != is_whole)
            wins = np.mean(odds[mine][:, None] > odds[other][None, :])
            p = 1 / (1 + np.exp(-odds[mine]))
            print(f"| {one} | {name} | {is_whole} | {mine.sum()} | {wins if is_whole else 1 - wins:.3f} | {np.quantile(p, 0.1):.2f} | {np.median(p):.2f} | {np.quantile(p, 0.9):.2f} | {np.mean((p > 0.5) == is_whole):.0%} |")
        mine = language == one
        both = np.mean(odds[mine & whole][:, None] > odds[mine & ~whole][None, :])
        print(f"| {one} | all |  | {mine.sum()} | {both:.3f} |")
    for value in (True, False):
        wrong = [(f"{1 / (1 + np.exp(-odds[at])):.2f}", table[at][3]) for at in np.argsort(odds if value else -odds)[:400] if whole[at] == value][:40]
        print(wrong)


if __name__ == "__main__":
    main()
