"""The perception-distortion curve of `quality.py`'s rows, as an SVG: LPIPS (and NIQE) against PSNR-Y.

    python benchmarks/plot.py rows.json docs/fidelity.svg --by fidelity --line steps

A line joins the rows that agree in --line, in the order of --by, which labels the points.
"""

import argparse
import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, MARGIN = 420, 300, 56
COLOURS = ("#0b6e99", "#c2571a", "#4a7c2c", "#7d3c98")
TITLES = {"lpips_alex": "LPIPS-Alex (lower is better)", "niqe": "NIQE (lower is better)"}


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two."""
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / s <= 6)
    first = int(low / step) + 1
    return [round((first + i) * step, 4) for i in range(7) if (first + i) * step < high]


def panel(rows: list[dict[str, Any]], measure: str, by: str, line: str, left: float) -> list[str]:
    """One plot: `measure` against PSNR-Y of the case `mean`."""
    points = [(row["means"]["mean"]["psnr_y"], row["means"]["mean"][measure]) for row in rows]
    spans = []
    for axis in range(2):
        low, high = min(p[axis] for p in points), max(p[axis] for p in points)
        slack = 0.12 * max(high - low, 0.02)
        spans.append((low - slack, high + slack))
    (x0, x1), (y0, y1) = spans

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = left + MARGIN + (point[0] - x0) / (x1 - x0) * (WIDTH - MARGIN - 16)
        return x, HEIGHT - MARGIN - (point[1] - y0) / (y1 - y0) * (HEIGHT - MARGIN - 24)

    right, bottom = left + WIDTH - 16, HEIGHT - MARGIN
    parts = [f'<path d="M{left + MARGIN},24V{bottom}H{right}" fill="none" stroke="#888"/>']
    for value in _ticks(x0, x1):
        x = place((value, y0))[0]
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(y0, y1):
        y = place((x0, value))[1]
        parts.append(f'<text x="{left + MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        parts.append(f'<path d="M{left + MARGIN},{y:.1f}H{right}" stroke="#e4e4e4"/>')
    parts.append(f'<text x="{(left + MARGIN + right) / 2}" y="{HEIGHT - 18}" text-anchor="middle">PSNR-Y, dB</text>')
    parts.append(f'<text x="{left + MARGIN}" y="14">{TITLES[measure]}</text>')
    groups = list(dict.fromkeys(row[line] for row in rows))
    for number, group in enumerate(groups):
        colour = COLOURS[number % len(COLOURS)]
        chosen = sorted((row for row in rows if row[line] == group), key=lambda row: row[by])
        places = [place((row["means"]["mean"]["psnr_y"], row["means"]["mean"][measure])) for row in chosen]
        path = "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for row, (x, y) in zip(chosen, places, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
            parts.append(f'<text x="{x + 6:.1f}" y="{y - 6:.1f}" fill="{colour}">{row[by]:g}</text>')
        name = f"{group:g} {line}" if isinstance(group, int | float) else str(group)
        parts.append(f'<text x="{right - 4}" y="{38 + 16 * number}" text-anchor="end" fill="{colour}">{name}</text>')
    return parts


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--by", default="fidelity", choices=("fidelity", "steps"))
    parser.add_argument("--line", default="steps", choices=("steps", "model", "fidelity"))
    options = parser.parse_args()
    rows = [row for path in options.rows for row in json.loads(path.read_text())]
    rows = [row | {"fidelity": row["fidelity"] or 0.0} for row in rows]
    measures = [measure for measure in TITLES if all(measure in row["means"]["mean"] for row in rows)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(measures)} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, measure in enumerate(measures):
        parts += panel(rows, measure, options.by, options.line, WIDTH * number)
    options.out.write_text("\n".join([*parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
