"""How the model of completeness does on the table, by kinds: `python -m bench.completeness.table [MODEL]`.

The waits are those of the profile `balanced` by the model that ships.
"""

import csv
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.stats import table
from xiaozhi.settings import TurnSettings
from xiaozhi.turn.completeness import PLAINLY_OPEN, PLAINLY_WHOLE, CompletenessModel, shipped_model
from xiaozhi.turn.endpointing import UserPace, hangover_ms

TABLE: Final = Path(__file__).parents[2] / "tests" / "data" / "completeness.tsv"


def rows() -> list[tuple[str, str, bool, str]]:
    """Language, kind, whether it is whole, and the text of every sentence of the table."""
    with TABLE.open(encoding="utf-8") as file:
        return [
            (row["language"], row["kind"], row["whole"] == "1", row["text"])
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def auc(above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> float:
    """Share of pairs in which the first is above the second; a tie counts half."""
    pairs = above[:, None] - below[None, :]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def main() -> None:
    """Entry point."""
    model = CompletenessModel(Path(sys.argv[1])) if len(sys.argv) > 1 else shipped_model()
    judged = rows()
    began = time.perf_counter()
    odds = np.array([model.log_odds(text) for *_, text in judged])
    each_us = (time.perf_counter() - began) / len(judged) * 1e6
    language, kind = (np.array([row[at] for row in judged]) for at in (0, 1))
    whole = np.array([row[2] for row in judged])
    probability = 1 / (1 + np.exp(-odds))
    wait_ms = np.array([hangover_ms(text, UserPace(), TurnSettings()) for *_, text in judged])
    lines = []
    for one in ("zh", "en"):
        for name in dict.fromkeys(kind):
            mine = (language == one) & (kind == name)
            is_whole = bool(whole[mine][0])
            other = (language == one) & (whole != is_whole)
            apart = auc(odds[mine], odds[other])
            shares = [f"{np.mean(odds[mine] >= PLAINLY_WHOLE):.0%}", f"{np.mean(odds[mine] <= PLAINLY_OPEN):.0%}"]
            waits = [f"{np.quantile(wait_ms[mine], share):.0f}" for share in (0.1, 0.5, 0.9)]
            lines.append([one, name, int(mine.sum()), f"{apart if is_whole else 1 - apart:.3f}", *shares, *waits])
        both = auc(odds[(language == one) & whole], odds[(language == one) & ~whole])
        lines.append([one, "all", int((language == one).sum()), f"{both:.3f}", "", "", "", "", ""])
    print(f"{len(judged)} sentences, {each_us:.0f} us each\n")
    header = ["language", "kind", "n", "AUC", "plainly whole", "plainly open", "wait p10", "p50", "p90 ms"]
    print(table(header, lines))
    for is_whole in (True, False):
        wrong = [at for at in np.argsort(odds if is_whole else -odds) if whole[at] == is_whole][:40]
        print("\n" + ("Whole" if is_whole else "Unfinished") + ", the worst:")
        print("; ".join(f"{judged[at][3]} {probability[at]:.2f}" for at in wrong))


if __name__ == "__main__":
    main()
