"""Text as a file: what is packed is unpacked, and its size is what the likelihood says."""

from __future__ import annotations

import math

import pytest
import torch

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserFunction, FromLogits
from sumi_core.objectives.likelihood import ChainRule
from sumi_core.sampling.coding import pack, unpack
from tests.models.stock import lively, small

V, EOS = 9, 0


@pytest.fixture(scope="module")
def denoiser() -> DenoiserFunction:
    made: DenoiserFunction = lively(Denoiser(small(attention="causal"), V)).eval()
    return made


@pytest.mark.parametrize("count", [1, 40])
def test_a_file_unpacks_and_is_as_long_as_the_likelihood_says(denoiser: DenoiserFunction, count: int) -> None:
    texts = torch.randint(V, (count, 24), generator=torch.Generator().manual_seed(count))
    packed = pack(denoiser, texts, Vocabulary(V, EOS))
    assert torch.equal(unpack(denoiser, packed, count, 24, Vocabulary(V, EOS)), texts)
    with torch.no_grad():
        bits = float(ChainRule(V, EOS).token_nats(denoiser, texts).double().sum()) / math.log(2)
    assert 0 <= packed.nbytes * 8 - bits < 72, "one word is not full, and one may come from the end"


def test_another_model_reads_another_text(denoiser: DenoiserFunction) -> None:
    texts = torch.randint(V, (4, 24), generator=torch.Generator().manual_seed(7))
    packed = pack(denoiser, texts, Vocabulary(V, EOS))
    torch.manual_seed(3)
    other = lively(Denoiser(small(attention="causal"), V)).eval()
    with torch.no_grad():
        other.lm_head.weight.mul_(-1)
    assert not torch.equal(unpack(other, packed, 4, 24, Vocabulary(V, EOS)), texts)


def test_what_is_next_to_impossible_can_be_packed() -> None:
    """A probability that rounds to 0 costs 24 bits, and not a crash."""
    sure = FromLogits(lambda z, t: torch.nn.functional.one_hot(torch.ones_like(z), V).double() * 200)
    texts = torch.tensor([[1, 1, 5, 1]])
    packed = pack(sure, texts, Vocabulary(V, EOS))
    assert torch.equal(unpack(sure, packed, 1, 4, Vocabulary(V, EOS)), texts)
    assert packed.nbytes <= 8
