"""Draw docs/images/pipeline.svg: the stages from corpus to report, as ``sumi_core.stages`` declares them.

python docs/draw_pipeline.py
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from sumi_core.stages import CELL_STAGES, DATA_STAGES, STAGES

IMAGE = Path(__file__).parent / "images" / "pipeline.svg"
REPORT = "ablation_report"
WIDTH, HEIGHT, GAP, MARGIN, LABEL = 196, 76, 30, 16, 18
ROWS = (  # title, colour, stages
    ("once for all cells that share their tokens", "#DCEBF7", DATA_STAGES),
    ("once for each cell", "#E2F2E5", CELL_STAGES),
    ("once for each sweep", "#FBEFD5", (REPORT,)),
)


def drawing() -> str:
    """The picture as SVG."""
    places = dict(_places())
    width = max(x for x, _, _ in places.values()) + WIDTH + MARGIN
    height = max(y for _, y, _ in places.values()) + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for title, _, names in ROWS:
        x, y, _ = places[names[0]]
        parts.append(f'<text x="{x}" y="{y - 7}" font-size="13" fill="#555">{escape(title)}</text>')
    order = list(places)
    for before, after in itertools.pairwise(order):
        parts.append(_arrow(places[before], places[after]))
    parts += [box for name in order for box in _box(name, *places[name])]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places() -> Iterator[tuple[str, tuple[int, int, str]]]:
    for row, (_, colour, names) in enumerate(ROWS):
        for column, name in enumerate(names):
            y = MARGIN + LABEL + row * (HEIGHT + GAP + LABEL)
            yield name, (MARGIN + column * (WIDTH + GAP), y, colour)


def _arrow(start: tuple[int, int, str], end: tuple[int, int, str]) -> str:
    (x, y, _), (to_x, to_y, _) = start, end
    if y == to_y:
        path = f"M{x + WIDTH},{y + HEIGHT // 2} H{to_x - 2}"
    else:  # down to the next row, and back to its beginning
        middle = y + HEIGHT + GAP // 2 - 6
        path = f"M{x + WIDTH // 2},{y + HEIGHT} V{middle} H{to_x + WIDTH - 12} V{to_y - 2}"
    return f'<path d="{path}" fill="none" stroke="#555" stroke-width="1.5" marker-end="url(#tip)"/>'


def _box(name: str, x: int, y: int, colour: str) -> Iterator[str]:
    stage = STAGES.get(name)
    dashed = ' stroke-dasharray="5 4"' if stage and stage.optional else ""
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}" stroke="#555"{dashed}/>'
    yield _text(x, y + 20, name, 14, "bold")
    for line, text in enumerate(_notes(name)):
        yield _text(x, y + 38 + 13 * line, text, 10.5)


def _text(x: int, y: int, text: str, size: float, weight: str = "normal") -> str:
    place = f'x="{x + WIDTH // 2}" y="{y}" text-anchor="middle"'
    return f'<text {place} font-size="{size}" font-weight="{weight}">{escape(text)}</text>'


def _notes(name: str) -> list[str]:
    """The sections of the config that a stage reads."""
    if name == REPORT:
        return ["compares the evaluations"]
    stage = STAGES[name]
    lines, own = [], list(stage.reads)
    while own:
        lines.append(", ".join(own[:3]) + ("," if len(own) > 3 else ""))
        own = own[3:]
    if stage.optional:
        lines.append("(only where noise uses clusters)")
    return [f"reads {lines[0]}", *lines[1:]] if lines and stage.reads else ["reads its inputs only"]


if __name__ == "__main__":
    IMAGE.write_text(drawing(), encoding="utf-8")
