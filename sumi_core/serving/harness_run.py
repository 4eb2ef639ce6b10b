"""A run of lm-evaluation-harness on a model of Sumi: the harness's metrics, each with both of its errors."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.errors import SumiError
from sumi_core.serving.lm_eval import HarnessModel, monte_carlo_errors

if TYPE_CHECKING:
    import pandas as pd

_FEWSHOT_SEED, _BOOTSTRAP = 1234, 1000  # the harness's own seed; resamples for errors that have no formula
_ENVIRONMENT = {"TQDM_DISABLE": "1", "DISABLE_MULTIPROC": "1"}  # no bars, and no processes for the resamples

#: What grows as the log-likelihood falls: of a bound an upper bound.
_UPPER = ("bits_per_byte", "byte_perplexity", "word_perplexity", "perplexity")


class HarnessError(SumiError, ValueError):
    """Tasks that the harness cannot run. One sentence: what is wrong, what to do."""


@dataclass(frozen=True)
class HarnessResults:
    """table: a row for each task and metric, see ``run_tasks``. raw: what the harness returns, samples included."""

    table: pd.DataFrame
    raw: dict[str, Any]


def run_tasks(
    model: HarnessModel,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> HarnessResults:
    """Run tasks by their names (globs are resolved), those of the folder ``include_path`` among them.

    Columns of the table: task, metric, filter, documents, value, stderr (the harness's, over documents; NaN where it
    has none), mc_stderr (over noise levels and noise, see ``monte_carlo_errors``; NaN where there is none), kind:
    ``exact``; ``bound`` for a figure of a lower bound on log-likelihoods (``upper bound`` where the figure itself is
    one); ``texts`` for one of written texts. The share of greedy continuations is left out for a bound, which has none.

    Raises HarnessError for a task that there is not, and for one whose YAML file or data cannot be read."""
    import pandas as pd
    from lm_eval.evaluator import evaluate

    if include_path is not None:
        _check_files(include_path)

    with _quiet():
        manager = _manager(tasks, include_path)
        unknown = [task for task in tasks if not manager.match_tasks([task])]
        if unknown or not tasks:
            raise HarnessError(
                f"lm-evaluation-harness has no task '{', '.join(unknown)}'; name one of its tasks, or a folder with "
                "their YAML files as --include-path"
            )
        loaded = _loaded(manager, tasks)
        for task in loaded["tasks"].values():
            own = task.get_config("num_fewshot")
            task.set_config(key="num_fewshot", value=(own or 0) if num_fewshot is None or own == 0 else num_fewshot)
            task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        raw: dict[str, Any] = evaluate(lm=model, task_dict=loaded, limit=limit, bootstrap_iters=_BOOTSTRAP)
    rows: list[dict[str, Any]] = []
    for name, found in raw["results"].items():
        task = loaded["tasks"].get(name)
        errors = monte_carlo_errors(model.answers, task, seed=model.seed) if task is not None else {}
        output = task.OUTPUT_TYPE if task is not None else ""
        for key, value in found.items():
            metric, _, own_filter = key.partition(",")
            if not own_filter or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            if output == "loglikelihood" and metric == "acc" and not model.exact:
                continue
            stderr = found.get(f"{metric}_stderr,{own_filter}")
            rows.append(
                {
                    "task": name,
                    "metric": metric,
                    "filter": own_filter,
                    "documents": raw["n-samples"][name]["effective"] if name in raw.get("n-samples", {}) else None,
                    "value": float(value),
                    "stderr": float(stderr) if isinstance(stderr, (int, float)) else math.nan,
                    "mc_stderr": errors.get(key, math.nan),
                    "kind": _kind(output, metric, model.exact),
                }
            )
    return HarnessResults(pd.DataFrame(rows), raw)


def _kind(output: str, metric: str, exact: bool) -> str:
    if output == "generate_until":
        return "texts"
    if exact:
        return "exact"
    return "upper bound" if metric in _UPPER else "bound"


def _manager(tasks: Sequence[str], include_path: Path | None) -> Any:
    """The index of the tasks: of those of the folder alone where it has all that are wanted, since there are thousands
    of others."""
    from lm_eval.tasks import TaskManager

    if include_path is not None:
        local = TaskManager(include_path=str(include_path), include_defaults=False)
        if all(local.match_tasks([task]) for task in tasks):
            return local
    return TaskManager(include_path=str(include_path) if include_path is not None else None)


def _check_files(folder: Path) -> None:
    """Raise HarnessError for a folder without YAML files, or with one that is not YAML: the harness leaves it out."""
    import yaml

    files = sorted(folder.rglob("*.yaml"))
    if not files:
        raise HarnessError(f"--include-path: {folder} has no YAML files of tasks; name the folder that holds them")
    for file in files:
        try:
            yaml.compose(file.read_text(encoding="utf-8"))  # what its tags mean is the harness's matter
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise HarnessError(f"{file} cannot be read as YAML ({_brief(error)}); correct or remove it") from None


def _loaded(manager: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """The tasks with their data. Raises HarnessError for one whose first document cannot be asked."""
    doing = f"task '{', '.join(tasks)}'"
    try:
        loaded: dict[str, Any] = manager.load(manager.match_tasks(list(tasks)))
        for name, task in loaded["tasks"].items():
            doing = f"task '{name}'"
            doc = next(iter(task.eval_docs), None)
            if doc is None:
                raise HarnessError(f"{doing} has no documents; look at the data that its YAML file names")
            task.doc_to_text(doc)
            task.doc_to_target(doc)
            if task.OUTPUT_TYPE == "multiple_choice":
                task.doc_to_choice(doc)
    except HarnessError:
        raise
    except Exception as error:  # whatever the harness, its templates and `datasets` raise
        problem = f"{doing} cannot be loaded ({_brief(error)}); look at its YAML file and the data that it names"
        raise HarnessError(problem) from error
    return loaded


def _brief(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of data sets and no running commentary."""
    import datasets
    import lm_eval.api.task as requests

    bar = requests.tqdm
    logger, bars = logging.getLogger("lm_eval"), datasets.utils.logging.is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.utils.logging.disable_progress_bar()
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    requests.tqdm = functools.partial(bar, disable=True)  # tqdm read its variable when it was imported
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        requests.tqdm = bar
        logger.setLevel(level)
        if bars:
            datasets.utils.logging.enable_progress_bar()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
