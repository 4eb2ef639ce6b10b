"""What a measurement is, what it is given, and what it finds.

A measurement is a part of the section ``evaluation``. It reads some keys of that section and the outputs of some
stages, and nothing else; both are declared, so that its output has a fingerprint of its own and outlives changes of
everything that it does not read.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np

from sumi_core.base.progress import Log, Progress, unwatched
from sumi_core.base.registry import Part
from sumi_core.data.sequences import Sequences, spread_indices
from sumi_core.evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from sumi_core.corruption.process import ForwardProcess
    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.objectives.objective import Objective
    from sumi_core.sampling.sampler import Sampler

ESTIMATES, FINDINGS = "metrics.parquet", "findings.json"


def _no_weights() -> nn.Module:
    raise ValueError("the weights that this model's training began with are not at hand")


@dataclass(frozen=True)
class Model:
    """A finished model, opened. denoiser: in evaluation mode, on ``device``. told: whether it has learnt to read a
    noise level for each token, so that what is given can be told to be clean. initial: makes the denoiser again as its
    training began, in evaluation mode and on ``device``."""

    denoiser: nn.Module
    objective: Objective
    sampler: Sampler
    process: ForwardProcess | None
    tokenizer: Tokenizer
    device: torch.device
    told: bool = False
    initial: Callable[[], nn.Module] = _no_weights


def _no_texts() -> Iterator[str]:
    return iter(())


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


def _no_source() -> Mapping[str, Any]:
    raise ValueError("this text comes from no corpus")


@dataclass(frozen=True)
class Context:
    """What a model is measured on, and where the measurement writes.

    text: the sequences to measure on, as a rule the validation split. folder: for plots; tables are returned.
    batch_size: sequences of one network call. train_texts: opens the documents of the train split, as often as it is
    called. train_counts: reads how often each token occurs there, ``[V]``. source: the resolved component
    ``{name, **options}`` of the corpus source that the text comes from; corpus: the whole resolved section."""

    config: EvaluationConfig
    text: Sequences
    folder: Path
    batch_size: int = 64
    train_texts: Callable[[], Iterator[str]] = _no_texts
    train_counts: Callable[[], NDArray[np.int64]] = _no_counts
    source: Callable[[], Mapping[str, Any]] = _no_source
    log: Log = print
    progress: Progress = unwatched
    corpus: Callable[[], Mapping[str, Any]] = _no_source

    @cached_property
    def chosen(self) -> list[int]:
        """The sequences that are measured, spread over all of the text: ``config.sequences``, or all if there are
        fewer."""
        return spread_indices(min(self.config.sequences, len(self.text)), len(self.text))

    @cached_property
    def tokens(self) -> list[NDArray[np.int64]]:
        """The token ids ``[L]`` of each chosen sequence."""
        return [np.asarray(self.text[index], dtype=np.int64) for index in self.chosen]

    def plot(self, name: str) -> Path:
        """Where to write a plot."""
        return self.folder / "plots" / name


class NamedEstimate(NamedTuple):
    """A row of metrics.parquet. group: what it is a figure of (likelihood, yardstick, samples …). steps: sampling
    steps, 0 where there are none. stderr: NaN where there is none."""

    group: str
    name: str
    steps: int
    value: float
    stderr: float


def named_estimates(group: str, figures: Mapping[str, Any], steps: int = 0) -> tuple[NamedEstimate, ...]:
    """Rows of figures by name, ``<name>_stderr`` being the standard error of ``name``; truths (bool) are left out."""
    return tuple(
        NamedEstimate(group, name, steps, float(value), float(figures.get(f"{name}_stderr", math.nan)))
        for name, value in figures.items()
        if not name.endswith("_stderr") and not isinstance(value, bool)
    )


@dataclass(frozen=True)
class Findings:
    """What a measurement found.

    summary: what the evaluation's summary says of it, plain data without NaN, under keys that no other measurement
    uses. estimates: named values with their standard errors. tables: by file name. plots: the files written. texts:
    Markdown for the report. definitions: what the figures mean, a sentence or two each."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    estimates: tuple[NamedEstimate, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    plots: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()


class Measurement(Part, ABC):
    """One thing that is measured of a finished model. Raise ``version`` whenever its code would find something else.

    reads: keys of the section ``evaluation``. inputs: the stages whose outputs decide what is found; without
    ``exported_model`` the result is the same for every model of these tokens, and is computed once. What is not
    declared is refused: the denoiser, the objective and the process belong to ``exported_model``, the sampler to that
    and the key ``sampler``, the text and the counts of tokens to ``token_shards``."""

    reads: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]] = ("token_shards", "exported_model")

    def identity(self) -> dict[str, Any]:
        """Its code version: another one is another evaluation."""
        return {"version": self.version}

    @abstractmethod
    def run(self, model: Model, context: Context) -> Findings:
        """Measure. Writes plots into ``context.folder`` and nothing else; empty findings where the model has nothing
        of the kind."""


class _Declared:
    """The keys of the section ``evaluation`` that a measurement declares. Reading another is an error: its value would
    not be in the fingerprint, and a stale result would be found for it."""

    def __init__(self, config: EvaluationConfig, measurement: type[Measurement]) -> None:
        self._config, self._measurement = config, measurement

    def __getattr__(self, key: str) -> Any:
        if key not in self._measurement.reads:
            name = self._measurement.__name__
            raise AttributeError(f"{name} reads evaluation.{key}, which its `reads` does not list; add it there")
        return getattr(self._config, key)


def declared_settings(config: EvaluationConfig, measurement: type[Measurement]) -> EvaluationConfig:
    """``config`` with the keys that a measurement may read. Any other raises AttributeError, naming it."""
    return cast(EvaluationConfig, _Declared(config, measurement))


_MODEL = ("exported_model",)
_SOURCES = {  # a part of a model → the stages of which one must be declared
    "denoiser": _MODEL,
    "objective": _MODEL,
    "process": _MODEL,
    "told": _MODEL,
    "initial": _MODEL,  # whose fingerprint holds that of the training, and so that of the weights it began with
    "sampler": _MODEL,
    "tokenizer": ("tokenizer", "token_shards", *_MODEL),
}


class _DeclaredModel:
    """What a measurement declares of a model. Using another part is an error: what was found with the part of one model
    would be found again for all."""

    def __init__(self, model: Model, measurement: type[Measurement]) -> None:
        self._model, self._measurement = model, measurement

    def __getattr__(self, key: str) -> Any:
        require_input(self._measurement, f"the model's {key}", *_SOURCES.get(key, self._measurement.inputs))
        if key == "sampler" and "sampler" not in self._measurement.reads:
            name = self._measurement.__name__
            raise AttributeError(f"{name} uses the model's sampler; list sampler in its `reads`")
        return getattr(self._model, key)


class _RefusedText:
    """The text of a measurement that declares none: every use of it is an error."""

    def __init__(self, measurement: type[Measurement]) -> None:
        self._measurement = measurement

    def __len__(self) -> int:
        raise self._refusal()

    def __getitem__(self, index: int) -> NDArray[np.integer[Any]]:
        raise self._refusal()

    def __getattr__(self, key: str) -> Any:
        raise self._refusal()

    def _refusal(self) -> AttributeError:
        return _undeclared(self._measurement, "the validation text", "token_shards")


def _undeclared(measurement: type[Measurement], what: str, *stages: str) -> AttributeError:
    return AttributeError(f"{measurement.__name__} uses {what}; list {' or '.join(stages)} in its `inputs`")


def require_input(measurement: type[Measurement], what: str, *stages: str) -> None:
    """Raise AttributeError, naming ``what`` a measurement uses, unless it declares one of the stages that this comes
    from: they would not be in its fingerprint, and a result for another output of them would be found."""
    if stages and not set(stages) & set(measurement.inputs):
        raise _undeclared(measurement, what, *stages)


def declared_model(model: Model, measurement: type[Measurement]) -> Model:
    """``model`` with the parts that a measurement may use. Any other raises AttributeError, naming it."""
    return cast(Model, _DeclaredModel(model, measurement))


def declared_text(text: Sequences, measurement: type[Measurement]) -> Sequences:
    """``text`` for a measurement that declares the stage that it comes from; for others every use of it raises
    AttributeError."""
    return text if "token_shards" in measurement.inputs else _RefusedText(measurement)


def write_findings(found: Findings, folder: Path) -> None:
    """Write all of it but the plots, which are there already."""
    import pandas as pd

    if found.estimates:
        table = pd.DataFrame(list(found.estimates), columns=list(NamedEstimate._fields))
        table.to_parquet(folder / ESTIMATES, index=False)
    for name, table in found.tables.items():
        table.to_parquet(folder / name, index=False)
    plain = {"summary": found.summary, "texts": found.texts, "definitions": found.definitions}
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FINDINGS).write_text(text + "\n", encoding="utf-8")


def read_plain_findings(folder: Path) -> Findings:
    """Summary, texts and definitions of what ``write_findings`` wrote; tables and plots stay files."""
    plain = json.loads((folder / FINDINGS).read_text(encoding="utf-8"))
    return Findings(plain["summary"], texts=tuple(plain["texts"]), definitions=tuple(plain["definitions"]))
