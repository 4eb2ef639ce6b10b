"""In which modes the model of an experiment is read: what its objective predicts, under its layout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sumi_core.experiments.schema import Experiment
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.modes import MODES


@dataclass(frozen=True)
class ModelMode:
    """A mode of one model. name: of ``sumi_core.sampling.modes``. trained: whether its loss asks for all that the mode
    reads. exact: whether the likelihood of what it writes from is exact, or an upper bound on −log p. lengths: of the
    blocks that it is trained on, the model's own first; read_out: which slot predicts a token of a block; None where
    there are no blocks."""

    name: str
    trained: bool
    exact: bool
    lengths: list[int] | None = None
    read_out: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what does not apply."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def modes_of(experiment: Experiment) -> list[ModelMode]:
    """The modes of an experiment's model, in the order of ``MODES``."""
    own, layout = experiment.objective, experiment.layout
    predicts = OBJECTIVES.get(own["name"]).modes(own)
    blocks = "denoising" in predicts and "length" in layout
    found = []
    for name, mode in MODES.items():
        if layout["name"] not in mode.layouts or not set(mode.reads) <= predicts.keys():
            continue
        shown = blocks and "denoising" in mode.reads
        found.append(
            ModelMode(
                name,
                trained=all(predicts[each] for each in mode.reads),
                exact="next_token" in mode.reads,
                lengths=[layout["length"], *layout["also"]] if shown else None,
                read_out=layout["read_out"] if shown else None,
            )
        )
    return found


def without_mode(experiment: Experiment) -> str | None:
    """Why the sampler of an experiment cannot write with its model: the sampler reads what the objective does not
    train. None where it can."""
    own, sampler = experiment.objective, experiment.evaluation.sampler["name"]
    reads, predicts = MODES[SAMPLERS.get(sampler).mode].reads, OBJECTIVES.get(own["name"]).modes(own)
    if set(reads) <= predicts.keys():
        return None
    return (
        f"sampler '{sampler}' reads the model's {_NAMES[min(set(reads) - predicts.keys())]} mode, which objective "
        f"'{own['name']}' does not train; write objective: {' or '.join(_objectives(reads, experiment))}, or leave the "
        "sampler out"
    )


def objectives_of_two_modes() -> list[str]:
    """The objectives whose models are read in more than one mode."""
    return [name for name in OBJECTIVES.names() if len(_predicts(name)) > 1]


_NAMES = {"next_token": "autoregressive", "denoising": "diffusion"}


def _objectives(reads: tuple[str, ...], experiment: Experiment) -> list[str]:
    """Those that train what a sampler reads, for an experiment with or without noise as this one."""
    fitting = [name for name in OBJECTIVES.names() if set(reads) <= _predicts(name)]
    return [name for name in fitting if OBJECTIVES.get(name).needs_process == (experiment.process is not None)]


def _predicts(name: str) -> set[str]:
    """What models of an objective predict, with the options that it has by itself."""
    from sumi_core.base.options import component

    return set(OBJECTIVES.get(name).modes(component(OBJECTIVES, name, "", "objective")))
