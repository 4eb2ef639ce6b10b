"""A film as one HTML page with a scrub bar, which needs no other file and no network."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.evaluation.corruption_picture import MASK

if TYPE_CHECKING:
    from sumi_core.sampling.film import Film

_TEMPLATE = Path(__file__).with_name("film_page.html")
_UNKNOWN = 255  # no confidence
# Cividis (Nuñez et al., 2018) from dark to light, which people with any kind of colour vision can order.
CIVIDIS = (
    (0, 34, 78),
    (18, 53, 112),
    (59, 73, 108),
    (87, 93, 109),
    (112, 113, 115),
    (138, 134, 120),
    (165, 156, 116),
    (195, 179, 105),
    (225, 204, 85),
    (254, 232, 56),
)


def film_html(film: Film, strings: Mapping[int, str], title: str, note: str = "") -> str:
    """The page. strings: how each token of the film is shown. Equal films give equal bytes."""
    data = {
        "strings": {str(token): text for token, text in sorted(strings.items())},
        "mask": MASK,
        "colours": CIVIDIS,
        "frames": len(film.tokens),
        "texts": [_text(film, row) for row in range(film.tokens.shape[1])],
    }
    # "<" cannot be part of a tag within JSON that has it escaped.
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = _TEMPLATE.read_text(encoding="utf-8")
    parts = {"title": html.escape(title), "note": html.escape(note), "data": embedded}
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], page)


def _text(film: Film, row: int) -> dict[str, Any]:
    """A text: its first tokens, then what changes from frame to frame as [position, token]."""
    tokens = film.tokens[:, row, : int(film.lengths[row])]
    changes = [
        [[int(place), int(now[place])] for place in np.flatnonzero(now != before)] for before, now in pairwise(tokens)
    ]
    revised = [np.flatnonzero(own).tolist() for own in film.revised()[:, row, : tokens.shape[1]]]
    known = film.confidence[:, row, : tokens.shape[1]]
    shares = np.where(np.isnan(known), _UNKNOWN, np.rint(np.nan_to_num(known) * 100)).astype(np.uint8)
    return {
        "first": tokens[0].tolist(),
        "changes": changes,
        "revised": revised,
        "given": np.flatnonzero(film.frozen[row, : tokens.shape[1]]).tolist(),
        "confidence": base64.b64encode(shares.tobytes()).decode("ascii"),
        "calls": film.nfe[:, row].tolist(),
    }
