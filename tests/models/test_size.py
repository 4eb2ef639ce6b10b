"""Parameters and FLOPs, against counts written out by hand. On the meta device: nothing is allocated."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.size import flops_of_token
from sumi_core.layouts import LAYOUTS
from sumi_core.models import ATTENTION_PATTERNS, PRESETS
from sumi_core.models.config import ModelConfig
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.models.layers import ZeroLinear
from sumi_core.objectives.diffusion import Diffusion
from tests.models.stock import STATES, small


def on_meta(num_states: int, **model: Any) -> Denoiser:
    with torch.device("meta"):
        return Denoiser(ModelConfig(**model), num_states)


def block_weights(p: dict[str, Any]) -> int:
    """Matrices of a block: queries and output, keys and values, SwiGLU's three."""
    kv = p["hidden_size"] // p["num_heads"] * p["num_kv_heads"]
    return int(2 * p["hidden_size"] ** 2 + 2 * p["hidden_size"] * kv + 3 * p["hidden_size"] * p["intermediate_size"])


@pytest.mark.parametrize(
    ("preset", "num_states", "millions"),
    [
        ("nano", 1024, 1.00),
        ("nano", 2048, 1.26),
        ("tiny", 4096, 10.06),
        ("small", 50_257, 123.55),
        ("base", 50_257, 359.79),
        ("1b", 50_257, 1_107.71),
        ("sumi-7b", 100_278, 7_767.54),
    ],
)
def test_presets_have_the_size_of_their_name(preset: str, num_states: int, millions: float) -> None:
    p = PRESETS[preset]
    denoiser = on_meta(num_states, **p)
    assert all(parameter.is_meta for parameter in denoiser.parameters())
    tables = (1 if p.get("tie_embeddings") else 2) * num_states * p["hidden_size"]
    norms = (2 * p["num_layers"] + 1) * p["hidden_size"]
    assert denoiser.num_parameters() == p["num_layers"] * block_weights(p) + norms + tables
    assert denoiser.num_parameters(embeddings=False) == p["num_layers"] * block_weights(p) + norms
    assert round(denoiser.num_parameters() / 1e6, 2) == millions


def test_sumi_7b_is_the_published_shape() -> None:
    denoiser = on_meta(100_278, **PRESETS["sumi-7b"])
    shapes = {name: tuple(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    assert shapes["lm_head.weight"] == shapes["model.embed_tokens.weight"] == (100_278, 4096)
    assert shapes["model.layers.35.mlp.gate_proj.weight"] == (12_288, 4096)
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == (8 * 128, 4096)
    assert "model.layers.36.input_layernorm.weight" not in shapes
    assert (denoiser.config.rope_theta, denoiser.config.norm_epsilon) == (5e5, 1e-5)


@pytest.mark.parametrize("preset", ["nano", "sumi-7b"])
@pytest.mark.parametrize(("attention", "keys"), [("bidirectional", 512), ("causal", 256)])
def test_flops_per_token_are_those_of_palm(preset: str, attention: str, keys: int) -> None:
    p = PRESETS[preset]
    weights = p["num_layers"] * block_weights(p) + 1000 * p["hidden_size"]
    attended = 12 * p["num_layers"] * p["hidden_size"] * keys
    assert on_meta(1000, **p, attention={"name": attention}).flops_per_token(512) == 6 * weights + attended


MODELS: list[dict[str, Any]] = [
    {},
    {"tie_embeddings": True},
    {"qk_norm": True},
    {"num_kv_heads": 1},
    {"time_conditioning": "token"},
    {"time_conditioning": "adaln"},
    {"time_conditioning": "adaln", "num_layers": 3, "tie_embeddings": True, "qk_norm": True},
    *({"attention": name} for name in ATTENTION_PATTERNS.names()),
]


@pytest.mark.parametrize("length", [8, 24])
@pytest.mark.parametrize("per_token", [False, True], ids=["level per text", "level per token"])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_flops_are_those_that_pytorch_counts(model: dict[str, Any], per_token: bool, length: int) -> None:
    """PyTorch counts the matrix products that it runs; it runs those of keys that a mask then hides, too."""
    denoiser = Denoiser(small(**model), STATES)
    for module in denoiser.modules():
        if isinstance(module, ZeroLinear):  # its zeros would stop no gradient, but are not what is trained on
            torch.nn.init.normal_(module.weight)
    levels = length if per_token else 1
    level = torch.full((3, levels) if per_token else (3,), 0.5)
    told = level if denoiser.config.time_conditioning != "none" else None
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        denoiser.logits(torch.zeros(3, length, dtype=torch.int64), told).sum().backward()
    hidden_keys = length - denoiser.pattern.attended(length)
    hidden = 12 * denoiser.config.num_layers * denoiser.config.hidden_size * hidden_keys
    assert counter.get_total_flops() == pytest.approx(3 * length * (denoiser.flops_per_token(length, levels) + hidden))


@pytest.mark.parametrize("length", [8, 24])
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("read_out", ["own", "previous"])
@pytest.mark.parametrize("conditioning", ["none", "token", "adaln"])
def test_flops_of_two_streams_are_those_that_pytorch_counts(
    conditioning: str, read_out: str, n: int, length: int
) -> None:
    """Both streams go through the layers, the noisy one alone through the head; every slot is told its own level."""
    experiment = resolve(
        {
            "model": {
                **vars(small()),
                "attention": "causal",
                "initialiser": "random",
                "time_conditioning": conditioning,
            },
            "layout": {"name": "blocks", "length": n, "read_out": read_out},
            "shards": {"sequence_length": length},
        },
        "a.yaml",
    )
    denoiser, layout = Denoiser(experiment.model, STATES), LAYOUTS.from_config(experiment.layout)
    for module in denoiser.modules():
        if isinstance(module, ZeroLinear):
            torch.nn.init.normal_(module.weight)
    x = torch.zeros(3, length, dtype=torch.int64)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layout.of(denoiser, x, 0)(DenoiserInput(x, torch.full((3,), 0.5))).logits().sum().backward()
    hidden_keys = layout.slots(length) ** 2 / length - layout.keys(length, denoiser.pattern)
    hidden = 12 * denoiser.config.num_layers * denoiser.config.hidden_size * hidden_keys
    assert counter.get_total_flops() == pytest.approx(3 * length * (flops_of_token(experiment, STATES) + hidden))


@pytest.mark.parametrize("read_out", ["own", "previous"])
def test_flops_of_a_joint_objective_are_those_that_pytorch_counts(read_out: str) -> None:
    """Both streams go through the layers and through the head; block lengths that training takes turns with cost what
    they cost on average."""
    shape = {**vars(small()), "attention": "causal", "initialiser": "random"}
    layout = {"name": "blocks", "length": 4, "read_out": read_out, "also": [2, 12]}
    plain = {"model": shape, "layout": layout, "objective": "joint", "shards": {"sequence_length": 24}}
    experiment = resolve(plain, "a.yaml")
    parts = build_parts(experiment, Vocabulary(STATES, 0), training=True)
    denoiser, shown = Denoiser(experiment.model, STATES), parts.layout
    x = torch.arange(72).view(3, 24) % STATES
    counted, beyond = 0, 0.0
    for step in range(3):
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            batch = Batch(x, torch.arange(3), torch.arange(3), 3, step, 0)
            parts.objective.loss(denoiser, batch).value.backward()
        counted += counter.get_total_flops()
        at = shown.at(step)
        beyond += at.slots(24) ** 2 / 24 - at.keys(24, denoiser.pattern)
    hidden = 12 * denoiser.config.num_layers * denoiser.config.hidden_size * beyond / 3
    assert counted / 3 == pytest.approx(3 * 24 * (flops_of_token(experiment, STATES) + hidden))


@pytest.mark.parametrize("form", ["residual_context", "self_conditioning"])
@pytest.mark.parametrize("source", ["same", "path", "reference"])
@pytest.mark.parametrize("conditioning", ["none", "token", "adaln"])
def test_flops_with_feedback_are_those_that_pytorch_counts(conditioning: str, source: str, form: str) -> None:
    """One more pass without gradient, of the model itself or of another one, and the mean embedding of each token."""
    shape = {**vars(small()), "initialiser": "random", "time_conditioning": conditioning}
    other = resolve({"model": {**vars(small(num_layers=1)), "initialiser": "random"}}, "a.yaml")
    of = {"of": {"cell": "other.s0", "experiment": other.to_dict()}} if source == "reference" else {}
    experiment = resolve(
        {
            "model": {**shape, "feedback": form},
            "objective": {"name": "nelbo", "feedback": {"name": source, **of}},
            "shards": {"sequence_length": 24},
        },
        "a.yaml",
    )
    objective = build_parts(experiment, Vocabulary(STATES, 0), training=True).objective
    assert isinstance(objective, Diffusion)
    if source == "reference":
        objective.feedback._denoiser = Denoiser(other.model, STATES)  # type: ignore[union-attr]
    denoiser = Denoiser(experiment.model, STATES)
    for module in denoiser.modules():
        if isinstance(module, ZeroLinear):
            torch.nn.init.normal_(module.weight)
    x = torch.arange(72).view(3, 24) % STATES
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective.loss(denoiser, Batch(x, torch.arange(3), torch.arange(3), 3, 0, 0)).value.backward()
    assert counter.get_total_flops() == pytest.approx(3 * 24 * flops_of_token(experiment, STATES))


@pytest.mark.parametrize("form", ["residual_context", "self_conditioning"])
@pytest.mark.parametrize("name", ["nelbo", "joint"])
def test_flops_with_feedback_of_two_streams_are_those_that_pytorch_counts(name: str, form: str) -> None:
    """The earlier pass has both streams and reads the head for the noisy one alone; a gated layer reads every slot."""
    fed = {"name": "nelbo", "feedback": "same"}
    plain = {
        "model": {**vars(small()), "attention": "causal", "initialiser": "random", "feedback": form},
        "layout": {"name": "blocks", "length": 4},
        "objective": fed if name == "nelbo" else {"name": "joint", "diffusion": fed},
        "shards": {"sequence_length": 24},
    }
    experiment = resolve(plain, "a.yaml")
    parts = build_parts(experiment, Vocabulary(STATES, 0), training=True)
    denoiser = Denoiser(experiment.model, STATES)
    for module in denoiser.modules():
        if isinstance(module, ZeroLinear):
            torch.nn.init.normal_(module.weight)
    x = torch.arange(72).view(3, 24) % STATES
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        parts.objective.loss(denoiser, Batch(x, torch.arange(3), torch.arange(3), 3, 0, 0)).value.backward()
    hidden_keys = parts.layout.slots(24) ** 2 / 24 - parts.layout.keys(24, denoiser.pattern)
    hidden = (12 + 4) * denoiser.config.num_layers * denoiser.config.hidden_size * hidden_keys
    assert counter.get_total_flops() == pytest.approx(3 * 24 * (flops_of_token(experiment, STATES) + hidden))


def test_a_meta_denoiser_can_be_given_memory_and_weights() -> None:
    wanted = Denoiser(small(), STATES)
    with torch.device("meta"):
        empty = Denoiser(small(), STATES)
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(wanted.state_dict())
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(filled.logits(tokens), wanted.logits(tokens))


def test_weights_hold_each_tensor_once() -> None:
    tied = Denoiser(small(tie_embeddings=True), STATES)
    assert "lm_head.weight" not in tied.weights()
    assert sum(tensor.numel() for tensor in tied.weights().values()) == tied.num_parameters()
    assert set(Denoiser(small(), STATES).weights()) == set(Denoiser(small(), STATES).state_dict())
