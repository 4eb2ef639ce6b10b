"""What noise does to a text: the same sentence at rising noise levels, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.noise import EVALUATION, Noise
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.corruption.process import ForwardProcess
    from sumi_core.data.tokenizers.tokenizer import Tokenizer

TIMES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
MASK, LINE_END = "▒▒▒", "⏎"
_COLOURS = {"kept": "black", "changed": "#D55E00", "masked": "#8A8A8A"}
_LINE, _MARGIN = 96, 10  # characters of a line, and before it
_POINTS = 9
_CHARACTER = 0.602 * _POINTS / 72  # width in inches of a character of matplotlib's own monospace font


class CorruptionPicture(Measurement):
    """What the noise of a diffusion model does to the beginning of a validation text."""

    reads = ("sequences",)

    @dataclass
    class Options(Part.Options):
        """tokens: of the text that is shown."""

        tokens: Annotated[int, Field(ge=1, le=4096, description="tokens of a text that the picture shows")] = 64

    def run(self, model: Model, context: Context) -> Findings:
        """Draw plots/corruption.png; nothing for a model without noise."""
        if model.process is None:
            return Findings()
        text = torch.from_numpy(context.tokens[0][: self.options.tokens])
        shown = corrupted_texts(model.process, model.tokenizer, text)
        return Findings(
            plots=(plot_corruption(shown, context.plot("corruption.png"), "What noise does to validation text"),)
        )


@dataclass(frozen=True)
class NoisyToken:
    """A token as it is shown. kind: ``kept`` (as in the text), ``changed`` or ``masked``."""

    text: str
    kind: str


def corrupted_texts(
    process: ForwardProcess, tokenizer: Tokenizer, tokens: Tensor, times: Sequence[float] = TIMES, seed: int = 0
) -> list[list[NoisyToken]]:
    """The text ``[L]`` as the process leaves it at each time. All times share a draw of clocks and the noise of each
    position, so that what is hit stays hit as time goes on, wherever the process corrupts by thresholds."""
    clocks = process.clock.draw(Noise(EVALUATION + seed, "picture_clock", 0, [0]), len(tokens))
    rows = []
    for time in times:
        level = clocks.at(torch.tensor([time], dtype=torch.float64)).level
        z = process.corrupt(tokens[None], level, Noise(EVALUATION + seed, "picture", 0, [0]))[0] if time > 0 else tokens
        rows.append([_shown(int(new), int(old), process, tokenizer) for new, old in zip(z, tokens, strict=True)])
    return rows


def token_text(state: int, tokenizer: Tokenizer, mask_id: int | None) -> str:
    """A token by itself, on one line: a line break and the end of a text as ⏎, what cannot be shown as ·."""
    if state == mask_id:
        return MASK
    text = LINE_END if state == tokenizer.eos_id else tokenizer.decode([state]).replace("\n", LINE_END)
    return "".join(character if character.isprintable() and character != "\ufffd" else "·" for character in text)


def _shown(state: int, token: int, process: ForwardProcess, tokenizer: Tokenizer) -> NoisyToken:
    kind = "masked" if state == process.mask_id else "kept" if state == token else "changed"
    return NoisyToken(token_text(int(process.shown(torch.tensor(state))), tokenizer, process.mask_id), kind)


def plot_corruption(
    rows: Sequence[Sequence[NoisyToken]], path: Path, title: str, times: Sequence[float] = TIMES
) -> Path:
    """Draw the texts of ``corrupted_texts``, one below the other; what changed is coloured."""
    from matplotlib.figure import Figure

    lines: list[tuple[str, list[tuple[int, NoisyToken]]]] = []
    for time, row in zip(times, rows, strict=True):
        label, column = f"t = {time:.1f}", 0
        line: list[tuple[int, NoisyToken]] = []
        for token in row:
            if column + len(token.text) > _LINE and line:
                lines.append((label, line))
                label, column, line = "", 0, []
            line.append((column, token))
            column += len(token.text)
        lines.append((label, line))
    figure = Figure(figsize=((_LINE + _MARGIN + 2) * _CHARACTER, 0.2 * (len(lines) + 2)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-_MARGIN, _LINE + 2)
    axes.set_ylim(len(lines), -2)
    style: dict[str, Any] = {"family": "monospace", "fontsize": _POINTS, "va": "center", "parse_math": False}
    axes.text(-_MARGIN + 1, -1, title, **{**style, "weight": "bold"})
    for height, (label, line) in enumerate(lines):
        axes.text(-_MARGIN + 1, height, label, **style)
        for column, token in line:
            axes.text(column, height, token.text, color=_COLOURS[token.kind], **style)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})  # the same texts give the same bytes
    return path
