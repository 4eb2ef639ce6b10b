"""Properties over random shapes, levels and logits, extremes included."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary
from tests.corruption.enumerable import CASES, build_process

EXTREMES = [1e-9, 1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9]
levels = st.one_of(st.sampled_from(EXTREMES), st.floats(1e-9, 1 - 1e-9))
cases = {
    "case": st.sampled_from(CASES),
    "tokens": st.one_of(st.integers(2, 40), st.just(3000)),
    "shape": st.tuples(st.integers(1, 4), st.integers(1, 6)),
    "t": levels,
    "spread": st.sampled_from([0.0, 1.0, 30.0]),
    "seed": st.integers(0, 2**31),
}


def draw(case, tokens, shape, t, spread, seed, kind):
    process = build_process(*case, tokens)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(tokens, shape, generator=generator)
    t = torch.full((shape[0], 1), t, dtype=torch.float64)
    z = process.corrupt(x, t, Noise(seed, "corrupt", 0, range(shape[0])))
    logits = spread * torch.randn(*shape, process.num_states, generator=generator, dtype=kind)
    return process, logits.requires_grad_(), x, z, t


def weight_of(process, x, z, t):
    """Rate of jumps into z over q(z|x), what the bound multiplies its divergences by: largest over origins."""
    rates = process.jump_rates(z, t).scatter(-1, z[..., None], 0.0)
    return rates.max(-1).values / process.likelihood(z, x, t)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(**cases, kind=st.sampled_from([torch.float32, torch.float64]))
def test_integrand_and_ends_are_finite_and_not_negative(case, tokens, shape, t, spread, seed, kind):
    process, logits, x, z, t = draw(case, tokens, shape, t, spread, seed, kind)
    integrand = process.bound_integrand(logits, x, z, t)
    reconstruction = process.reconstruction(logits, x, z, t)
    prior = process.prior(x, t)
    integrand.sum().backward()
    for value in (integrand, reconstruction, prior, logits.grad):
        assert value is not None
        assert value.isfinite().all()
    # Rounding may leave a divergence of −1e-6 (float32); the weight then multiplies it.
    slack = (1e-6 if kind == torch.float32 else 1e-13) * (1 + spread)
    weight = weight_of(process, x, z, t)
    assert (integrand >= -slack * weight - slack).all()
    assert (reconstruction >= -slack).all()
    assert (prior >= -1e-12).all()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(**{**cases, "spread": st.sampled_from([0.0, 1.0, 5.0])})
def test_closed_form_equals_the_general_one(case, tokens, shape, t, spread, seed):
    process, logits, x, z, t = draw(case, tokens, shape, t, spread, seed, torch.float64)
    general = ForwardProcess.leave_one_out_loss(process, x, z, t).of(logits)
    # The general form cancels terms of size log V before it is weighted: compare before weighting.
    weight = 1 + weight_of(process, x, z, t)
    torch.testing.assert_close(
        process.bound_integrand(logits, x, z, t) / weight, general / weight, rtol=1e-9, atol=1e-11
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(**cases, towards=st.floats(0.0, 0.999))
def test_reverse_is_a_distribution(case, tokens, shape, t, spread, seed, towards):
    process, logits, _, z, t = draw(case, tokens, shape, t, spread, seed, torch.float64)
    probs = process.reverse(logits.detach(), z, t, towards * t)
    assert (probs >= 0).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(shape, dtype=torch.float64), rtol=0, atol=1e-9)
    if towards == 0 and process.mask_id is not None:
        assert (probs[..., process.mask_id] == 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**cases)
def test_logits_matter_only_up_to_a_constant(case, tokens, shape, t, spread, seed):
    """The bound is a function of softmax(logits): a gradient along the constant direction would be a bug."""
    process, logits, x, z, t = draw(case, tokens, shape, t, spread, seed, torch.float64)
    integrand = process.bound_integrand(logits, x, z, t)
    shifted = process.bound_integrand(logits + 17.0, x, z, t)
    weight = 1 + weight_of(process, x, z, t)
    torch.testing.assert_close(shifted / weight, integrand / weight, rtol=1e-9, atol=1e-11)
    (integrand / weight).sum().backward()
    assert logits.grad is not None
    assert logits.grad.sum(-1).abs().max() < 1e-9


@st.composite
def any_process(draw):
    """A process with options and tables of its own, extremes included."""
    tokens = draw(st.integers(2, 9))
    name, options = draw(
        st.one_of(
            st.tuples(st.just("hybrid"), st.fixed_dictionaries({"p_uniform": st.floats(0, 0.99)})),
            st.tuples(st.just("mixture"), st.fixed_dictionaries({"share": st.floats(0, 1)})),
            st.tuples(st.just("unigram"), st.fixed_dictionaries({"smoothing": st.floats(0.01, 100)})),
            st.tuples(st.just("clustered"), st.fixed_dictionaries({"late": st.floats(0, 4)})),
        )
    )
    each = {"min_size": tokens, "max_size": tokens}
    counts = draw(st.lists(st.sampled_from([0, 1, 3, 10**6]), **each))
    clusters = draw(st.lists(st.integers(-2, 2), **each))
    tables = {"token_counts": torch.tensor(counts), "token_clusters": torch.tensor(clusters)}
    schedule = SCHEDULES.build(draw(st.sampled_from(["linear", "cosine"])), {})
    return PROCESSES.build(name, options, vocabulary=Vocabulary(tokens, 0, tables), schedule=schedule)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    process=any_process(), t=st.one_of(st.sampled_from([1e-6, 1 - 1e-6]), st.floats(1e-4, 1 - 1e-4)), seed=st.integers()
)
def test_any_options_and_tables_meet_the_general_forms(process, t, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    x = torch.randint(process.num_tokens, (3, 4), generator=generator)
    t = torch.full((3, 1), t, dtype=torch.float64)
    z = process.corrupt(x, t, Noise(seed % 2**31, "corrupt", 0, range(3)))
    logits = 2 * torch.randn(3, 4, process.num_states, generator=generator, dtype=torch.float64)
    weight = 1 + weight_of(process, x, z, t)
    general = ForwardProcess.leave_one_out_loss(process, x, z, t).of(logits)
    torch.testing.assert_close(
        process.bound_integrand(logits, x, z, t) / weight, general / weight, rtol=1e-9, atol=1e-10
    )
    for method, arguments in [
        ("prior", (x, t)),
        ("likelihood", (z, x, t)),
        ("reconstruction", (logits, x, z, t)),
        ("reverse", (logits, z, t, t / 3)),
    ]:
        shipped = getattr(process, method)(*arguments)
        general = getattr(ForwardProcess, method)(process, *arguments)
        torch.testing.assert_close(shipped, general, rtol=1e-9, atol=1e-10)
