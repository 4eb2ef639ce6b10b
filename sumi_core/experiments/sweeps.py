"""Experiment files: inheritance through ``base:``, and sweeps whose ``axes:`` expand to cells.

    experiments/demo.yaml
        description: one sentence on what is asked
        base: base/nano-bible            # a file below experiments/, without .yaml; its keys are the defaults
        training: {steps: 500}           # any section of sumi_core.experiments.schema.Experiment
        axes:                            # absent: a plain experiment, which is a sweep of one cell
          method:                        # a free name: labels with the keys each one sets
            uniform: {process: uniform}
            absorbing: {process: absorbing}
          schedule.name: [linear, cosine]   # a config key: the values it takes
          seed: [0, 1, 2]
        reference: uniform.linear        # what others are compared with: labels, or a cell's name, without the seed
        budget: {tokens: 3e6}            # or {flops: 2e13} or {total_flops: 2e13}: decides training.steps
        cron: "0 3 * * *"                # when Dagster looks after it by itself (sumi_core.experiments.cron)
        retries: 1                       # how often a failed cell is tried again without being asked, 0 to 10

Cells are the product of the axes, named by their labels: ``demo.uniform.linear.s0``. Cells that differ in nothing but
their label on the axis ``seed`` are a group, ``demo.uniform.linear``.

All but the sections are a file's own: none comes from its base. A budget replaces the ``training.steps`` of a base; a
file or an axis that writes both is refused, and so is a cell that whole steps cannot bring within 1 % of it. Whoever
writes training.steps on the command line leaves the budget.

A cell may take the output of a stage of another one: ``model.initialiser: {name: cell, of: demo.autoregressive}``
starts its weights at those of that cell. The name is that of a cell, or of a group: then the cell of the same seed is
meant, or the only one. It may be in the same file or in another. Changes on the command line hold for a whole file, so
cells of the same file are taken with them; cells of other files are taken as those say, but for the section runtime.

    experiments/recipe.yaml
        base: base/nano-bible
        phases:                          # in this order; each is a cell of the axis ``phase``, the first of the axes
          pretraining: {}                # the file's own config with these keys laid over it
          midtraining: {shards.sequence_length: 256, training.learning_rate: 1e-4}
        axes: {seed: [0, 1]}

Phases are a chain of trainings: ``recipe.midtraining.s1`` starts at the weights of ``recipe.pretraining.s1``, the cell
of the phase before with the same other labels, so a phase that writes model.initialiser is refused. Data, lengths and
objectives may change from phase to phase, the tokenizer may not. A budget is each phase's own, so total_flops, which
counts the phases before too, is refused: the first phase would spend it. ``experiments/smoke-phases.yaml`` is one in
small.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sumi_core.base.options import ConfigError
from sumi_core.base.outside import in_one_place
from sumi_core.base.registry import nearest
from sumi_core.experiments.cells import Cell, Sweep, Sweeps, with_ancestors
from sumi_core.experiments.changed_names import is_changed_name, is_override
from sumi_core.experiments.files import ExperimentFiles, parse_overrides

__all__ = [
    "Cell",
    "Sweep",
    "Sweeps",
    "load_sweep",
    "load_sweeps",
    "parse_overrides",
    "select_cells",
    "split_arguments",
    "with_ancestors",
]


def load_sweeps(
    folder: Path,
    overrides: Iterable[str] = (),
    names: Sequence[str] | None = None,
    remembered: Callable[[], Mapping[str, tuple[str, ...]]] = dict,
) -> Sweeps:
    """Every sweep below ``experiments/`` by name, except the files in ``base/``, which only serve others.
    remembered: the changes behind names of cells whose values are shortened.

    A file that is wrong is put aside in ``broken``, and so are files that share a name. names: names or globs of
    ``select_cells``; only the files that they can mean are read, unless one matches nothing: the hint in its
    complaint needs all. Raises ConfigError when there is no such folder, or for overrides that no experiment could
    take."""
    if not folder.is_dir():
        raise ConfigError(
            str(folder), "", "there is no experiments folder; run sumi from a project, or name one in SUMI_PROJECT"
        )
    overrides = tuple(overrides)
    if names is not None:
        found = _load(folder, overrides, remembered, names)
        with contextlib.suppress(ConfigError):
            select_cells(found, names)
            return found
    return _load(folder, overrides, remembered)


@in_one_place()
def _load(
    folder: Path,
    overrides: tuple[str, ...],
    remembered: Callable[[], Mapping[str, tuple[str, ...]]],
    names: Sequence[str] | None = None,
) -> Sweeps:
    files = ExperimentFiles(folder, overrides)
    sweeps: dict[str, Sweep] = {}
    broken: dict[Path, ConfigError] = {}
    by_name: dict[str, Path] = {}
    for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        if file.relative_to(folder).parts[0] == "base" or not (file.is_file() or file.is_symlink()):
            continue
        try:
            if file.suffix == ".yml":
                raise ConfigError(str(file), "", "experiment files end in .yaml; rename it")
            first = by_name.setdefault(file.stem, file)
            if first != file:  # a name would be ambiguous
                sweeps.pop(file.stem, None)
                taken = f"the name '{file.stem}' is taken by {first}; rename one of the files"
                raise ConfigError(str(file), "", taken)
            if names is not None and not any(_can_mean(name, file, folder) for name in names):
                continue
            sweeps[file.stem] = files.sweep(file)
        except ConfigError as error:
            broken[file] = error
        except Exception as error:  # an unforeseen mistake must not hide the other experiments
            broken[file] = ConfigError(str(file), "", f"cannot be read ({type(error).__name__}: {error}); correct it")
    return Sweeps(sweeps, broken, overrides, lambda other: _load(folder, other, remembered, names), remembered)


def _can_mean(pattern: str, file: Path, folder: Path) -> bool:
    """Whether a name or glob can be that of a file or of one of its cells, which begin with the file's name."""
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    begins = f"{file.stem}.".startswith(literal) if literal != pattern else False
    path = file.relative_to(folder).with_suffix("").as_posix()
    return begins or literal.startswith(file.stem) or fnmatchcase(path, pattern)


def load_sweep(file: Path, folder: Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read, inherit, expand and validate one experiment file, and of other files the cells that it refers to.

    Raises ConfigError for the first mistake in it or its bases. Overrides may fit some cells and not others (a noise
    schedule means nothing to an autoregressive cell), so those they do not fit are put aside in ``refused``."""
    return ExperimentFiles(folder, overrides).sweep(file)


def select_cells(sweeps: Mapping[str, Sweep], patterns: Iterable[str]) -> list[Cell]:
    """The cells that names or globs ask for: a sweep's name, or that of its file as in ``ablations/*``, means all of
    its cells. ``demo[training.steps=6]`` is those of demo with this change.

    Raises ConfigError when a pattern matches nothing, a broken file, or a cell that the overrides do not fit."""
    every = {cell.plain: (sweep, cell) for sweep in sweeps.values() for cell in sweep.cells}
    refused = {key: (sweep, error) for sweep in sweeps.values() for key, error in sweep.refused.items()}
    chosen: dict[str, Cell] = {}
    for pattern in patterns:
        if isinstance(sweeps, Sweeps) and is_changed_name(pattern):
            plain, changed = sweeps.read_name(pattern)
            chosen |= {cell.key: cell for cell in select_cells(changed, [plain])}
            continue

        def asked(key: str, sweep: Sweep, pattern: str = pattern) -> bool:
            return any(pattern == name or fnmatchcase(name, pattern) for name in (key, sweep.name, sweep.path))

        if isinstance(sweeps, Sweeps):
            sweeps.refuse_broken(pattern)
        for key, (sweep, error) in refused.items():
            if asked(key, sweep):
                raise ConfigError(error.where, error.key, f"{error.problem} (cell {key})")
        found = {cell.key: cell for key, (sweep, cell) in every.items() if asked(key, sweep)}
        if not found:
            known = nearest(pattern, [*sweeps, *every], show=list(sweeps))
            raise ConfigError("experiments", pattern, f"no experiment or cell has this name; {known}")
        chosen |= found
    return list(chosen.values())


def split_arguments(arguments: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Names and ``key=value`` overrides of one command line. Raises ConfigError when no name is left."""
    arguments = list(arguments)
    names = [argument for argument in arguments if not is_override(argument)]
    if not names:
        raise ConfigError("command line", "", "name at least one experiment, cell or glob; `sumi list` shows them")
    return names, tuple(argument for argument in arguments if is_override(argument))
