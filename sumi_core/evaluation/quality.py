"""How good a text is that a sampler wrote, as one figure: what is set against network calls and time.

A quality says what is written and judges it. It draws nothing itself, so that any sampler can be asked the same. One
that needs a model of its own, such as a scorer, refers to a cell in its options (``sumi_core.base.references``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sumi_core.base.options import part
from sumi_core.base.registry import Part
from sumi_core.base.statistics import Estimate, binomial_estimate, mean_estimate
from sumi_core.data import TASKS
from sumi_core.evaluation import METRICS
from sumi_core.evaluation.audit import next_token
from sumi_core.evaluation.measurement import Context, Model
from sumi_core.evaluation.metrics import Reference
from sumi_core.evaluation.samples import evenly, sample_set
from sumi_core.evaluation.tasks import Asked, without_instances
from sumi_core.objectives import OBJECTIVES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from sumi_core.data.tasks.task import Task

_READ_AT_ONCE = 32  # texts whose probabilities are held together


@dataclass(frozen=True)
class Order:
    """Texts to write. count, length: how many, of how many tokens. given: of each text its tokens ``[length]`` and
    which of them stand ``[length]`` bool; None: nothing is given. written: tokens to write of each, ``[count]``. of:
    what the quality is of, such as the name of a task. judge: the quality of what was written, ``[count, length]``.
    reference: the same figure of validation text, where it has one."""

    count: int
    length: int
    given: Sequence[tuple[Tensor, Tensor]] | None
    written: NDArray[np.int64]
    of: str
    judge: Callable[[NDArray[np.int64]], Estimate]
    reference: float | None = None

    def first(self, rows: int) -> tuple[list[tuple[Tensor, Tensor]] | None, int]:
        """What is given of ``rows`` texts, beginning anew where the order has fewer, and how many tokens they leave to
        write."""
        chosen = [row % self.count for row in range(rows)]
        given = None if self.given is None else [self.given[row] for row in chosen]
        return given, int(self.written[chosen].sum())


class Quality(Part, ABC):
    """A figure of written texts. share: whether it is a share in [0, 1] of which more is better, so that an area under
    it means something."""

    share: ClassVar[bool] = False

    @property
    @abstractmethod
    def title(self) -> str:
        """What the figure is called in tables and on axes."""

    @abstractmethod
    def order(self, model: Model, context: Context) -> Order:
        """What is to be written, and who judges it. May read of ``context.config`` the keys seed and samples."""


class TaskAccuracy(Quality):
    """Share of validation instances of a structured task that are solved, by the task's exact checker."""

    share: ClassVar[bool] = True

    @dataclass
    class Options(Part.Options):
        instances: Annotated[int, Field(ge=2, le=10**6, description="validation instances that are asked")] = 256
        form: Annotated[
            Literal["generation", "infilling"],
            Field(description="generation: after the question; infilling: around parts of the answer"),
        ] = "generation"
        given: Annotated[
            float, Field(ge=0.0, lt=1.0, description="share of the answer that infilling is given, at random places")
        ] = 0.5

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        return without_instances("quality 'task_accuracy'", "choose quality: sample_figure", others)

    @property
    def title(self) -> str:
        return "accuracy"

    def order(self, model: Model, context: Context) -> Order:
        import torch

        component = context.source()["task"]
        task: Task = TASKS.from_config(component)
        asked = Asked.of(task, model, context, instances=self.options.instances, given=self.options.given)
        frozen = asked.frozen(self.options.form)
        given = [(torch.from_numpy(ids), torch.from_numpy(own)) for ids, own in zip(asked.tokens, frozen, strict=True)]

        def judge(tokens: NDArray[np.int64]) -> Estimate:
            verdicts = [asked.judged(row, ids, model.tokenizer)[1] for row, ids in enumerate(tokens)]
            return binomial_estimate(sum(verdict.solved for verdict in verdicts), len(verdicts))

        return Order(len(given), asked.tokens.shape[1], given, (~frozen).sum(-1), component["name"], judge)


class OwnCost(Quality):
    """What generated texts cost, in nats per token, under the model's own autoregressive mode, beside validation text:
    one measure for every sampler. Lower is more probable, not better: a low temperature lowers it."""

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        objective = others["objective"]
        if "next_token" in OBJECTIVES.get(objective["name"]).modes(objective):
            return None
        problem = f"quality 'own_cost' reads texts token by token, which objective '{objective['name']}' does not train"
        return "evaluation.measurements", f"{problem}; choose quality: sample_figure"

    @property
    def title(self) -> str:
        return "own cost (nats per token)"

    def order(self, model: Model, context: Context) -> Order:
        import torch

        count, length = context.config.samples, len(context.text[0])
        eos_id, tokens = model.objective.eos_id, model.objective.num_tokens

        def judge(texts: NDArray[np.int64]) -> Estimate:
            nats = []
            for own in torch.from_numpy(texts).to(model.device).split(_READ_AT_ONCE):
                log_p = next_token(model.denoiser, own, eos_id, tokens)
                nats.append(-log_p.gather(-1, own.unsqueeze(-1))[..., 0].mean(-1))
            return mean_estimate(torch.cat(nats).cpu().numpy())

        text = judge(np.stack(evenly(context.tokens, count)).astype(np.int64))
        return Order(count, length, None, np.full(count, length), "texts", judge, text.value)


class SampleFigure(Quality):
    """A figure of a sample metric, beside that of validation text: near it is good, and more need not be better."""

    @dataclass
    class Options(Part.Options):
        metric: Annotated[Any, Field(description="the sample metric that computes it")] = part(
            METRICS, "unigram_entropy"
        )
        figure: Annotated[str, Field(min_length=1, description="which of its figures")] = "unigram_entropy"

    options: Options

    @property
    def title(self) -> str:
        return self.options.figure

    def order(self, model: Model, context: Context) -> Order:
        """Raises ValueError where the metric has no such figure."""
        metric, reference = METRICS.from_config(self.options.metric), Reference(context.train_texts)
        count, length, name = context.config.samples, len(context.text[0]), self.options.figure

        def judge(tokens: NDArray[np.int64]) -> Estimate:
            figures = metric.compute(sample_set(list(tokens), model.tokenizer), reference)
            if name not in figures:
                known = ", ".join(figure for figure in figures if not figure.endswith("_stderr"))
                raise ValueError(f"metric '{self.options.metric['name']}' has no figure '{name}'; choose of {known}")
            return Estimate(figures[name], figures.get(f"{name}_stderr", float("nan")))

        text = judge(np.stack(evenly(context.tokens, count)))
        return Order(count, length, None, np.full(count, length), "texts", judge, text.value)
