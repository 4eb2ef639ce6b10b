"""Ancestral sampling against a distribution that can be enumerated."""

import itertools

import pytest
import torch

import sumi_core.sampling.drawing as drawing_module
from sumi_core.corruption import CLOCKS, PROCESSES, SCHEDULES
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.generate import generate
from tests.corruption.enumerable import CASES, World, build_process, chi_square
from tests.objectives.worlds import told_posterior
from tests.sampling.worlds import clean, empty, index_of, noise_floor
from tests.sampling.worlds import total_variation as total_variation_of


def build(process, **options):
    return SAMPLERS.build("ancestral", options, process=process, vocabulary=Vocabulary(process.num_tokens, 0))


def chain_distribution(world, steps, spacing="time"):
    """Where the chain ends, exactly: the distribution over all states pushed through every factorised step. ``[Z]``."""
    levels = build(world.process, spacing=spacing).levels(steps)
    distribution = world.pi[world.z].prod(-1)
    for t, s in itertools.pairwise(levels):
        z = world.z[distribution > 0]  # at t = 1 an absorbing chain is all masks, and nothing else has a posterior
        probs = world.process.reverse(world.denoiser(z, t.expand(len(z))), z, t.view(1, 1), s.view(1, 1))
        step = torch.stack([probs[:, i, world.z[:, i]] for i in range(world.length)]).prod(0)  # [z_t, z_s]
        distribution = distribution[distribution > 0] @ step
    return distribution


def total_variation(world, distribution):
    """Between the chain's end and p, both over ``world.z``; states with a mask have probability 0 in p."""
    index = (world.x * torch.tensor([world.states ** (world.length - 1 - i) for i in range(world.length)])).sum(-1)
    p = torch.zeros(len(world.z), dtype=torch.float64).index_add_(0, index, world.p)
    return float((distribution - p).abs().sum() / 2)


@pytest.mark.parametrize("spacing", ["time", "log_snr"])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_distribution_converges_to_the_data(process, schedule, spacing):
    """With the exact denoiser the only error is that a step treats positions as independent: it is O(1/steps)."""
    world = World(process, schedule)
    distances = [total_variation(world, chain_distribution(world, steps, spacing)) for steps in (4, 16, 64, 256)]
    assert distances[0] > 0.05
    assert all(fine < 0.35 * coarse for coarse, fine in itertools.pairwise(distances))
    assert distances[-1] < 3e-3


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_sampler_draws_from_that_chain(process, schedule):
    """χ² of 6,000 drawn texts against the exactly computed end of the chain, at few steps, where it is not yet p."""
    world = World(process, schedule)
    samples = build(world.process).sample(FromLogits(world.denoiser), num=6000, length=2, steps=5, seed=11)
    assert set(samples.nfe.tolist()) == {5}
    drawn = (samples.tokens * torch.tensor([world.states, 1])).sum(-1)
    expected = chain_distribution(world, 5)
    assert chi_square(drawn, expected.where(expected > 1e-15, 0.0)) > 1e-3  # rounding leaves 1e-17 on masks
    wrong = chain_distribution(world, 2)
    assert chi_square(drawn, wrong.where(wrong > 1e-15, 0.0)) < 1e-6  # sharp enough to notice a wrong step


def hash_denoiser(process):
    """A stand-in network: logits of a row depend on that row's tokens and level alone, not linearly."""

    def denoiser(z, t):
        generator = torch.Generator().manual_seed(0)
        table = 2 * torch.randn(process.num_states, process.num_states, generator=generator, dtype=torch.float64)
        logits = table[z] + table[z.roll(1, 1)] * (1 - t[:, None, None])
        if process.mask_id is not None:
            logits[..., process.mask_id] = 50.0  # tempting
        return logits

    return denoiser


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_finished_texts_hold_only_tokens(process, schedule, steps):
    """Mis-broadcasts would show too: number, length, states and steps all differ."""
    process = build_process(process, schedule, 6)
    for spacing in ("time", "log_snr"):
        samples = build(process, spacing=spacing).sample(
            FromLogits(hash_denoiser(process)), num=30, length=11, steps=steps, seed=0
        )
        assert samples.tokens.shape == (30, 11)
        assert samples.tokens.dtype == torch.int64
        assert int(samples.tokens.min()) >= 0
        assert int(samples.tokens.max()) < 6
        assert len(samples.tokens.unique(dim=0)) > 20


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_a_text_is_the_same_in_any_company(process, monkeypatch):
    """Text r depends on (seed, r): not on how many are drawn, nor on the blocks they are drawn in."""
    process = build_process(process, "linear", 6)
    draw = {"length": 11, "steps": 7, "seed": 5}
    many = build(process).sample(FromLogits(hash_denoiser(process)), num=20, **draw).tokens
    assert torch.equal(build(process).sample(FromLogits(hash_denoiser(process)), num=3, **draw).tokens, many[:3])
    monkeypatch.setattr(drawing_module, "_BLOCK_ENTRIES", 11 * 7 * 6)
    assert torch.equal(build(process).sample(FromLogits(hash_denoiser(process)), num=20, **draw).tokens, many)
    other = build(process).sample(FromLogits(hash_denoiser(process)), num=20, length=11, steps=7, seed=6).tokens
    assert not torch.equal(other, many)


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_prompt_is_kept_and_seen(process):
    """The prompt stands unchanged at every step: the network never sees a corrupted one."""
    process = build_process(process, "linear", 6)
    prompt = torch.tensor([5, 0, 3, 3])
    inner, calls = hash_denoiser(process), []

    def watching(z, t):
        calls.append(t)
        assert torch.equal(z[:, :4], prompt.expand(len(z), 4))
        return inner(z, t)

    samples = build(process).sample(FromLogits(watching), num=5, length=9, steps=6, seed=0, prompt=prompt)
    assert torch.equal(samples.tokens[:, :4], prompt.expand(5, 4))
    assert set(samples.nfe.tolist()) == {len(calls)} == {6}
    assert all(t.shape == (5,) for t in calls)
    assert int(samples.tokens.max()) < 6


def test_conditioning_on_a_prompt():
    """With the exact denoiser of a two-token world the second token follows p(x_2 | x_1)."""
    world = World("absorbing")

    def denoiser(z, t):  # no token stands at t = 1, so the exact posterior has nothing to say of a prompt there
        return world.denoiser(z, t.clamp(max=0.999))

    samples = build(world.process).sample(
        FromLogits(denoiser), num=4000, length=2, steps=3, seed=1, prompt=torch.tensor([2])
    )
    assert chi_square(samples.tokens[:, 1], world.p.view(4, 4)[2]) > 1e-3


@pytest.mark.parametrize("spacing", ["time", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_levels_fall_from_noise_to_clean(schedule, steps, spacing):
    levels = build(build_process("uniform", schedule), spacing=spacing).levels(steps)
    assert len(levels) == steps + 1
    assert (levels.diff() < 0).all()
    assert (float(levels[0]), float(levels[-1])) == (1.0, 0.0)


def test_log_snr_levels_are_even_in_log_snr():
    process = build_process("uniform", "cosine")
    levels = build(process, spacing="log_snr").levels(10)
    log_snr = process.schedule.log_snr(levels[1:-1])
    torch.testing.assert_close(log_snr.diff(), torch.full((8,), 2.0, dtype=torch.float64))
    assert float(log_snr[-1]) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"num": 0}, "at least 1 step and 1 text"),
        ({"prompt": torch.zeros(8, dtype=torch.int64)}, "leaves nothing to write"),
        ({"prompt": torch.tensor([4])}, "outside the vocabulary of 4 tokens"),
    ],
)
def test_clear_errors(arguments, complaint):
    process = build_process("absorbing")
    draw = {"num": 2, "length": 8, "steps": 2, "seed": 0} | arguments
    with pytest.raises(ValueError, match=complaint):
        build(process).sample(FromLogits(hash_denoiser(process)), **draw)


def test_nan_logits_are_reported():
    """They must not become a token id that no vocabulary has."""
    process = build_process("uniform")
    with pytest.raises(ValueError, match="NaN logits"):
        build(process).sample(
            FromLogits(lambda z, t: torch.full((*z.shape, 4), torch.nan)), num=2, length=3, steps=2, seed=0
        )


def test_a_process_is_needed():
    with pytest.raises(ValueError, match="needs a corruption process"):
        SAMPLERS.build("ancestral", {}, process=None, vocabulary=Vocabulary(4, 0))


def test_under_a_staircase_a_row_is_the_same_text_in_any_company():
    """Each row has the blocks of its own length, and they are written first to last."""
    clock, vocabulary = CLOCKS.build("staircase", {"length": 3}), Vocabulary(6, 0)
    context = {"schedule": SCHEDULES.build("linear", {}), "clock": clock, "vocabulary": vocabulary}
    process = PROCESSES.build("absorbing", {}, **context)
    table = torch.randn(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = FromLogits(lambda z, t: table[z.cumsum(1) % 7] + t[..., None])
    lengths = [12, 5, 9]

    def written(lengths, rows):
        prompts = [torch.zeros(0, dtype=torch.int64)] * len(lengths)
        canvas = Canvas.blank(prompts, lengths, seed=3, steps=12, rows=rows)
        return list(generate(build(process), denoiser, canvas))

    together = written(lengths, [0, 1, 2])
    for row, length in enumerate(lengths):
        alone = written([length], [row])
        assert torch.equal(alone[-1].tokens[0], together[-1].tokens[row, :length])
        blocks = -(-length // 3)
        for done in range(blocks):
            clean = alone[12 // blocks * (done + 1)].tokens[0] < 6
            assert clean[: 3 * (done + 1)].all()
            assert not clean[3 * (done + 1) :].any()


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("process", ["uniform", "clustered"])
def test_under_span_clocks_a_denoiser_that_is_told_the_levels_comes_to_p(process):
    """Every text has clocks of its own, and every position a level. A denoiser that is told t alone does not know the
    levels that a step needs, and comes to another distribution."""
    world = World(process, tokens=3, length=3, seed=1)
    p = clean(world)

    def distance(steps, conditioned):
        world.process.clock = CLOCKS.build("spans", {"mean_length": 1.5, "window": 0.4, "conditioned": conditioned})
        denoiser = FromLogits(lambda z, level: told_posterior(world, z, level if level.ndim > 1 else level[:, None]))
        *_, last = generate(build(world.process), denoiser, empty(world, steps))
        return total_variation_of(index_of(world, last.tokens), p)

    coarse, finer, finest = (distance(steps, True) for steps in (4, 16, 64))
    assert coarse > finer > finest
    assert finest < 2 * noise_floor(p)
    assert distance(64, False) > 4 * noise_floor(p)
