"""How many instances of a structured task a model solves, in how many network calls.

The questions are those of the validation split, which training has not met. The model writes the answers with the
sampler of the evaluation, and the exact checker of the task decides; no stored answer is compared. Two forms:

    generation    the question is given, the answer is written after it
    infilling     a random part of one right answer is given too, so that what is written has text on both sides

tasks.parquet            a row for each instance, form and number of steps
task_accuracy.parquet    a row for each form and number of steps
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.base.statistics import binomial_estimate, wilson_interval
from sumi_core.base.text import fenced, markdown_table, with_error
from sumi_core.data import TASKS
from sumi_core.data.sequences import spread_indices
from sumi_core.data.tasks.task import Task, Verdict
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, NamedEstimate
from sumi_core.evaluation.samples import sequence_bytes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from sumi_core.data.tokenizers.tokenizer import Tokenizer

DEFINITIONS = (
    "accuracy: share of validation instances whose answer the task's checker accepts; validity: whose answer has the "
    "form of one, whatever was asked. ± is √(p (1 − p) / n) over instances, which is 0 where all or none are solved; "
    "brackets are the 95 % interval of Wilson. It says nothing of other training seeds.",
    "generation: the question is given. infilling: a part of a right answer is given too; an autoregressive model does "
    "not see what follows a token.",
    "tokens per call: tokens written / network calls, of all instances together.",
)
_PARALLEL = (
    "Generation in one call: a denoiser that knows the exact distribution of each token given the question, and draws "
    "all of them independently, solves {:.4g} of the instances."
)
_TRUST = (
    "This model reads what is given as if noise could have written it, and trusts it too little; one trained with "
    "objective.token_levels and model.time_conditioning is told that it is clean."
)
_SHOWN = 2  # instances solved, and as many that are not, of each form in the report


class Tasks(Measurement):
    """Accuracy and validity of the answers to validation questions, at each number of ``sampling_steps``."""

    reads = ("sampling_steps", "sampler", "seed")
    inputs = ("corpus", "token_shards", "exported_model")

    @dataclass
    class Options(Part.Options):
        """instances: of the validation split, spread over it; all, if there are fewer. given: share of the answer's
        tokens that infilling is given, rounded down."""

        instances: Annotated[int, Field(ge=2, le=10**6, description="validation instances that are asked")] = 256
        forms: Annotated[
            list[Literal["generation", "infilling"]],
            Field(min_length=1, description="generation: after the question; infilling: around parts of the answer"),
        ] = field(default_factory=lambda: ["generation"])
        given: Annotated[
            float, Field(ge=0.0, lt=1.0, description="share of the answer that infilling is given, at random places")
        ] = 0.5

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        return without_instances("measurement 'tasks'", "leave tasks out", others)

    def run(self, model: Model, context: Context) -> Findings:
        """Ask, check and count."""
        component = context.source()["task"]
        task: Task = TASKS.from_config(component)
        asked = Asked.of(task, model, context, instances=self.options.instances, given=self.options.given)
        rows = [row for form in dict.fromkeys(self.options.forms) for row in answers(asked, form, model, context)]
        table = answers_table(rows)
        accuracy = accuracy_table(table)
        parallel = task.parallel_accuracy()
        figures = _figures(accuracy)
        return Findings(
            summary={"tasks": {"task": component["name"], "instances": len(asked.numbers), **figures}},
            estimates=_estimates(accuracy),
            tables={"tasks.parquet": table, "task_accuracy.parquet": accuracy},
            plots=(_plot(accuracy, parallel, component["name"], context),),
            texts=tuple(_texts(component["name"], table, accuracy, [*_notes(model), *_closed_form(parallel)])),
            definitions=DEFINITIONS,
        )


def without_instances(asker: str, otherwise: str, others: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why an experiment has no instances to ask: a key and a sentence, or None. asker: who asks. otherwise: what to do
    instead of changing the corpus. others: every section of the resolved experiment by name, as plain data."""
    source = others["corpus"]["source"]
    if source["name"] != "task":
        problem = f"{asker} asks the instances of a task, and the corpus is '{source['name']}'; write corpus.source: "
        return "evaluation.measurements", problem + f"{{name: task, task: …}}, or {otherwise}"
    if others["tokenizer"]["name"] != "byte":
        return "tokenizer", f"{asker} cuts questions from answers byte by byte; write tokenizer: byte"
    found, wanted = others["shards"]["sequence_length"], TASKS.from_config(source["task"]).length + 1
    if found != wanted:
        problem = f"is {found}, but an instance of task '{source['task']['name']}' and its end of text have "
        return "shards.sequence_length", f"{problem}{wanted} tokens; write {wanted}"
    return None


@dataclass(frozen=True)
class Asked:
    """Validation instances. numbers: of their sequences. tokens: ``[n, L]`` int64, question, answer, end of text.
    given: share of the answer that infilling is given. seed: of the places."""

    task: Task
    numbers: Sequence[int]
    tokens: NDArray[np.int64]
    texts: Sequence[str]
    given: float
    seed: int

    @classmethod
    def of(cls, task: Task, model: Model, context: Context, *, instances: int, given: float) -> Asked:
        """Instances spread over the split. Raises ValueError where a sequence is not one instance."""
        numbers = spread_indices(min(instances, len(context.text)), len(context.text))
        tokens = np.stack([np.asarray(context.text[number], dtype=np.int64) for number in numbers])
        eos = model.tokenizer.eos_id
        ends = tokens == eos
        if tokens.shape[1] != task.length + 1 or ends.sum() != len(ends) or not ends[:, -1].all():
            raise ValueError(
                f"sequences of {tokens.shape[1]} tokens are not one instance of the task each, which has "
                f"{task.length + 1} with its end of text; compute token_shards again"
            )
        texts = [model.tokenizer.decode(row[:-1]) for row in tokens]
        return cls(task, numbers, tokens, texts, given, context.config.seed)

    def frozen(self, form: str) -> NDArray[np.bool_]:
        """What is given of each instance, ``[n, L]``: the question, the end of text, and places of the answer. These
        depend on the seed and the instance alone."""
        begin, count = self.task.question_length, self.task.answer_length
        frozen = np.zeros(self.tokens.shape, dtype=bool)
        frozen[:, :begin] = frozen[:, -1] = True
        if form == "infilling":
            for row, number in enumerate(self.numbers):
                address = hashlib.blake2b(f"{self.seed}:{number}".encode(), digest_size=16).digest()
                places = random.Random(address).sample(range(count), int(self.given * count))
                frozen[row, [begin + place for place in places]] = True
        return frozen

    def judged(self, row: int, ids: NDArray[np.integer[Any]], tokenizer: Tokenizer) -> tuple[str, Verdict]:
        """The answer in a written sequence ``[L]`` of an instance, and what the checker finds."""
        begin = self.task.question_length
        # An end of text within an answer is a byte that no checker accepts.
        written = sequence_bytes(ids[begin:-1], tokenizer).decode("utf-8", errors="replace")
        return written, self.task.check(self.texts[row][:begin], written)


def answers(asked: Asked, form: str, model: Model, context: Context) -> list[dict[str, Any]]:
    """A row for each instance and number of steps: what was written, at what cost, and what the checker found.

    A sampler that takes the network calls it needs writes once; its steps are the tokens of a sequence."""
    import torch

    sampler, config = model.sampler, context.config
    length, begin, frozen = asked.tokens.shape[1], asked.task.question_length, asked.frozen(form)
    given: list[tuple[Tensor, Tensor]] = [
        (torch.from_numpy(tokens), torch.from_numpy(own)) for tokens, own in zip(asked.tokens, frozen, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    steps_list = sorted(set(config.sampling_steps)) if sampler.uses_steps else [length]
    for done, steps in enumerate(steps_list):
        context.progress(done, len(steps_list), "sampling runs", f"{form}, {steps} steps")
        drawn = sampler.sample(
            model.denoiser,
            num=len(given),
            length=length,
            steps=steps,
            seed=config.seed,
            given=given,
            told=model.told,
        )
        for row, (ids, calls) in enumerate(zip(drawn.tokens.cpu().numpy(), drawn.nfe.tolist(), strict=True)):
            written, verdict = asked.judged(row, ids, model.tokenizer)
            question, expected = asked.texts[row][:begin], asked.texts[row][begin:]
            rows.append(
                {
                    "form": form,
                    "steps": steps,
                    "instance": asked.numbers[row],
                    "calls": calls,
                    "tokens": int((~frozen[row]).sum()),
                    "question": question,
                    "expected": expected,
                    "written": written,
                    "valid": verdict.valid,
                    "solved": verdict.solved,
                }
            )
    return rows


def answers_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Columns form, steps, instance (the number of its validation sequence), calls, tokens (written), question,
    expected (one right answer), written, valid, solved."""
    import pandas as pd

    return pd.DataFrame(list(rows))


def accuracy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Columns form, steps, instances, calls (mean), tokens_per_call, accuracy, accuracy_stderr, low, high (95 %
    interval), validity, validity_stderr."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for (form, _), group in table.groupby(["form", "steps"], sort=False):
        count, solved = len(group), int(group["solved"].sum())
        accuracy, validity = binomial_estimate(solved, count), binomial_estimate(int(group["valid"].sum()), count)
        low, high = wilson_interval(solved, count)
        rows.append(
            {
                "form": form,
                "steps": int(group["steps"].iloc[0]),
                "instances": count,
                "calls": float(group["calls"].mean()),
                "tokens_per_call": float(group["tokens"].sum() / group["calls"].sum()),
                "accuracy": accuracy.value,
                "accuracy_stderr": accuracy.stderr,
                "low": low,
                "high": high,
                "validity": validity.value,
                "validity_stderr": validity.stderr,
            }
        )
    return pd.DataFrame(rows)


_REPORTED = ("accuracy", "accuracy_stderr", "validity", "validity_stderr", "calls", "tokens_per_call")


def _figures(accuracy: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """By form, then ``steps_8``."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for row in accuracy.to_dict("records"):
        figures.setdefault(row["form"], {})[f"steps_{row['steps']}"] = {name: float(row[name]) for name in _REPORTED}
    return figures


def _estimates(accuracy: pd.DataFrame) -> tuple[NamedEstimate, ...]:
    return tuple(
        NamedEstimate(
            "tasks",
            f"{row['form']}_{name}",
            int(row["steps"]),
            float(row[name]),
            float(row.get(f"{name}_stderr", np.nan)),
        )
        for row in accuracy.to_dict("records")
        for name in _REPORTED
        if not name.endswith("_stderr")
    )


def _plot(accuracy: pd.DataFrame, parallel: float | None, task: str, context: Context) -> Any:
    from sumi_core.evaluation.plots import plot_task_accuracy

    tables = {str(form): group for form, group in accuracy.groupby("form", sort=False)}
    return plot_task_accuracy(tables, context.plot("task_accuracy.png"), parallel, f"Task {task}")


def _notes(model: Model) -> list[str]:
    token_by_token = model.sampler.grows and not model.sampler.uses_steps
    trusts = token_by_token or model.told or model.process is None or not model.process.noise_writes_tokens
    return [] if trusts else [_TRUST]


def _closed_form(parallel: float | None) -> list[str]:
    return [] if parallel is None else [_PARALLEL.format(parallel)]


def _texts(task: str, table: pd.DataFrame, accuracy: pd.DataFrame, notes: Sequence[str]) -> list[str]:
    """The section of the report: figures, notes, and instances at the most steps."""
    shown = [
        {
            "form": row["form"],
            "steps": str(row["steps"]),
            "accuracy": f"{with_error(row['accuracy'], row['accuracy_stderr'])} [{row['low']:.3f}, {row['high']:.3f}]",
            "validity": with_error(row["validity"], row["validity_stderr"]),
            "calls": f"{row['calls']:.1f}",
            "tokens per call": f"{row['tokens_per_call']:.2f}",
        }
        for row in accuracy.to_dict("records")
    ]
    texts = [f"## Task {task}", markdown_table(shown), *notes]
    for form, group in table.groupby("form", sort=False):
        most = group[group["steps"] == group["steps"].max()]
        for solved, name in ((True, "solved"), (False, "not solved")):
            own = most[most["solved"] == solved].head(_SHOWN).to_dict("records")
            if own:
                texts += [f"### {form}, {most['steps'].iloc[0]} steps, {name}", fenced(_examples(own))]
    return texts


def _examples(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"{row['question']}{row['written']}" + ("" if row["solved"] else f"    one right answer: {row['expected']}")
        for row in rows
    )
