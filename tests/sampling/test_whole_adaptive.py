"""Whole texts written by a rule: small cases by hand, limits that are other samplers, the stop, and what is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.base.options import ConfigError
from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.resolve import resolve
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.confidence import ConfidenceRule
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.generate import generate
from sumi_core.sampling.truncation import Sharpening
from tests.corruption.enumerable import build_process
from tests.models.stock import lively, small
from tests.sampling.test_generate import EOS, LENGTHS, PROMPTS, V, last
from tests.sampling.test_rules import step

NOISES = ["uniform", "absorbing", "hybrid", "clustered", "absorbing_uniform"]
WRITERS: list[tuple[str, dict[str, Any]]] = [
    ("entropy_bound", {"entropy_bound": 1.5, "confidence": 0.9, "t_min": 0.2}),
    ("threshold", {"threshold": 0.45}),
    ("confidence", {}),
    ("confidence", {"places": 2, "temperature": 0.0}),
]
writers = pytest.mark.parametrize(("name", "options"), WRITERS, ids=str)
noises = pytest.mark.parametrize("noise", NOISES)


def build(name: str, process: Any, **options: Any) -> Any:
    return SAMPLERS.build(name, options, process=process, vocabulary=Vocabulary(V, EOS))


def constant(process: Any, chances: Tensor) -> DenoiserFunction:
    """A network that predicts the same distributions ``[n, V]`` of a text's first n places, whatever it reads."""
    logits = torch.full((len(chances), process.num_states), -torch.inf, dtype=torch.float64)
    logits[:, :V] = chances.log()
    return FromLogits(lambda z, level: logits[: z.shape[1]].expand(len(z), -1, -1))


def peaked(tokens: list[int], chances: list[float]) -> Tensor:
    """Distributions with a probability of one token each, and the rest evenly elsewhere."""
    found = torch.stack([torch.full((V,), (1 - p) / (V - 1), dtype=torch.float64) for p in chances])
    return found.scatter(1, torch.tensor(tokens)[:, None], torch.tensor(chances, dtype=torch.float64)[:, None])


@writers
@noises
@pytest.mark.parametrize("parameterisation", ["leave_one_out", "posterior"])
def test_a_sure_network_is_written_down(noise: str, name: str, options: dict[str, Any], parameterisation: str) -> None:
    process = build_process(noise, "cosine", V)
    process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    text = [4, 1, 0, 3, 3, 5, 2]
    network = constant(process, peaked(text, [1 - 1e-12] * 7))
    found = build(name, process, **options).sample(network, num=3, length=7, steps=9, seed=0)
    assert found.tokens.tolist() == [text] * 3


@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_it_stops_when_nothing_is_to_change(noise: str) -> None:
    process = build_process(noise, "linear", V)
    network = constant(process, peaked([4, 1, 0, 3], [1 - 1e-12] * 4))
    for name, options, calls in (
        ("entropy_bound", {}, 2),  # one more sees that the text is stable
        ("threshold", {}, 1),
        ("confidence", {"places": 4}, 2),
        ("confidence", {"places": 2}, 3),
    ):
        found = build(name, process, **options).sample(network, num=9, length=4, steps=48, seed=0)
        assert (found.nfe <= calls).all(), name
        assert int(found.nfe.max()) == calls, name


@pytest.mark.parametrize("noise", ["uniform", "absorbing", "hybrid"])
def test_an_endless_entropy_bound_accepts_what_one_step_draws(noise: str) -> None:
    """The same text as one ancestral step, draw for draw: all places at once from p(x_i | z)."""
    process = build_process(noise, "linear", V)
    network = lively(Denoiser(small(), process.num_states)).double()
    bound = build("entropy_bound", process, entropy_bound=1e9, t_min=1.0, t_max=1.0)
    _, first, *_ = generate(bound, network, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=4))
    drawn = last(generate(build("ancestral", process), network, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=1)))
    for row, length in enumerate(LENGTHS):
        assert torch.equal(first.state.z[row, :length], drawn.tokens[row, :length])
    assert bool(first.state.accepted.all())


def test_one_place_a_step_goes_by_rising_entropy_of_what_is_masked() -> None:
    """A bound that admits one place beside those that stand: masks are filled in, the surest first."""
    process = build_process("absorbing", "linear", V)
    network = constant(process, peaked([4, 1, 0, 3], [0.5, 0.9, 0.6, 0.8]))
    sampler = build("entropy_bound", process, entropy_bound=1e-9, t_min=1e-3, t_max=1.0)
    canvases = list(generate(sampler, network, Canvas.blank([torch.empty(0).long()], [4], seed=1, steps=4)))
    accepted = [canvas.state.accepted[0].nonzero()[:, 0].tolist() for canvas in canvases]
    assert accepted == [[], [1], [1, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_confidence_writes_the_surest_changes_by_hand() -> None:
    """Of five places, 0 stands as predicted, 4 is given; of the changes, the margins are 0.75, 0.5 and 0.1."""
    probs = torch.tensor(
        [[[0.9, 0.05, 0.05], [0.8, 0.15, 0.05], [0.1, 0.3, 0.6], [0.4, 0.5, 0.1], [0.0, 1.0, 0.0]]],
        dtype=torch.float64,
    )
    z = torch.tensor([[0, 2, 0, 0, 1]])
    open_ = torch.tensor([[True, True, True, True, False]])
    rule = ConfidenceRule(1, lambda steps: torch.zeros(steps), Sharpening(temperature=0.0))

    class Best:
        def tokens(self, probs: Tensor) -> Tensor:
            return probs.argmax(-1)

        def noise(self) -> Tensor:
            raise AssertionError("nothing becomes noise again")

    belief = rule.first(z, open_)
    assert float(rule.settled(belief, 0, 8)) == 0
    seen = []
    for number in range(4):
        belief = step(rule, belief, probs.log(), number, 8, Best())
        seen.append((belief.z.tolist()[0], bool(belief.done)))
    assert seen == [
        ([0, 0, 0, 0, 1], False),
        ([0, 0, 2, 0, 1], False),
        ([0, 0, 2, 1, 1], False),
        ([0, 0, 2, 1, 1], True),
    ]
    assert [float(rule.settled(belief, number, 8)) for number in (1, 3, 4, 7)] == [0.25, 0.75, 0.875, 0.875]
    whole = step(rule, rule.first(z, open_), probs.log(), 7, 8, Best())
    assert whole.z.tolist() == [[0, 0, 2, 1, 1]], "the last step writes all that is to change"
    assert step(rule, rule.first(torch.full_like(z, 3), open_), probs.log(), 0, 8, Best()).z.tolist() == [
        [0, 3, 3, 3, 3]
    ], "a mask has no probability of its own"


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_confidence_writes_as_many_as_the_schedule_has_become_clean(schedule: str) -> None:
    process = build_process("absorbing", schedule, V)
    network = constant(process, torch.full((12, V), 1 / V, dtype=torch.float64))
    canvas = Canvas.blank([torch.empty(0).long()] * 2, [12, 8], seed=1, steps=4)
    masks = torch.stack(
        [(c.tokens == process.mask_id).sum(-1) for c in generate(build("confidence", process), network, canvas)]
    )
    share = process.alpha(torch.linspace(1, 0, 5, dtype=torch.float64))
    for row, length in enumerate((12, 8)):
        assert masks[:, row].tolist() == (length - (length * share - 1e-9).ceil()).long().tolist()


@pytest.mark.parametrize("name", ["entropy_bound", "threshold", "confidence"])
def test_levels_are_told_by_what_is_settled_and_given_tokens_are_told_clean(name: str) -> None:
    """The levels of masks are the shares of masks, row by row: what is given counts for nothing."""
    process = build_process("absorbing", "linear", V)
    logits, told = torch.zeros(1, process.num_states, dtype=torch.float64), []

    def network(given: DenoiserInput) -> Any:
        assert given.level is not None
        masked = (given.tokens == process.mask_id).double().sum(-1) / torch.tensor([6, 3])
        told.append((given.level, masked))
        return FromLogits(lambda z, level: logits.expand(*z.shape, -1))(given)

    tokens = torch.tensor([[0, 0, 0, 0, 0, 0], [2, 0, 3, 0, 1, 0]])
    frozen = torch.tensor([[0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0]], dtype=torch.bool)
    options = {"entropy_bound": {"entropy_bound": 1e-9}, "threshold": {"threshold": 1.0}, "confidence": {"places": 1}}
    canvas = Canvas.of(tokens, frozen, seed=0, steps=3, told=True)
    list(generate(build(name, process, **options[name]), network, canvas))
    assert len(told) == 3
    for level, masked in told:
        assert (level[frozen] == 0).all()
        for row in (0, 1):
            if masked[row] > 0:
                torch.testing.assert_close(level[row][~frozen[row]].unique(), masked[row : row + 1])


@writers
@noises
def test_what_is_given_stands_and_constraints_hold(noise: str, name: str, options: dict[str, Any]) -> None:
    process = build_process(noise, "linear", V)
    network = lively(Denoiser(small(), process.num_states)).double()
    tokens = torch.tensor([[5, 0, 0, 1, 0, 3], [0, 4, 4, 0, 0, 0]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    sampler = build(name, process, **options)
    forbidden = int(last(generate(sampler, network, Canvas.of(tokens, frozen, seed=0, steps=4))).tokens[0, 1])
    held = Canvas.of(tokens, frozen, seed=0, steps=4, constraints=[ForbiddenTokens([forbidden])])
    canvases = list(generate(sampler, network, held))
    assert all(torch.equal(canvas.tokens[frozen], tokens[frozen]) for canvas in canvases)
    assert int(canvases[-1].tokens.max()) < V
    assert not bool((canvases[-1].tokens[~frozen] == forbidden).any())
    confidence = canvases[-1].confidence
    assert bool(confidence[frozen].isnan().all())
    assert bool(((confidence > 0) & (confidence <= 1))[~frozen].all())


@writers
def test_a_canvas_steps_alike_however_often_and_rows_cost_what_they_take(name: str, options: dict[str, Any]) -> None:
    process = build_process("uniform", "linear", V)
    network = lively(Denoiser(small(feedback={"name": "self_conditioning"}), V)).double()
    sampler = build(name, process, **options)
    canvas = sampler.start(Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=3))
    with torch.no_grad():
        while not bool(sampler.finished(canvas).all()):
            once = sampler.step(network, canvas)
            sampler.step(network, once)
            assert torch.equal(sampler.step(network, canvas).tokens, once.tokens)
            canvas = once
    found = last(generate(sampler, network, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=3)))
    assert torch.equal(found.slots, found.nfe * torch.tensor(LENGTHS))


@pytest.mark.parametrize("name", ["entropy_bound", "threshold", "confidence"])
def test_other_clocks_are_refused(name: str) -> None:
    plain = {"process": "uniform", "schedule": "linear", "evaluation": {"sampler": name}}
    resolve(plain, "test.yaml")
    with pytest.raises(ConfigError) as caught:
        resolve(plain | {"clock": "spans"}, "test.yaml")
    assert str(caught.value) == (
        f"test.yaml: evaluation.sampler: sampler '{name}' gives all positions one noise level, which clock 'spans' "
        "does not; choose ancestral, or write clock: shared"
    )
