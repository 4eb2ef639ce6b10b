"""Where weights start."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sumi_core.base.options import ConfigError
from sumi_core.experiments.resolve import resolve
from sumi_core.export.weights import write_weights
from sumi_core.models import INITIALISERS, initialisers
from sumi_core.models.denoiser import Denoiser, build_denoiser
from sumi_core.models.foreign import InitialiserError
from sumi_core.models.layers import SelfAttention, rotate
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint
from tests.models.stock import STATES, lively, save_stock, small


def starting(
    initialiser: dict[str, Any], seed: int = 3, states: int = STATES, tokens: int | None = None, **changes: Any
) -> Denoiser:
    return build_denoiser(small(**changes, initialiser=initialiser), states, seed, tokens)


def attention_of(denoiser: Denoiser, layer: int, tokens: torch.Tensor) -> torch.Tensor:
    """Mean attention weights over texts, ``[heads, L, L]``, of the first layers only."""
    x = denoiser.model.embed_tokens(tokens)
    rotary = denoiser.model.rotary(tokens.shape[1], tokens.device)
    for number, block in enumerate(denoiser.model.blocks()):
        attention: SelfAttention = block.self_attn
        if number == layer:
            seen = block.input_layernorm(x)
            heads = (*x.shape[:2], -1, attention.head_width)
            q, k = (rotate(p(seen).view(heads), rotary).transpose(1, 2) for p in (attention.q_proj, attention.k_proj))
            k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
            return (q @ k.transpose(-1, -2) / attention.head_width**0.5).softmax(-1).mean(0)
        x = block(x, rotary, {})
    raise AssertionError(layer)


def test_random_is_the_denoisers_own_start() -> None:
    wanted = Denoiser(small(), STATES, seed=3).state_dict()
    torch.testing.assert_close(starting({"name": "random"}).state_dict(), wanted, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("theta", [100.0, 10_000.0])
def test_local_heads_look_where_they_are_told(theta: float) -> None:
    resolved = resolve(
        {"model": {"initialiser": {"name": "local_heads", "layers": 2}, "num_layers": 2}}, "t.yaml"
    ).model
    resolved.rope_theta = theta
    denoiser = build_denoiser(resolved, STATES, seed=0)
    tokens = torch.randint(STATES, (64, 40), generator=torch.Generator().manual_seed(0))
    plain = build_denoiser(resolve({"model": {"num_layers": 2}}, "t.yaml").model, STATES, seed=0)
    place = torch.arange(10, 30)
    for layer in (0, 1):
        weights = attention_of(denoiser, layer, tokens)
        for head, offset in enumerate([-1, 1, -2, 2]):
            assert (weights[head, place].argmax(-1) == place + offset).all()
            assert float(weights[head, place, place + offset].mean()) > 0.15
            assert float(attention_of(plain, layer, tokens)[head, place, place + offset].mean()) < 0.04
    same = {name for name, value in denoiser.state_dict().items() if value.equal(plain.state_dict()[name])}
    changed = {name for name in denoiser.state_dict() if name not in same}
    assert {name.split(".")[-2] for name in changed} == {"embed_tokens", "q_proj", "k_proj"}


def test_local_heads_of_a_causal_model_look_back() -> None:
    options = {"name": "local_heads", "offsets": [2, -3], "layers": 1, "sharpness": 8.0, "share": 0.5}
    denoiser = starting(options, attention="causal", hidden_size=128, intermediate_size=128)
    tokens = torch.randint(STATES, (64, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weights = attention_of(denoiser, 0, tokens)
    place = torch.arange(10, 20)
    assert (weights[:, place].argmax(-1) == place - 3).all()


def test_local_heads_need_an_offset_that_is_not_ahead() -> None:
    with pytest.raises(ConfigError, match=r"^t.yaml: model.initialiser: offsets needs one that is not ahead"):
        resolve({"model": {"initialiser": {"name": "local_heads", "offsets": [1]}}}, "t.yaml")


def exported(folder: Path, states: int = STATES, **changes: Any) -> Denoiser:
    folder.mkdir()
    trained = lively(Denoiser(small(**changes), states))
    write_weights(trained, folder / "model.safetensors")
    return trained


@pytest.mark.parametrize("conditioning", ["adaln", "token"])
def test_an_autoregressive_model_becomes_a_denoiser_with_a_mask(conditioning: str, tmp_path: Path) -> None:
    trained = exported(tmp_path / "causal", attention="causal")
    start = starting(
        {"name": "exported", "folder": str(tmp_path / "causal")},
        states=STATES + 1,
        tokens=STATES,
        time_conditioning=conditioning,
    )
    fresh = Denoiser(small(time_conditioning=conditioning), STATES + 1, seed=3).state_dict()
    for name, value in start.state_dict().items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert value[:STATES].equal(trained.state_dict()[name])
            assert value[STATES].equal(fresh[name][STATES])
        elif name in trained.state_dict():
            assert value.equal(trained.state_dict()[name])
        else:
            assert value.equal(fresh[name])


@pytest.mark.parametrize(
    ("changes", "states", "message"),
    [
        ({"intermediate_size": 40}, STATES, r"down_proj.weight' is \[32, 48\], here it would be \[32, 40\]"),
        ({"num_layers": 3}, STATES, "has no 'model.layers.2"),
        ({"num_layers": 1}, STATES, r"holds 'model.layers.1"),
        ({"tie_embeddings": True}, STATES, "holds 'lm_head.weight', which this model lacks"),
        ({}, STATES - 1, r"' is \[37, 32\], here it would be \[36, 32\]"),
        ({}, STATES + 1, r"' is \[37, 32\], here it would be \[38, 32\]"),  # no mask: one more token
    ],
)
def test_weights_that_do_not_fit_are_named(changes: dict[str, Any], states: int, message: str, tmp_path: Path) -> None:
    exported(tmp_path / "other")
    with pytest.raises(InitialiserError, match=message):
        starting({"name": "exported", "folder": str(tmp_path / "other")}, states=states, **changes)


def test_a_head_that_is_the_table_makes_a_tied_model(tmp_path: Path) -> None:
    trained = exported(tmp_path / "tied", tie_embeddings=True)
    start = {"name": "exported", "folder": str(tmp_path / "tied")}
    assert starting(start, tie_embeddings=True).model.embed_tokens.weight.equal(trained.model.embed_tokens.weight)
    weights = tmp_path / "tied" / "model.safetensors"
    save_file({**trained.weights(), "lm_head.weight": trained.weights()["model.embed_tokens.weight"].clone()}, weights)
    assert starting(start, tie_embeddings=True).model.embed_tokens.weight.equal(trained.model.embed_tokens.weight)


def test_what_no_tensor_tells_must_be_the_same_too(tmp_path: Path) -> None:
    exported(tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    start = {"name": "exported", "folder": str(tmp_path / "other")}
    config.write_text('{"num_attention_heads": 4, "rms_norm_eps": 1e-05, "rope_parameters": {"rope_theta": 10000.0}}')
    starting(start)
    config.write_text('{"num_attention_heads": 4, "rope_parameters": {"rope_theta": 500000.0}}')
    with pytest.raises(InitialiserError, match=r"rope_theta is 500000.0 there and 10000.0 here; set model.rope_theta"):
        starting(start)
    config.write_text('{"num_attention_heads": 2}')
    with pytest.raises(InitialiserError, match=r"config.json: num_heads is 2 there and 4 here"):
        starting(start)
    config.write_text("{")
    with pytest.raises(InitialiserError, match=r"config.json is damaged"):
        starting(start)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ({"model_type": "gemma"}, "model_type is gemma, but only llama or mistral or qwen3 or eurobert is supported"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu, but only silu is supported"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0}}, "rope_type is llama3, but only default"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is linear, but only default"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5, but only 1.0"),
        ({"sliding_window": 128}, "sliding_window is 128, but only none is supported"),
        ({"head_dim": 128}, "head_dim is 128, but only"),
        ({"attention_bias": True}, "attention_bias is True, but only False is supported"),
        ({"mlp_bias": True}, "mlp_bias is True, but only False is supported"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config.quant_method is fp8, but only none"),
    ],
)
def test_a_stock_model_that_computes_something_else_is_refused(
    tmp_path: Path, written: dict[str, Any], named: str
) -> None:
    """Its tensors fit, so nothing but the config tells that the logits would be others."""
    exported(tmp_path / "other")
    start = {"name": "exported", "folder": str(tmp_path / "other")}
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps(written))
    with pytest.raises(InitialiserError, match=re.escape(named)):
        starting(start)


STOCK: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {}, {}),
    ("llama", {"tie_word_embeddings": True}, {"tie_embeddings": True}),
    ("mistral", {}, {}),
    ("qwen3", {"sliding_window": 128, "use_sliding_window": False}, {"qk_norm": True}),
    ("eurobert", {}, {}),
]


@pytest.mark.parametrize(("kind", "written", "model"), STOCK)
@pytest.mark.parametrize("shards", ["1GB", "8KB"])
def test_a_stock_folder_starts_a_denoiser(
    kind: str, written: dict[str, Any], model: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    stock = save_stock(tmp_path / "stock", kind, shards, **written)
    assert (tmp_path / "stock" / "model.safetensors").exists() == (shards == "1GB")
    start = starting(
        {"name": "exported", "folder": str(tmp_path / "stock")},
        attention="bidirectional" if kind == "eurobert" else "causal",
        **model,
    )
    tokens = torch.arange(STATES)[None]
    with torch.no_grad():
        assert (start.logits(tokens) - stock(tokens).logits).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("kind", "written", "model", "named"),
    [
        ("llama", {"hidden_act": "gelu"}, {}, "hidden_act is gelu, but only"),
        ("llama", {"attention_bias": True}, {}, "attention_bias is True, but only False"),
        ("llama", {"mlp_bias": True}, {}, "mlp_bias is True, but only False"),
        ("llama", {"tie_word_embeddings": True}, {}, "set model.tie_embeddings to true"),
        ("llama", {"rms_norm_eps": 1e-6}, {}, "set model.norm_epsilon to 1e-06"),
        ("llama", {"head_dim": 16}, {}, "head_dim is 16, but only 8 is supported"),
        (
            "llama",
            {"vocab_size": STATES + 3},
            {},
            "here it would be [37, 32]; give model the dimensions",
        ),
        ("mistral", {"sliding_window": 8}, {}, "sliding_window is 8, but only none"),
        ("qwen3", {}, {}, "set model.qk_norm to true"),
        ("qwen2", {}, {}, "model_type is qwen2, but only"),
        ("gemma", {}, {}, "model_type is gemma, but only"),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 10_000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
            {},
            "rope_type is llama3, but only default",
        ),
    ],
)
def test_a_stock_folder_that_is_another_model_is_refused_by_key_and_value(
    kind: str, written: dict[str, Any], model: dict[str, Any], named: str, tmp_path: Path
) -> None:
    save_stock(tmp_path / "stock", kind, **written)
    with pytest.raises(InitialiserError, match=re.escape(named)):
        starting({"name": "exported", "folder": str(tmp_path / "stock")}, attention="causal", **model)


def test_a_difference_that_no_key_tells_is_seen_in_the_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_stock(tmp_path / "stock", "llama", hidden_act="gelu")
    start = {"name": "exported", "folder": str(tmp_path / "stock")}
    told = json.loads((tmp_path / "stock" / "config.json").read_text())
    monkeypatch.setattr(initialisers, "check_config", lambda folder, model: told)
    with pytest.raises(
        InitialiserError, match=r"stock transformers computes logits that differ by \d.* of a denoiser wi"
    ):
        starting(start)
    monkeypatch.setenv("RANK", "1")
    starting(start)  # the first process of the training has said so
    monkeypatch.delenv("RANK")
    monkeypatch.undo()
    (tmp_path / "stock" / "config.json").write_text(json.dumps({**told, "hidden_act": "silu", "rope_parameters": 3}))
    with pytest.raises(InitialiserError, match=r"config.json is damaged"):
        starting(start)


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "stock"
    save_stock(folder, "llama", "8KB")
    start = {"name": "exported", "folder": str(folder)}
    identity = INITIALISERS.build("exported", {"folder": str(folder)}).identity()
    index = folder / "model.safetensors.index.json"
    written = index.read_text()
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[0].rename(tmp_path / "away")
    for read in (lambda: starting(start), INITIALISERS.build("exported", {"folder": str(folder)}).identity):
        with pytest.raises(InitialiserError, match=f"there is no .*{shards[0].name}"):
            read()
    (tmp_path / "away").rename(shards[0])
    index.write_text(written.replace("model.norm.weight", "model.mnor.weight"))
    with pytest.raises(InitialiserError, match=r"lacks 'model.mnor.weight', which model.safetensors.index.json says"):
        starting(start)
    for damaged in ("{", "[]", written.replace("model-", "../model-")):
        index.write_text(damaged)
        with pytest.raises(InitialiserError, match=r"index.json is damaged"):
            starting(start)
    index.write_text(written)
    assert INITIALISERS.build("exported", {"folder": str(folder)}).identity() == identity
    index.unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(InitialiserError, match=r"there is no .*model.safetensors; save pytorch_model.bin as"):
        starting(start)


def test_missing_and_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InitialiserError, match=r"model.initialiser.folder: there is no .*model.safetensors"):
        starting({"name": "exported", "folder": str(tmp_path)})
    exported(tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InitialiserError, match=r"model.safetensors is damaged"):
        starting({"name": "exported", "folder": str(tmp_path / "cut")})


def of_cell(folder: Path) -> dict[str, Any]:
    """An initialiser as the stage gets it, which has looked the parent's output up."""
    return {"name": "cell", "of": {"cell": "demo.s0", "experiment": {}, "folder": str(folder)}}


def trained(folder: Path, states: int = STATES, **changes: Any) -> Denoiser:
    folder.mkdir()
    model = lively(Denoiser(small(**changes), states))
    write_weights(model, folder / "weights.safetensors")
    return model


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_cell_starts_at_another_ones_weights_with_a_mask_or_without(extra: int, tmp_path: Path) -> None:
    """extra: states that only the new model has."""
    parent = trained(tmp_path / "parent", states=STATES + max(-extra, 0), attention="causal")
    start = starting(of_cell(tmp_path / "parent"), states=STATES + max(extra, 0), tokens=STATES, qk_norm=True)
    fresh = Denoiser(small(qk_norm=True), STATES + max(extra, 0), seed=3).state_dict()
    assert start.state_dict().keys() > parent.state_dict().keys()
    for name, value in start.state_dict().items():
        if name not in parent.state_dict():
            assert value.equal(fresh[name])
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert value[:STATES].equal(parent.state_dict()[name][:STATES])
            assert value[STATES:].equal(fresh[name][STATES:])
        else:
            assert value.equal(parent.state_dict()[name])


def test_weights_of_a_cell_that_do_not_fit_are_named(tmp_path: Path) -> None:
    trained(tmp_path / "parent")
    with pytest.raises(InitialiserError, match=r"down_proj.weight' is \[32, 48\], here it would be \[32, 40\]"):
        starting(of_cell(tmp_path / "parent"), intermediate_size=40)
    with pytest.raises(InitialiserError, match=r"' is \[37, 32\], here it would be \[36, 32\]"):
        starting(of_cell(tmp_path / "parent"), states=STATES - 1, tokens=STATES - 2)
    (tmp_path / "parent" / "weights.safetensors").unlink()
    with pytest.raises(InitialiserError, match=r"there is no .*weights.safetensors; compute 'demo.s0' again"):
        starting(of_cell(tmp_path / "parent"))


def test_weights_of_a_cell_are_at_hand_only_while_the_stage_runs() -> None:
    with pytest.raises(LookupError, match=r"the output of 'demo.s0' is at hand only while"):
        starting({"name": "cell", "of": {"cell": "demo.s0", "experiment": {}}})


def test_other_weights_are_another_training(tmp_path: Path) -> None:
    exported(tmp_path / "start")
    experiment = resolve({"model": {"initialiser": {"name": "exported", "folder": str(tmp_path / "start")}}}, "t.yaml")
    before = {stage: stage_fingerprint(experiment, stage) for stage in ("token_shards", "pretrained_denoiser")}
    write_weights(lively(Denoiser(small(), STATES), seed=9), tmp_path / "start" / "model.safetensors")
    refresh_source_identities()
    assert stage_fingerprint(experiment, "token_shards") == before["token_shards"]
    assert stage_fingerprint(experiment, "pretrained_denoiser") != before["pretrained_denoiser"]
    assert INITIALISERS.names() == ["cell", "exported", "local_heads", "random"]


@pytest.mark.parametrize("tied", [False, True])
def test_a_new_mask_begins_at_the_mean_of_the_tokens(tied: bool, tmp_path: Path) -> None:
    """Its rows of table and head alone: all else is as with a random row, and an old mask stays."""
    trained(tmp_path / "parent", tie_embeddings=tied)
    start = of_cell(tmp_path / "parent")
    mean, random = (
        starting({**start, "mask_row": row}, states=STATES + 1, tokens=STATES, tie_embeddings=tied)
        for row in ("mean", "random")
    )
    for name, value in mean.weights().items():
        other = random.weights()[name]
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            torch.testing.assert_close(value[-1], value[:STATES].mean(0), rtol=0, atol=1e-7)
            assert not value[-1].equal(other[-1])
            value, other = value[:STATES], other[:STATES]
        assert value.equal(other), name
    with pytest.raises(InitialiserError, match=f"mask_row: mean starts one mask, and this process has {STATES} states"):
        starting({**start, "mask_row": "mean"}, states=2 * STATES, tokens=STATES, tie_embeddings=tied)
    masked = trained(tmp_path / "masked", states=STATES + 1, tie_embeddings=tied)
    start = {**of_cell(tmp_path / "masked"), "mask_row": "mean"}
    kept = starting(start, states=STATES + 1, tokens=STATES, tie_embeddings=tied)
    assert kept.model.embed_tokens.weight.equal(masked.model.embed_tokens.weight)


def test_a_random_mask_row_stands_in_no_fingerprint() -> None:
    from sumi_core.experiments.resolve import resolve

    start = {"name": "exported", "folder": "x"}
    said = [
        resolve({"model": {"initialiser": {**start, **more}}}, "a.yaml").identity()["model"]["initialiser"]
        for more in ({}, {"mask_row": "random"}, {"mask_row": "mean"})
    ]
    assert said == [{"name": "exported"}, {"name": "exported"}, {"name": "exported", "mask_row": "mean"}]
