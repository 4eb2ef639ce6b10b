import math

import pytest
import torch
from torch import nn

from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.corruption.enumerable import all_sequences

V, L, EOS = 3, 3, 2


class TinyCausal(nn.Module):
    """Logits at i from the tokens up to i and no others: a random table over prefixes."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(V, V, generator=generator, dtype=torch.float64))
        self.mix = nn.Parameter(torch.randn(L, V, V, generator=generator, dtype=torch.float64))

    def forward(self, tokens, t):
        assert t is None  # there is no noise level to tell
        each = torch.stack([self.mix[j][tokens[:, j]] for j in range(tokens.shape[1])], 1)
        return torch.tanh(each.cumsum(1)) * 2 + self.first[tokens]


def build():
    return OBJECTIVES.build("autoregressive", {}, process=None, vocabulary=Vocabulary(V, EOS))


def batch_of(tokens):
    rows = torch.arange(len(tokens))
    return Batch(tokens, rows, rows, len(tokens), 0, 0)


def test_likelihood_is_exact():
    """The probabilities of all V^L sequences add up to one, which no bound and no shifted target would do."""
    nats = build().likelihood(FromLogits(TinyCausal()), batch_of(all_sequences(V, L)), 1e-3)
    assert float((-nats.total).exp().sum()) == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(nats.total, nats.diffusion)
    for nothing in (nats.reconstruction, nats.prior, nats.level, nats.nats_per_alpha):
        assert torch.equal(nothing, torch.zeros(V**L, dtype=torch.float64))


def test_chain_rule_by_hand():
    """Every token is scored, the first after the end-of-text token."""
    model, x = TinyCausal(), torch.tensor([[1, 0, 2]])
    expected, prefix = 0.0, [EOS]
    for token in x[0].tolist():
        expected -= model(torch.tensor([prefix]), None)[0, -1].log_softmax(-1)[token].item()
        prefix.append(token)
    assert float(build().likelihood(FromLogits(model), batch_of(x), 1e-3).total) == pytest.approx(expected, abs=1e-12)


def test_loss_is_the_mean_of_the_exact_nats():
    model, batch = TinyCausal(), batch_of(all_sequences(V, L))
    loss = build().loss(FromLogits(model), batch)
    assert loss.value.item() == pytest.approx(
        float(build().likelihood(FromLogits(model), batch, 1e-3).total.mean()) / L
    )
    assert float(loss.metrics["cross_entropy"]) == loss.value.item()
    assert not loss.metrics["cross_entropy"].requires_grad
    loss.value.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_loss_gradient_against_finite_differences():
    model, batch = TinyCausal(), batch_of(all_sequences(V, L))
    shift = torch.randn(V, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s: build().loss(FromLogits(lambda z, t: model(z, t) + s), batch).value, (shift,)
    )


def test_knowing_nothing_costs_log_v():
    def guess(tokens, t):
        return torch.zeros(*tokens.shape, V)

    nats = build().likelihood(FromLogits(guess), batch_of(all_sequences(V, L)), 1e-3)
    assert nats.total.tolist() == pytest.approx([L * math.log(V)] * V**L)


def test_says_what_it_is():
    kind = OBJECTIVES.get("autoregressive")
    assert (kind.needs_process, kind.exact, kind.causal) == (False, True, True)
    assert kind.default_sampler == {"name": "left_to_right"}
    bound = OBJECTIVES.get("nelbo")
    assert (bound.needs_process, bound.exact, bound.causal) == (True, False, False)
    assert bound.default_sampler == {"name": "ancestral"}
