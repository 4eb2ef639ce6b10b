"""The recipe that the docs write for a model in a local folder, run on a tiny random one."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from sumi_core.data.sequences import spread_indices
from sumi_core.data.shards import TokenShards
from sumi_core.experiments.sweeps import load_sweep
from sumi_core.lineage.project import Project
from sumi_core.stages.computation import Computation
from tests.data.foreign import byte_level
from tests.pipelines.tiny import Here, enter, write_texts

ROOT = Path(__file__).parents[2]
KEY = "converted"
SMALL = [
    "corpus.validation_fraction=0.3",
    "shards.sequence_length=32",
    "layout.length=8",
    "model={hidden_size: 32, intermediate_size: 48, num_layers: 2, num_heads: 4, num_kv_heads: 2, rope_theta: 5000}",
    "training={steps: 4, batch_size: 4, warmup_steps: 1, validate_every: 2, validation_sequences: 4}",
    "evaluation={sequences: 4, times_per_sequence: 2, sampling_steps: [3], samples: 2}",
    "runtime={device: cpu, threads: 1, data_workers: 1, log_every: 1, checkpoint_every: 4}",
]


def random_parent(folder: Path) -> None:
    """A Llama with tied embeddings and a tokenizer beside it, as transformers writes them."""
    byte_level(folder, eos="</s>")
    size = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer.get_vocab_size()
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="20KB")


def test_the_documented_recipe_runs_on_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From stock logits to a canvas that writes: at step 0 the exact figure is that of stock code on the same text."""
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    (written,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "base/block-canvas" in block]
    experiments = tmp_path / "experiments"
    (experiments / "base").mkdir(parents=True)
    shutil.copyfile(ROOT / "experiments" / "base" / "block-canvas.yaml", experiments / "base" / "block-canvas.yaml")
    (experiments / f"{KEY}.yaml").write_text(written, encoding="utf-8")
    write_texts(tmp_path)
    random_parent(tmp_path / "models" / "parent")
    project = Project(tmp_path)
    enter(project, monkeypatch)
    (cell,) = load_sweep(experiments / f"{KEY}.yaml", experiments, SMALL).cells
    found = Computation(project.store, launcher=Here(), log=lambda _: None).ensure_all(cell.experiment, KEY)
    summary = found["evaluation"].summary
    assert {"autoregressive", "blocks_8"} <= {*summary["initial_readings"]} & {*summary["readings"]}
    assert summary["samples"]["steps_3"]

    shards = TokenShards(found["token_shards"].folder).split("validation")
    chosen = spread_indices(4, len(shards))
    rows = torch.from_numpy(np.stack([np.asarray(shards[i], dtype=np.int64) for i in chosen]))
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "parent").eval()
    with torch.no_grad():
        logits = stock(torch.cat([torch.full_like(rows[:, :1], 257), rows[:, :-1]], 1)).logits.double()
    nats = -logits.log_softmax(-1).gather(-1, rows[..., None]).sum()
    bits = float(nats) / math.log(2) / sum(shards.bytes(i) for i in chosen)
    assert summary["initial_readings"]["autoregressive"] == pytest.approx(bits, abs=1e-5)
    assert abs(summary["readings"]["autoregressive"] - bits) > 1e-3, "it was trained on"
