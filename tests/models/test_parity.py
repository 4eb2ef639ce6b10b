"""The denoiser is, name by name and number by number, the stock transformers model."""

import pytest
import torch

from sumi_core.models.denoiser import Denoiser
from tests.models.stock import STATES, lively, small, stock_model

CASES = [
    (attention, tied, kv_heads)
    for attention in ("bidirectional", "causal")
    for tied in (False, True)
    for kv_heads in (4, 2, 1)
]


@pytest.mark.parametrize(("attention", "tied", "kv_heads"), CASES)
def test_logits_and_names_are_those_of_stock_transformers(attention: str, tied: bool, kv_heads: int) -> None:
    config = small(attention=attention, tie_embeddings=tied, num_kv_heads=kv_heads, rope_theta=500.0)
    denoiser, stock = lively(Denoiser(config, STATES)), stock_model(config)
    assert set(denoiser.state_dict()) == set(stock.state_dict())
    stock.load_state_dict(denoiser.state_dict())
    tokens = torch.randint(STATES, (3, 50), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, theirs = denoiser.logits(tokens), stock(input_ids=tokens).logits
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_gradients_are_those_of_stock_transformers(attention: str) -> None:
    config = small(attention=attention)
    denoiser, stock = lively(Denoiser(config, STATES)), stock_model(config)
    stock.load_state_dict(denoiser.state_dict())
    tokens = torch.randint(STATES, (2, 20), generator=torch.Generator().manual_seed(3))
    denoiser.logits(tokens).square().mean().backward()
    stock(input_ids=tokens).logits.square().mean().backward()
    theirs = dict(stock.named_parameters())
    for name, parameter in denoiser.named_parameters():
        if name == "model.embed_tokens.weight":  # stock tables give their padding row no gradient
            torch.testing.assert_close(parameter.grad[1:], theirs[name].grad[1:])
        else:
            torch.testing.assert_close(parameter.grad, theirs[name].grad)


def test_qk_norm_and_time_conditioning_only_add_names() -> None:
    plain = set(Denoiser(small(), STATES).state_dict())
    more = set(Denoiser(small(qk_norm=True, time_conditioning="adaln"), STATES).state_dict())
    assert plain < more
    assert {name.split(".")[-2] for name in more - plain} == {"q_norm", "k_norm", "proj", "in_proj", "out_proj"}
