"""Build the scientific parts of an experiment from its config: schedule, clock, process, objective, sampler."""

from __future__ import annotations

from dataclasses import dataclass

from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.schema import Experiment
from sumi_core.layouts import LAYOUTS
from sumi_core.layouts.layout import Layout
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.objective import Objective
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.sampler import Sampler


@dataclass(frozen=True)
class Parts:
    """What turns token ids into a loss, a likelihood and samples."""

    vocabulary: Vocabulary
    process: ForwardProcess | None
    layout: Layout
    objective: Objective
    sampler: Sampler

    @property
    def num_tokens(self) -> int:
        """V: tokens a text can contain."""
        return self.vocabulary.size

    @property
    def num_states(self) -> int:
        """S: the denoiser's vocabulary, V or V + 1 with a mask."""
        return self.process.num_states if self.process else self.vocabulary.size

    @property
    def mask_id(self) -> int | None:
        """The mask's state, where the process has one."""
        return self.process.mask_id if self.process else None


def build_parts(experiment: Experiment, vocabulary: Vocabulary, *, training: bool = False) -> Parts:
    """The parts of an experiment over its tokens, which must come with the tables of ``Experiment.token_tables``.

    training: they are to train it, step by step; else they are those of the finished model."""
    process: ForwardProcess | None = None
    if experiment.process is not None:
        process = PROCESSES.from_config(
            experiment.process,
            vocabulary=vocabulary,
            schedule=SCHEDULES.from_config(experiment.schedule),
            clock=CLOCKS.from_config(experiment.clock),
            parameterisation=PARAMETERISATIONS.from_config(experiment.parameterisation),
        )
    layout: Layout = LAYOUTS.from_config(
        experiment.layout, steps=experiment.training.steps if training else None, seed=experiment.seed
    )
    context = {"process": process, "vocabulary": vocabulary, "layout": layout}
    objective = OBJECTIVES.from_config(experiment.objective, **context)
    sampler = SAMPLERS.from_config(experiment.evaluation.sampler, **context)
    return Parts(vocabulary, process, layout, objective, sampler)
