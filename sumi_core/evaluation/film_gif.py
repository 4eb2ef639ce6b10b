"""A film as an animated GIF: one text, its tokens coloured by how sure the model was of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.data.sequences import spread_indices
from sumi_core.evaluation.corruption_picture import LINE_END, MASK

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

    from sumi_core.sampling.film import Film

_POINTS, _HEIGHT, _COLUMNS, _MARGIN = 14, 21, 88, 10  # of a character, of a line in pixels; characters; pixels
_SECONDS, _HOLD = 8.0, 3.0  # of the film, and of its last frame
_MOST_FRAMES = 40
_GREY, _WHITE = (226, 226, 226), (255, 255, 255)
_REVISED = (213, 94, 0)  # vermilion of Okabe & Ito (2008)
# A place of the grid: column and line, and how many characters wide the token of the last frame is.
_Place = tuple[int, int, int]


def write_gif(film: Film, strings: Mapping[int, str], path: Path, title: str, row: int = 0) -> Path:
    """Write a text's film, with about 40 of its frames at most. Every token has the place and the width that it has in
    the last frame, so that the text stands still while it changes. Equal films give equal bytes."""
    from matplotlib import colormaps, font_manager
    from PIL import Image, ImageFont

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), _POINTS)
    frames = spread_indices(min(len(film.tokens), _MOST_FRAMES), len(film.tokens))
    frames = sorted({0, *frames, len(film.tokens) - 1})
    texts = [[strings.get(int(t), "") for t in film.tokens[frame, row, : film.lengths[row]]] for frame in frames]
    places = _places(texts[-1])
    map_ = (colormaps["cividis"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    revised = film.revised()[:, row]
    drawn = []
    for number, frame in enumerate(frames):
        since = frames[number - 1] + 1 if number else 0
        now = np.any(revised[since : frame + 1], axis=0)
        head = f"{title} · step {frame} of {len(film.tokens) - 1}"
        drawn.append(_frame(texts[number], places, film.confidence[frame, row], now, map_, font, head))
    # One palette for all frames, so that none flickers.
    palette = Image.fromarray(np.concatenate([map_[::8], [_GREY, _WHITE, _REVISED, (0, 0, 0)]]).astype(np.uint8)[None])
    shared = palette.quantize(colors=len(map_[::8]) + 4)
    pictures = [picture.quantize(palette=shared, dither=Image.Dither.NONE) for picture in drawn]
    each = max(40, round(1000 * _SECONDS / len(pictures)))
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        path,
        format="GIF",  # whatever the name of the path
        save_all=True,
        append_images=pictures[1:],
        duration=[each] * (len(pictures) - 1) + [round(1000 * _HOLD)],
        loop=0,
        optimize=False,
    )
    return path


def _places(final: Sequence[str]) -> list[_Place]:
    places, column, line = [], 0, 0
    for text in final:
        width = max(len(text), 1)
        if column + width > _COLUMNS and column:
            column, line = 0, line + 1
        places.append((column, line, width))
        column += width
        if LINE_END in text:
            column, line = 0, line + 1
    return places


def _frame(
    texts: Sequence[str],
    places: Sequence[_Place],
    confidence: NDArray[np.float32],
    revised: NDArray[Any],
    map_: NDArray[np.uint8],
    font: FreeTypeFont,
    head: str,
) -> Image:
    """A frame as a picture."""
    from PIL import Image, ImageDraw

    wide = font.getlength("m")
    lines = max(line for _, line, _ in places) + 1
    size = (math.ceil(_COLUMNS * wide) + 2 * _MARGIN, (lines + 1) * _HEIGHT + 2 * _MARGIN + 4)
    picture = Image.new("RGB", size, _WHITE)
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1"  # no grey edges: few colours, small files
    draw.text((_MARGIN, _MARGIN), head, font=font, fill=(0, 0, 0))
    for text, (column, line, width), chance, mark in zip(texts, places, confidence, revised, strict=False):
        left, top = _MARGIN + column * wide, _MARGIN + 4 + (line + 1) * _HEIGHT
        box: Any = (left, top, left + width * wide - 1, top + _HEIGHT - 2)
        fill = _GREY if math.isnan(chance) or text == MASK else tuple(map_[min(255, int(chance * 255))].tolist())
        draw.rectangle(box, fill=fill)
        if mark:
            draw.rectangle((left, top + _HEIGHT - 4, left + width * wide - 1, top + _HEIGHT - 2), fill=_REVISED)
        dark = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2] < 125
        draw.text((left, top + 1), text[:width], font=font, fill=_WHITE if dark else (0, 0, 0))
    return picture
