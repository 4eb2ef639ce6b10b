"""Texts that a model is asked to write: each with a condition of its own, and what to know of how it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.options import ConfigError, typed
from sumi_core.experiments.size import reads_token_levels
from sumi_core.experiments.yaml_files import parse_yaml
from sumi_core.lineage.models import sample_length
from sumi_core.sampling.conditions import Condition, Place, Row, languages, read_row

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.experiments.schema import Experiment
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.sampling.canvas import Canvas
    from sumi_core.sampling.drawing import Samples
    from sumi_core.sampling.sampler import Sampler

_LEVELS = "objective.token_levels and model.time_conditioning"


@dataclass(frozen=True)
class Writing:
    """Rows to write with a sampler. told: whether the model has learnt to read a noise level for each token. revised: a
    finished text ``[L]`` that the sampler corrects, once for each row. canvas, overlap: where a text is longer than
    ``canvas`` tokens, it is written on several, each of which is given the last ``overlap`` ones before it; overlap
    None: on one. until_end: a text ends where its end-of-text token says."""

    sampler: Sampler
    rows: tuple[Row, ...]
    told: bool = False
    revised: Tensor | None = None
    canvas: int = 0
    overlap: int | None = None
    until_end: bool = False

    @classmethod
    def correcting(cls, sampler: Sampler, text: Tensor, num: int) -> Writing:
        """``num`` corrections of a finished text ``[L]``."""
        import torch

        row = Row(torch.zeros_like(text), torch.zeros_like(text, dtype=torch.bool))
        return cls(sampler, (row,) * num, revised=text)

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        sampler: Sampler,
        tokenizer: Tokenizer,
        conditions: Sequence[tuple[Condition, Place]],
        *,
        num: int,
        length: int,
        overlap: int | None = None,
        until_end: bool = False,
    ) -> Writing:
        """``num`` rows of each condition, one condition after the other. length: of texts that have none of their own.
        overlap: of the canvases of the trained length, for texts longer than that.

        Raises ConfigError for a condition that cannot be kept."""
        told, canvas = reads_token_levels(experiment), experiment.shards.sequence_length
        rows = []
        for condition, place in conditions:
            row = read_row(condition, tokenizer, length, place)
            sample_length(len(row.tokens), canvas, place.where, place.key)
            if overlap is not None and not 0 <= overlap < canvas:
                problem = f"{overlap} tokens of each canvas of {canvas}"
                raise place.error("overlap", f"{problem} leave nothing to write; write 0 to {canvas - 1}")
            if overlap is not None and row.stretch is not None:
                raise place.error("overlap", "a text that is held to a language needs one canvas; leave this out")
            if row.stretch is not None and not sampler.holds_languages:
                asked = ("regex", "schema", "forbid", "require", "template")
                raise place.error(
                    next(name for name in asked if getattr(condition, name) not in (None, [], "")),
                    f"sampler '{sampler.name}' decides about every token by itself and cannot hold a text to a "
                    "language; choose another with evaluation.sampler",
                )
            rows += [row] * num
        return cls(sampler, tuple(rows), told, canvas=canvas, overlap=overlap, until_end=until_end)

    @property
    def canvases(self) -> bool:
        """Whether a text takes several canvases."""
        return self.overlap is not None and self.longest > self.canvas

    @property
    def given(self) -> int:
        """Tokens that are given, of all rows."""
        return sum(int(row.frozen.sum()) for row in self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(len(row.tokens) for row in self.rows)

    def notes(self, steps: int) -> list[str]:
        """What is not exact about it, a sentence each."""
        found = [self._trust(), self._blindness()]
        if self.canvases:
            found.append(
                f"each canvas of {self.canvas} tokens is given the last {self.overlap} before it, and nothing that "
                "stands further back"
            )
        if any(row.stretch is not None for row in self.rows):
            if not self.sampler.uses_steps:
                found.append("every text is in its language; how often each is drawn is a heuristic, token by token")
            elif steps > 1:
                found.append(
                    "every text is in its language; how often each is drawn is exact in one step and a heuristic in "
                    f"{steps}"
                )
        return [note for note in found if note]

    def sample(
        self, denoiser: DenoiserFunction, steps: int, seed: int, watch: Callable[[Canvas], None] | None = None
    ) -> Samples:
        """Write them. watch: as in ``draw_texts``."""
        if self.canvases:
            from sumi_core.sampling.growing import draw_growing_texts

            return draw_growing_texts(
                self.sampler,
                denoiser,
                given=[(row.tokens, row.frozen) for row in self.rows],
                canvas=self.canvas,
                overlap=self.overlap or 0,
                steps=steps,
                seed=seed,
                told=self.told,
                end_of_text=self.until_end,
                watch=watch,
            )
        ends = [row.stretch is not None and row.stretch.open_ended for row in self.rows]
        return self.sampler.sample(
            denoiser,
            num=len(self.rows),
            length=[len(row.tokens) for row in self.rows],
            steps=steps,
            seed=seed,
            given=[(row.tokens, row.frozen) for row in self.rows],
            told=self.told,
            constraints=languages(self.rows),
            end_of_text=all(ends) or self.until_end,
            text=self.revised,
            watch=watch,
        )

    def texts(self, samples: Samples, tokenizer: Tokenizer) -> list[str]:
        """The texts as people read them. One that is held to a language ends where its end-of-text token says."""
        from sumi_core.evaluation.samples import shown_text

        shown = []
        for row, tokens, length in zip(self.rows, samples.tokens.cpu(), samples.lengths.tolist(), strict=True):
            own = tokens[:length]
            if row.stretch is not None and row.stretch.open_ended:
                ends = (own[row.stretch.begin :] == tokenizer.eos_id).nonzero()
                own = own[: row.stretch.begin + int(ends[0])] if len(ends) else own
            shown.append(shown_text(own.numpy(), tokenizer))
        return shown

    @property
    def _token_by_token(self) -> bool:
        """Whether it writes from left to right, token by token."""
        return self.sampler.grows and not self.sampler.uses_steps

    def _trust(self) -> str | None:
        """The sentence for a network that takes given tokens for noisy ones (docs/mathematics.md 7)."""
        from sumi_core.layouts.blocks import Blocks

        if self._token_by_token or self.told or not self.sampler.process.noise_writes_tokens:
            return None
        layout = self.sampler.layout
        if isinstance(layout, Blocks):
            n = layout.options.length
            if not any(_mixed(row, n) for row in self.rows) and not (self.canvases and (self.overlap or 0) % n):
                return None
            return (
                "what is given ends inside a block, where this model reads it as if noise could have written it and "
                f"trusts it too little; give whole blocks of {n} tokens, or train with {_LEVELS}"
            )
        if not self.given and not (self.canvases and self.overlap):
            return None
        return (
            "this model reads what is given as if noise could have written it, and trusts it too little; one trained "
            f"with {_LEVELS} is told that it is clean, and absorbing noise never writes a token"
        )

    def _blindness(self) -> str | None:
        """The sentence for a model that does not see what stands behind a gap."""
        from sumi_core.layouts.blocks import Blocks

        layout = self.sampler.layout
        if not self.sampler.grows:
            return None
        reach = layout.options.length if isinstance(layout, Blocks) and not self._token_by_token else 1
        if not any(_behind(row, reach) for row in self.rows):
            return None
        return "this model writes from left to right and does not see what is given after a gap"


def _mixed(row: Row, n: int) -> bool:
    """Whether a block of n tokens holds given ones and others."""
    blocks = [row.frozen[first : first + n] for first in range(0, len(row.frozen), n)]
    return any(bool(block.any()) and not bool(block.all()) for block in blocks)


def _behind(row: Row, n: int) -> bool:
    """Whether anything is given in a later block of n tokens than one that has to be written."""
    first = int((~row.frozen).nonzero()[0])
    return bool(row.frozen[(first // n + 1) * n :].any())


def read_conditions(file: Path) -> list[tuple[Condition, Place]]:
    """The conditions that a YAML file lists, one mapping per text. Raises ConfigError."""
    data = _read(file)
    if not isinstance(data, list) or not data:
        raise ConfigError(str(file), "", "expected a list, one mapping per text; write '- prompt: …'")
    return [(read_condition(item, str(file), f"[{n}]."), Place(str(file), f"[{n}].")) for n, item in enumerate(data)]


def read_schema(file: Path) -> Any:
    """A JSON schema as plain data, from JSON or YAML. Raises ConfigError."""
    return _read(file)


def _read(file: Path) -> Any:
    try:
        return parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(str(file), "", f"cannot be read: {reason}; name another file") from None


def read_condition(data: Mapping[str, Any], where: str, prefix: str = "") -> Condition:
    """A condition from plain data. Raises ConfigError."""
    if not isinstance(data, Mapping):
        raise ConfigError(where, prefix.rstrip("."), f"expected a mapping of keys, got {data!r}")
    found: Condition = typed(Condition, data, where, prefix)
    return found
