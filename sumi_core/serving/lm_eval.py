"""A model of Sumi for lm-evaluation-harness (``lm_eval``), and the Monte-Carlo errors of what the harness finds.

    log p(continuation | context)    exact for an autoregressive model. For a diffusion model a lower bound, minus the
                                     bound of the reverse process beside the context (``objectives.likelihood.Bound``),
                                     estimated at ``levels`` noise levels. Options of one question share their noise
    rolling log p(text)              of windows that overlap by ``overlap`` tokens, each given what it repeats
    text until a stop string         by ``generate()``, with the sampler of the model's evaluation

A text is the tokens of the harness, without an end-of-text token; before its first token an autoregressive model reads
one. Context and continuation are tokenized together and cut after as many tokens as the context has by itself, as the
harness's own models do; spaces at the end of a context belong to the continuation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.api.model import LM

from sumi_core.base.progress import Progress, unwatched
from sumi_core.evaluation.continuations import Continuation, half_differences, read_windows, windows
from sumi_core.experiments.build import Parts
from sumi_core.experiments.size import reads_token_levels
from sumi_core.sampling import SAMPLERS

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from numpy.typing import NDArray

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.evaluation.likelihood import Floats
    from sumi_core.experiments.schema import Experiment
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.sampling.canvas import Canvas
    from sumi_core.sampling.sampler import Sampler

    #: A request by the name of its task, the number of its document, and its number among the document's.
    Key = tuple[str, int, int]

_SHARPENING = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True)
class Answer:
    """A log-likelihood. value: its estimate. halves: what it varies by, as of ``half_differences``; none if exact."""

    value: float
    halves: Floats

    @property
    def stderr(self) -> float:
        """The standard error of ``value`` over noise levels and noise."""
        return math.sqrt(float((self.halves**2).sum()))


class HarnessModel(LM):
    """A finished model as the harness asks it: ``lm_eval.simple_evaluate(model=HarnessModel(…), tasks=[…])``.

    denoiser: in evaluation mode, on ``device``. levels: noise levels of a bound, at most 2¹⁴. overlap: tokens that a
    window of a rolling text repeats, None: half the trained length. steps: network calls of a diffusion sampler, None:
    the most that the model is evaluated at. seed: of all noise. The same requests give the same answers.

    A request that is greedy (``do_sample: false``, which is the harness's default, or ``temperature: 0``) is written so
    by a sampler from left to right; no text of a diffusion sampler is, so it draws, seeded. A temperature above 0 and
    truncations go to a sampler that has them."""

    def __init__(
        self,
        experiment: Experiment,
        parts: Parts,
        denoiser: DenoiserFunction,
        tokenizer: Tokenizer,
        *,
        device: torch.device | str = "cpu",
        levels: int = 64,
        overlap: int | None = None,
        steps: int | None = None,
        seed: int = 1,
        progress: Progress = unwatched,
    ) -> None:
        super().__init__()
        self.experiment, self.parts, self.denoiser, self.tokenizer = experiment, parts, denoiser, tokenizer
        self.length = experiment.shards.sequence_length
        self.overlap = self.length // 2 if overlap is None else overlap
        self.levels, self.seed, self.progress = levels, seed, progress
        self.steps = max(experiment.evaluation.sampling_steps) if steps is None else steps
        self.told = reads_token_levels(experiment)
        self.reading = parts.objective.reading
        self.answers: dict[Key, Answer] = {}
        self._device = torch.device(device)

    @property
    def exact(self) -> bool:
        """Whether log-likelihoods are exact, or lower bounds."""
        return self.reading.exact

    @property
    def trusts_context(self) -> bool:
        """Whether what is given cannot be taken for noise."""
        process = self.parts.process
        return self.exact or self.told or process is None or not process.noise_writes_tokens

    @property
    def tokenizer_name(self) -> str:
        """What the harness calls the tokenizer in the keys of its caches."""
        return f"sumi-{self.tokenizer.vocab_size}"

    # --- likelihoods ------------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each (context, continuation): log p, and whether the continuation is what the model finds most probable,
        token by token; False for a bound, which has no such order."""
        pairs = [self.encode_pair(*request.args) for request in requests]
        found = self._answers(requests, pairs, overlap=0, greedy=True)
        return [(answer.value, greedy) for answer, greedy in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """For each text: its log p, all of it."""
        none = np.zeros(0, dtype=np.int64)
        pairs = [(none, self._ids(request.args[0])) for request in requests]
        return [answer.value for answer, _ in self._answers(requests, pairs, overlap=self.overlap, greedy=False)]

    def encode_pair(self, context: str, continuation: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens of a context and of its continuation."""
        kept = context.rstrip() if context.strip() else ""
        text = context + continuation
        ids = self._ids(text)
        count = len(self._ids(kept)) if kept else 0
        return ids[:count], ids[count:]

    def _ids(self, text: str) -> NDArray[np.int64]:
        found: Any = self.tokenizer.encode_batch([text])[0] if text else []
        return np.asarray(found, dtype=np.int64)

    def _answers(
        self,
        requests: Sequence[Instance],
        pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
        *,
        overlap: int,
        greedy: bool,
    ) -> list[tuple[Answer, bool]]:
        asked = [
            windows(*pair, f"{request.task_name}\n{request.doc_id}", length=self.length, overlap=overlap)
            for request, pair in zip(requests, pairs, strict=True)
        ]
        found = iter(
            read_windows(
                self.reading,
                self.denoiser,
                [window for own in asked for window in own],
                draws=self.levels,
                width=self.length,
                epsilon=self.experiment.evaluation.time_epsilon,
                seed=self.seed,
                told=self.told,
                greedy=greedy,
                device=self._device,
                progress=self.progress,
            )
        )
        answers = []
        for request, own in zip(requests, asked, strict=True):
            parts = [next(found) for _ in own]
            answer = _answer(parts)
            self.answers[key_of(request)] = answer
            answers.append((answer, bool(greedy and all(part.greedy for part in parts))))
        return answers

    # --- texts ------------------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """For each (context, options): what is written after the context, up to the first stop string or the end of
        the text. Options: ``until``, ``max_gen_toks`` (half the trained length), ``do_sample``, ``temperature``,
        ``top_k``, ``top_p``, ``min_p``; a sampler that lacks one goes without."""
        texts = [""] * len(requests)
        alike: dict[tuple[tuple[str, Any], ...], list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            alike[tuple(sorted(self._sharpened(request.args[1]).items()))].append(number)
        for changes, numbers in alike.items():
            written = self._write(self._sampler(dict(changes)), [requests[number].args for number in numbers])
            for number, text in zip(numbers, written, strict=True):
                texts[number] = text
        return texts

    def _write(self, sampler: Sampler, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        prompts, lengths, stops = [], [], []
        for context, options in asked:
            room = min(int(options.get("max_gen_toks") or self.length // 2), self.length - 1)
            ids = self._ids(context)[-(self.length - room) :]
            prompts.append(torch.from_numpy(ids))
            lengths.append(len(ids) + room)
            until = options.get("until") or []
            stops.append([stop for stop in ([until] if isinstance(until, str) else until) if stop])

        def behind(row: int, tokens: torch.Tensor) -> str:
            own = tokens[len(prompts[row]) :].tolist()
            return self.tokenizer.decode([token for token in own if token != self.tokenizer.eos_id])

        def stopped(canvas: Canvas, settled: torch.Tensor) -> torch.Tensor:
            """Rows that hold a stop string in what will change no more."""
            found = [
                not done and any(stop in behind(row, tokens[:count]) for stop in stops[row])
                for row, tokens, count, done in zip(
                    canvas.rows, canvas.tokens.cpu(), settled.tolist(), canvas.done.tolist(), strict=True
                )
            ]
            return torch.tensor(found, device=canvas.device)

        samples = sampler.sample(
            self.denoiser,
            num=len(asked),
            length=lengths,
            steps=self.steps,
            seed=self.seed,
            prompt=prompts,
            told=self.told,
            end_of_text=True,
            stop=stopped if sampler.grows else None,
        )
        return [
            cut(behind(row, tokens[:length]), stops[row])
            for row, (tokens, length) in enumerate(zip(samples.tokens.cpu(), samples.lengths.tolist(), strict=True))
        ]

    def _sampler(self, changes: Mapping[str, Any]) -> Sampler:
        own = self.experiment.evaluation.sampler
        context = {"process": self.parts.process, "vocabulary": self.parts.vocabulary, "layout": self.parts.layout}
        sampler: Sampler = SAMPLERS.from_config({**own, **changes}, **context)
        return sampler

    def _sharpened(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a request that the sampler has."""
        own = self.parts.sampler
        sampling = options.get("do_sample", bool(options.get("temperature")))
        if not sampling or options.get("temperature") == 0:
            greedy = own.grows and not own.uses_steps and hasattr(own.options, "temperature")
            return {"temperature": 0.0} if greedy else {}
        return {
            name: options[name] for name in _SHARPENING if options.get(name) is not None and hasattr(own.options, name)
        }


def cut(text: str, stops: Iterable[str]) -> str:
    """The text before the first stop string in it."""
    return text[: min((text.index(stop) for stop in stops if stop and stop in text), default=len(text))]


def key_of(request: Instance) -> Key:
    """The key of a request."""
    return (str(request.task_name), int(request.doc_id or 0), int(request.idx))


def _answer(parts: Sequence[Continuation]) -> Answer:
    halves = [half_differences(part.nats.sum(1), part.time) for part in parts]
    return Answer(-sum(part.total for part in parts), -np.concatenate([np.zeros(0), *halves]))


def monte_carlo_errors(
    answers: Mapping[Key, Answer], task: Any, *, replicates: int = 200, seed: int = 1
) -> dict[str, float]:
    """The error of each metric of a task over noise levels and noise, by the harness's name of it ("acc,none").

    task: of the harness, after its requests were answered. The metrics are computed again from log-likelihoods that are
    varied by random half-samples, with the same signs for all options of a question; their standard deviation is the
    error. So it is 0 where every answer is exact, and for a metric of the order of options it counts the questions
    that noise may decide otherwise. Metrics of written texts have none and are left out."""
    groups: dict[int, list[Any]] = defaultdict(list)
    for request in task.instances:
        groups[request.doc_id].append(request)
    if not all(key_of(request) in answers for request in task.instances):
        return {}
    random = np.random.default_rng(seed)
    errors: dict[str, float] = {}
    aggregate: Mapping[str, Callable[[list[Any]], float]] = task.aggregation()
    for own in groups.values():
        own.sort(key=lambda request: request.idx)
    for name in task.instances[0].filtered_resps:
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(replicates):
            values: dict[str, list[Any]] = defaultdict(list)
            for own in groups.values():
                given = [answers[key_of(request)] for request in own]
                signs = random.choice([-1.0, 1.0], max(len(answer.halves) for answer in given))
                varied = [answer.value + float(answer.halves @ signs[: len(answer.halves)]) for answer in given]
                results = [
                    _with(request.filtered_resps[name], value) for request, value in zip(own, varied, strict=True)
                ]
                for metric, value in task.process_results(own[0].doc, results).items():
                    values[metric].append(value)
            for metric, listed in values.items():
                found[metric].append(float(aggregate[metric](listed)))
        errors |= {f"{metric},{name}": float(np.std(listed, ddof=1)) for metric, listed in found.items()}
    return errors


def _with(response: Any, value: float) -> Any:
    """A response with another log-likelihood."""
    return (value, *response[1:]) if isinstance(response, tuple) else value
