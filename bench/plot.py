"""Small bar and line charts as SVG, so that a bench's picture needs no drawing library."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d")
_ROW = 26
_LEFT = 230
_WIDTH = 900


def stacked_bars(
    path: Path, title: str, unit: str, parts: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]
) -> None:
    """Draw one horizontal bar for each row, made of its parts one after the other.

    Args:
        path: the SVG file to write.
        title: of the picture.
        unit: of the lengths.
        parts: names of the parts, for the legend.
        rows: a name and the length of every part.
    """
    most = max(sum(values) for _, values in rows) or 1.0
    scale = (_WIDTH - _LEFT - 90) / most
    height = 80 + _ROW * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui,sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="24" font-size="16" font-weight="600">{escape(title)}</text>',
    ]
    x = 16.0
    for part, colour in zip(parts, _COLOURS, strict=False):
        out.append(f'<rect x="{x:.0f}" y="38" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 17:.0f}" y="49">{escape(part)}</text>')
        x += 34 + 7.5 * len(part)
    for number, (name, values) in enumerate(rows):
        y = 66 + _ROW * number
        out.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        x = float(_LEFT)
        for value, colour in zip(values, _COLOURS, strict=False):
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{max(0.0, value) * scale:.1f}" height="19" fill="{colour}"/>')
            x += max(0.0, value) * scale
        out.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{sum(values):.0f} {escape(unit)}</text>')
    out.append("</svg>\n")
    path.write_text("\n".join(out))


_TOP = 70
_HIGH = 320


def line_chart(
    path: Path,
    title: str,
    across: str,
    upward: str,
    xs: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    limit: float | None = None,
) -> None:
    """Draw one line through each row of values over the same places; values that are not numbers leave a gap.

    Args:
        path: the SVG file to write.
        title: of the picture.
        across: what the axis to the right shows, with the unit.
        upward: what the other axis shows, likewise.
        xs: places on the axis, rising.
        lines: a value for every place, by the line's name.
        limit: a level to draw across, such as what is allowed.
    """
    left, right = 70, _WIDTH - 24
    numbers = [value for values in lines.values() for value in values if not math.isnan(value)]
    top_value = _round_up(max([*numbers, limit or 0.0], default=1.0))
    most = max(xs, default=1.0) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / most * (right - left), _TOP + _HIGH - y / top_value * _HIGH

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_TOP + _HIGH + 56}" '
        'font-family="system-ui,sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{_TOP + _HIGH + 56}" fill="#fff"/>',
        f'<text x="16" y="24" font-size="16" font-weight="600">{escape(title)}</text>',
        f'<text x="{(left + right) / 2:.0f}" y="{_TOP + _HIGH + 44}" text-anchor="middle">{escape(across)}</text>',
    ]
    for step in range(5):
        level = top_value * step / 4
        _, y = place(0.0, level)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
    for x in xs:
        at, y = place(x, 0.0)
        out.append(f'<text x="{at:.1f}" y="{y + 20:.1f}" text-anchor="middle">{x:g}</text>')
    if limit is not None:
        _, y = place(0.0, limit)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#999" stroke-dasharray="6 4"/>')
    legend = 16.0
    for (name, values), colour in zip(lines.items(), _COLOURS, strict=False):
        out.append(f'<rect x="{legend:.0f}" y="38" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{legend + 17:.0f}" y="49">{escape(name)}</text>')
        legend += 34 + 7.5 * len(name)
        known = [place(x, y) for x, y in zip(xs, values, strict=True) if not math.isnan(y)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in known]
    out.append(f'<text x="{legend + 10:.0f}" y="49" fill="#666">{escape(upward)}</text>')
    out.append("</svg>\n")
    path.write_text("\n".join(out))


def _round_up(value: float) -> float:
    """The next number of the form 1, 2, 4, 5 or 8 times a power of ten."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 4.0, 5.0, 8.0, 10.0) if step * power >= value)
