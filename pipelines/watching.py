"""A text that is being written, live in a terminal: the canvas of the first text, coloured as in its film."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING

from sumi_core.evaluation.corruption_picture import LINE_END, MASK, token_text
from sumi_core.evaluation.film_page import CIVIDIS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from torch import Tensor

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.sampling.canvas import Canvas
    from sumi_core.sampling.sampler import Sampler

_FRAME_SECONDS = 0.04  # at least: a small model is faster than the eye


class LiveCanvas:
    """Shows every canvas that it is given; to be entered, and handed to ``draw_texts`` as ``watch``. It remembers which
    tokens were revised, as a film defines it (``sumi_core/sampling/film.py``)."""

    def __init__(self, console: Console, sampler: Sampler, tokenizer: Tokenizer) -> None:
        from rich.live import Live

        self._sampler, self._tokenizer = sampler, tokenizer
        self._mask_id = sampler.process.mask_id if sampler.needs_process else None
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown = 0.0
        self._before: Canvas | None = None
        self._revised: Tensor | None = None

    def __enter__(self) -> LiveCanvas:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, canvas: Canvas) -> None:
        if canvas.rows[0] != 0:
            return
        self._note(canvas)
        time.sleep(max(0.0, self._shown + _FRAME_SECONDS - time.monotonic()))
        self._live.update(self.picture(canvas), refresh=True)
        self._shown = time.monotonic()

    def _note(self, canvas: Canvas) -> None:
        """Which tokens of the first text were revised so far."""
        before, self._before = self._before, canvas
        if (
            before is None
            or self._revised is None
            or before.tokens.shape != canvas.tokens.shape
            or canvas.nfe[0] < before.nfe[0]
        ):
            self._revised = canvas.frozen[0] & False  # another text begins
            return
        was, now = (self._sampler.shown(one.tokens[0]) for one in (before, canvas))
        self._revised |= (was != now) & (before.confidence[0] >= 0.5) & ~canvas.frozen[0]

    def picture(self, canvas: Canvas) -> Text:
        """The first text of a canvas: the surer the model was of a token, the lighter; grey: it has said nothing.
        Underlined on a colour: it was revised; without one: it was given."""
        from rich.text import Text

        length = int(canvas.lengths[0])
        revised = [False] * length if self._revised is None else self._revised.tolist()[:length]
        count = f" · {sum(revised)} tokens revised, underlined" if any(revised) else ""
        shown = Text(f"{int(canvas.nfe[0])} network calls{count}\n", style="bold")
        tokens = self._sampler.shown(canvas.tokens[0])
        rows = zip(tokens.tolist(), canvas.confidence[0].tolist(), canvas.frozen[0].tolist(), strict=True)
        for (token, chance, given), again in zip(rows, revised, strict=False):
            if self._sampler.grows and math.isnan(chance) and not given:
                continue
            text = token_text(token, self._tokenizer, self._mask_id)
            plain = math.isnan(chance) or text == MASK
            style = "underline" if given else "bright_black" if plain else style_of(chance)
            shown.append(text, style=f"underline {style}" if again else style)
            if LINE_END in text:
                shown.append("\n")
        return shown


def style_of(chance: float) -> str:
    """The style of a token that was written with a probability."""
    red, green, blue = CIVIDIS[min(int(chance * len(CIVIDIS)), len(CIVIDIS) - 1)]
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 125
    return f"{'white' if dark else 'black'} on rgb({red},{green},{blue})"
