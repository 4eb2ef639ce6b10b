"""``sumi plan``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipelines.terminal import shown_state
from sumi_core.base.numerics import has_gpu
from sumi_core.base.options import ConfigError
from sumi_core.base.text import short_count, short_duration
from sumi_core.experiments.size import expected_vocabulary, experiment_size
from sumi_core.experiments.sweeps import select_cells, split_arguments
from sumi_core.lineage.estimate import estimate_training
from sumi_core.lineage.plan import CellPlan, plan_with_ancestors
from sumi_core.lineage.project import Project
from sumi_core.stages.store import Store

_COUNTABLE = 2**63  # what token and byte counts are kept in


def plan_command(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="NAME… [key=value …]", help="Experiments, cells or globs; then changes to them."),
    ],
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, hidden=True)] = None,
) -> None:
    """Show what `sumi run` would do with the same arguments: computed, cached, and which config field changed.

    Cells of other experiments are shown where their outputs are needed and not there."""
    if jobs is not None:  # the arguments are those of `sumi run`, often the very line with another verb
        print("sumi: --jobs does not change a plan; it is an option of `sumi run`", file=sys.stderr)
    names, overrides = split_arguments(arguments)
    project = Project.find()
    print_plans(
        plan_with_ancestors(select_cells(project.sweeps(overrides, names), names), project.store), project.store
    )


def print_plans(plans: list[CellPlan], store: Store) -> None:
    """A line on its size and one per stage of each cell, then totals and how long the trainings take. Raises
    ConfigError for a size beyond counting."""
    for planned in plans:
        print(f"{planned.cell.key}  {size_line(planned)}")
        for stage in planned.stages:
            verb = {"done": "cached", "running": "waits", "blocked": "blocked"}.get(stage.state, "compute")
            why = "" if stage.state == "done" else stage.why
            print(f"  {shown_state(verb, 8)} {stage.stage:<20} {stage.fingerprint:<16}  {why}".rstrip())
    for planned in plans:
        if planned.cell.experiment.runtime.device == "cuda" and not has_gpu():
            told = "set it to cpu or auto" + ("" if planned.pending else ": all is cached, but samples need one too")
            lack = "runtime.device is cuda, and this machine has no GPU"
            print(f"sumi: {planned.cell.key}: {lack}; {told}", file=sys.stderr)
    shared = {(s.stage, s.fingerprint) for p in plans if p.state != "blocked" for s in p.pending}
    blocked = sum(p.state == "blocked" for p in plans)
    ready = (
        f"{len(shared)} outputs to compute for {sum(bool(p.pending) for p in plans) - blocked} of {len(plans)} cells"
    )
    if estimate := estimate_training(plans, store):
        takes = f"about {short_duration(estimate.seconds)}" if estimate.seconds >= 1 else "under a second"
        print(f"  training takes {takes}, one cell after another, {estimate.basis}")
    print(f"{ready}; {blocked} blocked: nothing of them can be computed" if blocked else ready)


def size_line(planned: CellPlan) -> str:
    """``1.00 M parameters, 3.28 M tokens (2.05 k a step), 21.1 T FLOPs; training holds 16 MB and activations``."""
    experiment = planned.cell.experiment
    fitted = planned.artifacts.get("tokenizer")
    vocabulary = fitted.summary.get("vocab_size") if fitted else expected_vocabulary(experiment.tokenizer)
    size = experiment_size(experiment, vocabulary or 0)
    if max(size.tokens, size.training_bytes) >= _COUNTABLE:
        problem = "its tokens or bytes exceed 2^63; lower the model's dimensions, training.steps or training.batch_size"
        raise ConfigError(planned.cell.key, "", problem)
    beside = "" if vocabulary else " beside embeddings, which its tokenizer decides"
    flops = f"{short_count(size.flops)} FLOPs"
    if size.total_flops != size.flops:
        flops += f" ({short_count(size.total_flops)} with those of what it starts from)"
    line = (
        f"{short_count(size.parameters)} parameters{beside}, {short_count(size.tokens)} tokens "
        f"({short_count(size.tokens_per_step)} a step), {flops}; training holds {short_count(size.training_bytes)}B "
        "and activations"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if planned.state != "done" and size.training_bytes > memory:
        line += f", more than this machine's {short_count(memory)}B of memory"
    return line
