"""Sumi from Python: open a trained model, measure and sample it, compare cells, and typeset the comparison.

    from sumi_core.api import compare, open_model, to_latex

    model = open_model("demo.uniform")
    model.likelihood(["In the beginning"])
    model.sample(num=2, seed=1)
    print(to_latex(compare("demo")))

Names are those of the command line: an experiment, a cell or a glob, below the project around the current folder
(``SUMI_PROJECT`` names another). Nothing here computes a stage; ``sumi run`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.options import ConfigError
from sumi_core.experiments.sweeps import select_cells
from sumi_core.lineage.project import Project
from sumi_core.reports.latex import to_latex

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.figure import Figure

    from sumi_core.experiments.build import Parts
    from sumi_core.experiments.schema import Experiment
    from sumi_core.experiments.sweeps import Cell, Sweeps
    from sumi_core.export.loading import ExportedModel
    from sumi_core.models.denoiser import Denoiser
    from sumi_core.serving.lm_eval import HarnessModel

__all__ = ["Model", "cells", "compare", "open_model", "plan", "to_latex"]


@dataclass(frozen=True)
class Model:
    """A trained model, opened by ``open_model``.

    name: of the cell. folder: the exported model. experiment: the settings it is sampled with. exported: denoiser,
    parts and tokenizer. outputs: the folders of the stages behind it that are at hand, by stage."""

    name: str
    folder: Path
    experiment: Experiment
    exported: ExportedModel
    outputs: dict[str, Path] = field(default_factory=dict)

    @property
    def card(self) -> str:
        """The model card, Markdown: what the model is, what it was made from, how good it is, and its limits."""
        return (self.folder / "README.md").read_text(encoding="utf-8")

    def likelihood(self, texts: Sequence[str], *, levels: int = 8, seed: int = 1, overlap: int = 0) -> pd.DataFrame:
        """How well the model predicts texts, each by itself: one row for each text, numbered from 0, and ``all``.

        Columns: tokens, bytes, nats, bits_per_byte, bits_per_byte_stderr (over texts; of ``all``),
        bits_per_byte_mc_stderr (over noise levels and noise; 0 where the likelihood is exact), exact (False: an upper
        bound). levels: noise levels drawn for each piece of a text; more make the bound's estimate less noisy. The
        same text and seed give the same figures. Texts longer than the trained length are cut into pieces. overlap:
        tokens of the piece before that each further piece is given; what it adds is then exact, or bounded, given them
        (docs/harness.md).

        Raises ConfigError for an empty text, one that is not valid UTF-8, and no text at all."""
        from sumi_core.evaluation.text_likelihood import text_likelihoods

        return self._read(text_likelihoods, "likelihood", texts, levels, seed, overlap)

    def score(self, texts: Sequence[str], *, levels: int = 8, seed: int = 1, overlap: int = 0) -> pd.DataFrame:
        """What each token of texts costs the model: one row for each, the end-of-text token of each text last.

        Columns: text (its number, from 0), position, token (id), string, nats, nats_mc_stderr (over noise levels and
        noise; 0 where the likelihood is exact), exact. Exact nats are −log p(x_i | x_{<i}). Those of a bound are what
        the token adds to it, and only their sum bounds a log-probability. The nats of a text add up to those of
        ``likelihood`` with the same levels and seed. Raises ConfigError as ``likelihood``."""
        from sumi_core.evaluation.token_scores import token_scores

        return self._read(token_scores, "score", texts, levels, seed, overlap)

    def harness(
        self, *, levels: int = 64, overlap: int | None = None, steps: int | None = None, seed: int = 1
    ) -> HarnessModel:
        """The model as lm-evaluation-harness asks it: ``lm_eval.simple_evaluate(model=model.harness(), tasks=[…])``.

        Arguments as of ``sumi_core.serving.lm_eval.HarnessModel``. Raises ConfigError where lm_eval is not installed,
        and for an overlap that leaves no room in the trained length."""
        try:
            from sumi_core.serving.lm_eval import HarnessModel
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("lm_eval"):
                raise
            problem = "lm-evaluation-harness is not installed; write pip install -e '.[harness]' in the checkout"
            raise ConfigError("harness", "lm_eval", problem) from None
        trained = self.experiment.shards.sequence_length
        if overlap is not None and not 0 <= overlap < trained:
            raise ConfigError("harness", "overlap", f"is {overlap}; a window has {trained} tokens, so give fewer")
        return HarnessModel(
            self.experiment,
            self._parts,
            self._denoiser,
            self.exported.tokenizer,
            device=self._device,
            levels=levels,
            overlap=overlap,
            steps=steps,
            seed=seed,
        )

    def _read(
        self,
        read: Callable[..., pd.DataFrame],
        where: str,
        texts: Sequence[str],
        levels: int,
        seed: int,
        overlap: int,
    ) -> pd.DataFrame:
        """A table of texts. Raises ConfigError, naming ``where``, for texts that cannot be read."""
        from sumi_core.base.numerics import deterministic
        from sumi_core.experiments.size import reads_token_levels

        length = self.experiment.shards.sequence_length
        if not 0 <= overlap < length:
            raise ConfigError(where, "overlap", f"is {overlap}; a piece has {length} tokens, so give fewer")
        try:
            with deterministic(self.experiment.runtime.threads):
                return read(
                    self.exported.parts.objective,
                    self._denoiser,
                    self.exported.tokenizer,
                    texts,
                    length=length,
                    levels=levels,
                    epsilon=self.experiment.evaluation.time_epsilon,
                    seed=seed,
                    device=self._device,
                    overlap=overlap,
                    told=reads_token_levels(self.experiment),
                )
        except ValueError as error:
            raise ConfigError(where, "texts", str(error)) from None

    def sample(
        self,
        num: int = 4,
        length: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        prompt: str = "",
        mode: str | None = None,
        conditions: Sequence[Mapping[str, Any]] | None = None,
        overlap: int | None = None,
        until_end: bool = False,
        **condition: Any,
    ) -> list[str]:
        """Texts that the model writes, as ``sumi sample`` prints them but with every character as it is.

        length: tokens of each text, prompt included; default: the trained length. steps: network calls of a diffusion
        sampler; default: the most that the cell is evaluated at. prompt: what every text begins with. The same seed
        gives the same texts. mode: of a model with two modes, ``ar``, ``canvas`` or ``speculative``. condition: what
        else each text is to hold: ``suffix``, ``template``, ``regex``, ``schema``, ``forbid``, ``require``
        (``sumi_core.sampling.conditions.Condition``). conditions: in their place, a mapping of such keys for each text,
        of which ``num`` are written. overlap: write what is longer than the trained length on several canvases of it,
        each given so many tokens before it. until_end: end each text at its first end-of-text token.
        A model that is not given a noise level for every token trusts what it is given too little, unless its noise is
        masks (docs/writing.md).

        Raises ConfigError for a condition that cannot be kept, for a prompt that leaves no room, for more than 16 times
        the trained length and for a mode that the model does not have, and ValueError for fewer than one text or
        step."""
        from sumi_core.base.numerics import deterministic
        from sumi_core.lineage.models import sample_length, sampler_of
        from sumi_core.lineage.writing import Writing, read_condition
        from sumi_core.sampling.conditions import Place

        length = sample_length(length, self.experiment.shards.sequence_length, "sample", dashes="")
        steps = max(self.experiment.evaluation.sampling_steps) if steps is None else steps
        tokenizer = self.exported.tokenizer
        asked = [{"prompt": prompt, **condition}] if conditions is None else list(conditions)
        if conditions is not None and (prompt or condition or not asked):
            raise ConfigError("sample", "conditions", "hold every text's own keys; write no others beside them")
        keys = ["" if conditions is None else f"conditions[{n}]." for n in range(len(asked))]
        read = [
            (read_condition(own, "sample", key), Place("sample", key)) for own, key in zip(asked, keys, strict=True)
        ]
        sampler = sampler_of(self.experiment, self._parts, mode, self.name, "sample", "mode")
        writing = Writing.of(
            self.experiment, sampler, tokenizer, read, num=num, length=length, overlap=overlap, until_end=until_end
        )
        with deterministic(self.experiment.runtime.threads):
            return writing.texts(writing.sample(self._denoiser, steps, seed), tokenizer)

    def correct(self, text: str, num: int = 4, steps: int | None = None, seed: int = 0) -> list[str]:
        """Corrections of a finished text, as ``sumi sample --correct`` prints them but with every character as it is.

        It is corrected by the sampler of the cell's evaluation, if that revises texts, else by ``self_correction``.
        steps: of the sampler, of which the last ones lead back to a text; default: the most that the cell is evaluated
        at. The same seed gives the same texts.

        Raises ConfigError for a text of fewer than two tokens or more than 16 times the trained length, and for a model
        that writes in an order; ValueError for fewer than one correction or step."""
        from sumi_core.base.numerics import deterministic
        from sumi_core.evaluation.samples import shown_text
        from sumi_core.lineage.models import LONGEST, corrector_of, text_ids

        steps = max(self.experiment.evaluation.sampling_steps) if steps is None else steps
        tokenizer, longest = self.exported.tokenizer, LONGEST * self.experiment.shards.sequence_length
        ids = text_ids(text, tokenizer, longest, "correct", "text")
        sampler = corrector_of(self.experiment, self._parts, self.name, "correct", "text")
        with deterministic(self.experiment.runtime.threads):
            drawn = sampler.sample(self._denoiser, num=num, length=len(ids), steps=steps, seed=seed, text=ids)
        return [shown_text(row, tokenizer) for row in drawn.tokens.cpu().numpy()]

    def plots(self) -> dict[str, Figure]:
        """Figures of the model's training and evaluation, by name, as far as their tables are at hand: loss_history,
        loss_by_level (diffusion only), bits_per_byte (beside the yardsticks) and sample_quality.

        Each is a matplotlib figure: a notebook shows it, ``savefig`` writes it. Empty for a folder that was copied out
        of its project."""
        from sumi_core.reports.figures import model_figures

        return model_figures(self.name, self.outputs, exact=self.exported.parts.objective.reading.exact)

    @cached_property
    def _device(self) -> torch.device:
        from sumi_core.base.numerics import choose_device

        return choose_device(self.experiment.runtime.device)

    @cached_property
    def _denoiser(self) -> Denoiser:
        return self.exported.denoiser.to(self._device).eval()

    @cached_property
    def _parts(self) -> Parts:
        from sumi_core.experiments.build import build_parts

        return build_parts(self.experiment, self.exported.parts.vocabulary)


def open_model(name_or_folder: str | Path, overrides: Iterable[str] = ()) -> Model:
    """Open a trained model: a cell by its name, an MLflow run by its id, or the folder of an exported model.

    overrides: ``key=value`` changes that the cell was computed with, as after ``sumi run``. A folder needs no project
    around it. Raises LineageError when nothing of that name is computed, ExportError for a damaged folder, ConfigError
    for wrong overrides."""
    from sumi_core.export.loading import load_exported
    from sumi_core.lineage.models import exported_folder, sampled_experiment
    from sumi_core.lineage.targets import find_target

    project = Project.find()
    target = find_target(project, str(name_or_folder), overrides)
    folder = exported_folder(project, target)
    exported = load_exported(folder)
    found = {stage: project.store.find(stage, own) for stage, own in target.fingerprints.items()}
    outputs = {stage: artifact.folder for stage, artifact in found.items() if artifact is not None}
    return Model(target.key, folder, sampled_experiment(project, target) or exported.experiment, exported, outputs)


def compare(*names: str, overrides: Iterable[str] = (), seeds: bool = False) -> pd.DataFrame:
    """Cells side by side, best first, the yardsticks in between: what ``sumi compare`` prints, as a DataFrame.

    One row for each method, which is a cell or the cells that differ in their seed alone; ``seeds=True`` adds the cells
    of a method below it. Columns are those of ``sumi compare --csv`` (``sumi_core.reports.row.COLUMNS`` explains them).
    Figures are read from MLflow. Raises ConfigError for a name that no experiment or cell has."""
    import pandas as pd

    from sumi_core.reports.from_mlflow import compare_tracked

    project, sweeps, chosen = _chosen(names, overrides)
    references = {sweeps.of(cell).reference for cell in chosen} & {cell.group for cell in chosen}
    comparison = compare_tracked(project, chosen, references.pop() if len(references) == 1 else None)
    rows = [row.flat() for row in comparison.rows if seeds or row.group is None]
    return pd.DataFrame(rows)


def cells(*names: str, overrides: Iterable[str] = ()) -> pd.DataFrame:
    """The cells of experiments (of all, without a name) and their states, as ``sumi list`` prints them.

    Columns: name, sweep, state (done, running, failed, interrupted, stale, missing, damaged or blocked), why; and
    axis.<axis>, the cell's label on each axis. Raises ConfigError for a name that no experiment or cell has."""
    import pandas as pd

    from sumi_core.lineage.plan import plan as plan_cells

    project, _, chosen = _chosen(names, overrides)
    rows: list[dict[str, Any]] = []
    for planned in plan_cells(chosen, project.store):
        axes = {f"axis.{axis}": label for axis, label in planned.cell.labels.items()}
        rows.append(
            {
                "name": planned.cell.key,
                "sweep": planned.cell.sweep,
                "state": planned.state,
                "why": planned.why,
                **axes,
            }
        )
    return pd.DataFrame(rows)


def plan(*names: str, overrides: Iterable[str] = ()) -> pd.DataFrame:
    """What ``sumi run`` would do, stage by stage, as ``sumi plan`` prints it.

    Columns: cell, stage, state, fingerprint (empty where it is not known yet), why, folder (of an output that is done).
    Raises ConfigError for a name that no experiment or cell has."""
    import pandas as pd

    from sumi_core.lineage.plan import plan as plan_cells

    project, _, chosen = _chosen(names, overrides)
    rows = [
        {
            "cell": planned.cell.key,
            "stage": stage.stage,
            "state": stage.state,
            "fingerprint": stage.fingerprint,
            "why": stage.why,
            "folder": stage.artifact.folder if stage.artifact else None,
        }
        for planned in plan_cells(chosen, project.store)
        for stage in planned.stages
    ]
    return pd.DataFrame(rows)


def _chosen(names: Sequence[str], overrides: Iterable[str]) -> tuple[Project, Sweeps, list[Cell]]:
    project = Project.find()
    sweeps = project.sweeps(overrides, names or None)
    return project, sweeps, select_cells(sweeps, names or list(sweeps))
