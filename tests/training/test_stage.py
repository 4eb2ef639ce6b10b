"""The stage as users meet it: a real ``python -m sumi_core.training`` under the launcher, for every kind of model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.resolve import resolve
from sumi_core.stages.base import StageContext
from sumi_core.stages.pretrained_denoiser import build as build_pretrained_denoiser
from sumi_core.stages.store import Artifact
from sumi_core.training.errors import TrainingFailed
from tests.training.conftest import EXPERIMENT
from tests.training.processes import TrainerProcess


def context(folder: Path, inputs: dict[str, Artifact], said: list[str], **training: Any) -> StageContext:
    experiment = copy.deepcopy(EXPERIMENT)
    experiment["training"].update(training)
    return StageContext(
        resolve(experiment, "tests"),
        "tests.cell",
        folder,
        inputs,
        log=said.append,
        progress=lambda done, total, unit, note: said.append(f"{done:g} of {total:g} {unit}s"),
    )


def test_stage_trains_in_a_process_of_its_own_and_leaves_outputs_only(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    said: list[str] = []
    summary = build_pretrained_denoiser(context(tmp_path, inputs, said))
    assert {p.name for p in tmp_path.iterdir()} == {
        "training.json",
        "weights.safetensors",
        "history.parquet",
        "last.ckpt",
    }
    own = json.loads((tmp_path / "training.json").read_text())
    assert summary == {**own, "total_flops": own["flops"]}
    assert "60 of 60 steps" in said
    assert any("bits per byte" in text for text in said)


def test_stage_fails_with_the_trainers_sentence(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    with pytest.raises(TrainingFailed, match=r"^training diverged at step 2: the \w+( norm)? is (nan|inf)"):
        build_pretrained_denoiser(context(tmp_path, inputs, [], learning_rate=1e30, warmup_steps=0))


class Absent:
    """A launcher whose trainer does nothing and says it went well."""

    def run(self, request: Path) -> None:
        assert json.loads(request.read_text())["key"] == "tests.cell"


def test_stage_believes_no_launcher_without_outputs(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    asked = context(tmp_path, inputs, [])
    asked.launcher = Absent()
    with pytest.raises(TrainingFailed, match=r"ended without weights\.safetensors"):
        build_pretrained_denoiser(asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"process": {"name": "absorbing"}},
        {"process": None, "objective": {"name": "autoregressive"}, "model__attention": "causal"},
        {"model__tie_embeddings": True, "model__time_conditioning": "adaln"},
    ],
    ids=["absorbing", "autoregressive", "tied with time"],
)
def test_final_weights_are_those_that_were_validated(
    make_request: Any, inputs: dict[str, Artifact], changes: dict[str, Any]
) -> None:
    """Read back, the weights give the last validation figure again, bit by bit: EMA, tied heads and all."""
    import contextlib

    import torch
    from safetensors.torch import load_file

    from sumi_core.base.numerics import deterministic
    from sumi_core.data.shards import TokenShards
    from sumi_core.data.tokenizers.tokenizer import load_tokenizer
    from sumi_core.experiments.build import build_parts
    from sumi_core.models.denoiser import Denoiser
    from sumi_core.training.ranks import Rank
    from sumi_core.training.validation import ValidationSet

    request = make_request("cell", **changes)
    trainer = TrainerProcess(request)
    assert trainer.wait() == 0, trainer.texts()
    experiment = resolve(json.loads(request.read_text())["experiment"], "tests")
    tokenizer = load_tokenizer(inputs["tokenizer"].folder)
    parts = build_parts(experiment, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id))
    denoiser = Denoiser(experiment.model, parts.num_states, seed=None)
    weights = load_file(request.parent / "weights.safetensors")
    assert set(weights) == set(denoiser.weights())
    denoiser.load_state_dict(weights, strict=False)
    validation = ValidationSet(TokenShards(inputs["token_shards"].folder).split("validation"), 10, 4, Rank(0, 1))
    with deterministic(experiment.runtime.threads):
        figures = validation.metrics(denoiser, parts.objective, torch.device("cpu"), contextlib.nullcontext())
    summary = json.loads((request.parent / "training.json").read_text())
    assert figures["validation/bits_per_byte"] == summary["validation_bits_per_byte"]
    assert figures["validation/nats_per_token_stderr"] == summary["validation_nats_per_token_stderr"]
