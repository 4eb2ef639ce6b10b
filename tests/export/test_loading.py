"""An exported folder reads back whole, or says which file is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sumi_core.export.loading import ExportedModel, load_exported
from sumi_core.export.record import ExportError
from sumi_core.export.weights import read_weights, write_weights
from sumi_core.models.denoiser import Denoiser
from sumi_core.stages.base import StageContext
from sumi_core.stages.exported_model import build as build_exported_model
from tests.export.conftest import MODELS, TEXT
from tests.models.stock import STATES, lively, small

Trained = Callable[..., tuple[StageContext, Denoiser]]


@pytest.fixture
def exported(trained: Trained) -> Path:
    context, _ = trained("absorbing")
    build_exported_model(context)
    return context.folder


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_exported_is_what_is_loaded(kind: str, trained: Trained, tmp_path: Path) -> None:
    context, denoiser = trained(kind, {"name": "bpe", "vocab_size": 300})
    build_exported_model(context)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(context.folder, elsewhere)  # a folder needs nothing but itself
    shutil.rmtree(context.inputs["tokenizer"].folder)
    model = load_exported(elsewhere)
    assert isinstance(model, ExportedModel)
    assert not model.denoiser.training
    for name, parameter in denoiser.state_dict().items():
        assert torch.equal(model.denoiser.state_dict()[name], parameter), name
    assert model.experiment.to_dict() == context.experiment.to_dict()
    assert model.sumi["key"] == context.key
    assert model.parts.num_states == denoiser.num_states
    assert (model.parts.process is None) is (context.experiment.process is None)
    assert model.tokenizer.vocab_size == model.parts.num_tokens
    assert model.tokenizer.decode(model.tokenizer.encode_batch([TEXT])[0]) == TEXT
    drawn = model.parts.sampler.sample(model.denoiser, num=2, length=8, steps=2, seed=0, prompt=None)
    assert drawn.tokens.max() < model.parts.num_tokens


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damage(folder: Path, how: str) -> None:
    weights, record = folder / "model.safetensors", folder / "sumi.json"
    content = bytearray(weights.read_bytes())
    match how:
        case "no weights":
            weights.unlink()
        case "cut weights":
            weights.write_bytes(content[: len(content) // 2])
        case "no header":
            weights.write_bytes(b"\xff" * 64)
        case "flipped bit":
            content[-5] ^= 1
            weights.write_bytes(content)
        case "no record":
            record.unlink()
        case "cut record":
            record.write_text(record.read_text()[:200])
        case "other schema":
            change_json(record, schema_version=99)
        case "list":
            record.write_text("[]")
        case "no vocabulary":
            content_ = json.loads(record.read_text())
            del content_["vocabulary"]
            record.write_text(json.dumps(content_))
        case "bad experiment":
            change_json(record, experiment={"process": "unifrom"})
        case "other model":
            experiment = json.loads(record.read_text())["experiment"]
            experiment["model"]["intermediate_size"] = 50
            change_json(record, experiment=experiment)
        case "deeper model":
            experiment = json.loads(record.read_text())["experiment"]
            experiment["model"]["num_layers"] = 3
            change_json(record, experiment=experiment)
        case "other vocabulary":
            change_json(record, vocabulary={"tokens": 11, "states": 12, "eos_id": 0, "mask_id": 11})
        case "no tokenizer":
            shutil.rmtree(folder / "sumi_tokenizer")
        case "cut tokenizer":
            (folder / "sumi_tokenizer" / "tokenizer.json").write_text("{")
        case "no experiment" | "no mapping" | "no sizes":
            odd = {"experiment": None} if how == "no experiment" else {"experiment": {"model": []}}
            change_json(record, **({"vocabulary": {}} if how == "no sizes" else odd))
        case "endless":
            record.write_text("[" * 200_000)
        case "vast model":
            experiment = json.loads(record.read_text())["experiment"]
            experiment["model"] |= {"hidden_size": 65536, "num_layers": 1000}
            change_json(record, experiment=experiment)
        case "odd tokenizer":
            (folder / "sumi_tokenizer" / "sumi_tokenizer.json").write_text("[]")
        case "odd end":
            change_json(folder / "sumi_tokenizer" / "sumi_tokenizer.json", eos_id=999_999)
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", r"model\.safetensors does not exist"),
        ("cut weights", r"model\.safetensors is not a complete safetensors file"),
        ("no header", r"model\.safetensors is not a complete safetensors file"),
        ("flipped bit", r"model\.safetensors differs from the SHA-256 in sumi\.json"),
        ("no record", r"sumi\.json does not exist"),
        ("cut record", r"sumi\.json is damaged"),
        ("other schema", r"sumi\.json has schema version 99"),
        ("list", r"sumi\.json has schema version None"),
        ("no vocabulary", r"sumi\.json lacks vocabulary"),
        ("bad experiment", r"sumi\.json: process: .*did you mean 'uniform'"),
        ("other model", r"model\.safetensors: model\.layers\.0\.mlp\.\w+\.weight is float32 \(\d+, \d+\) where"),
        ("deeper model", r"model\.safetensors lacks model\.layers\.2\.input_layernorm\.weight, .* and 6 more"),
        ("other vocabulary", r"sumi_tokenizer gives \d+ tokens and \d+ states where sumi\.json records 11 and 12"),
        ("no tokenizer", r"sumi_tokenizer does not exist"),
        ("no experiment", r"sumi\.json is damaged or not ours"),
        ("no mapping", r"sumi\.json is damaged or not ours"),
        ("no sizes", r"sumi\.json is damaged or not ours"),
        ("endless", r"sumi\.json is damaged"),
        ("vast model", r"model\.safetensors is far smaller than the model that sumi\.json describes"),
        ("odd tokenizer", r"sumi_tokenizer\.json is missing or damaged"),
        ("odd end", r"names end-of-text 999999, which is not a token"),
        ("cut tokenizer", r"sumi_tokenizer/tokenizer\.json is missing or damaged"),
    ],
)
def test_a_damaged_folder_is_refused_by_file(how: str, message: str, exported: Path) -> None:
    damage(exported, how)
    with pytest.raises(ExportError, match=message):
        load_exported(exported)


def test_weights_changed_on_purpose_can_be_loaded(exported: Path) -> None:
    path = exported / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    changed = load_exported(exported, verify=False)
    assert torch.equal(changed.denoiser.model.norm.weight, tensors["model.norm.weight"])


def test_an_export_outlives_the_parts_that_its_first_cell_was_measured_with(exported: Path) -> None:
    """They made nothing of the model, and cells that never named them share the export."""
    record = json.loads((exported / "sumi.json").read_text())
    whole = load_exported(exported).experiment
    evaluation = record["experiment"]["evaluation"]
    evaluation["samples"] = 3
    evaluation["measurements"].append({"name": "mine"})
    evaluation["metrics"].append({"name": "mine", "words": 3})
    evaluation["sampler"] |= {"spacing": "log_snr"}
    change_json(exported / "sumi.json", experiment=record["experiment"])
    opened = load_exported(exported)
    assert opened.experiment.evaluation.sampler["spacing"] == "log_snr"
    assert opened.experiment.evaluation.samples == 3
    assert opened.experiment.evaluation.measurements == whole.evaluation.measurements
    assert dataclasses.replace(opened.experiment, evaluation=whole.evaluation) == whole
    evaluation["sampler"] = {"name": "mine"}
    change_json(exported / "sumi.json", experiment=record["experiment"])
    assert load_exported(exported).experiment.evaluation.sampler == whole.evaluation.sampler
    evaluation["samples"] = 0
    change_json(exported / "sumi.json", experiment=record["experiment"])
    with pytest.raises(ExportError, match=r"sumi\.json: evaluation\.samples: must be at least 1"):
        load_exported(exported)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"sumi\.json does not exist; name a folder that Sumi exported"):
        load_exported(tmp_path / "nothing")


# --- the weights file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_head", [True, False])
def test_a_tied_head_may_be_in_the_file(with_head: bool, tmp_path: Path) -> None:
    source = lively(Denoiser(small(tie_embeddings=True), STATES))
    tensors = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    if not with_head:
        del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "w.safetensors")
    filled = Denoiser(small(tie_embeddings=True), STATES, seed=None)
    read_weights(tmp_path / "w.safetensors", filled)
    assert filled.lm_head.weight is filled.model.embed_tokens.weight
    assert torch.equal(filled.lm_head.weight, source.lm_head.weight)


def test_weights_of_another_model_change_nothing(tmp_path: Path) -> None:
    write_weights(Denoiser(small(qk_norm=True), STATES), tmp_path / "w.safetensors")
    denoiser = Denoiser(small(), STATES)
    before = denoiser.lm_head.weight.clone()
    with pytest.raises(ExportError, match=r"holds .*k_norm\.weight.*, unknown to the model"):
        read_weights(tmp_path / "w.safetensors", denoiser)
    assert torch.equal(denoiser.lm_head.weight, before)


def test_half_precision_weights_are_read_into_float32(tmp_path: Path) -> None:
    source = Denoiser(small(), STATES)
    save_file({n: t.bfloat16() for n, t in source.weights().items()}, tmp_path / "w.safetensors")
    filled = Denoiser(small(), STATES, seed=None)
    read_weights(tmp_path / "w.safetensors", filled)
    assert filled.lm_head.weight.dtype == torch.float32
    assert torch.equal(filled.lm_head.weight, source.lm_head.weight.bfloat16().float())
