"""Percentiles and tables of the benches."""

import math
from collections.abc import Iterable, Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value at or above `share` of all values (nearest rank); NaN for none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Iterable[float | None]) -> dict[str, float]:
    """N, p50, p95, p99 and maximum of the values that exist."""
    present = [value for value in values if value is not None]
    return {
        "n": len(present),
        "p50": percentile(present, 0.50),
        "p95": percentile(present, 0.95),
        "p99": percentile(present, 0.99),
        "max": max(present, default=math.nan),
    }


def interval(hits: int, of: int) -> tuple[float, float]:
    """Between which shares, 0 to 1, the true one lies with 95 % (Wilson, 1927); (0, 1) of nothing."""
    if not of:
        return 0.0, 1.0
    z2 = 1.96**2
    middle = (hits + z2 / 2.0) / (of + z2)
    half = 1.96 / (of + z2) * math.sqrt(hits * (of - hits) / of + z2 / 4.0)
    return max(0.0, middle - half), min(1.0, middle + half)


def share(hits: int, of: int) -> str:
    """In percent, with its interval."""
    low, high = interval(hits, of)
    return f"{100.0 * hits / max(1, of):.1f} % ({100.0 * low:.0f}-{100.0 * high:.0f})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats without decimals, NaN as a dash."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "–" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}"
        return str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)
