"""A small bar chart as SVG, so that a bench's picture needs no drawing library."""

from collections.abc import Sequence
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
