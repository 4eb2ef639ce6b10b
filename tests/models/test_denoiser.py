"""What a denoiser must do whatever it has learned: patterns, positions, time, gradients, initial weights."""

from __future__ import annotations

import pickle

import pytest
import torch

from sumi_core.base.options import ConfigError
from sumi_core.experiments.resolve import resolve
from sumi_core.export.stock import why_not_stock
from sumi_core.kernels.row_loss import cross_entropy_loss
from sumi_core.models import ATTENTION_PATTERNS, PRESETS
from sumi_core.models.attention import AttentionPattern, Slots
from sumi_core.models.denoiser import Denoiser, build_denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.models.layers import Rotary, rotate
from tests.models.stock import STATES, lively, small


def some_tokens(length: int = 12, rows: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(STATES, (rows, length), generator=torch.Generator().manual_seed(seed))


def changed_at(denoiser: Denoiser, position: int) -> torch.Tensor:
    """Which positions' logits change when one token does, ``[L]`` bool."""
    tokens = some_tokens()
    other = tokens.clone()
    other[:, position] = (other[:, position] + 1) % STATES
    with torch.no_grad():
        return (denoiser.logits(tokens) != denoiser.logits(other)).any(-1).all(0)


# --- attention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 5, 11])
def test_causal_logits_depend_on_the_past_only(position: int) -> None:
    changed = changed_at(lively(Denoiser(small(attention="causal"), STATES)), position)
    assert not changed[:position].any()
    assert changed[position:].all()


@pytest.mark.parametrize("position", [0, 5, 11])
def test_bidirectional_logits_depend_on_every_position(position: int) -> None:
    assert changed_at(lively(Denoiser(small(), STATES)), position).all()


def test_a_mask_written_out_is_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for attention in ("causal", "bidirectional"):
        denoiser = lively(Denoiser(small(attention=attention), STATES))
        with torch.no_grad():
            fast = denoiser.logits(some_tokens())
            with monkeypatch.context() as patch:
                patch.setattr(type(denoiser.pattern), "whole", lambda self: None)
                torch.testing.assert_close(denoiser.logits(some_tokens()), fast, rtol=0, atol=1e-5)


class _Halves(AttentionPattern):
    """Two texts side by side that do not see each other."""

    reads_noisy = True

    def sees(self, query: Slots, key: Slots) -> torch.Tensor:
        return query.of_noise == key.of_noise


def test_two_copies_of_a_text_may_share_their_positions() -> None:
    """What block diffusion trains on: a clean and a noisy copy in one sequence, told apart by who sees whom."""
    denoiser = lively(Denoiser(small(), STATES)).double()
    one, other = some_tokens(seed=1), some_tokens(seed=2)
    positions, noisy = torch.arange(12).repeat(2), torch.arange(24) >= 12
    with torch.no_grad():
        together = denoiser.logits(torch.cat([one, other], 1), pattern=_Halves(), positions=positions, noisy=noisy)
        apart = torch.cat([denoiser.logits(one), denoiser.logits(other)], 1)
        torch.testing.assert_close(together, apart)
        rows = torch.stack([torch.arange(12), torch.arange(12) + 7])  # rotary positions matter by their distance only
        torch.testing.assert_close(denoiser.logits(one, positions=rows), denoiser.logits(one), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(denoiser.logits(one, positions=2 * rows), denoiser.logits(one))


def test_every_registered_pattern_builds() -> None:
    for name in ATTENTION_PATTERNS.names():
        pattern = ATTENTION_PATTERNS.build(name, {})
        assert 0 < pattern.attended(64) <= 64


# --- positions ------------------------------------------------------------------------------------------------------


def test_rotary_scores_depend_on_the_distance_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float32, generator=torch.Generator().manual_seed(4))
    tables = Rotary(16, 10000.0)(40, torch.device("cpu"))
    turned_q, turned_k = (rotate(x.expand(1, 40, 1, 16), tables)[0, :, 0] for x in (q, k))
    scores = turned_q @ turned_k.T
    for distance in (-7, 0, 3, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-4)
    assert scores[0].std() > 0.1


def test_rotary_keeps_lengths_and_position_zero() -> None:
    x = torch.randn(2, 9, 3, 8, generator=torch.Generator().manual_seed(5))
    turned = rotate(x, Rotary(8, 100.0)(9, torch.device("cpu")))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], x[:, 0])
    assert rotate(x.bfloat16(), Rotary(8, 100.0)(9, torch.device("cpu"))).dtype == torch.bfloat16


def test_a_length_seen_before_changes_nothing() -> None:
    denoiser = lively(Denoiser(small(), STATES))
    with torch.no_grad():
        first = denoiser.logits(some_tokens(6))
        denoiser.logits(some_tokens(30))
        assert torch.equal(denoiser.logits(some_tokens(6)), first)


def test_training_follows_a_validation_in_inference_mode() -> None:
    denoiser = Denoiser(small(), STATES)
    with torch.inference_mode():
        denoiser.logits(some_tokens())
    denoiser.logits(some_tokens()).sum().backward()
    assert denoiser.lm_head.weight.grad is not None


# --- time conditioning ----------------------------------------------------------------------------------------------


each_conditioning = pytest.mark.parametrize("conditioning", ["adaln", "token"])


@each_conditioning
def test_a_conditioned_denoiser_starts_as_the_unconditioned_one(conditioning: str) -> None:
    plain, conditioned = Denoiser(small(), STATES), Denoiser(small(time_conditioning=conditioning), STATES)
    with torch.no_grad():
        wanted = plain.logits(some_tokens())
        for t in (torch.tensor([0.1, 0.9]), torch.rand(2, 12)):
            assert torch.equal(conditioned.logits(some_tokens(), t), wanted)


@each_conditioning
def test_noise_levels_of_a_sequence_or_of_positions(conditioning: str) -> None:
    denoiser, tokens = lively(Denoiser(small(time_conditioning=conditioning), STATES)).double(), some_tokens()
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    with torch.no_grad():
        logits = denoiser.logits(tokens, t)
        for same in (t[:, None], t[:, None].expand(2, 12)):
            torch.testing.assert_close(denoiser.logits(tokens, same), logits, rtol=0, atol=1e-5)
        assert not torch.allclose(logits, denoiser.logits(tokens, t + 0.1), atol=1e-3)
        one = t[:, None].repeat(1, 12)
        one[:, 3] = 0.4
        assert not torch.allclose(logits, denoiser.logits(tokens, one), atol=1e-3)


@each_conditioning
def test_time_is_ignored_or_demanded(conditioning: str) -> None:
    plain, conditioned = Denoiser(small(), STATES), Denoiser(small(time_conditioning=conditioning), STATES)
    with torch.no_grad():
        assert torch.equal(plain.logits(some_tokens(), torch.rand(2)), plain.logits(some_tokens()))
        with pytest.raises(ValueError, match=f"{conditioning}.*noise level"):
            conditioned.logits(some_tokens())


def test_a_time_token_is_one_more_input_embedding() -> None:
    """The conditioned denoiser is the plain one with the embedded level added to its embeddings, position by position:
    so is anything else that a caller adds."""
    conditioned = lively(Denoiser(small(time_conditioning="token"), STATES))
    plain, tokens, t = Denoiser(small(), STATES), some_tokens(), torch.rand(2, 12)
    plain.load_state_dict({k: v for k, v in conditioned.state_dict().items() if "time_embedding" not in k})
    embedding = conditioned.model.time_embedding
    assert embedding is not None
    with torch.no_grad():
        added = embedding(t)
        assert added.shape == (2, 12, conditioned.config.hidden_size)
        assert float(added.std()) > 0
        assert torch.equal(conditioned.logits(tokens, t), plain.logits(tokens, context=added))


def test_stock_code_is_told_that_it_cannot_open_a_model_with_a_time_token() -> None:
    reason = why_not_stock(small(time_conditioning="token"))
    assert reason == "model.time_conditioning is token, and stock classes take no noise level"
    assert why_not_stock(small()) is None


def test_the_time_token_learns_from_zero() -> None:
    denoiser = Denoiser(small(time_conditioning="token"), STATES)
    denoiser.logits(some_tokens(), torch.rand(2, 12)).square().sum().backward()
    gradients = {n: float(p.grad.abs().sum()) for n, p in denoiser.named_parameters() if p.grad is not None}
    assert gradients["model.time_embedding.token_proj.weight"] > 0


# --- the seams ------------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_logits_and_hooks_see_one_call_of_each_module() -> None:
    denoiser, tokens = lively(Denoiser(small(), STATES)), some_tokens()
    calls: list[str] = []
    for name in ("model.layers.0", "model.norm", "lm_head"):
        denoiser.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    targets = tokens.clamp(max=STATES - 2)
    losses = [cross_entropy_loss(targets.flip(1), STATES), cross_entropy_loss(targets, STATES - 1)]
    output = denoiser(DenoiserInput(tokens))
    found = output.apply_all(losses)
    assert calls == ["model.layers.0", "model.norm", "lm_head"]
    assert output.hidden.shape == (2, 12, denoiser.config.hidden_size)
    for value, loss in zip(found, losses, strict=True):
        assert value.shape == (2, 12)
        assert torch.equal(value, loss.of(output.logits()))
    (whole,) = torch.autograd.grad(found[0].sum(), denoiser.lm_head.weight, retain_graph=True)
    (apart,) = torch.autograd.grad(losses[0].of(output.logits()).sum(), denoiser.lm_head.weight)
    assert torch.equal(whole, apart)
    # Another number of rows: some processors add in another order then.
    torch.testing.assert_close(output.last().logits(), output.logits()[:, -1:], rtol=1e-6, atol=1e-6)
    assert output.apply_all([]) == ()


@each_conditioning
def test_gradient_reaches_every_parameter(conditioning: str) -> None:
    config = small(qk_norm=True, time_conditioning=conditioning, tie_embeddings=False)
    denoiser = lively(Denoiser(config, STATES))
    tokens = torch.arange(STATES).expand(2, STATES)  # every row of the table is used
    denoiser.logits(tokens, torch.rand(2)).square().sum().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_bfloat16_works_whole_and_under_autocast() -> None:
    denoiser, tokens = lively(Denoiser(small(qk_norm=True), STATES)), some_tokens()
    with torch.no_grad():
        wanted = denoiser.logits(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = denoiser.logits(tokens)
        whole = lively(Denoiser(small(qk_norm=True), STATES)).bfloat16().logits(tokens)
    assert mixed.dtype == whole.dtype == torch.bfloat16
    for half in (mixed, whole):
        assert (half.float() - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_a_used_denoiser_can_be_pickled() -> None:
    denoiser = lively(Denoiser(small(), STATES))
    with torch.no_grad():
        wanted = denoiser.logits(some_tokens())
        assert torch.equal(pickle.loads(pickle.dumps(denoiser)).logits(some_tokens()), wanted)


# --- initial weights ------------------------------------------------------------------------------------------------


def test_initial_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = build_denoiser(small(), STATES, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = build_denoiser(small(), STATES, seed=7), build_denoiser(small(), STATES, seed=8)
    for name, parameter in first.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert not torch.equal(first.model.layers[0].mlp.up_proj.weight, first.model.layers[1].mlp.up_proj.weight)


def test_denoisers_that_differ_in_one_part_start_alike_in_the_others() -> None:
    plain = build_denoiser(small(), STATES).state_dict()
    conditioned = build_denoiser(small(time_conditioning="adaln", qk_norm=True), STATES).state_dict()
    for name, parameter in plain.items():
        assert torch.equal(parameter, conditioned[name]), name


def test_initial_spread() -> None:
    config = small(hidden_size=128, intermediate_size=512, num_layers=8, init_std=0.03)
    state = build_denoiser(config, 512).state_dict()
    for name, parameter in state.items():
        if "norm" in name:
            assert (parameter == 1).all(), name
            continue
        into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
        wanted = 0.03 / 4 if into_stream else 0.03
        assert abs(parameter.std().item() / wanted - 1) < 0.05, name
        assert abs(parameter.mean().item()) < wanted / 20, name


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_heads": 3}, "model.num_heads"),
        ({"num_kv_heads": 3}, "model.num_kv_heads"),
        ({"hidden_size": 36, "num_heads": 4}, "model.num_heads"),
        ({"qk_norm": "perhaps"}, "model.qk_norm"),
        ({"time_conditioning": "adalin"}, "model.time_conditioning"),
        ({"attention": "sideways"}, "model.attention"),
        ({"attention": "causal"}, "model.attention"),
        ({"preset": "huge"}, "model.preset"),
    ],
)
def test_impossible_models_are_refused_by_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^here\.yaml: {key.replace('.', '[.]')}: "):
        resolve({"model": changes}, "here.yaml")


def test_every_preset_is_a_valid_model() -> None:
    for name in PRESETS:
        assert resolve({"model": {"preset": name}}, "here.yaml").model.preset == name
