"""The evaluation stage on real neighbours: corpus, tokenizer, shards, export; only the training is left out."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sumi_core.data.corpus import read_texts
from sumi_core.data.sequences import spread_indices
from sumi_core.data.shards import TokenShards
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.resolve import resolve
from sumi_core.export.weights import write_weights
from sumi_core.models.denoiser import build_denoiser
from sumi_core.reports.differences import CellLikelihood
from sumi_core.stages.base import StageContext
from sumi_core.stages.corpus import build as build_corpus
from sumi_core.stages.evaluation import build as build_evaluation
from sumi_core.stages.exported_model import build as build_exported_model
from sumi_core.stages.store import Artifact, Store
from sumi_core.stages.token_shards import build as build_token_shards
from sumi_core.stages.tokenizer import build as build_tokenizer

TEXT = "the word was with god and café light of all men shines on in darkness yet not one thing"
METHODS = {
    "uniform": {"process": "uniform"},
    "absorbing": {"process": "absorbing"},
    "autoregressive": {"process": None, "objective": "autoregressive", "model": {"attention": "causal"}},
}


def experiment(corpus: Path, method: str, tokenizer: object = "byte", **evaluation):
    size = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
    chosen = METHODS[method]
    return resolve(
        {
            **chosen,
            "corpus": {"source": {"name": "text", "paths": [f"{corpus}/*.txt"]}, "validation_fraction": 0.3},
            "tokenizer": tokenizer,
            "shards": {"sequence_length": 48, "shard_documents": 8},
            "model": {**size, **chosen.get("model", {})},
            "evaluation": {
                "sequences": 20,
                "times_per_sequence": 3,
                "samples": 3,
                "sampling_steps": [2, 4],
                **evaluation,
            },
            "runtime": {"device": "cpu", "threads": 1, "evaluation_batch": 16},
        },
        "test.yaml",
    )


class Laboratory:
    """Computes stages into folders, each once."""

    def __init__(self, root: Path) -> None:
        self.root, self.logs = root, []
        (root / "text").mkdir()
        generator = np.random.default_rng(0)
        for number in range(30):
            text = " ".join(generator.choice(TEXT.split(), 60)) + ".\n"
            (root / "text" / f"{number:02d}.txt").write_text(text, encoding="utf-8")

    def evaluate(self, method: str, name: str = "", tokenizer: object = "byte", **evaluation) -> Artifact:
        config = experiment(self.root / "text", method, tokenizer, **evaluation)
        data = f"{tokenizer if isinstance(tokenizer, str) else tokenizer['name']}"
        made: dict[str, Artifact] = {}
        for stage, build, owner in (
            ("corpus", build_corpus, ""),
            ("tokenizer", build_tokenizer, data),
            ("token_shards", build_token_shards, data),
            ("pretrained_denoiser", self.untrained, f"{data}-{method}"),
            ("exported_model", build_exported_model, f"{data}-{method}"),
            ("evaluation", build_evaluation, f"{data}-{method}-{name}"),
        ):
            folder = self.root / f"{stage}-{owner}"
            if not folder.exists():
                folder.mkdir()
                store = Store(self.root / f"store-{name}")
                context = StageContext(config, f"cell.{method}", folder, dict(made), store=store, log=self.logs.append)
                summary = json.loads(json.dumps(build(context), allow_nan=False))
                (folder / "manifest.json").write_text(json.dumps(summary))
            summary = json.loads((folder / "manifest.json").read_text())
            made[stage] = Artifact(stage, folder.name, folder, {"summary": summary, "identity": {}})
        return made["evaluation"]

    @staticmethod
    def untrained(context: StageContext) -> dict:
        from sumi_core.data.tokenizers.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(context.inputs["tokenizer"].folder)
        states = build_parts(context.experiment, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id)).num_states
        write_weights(build_denoiser(context.experiment.model, states), context.folder / "weights.safetensors")
        return {}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("laboratory"))


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_written_and_the_summary_is_what_the_files_say(laboratory, method):
    evaluation = laboratory.evaluate(method)
    summary, folder = evaluation.summary, evaluation.folder
    exact = method == "autoregressive"
    assert summary["exact"] is exact
    assert 7 < summary["bits_per_byte"] < 13  # untrained: about log2 257 a byte
    assert summary["bits_per_byte_stderr"] > 0
    assert (summary["bits_per_byte_mc_stderr"] == 0) is exact
    terms = [summary[f"{term}_bits_per_byte"] for term in ("diffusion", "reconstruction", "prior")]
    assert sum(terms) == pytest.approx(summary["bits_per_byte"])
    assert list(summary["samples"]) == (["steps_48"] if exact else ["steps_2", "steps_4"]) + ["validation"]
    assert summary["sample_text"]
    assert summary["process"] == (None if exact else method)

    flat = json.loads((folder / "metrics.json").read_text())
    assert flat["bits_per_byte"] == summary["bits_per_byte"]
    assert flat["yardsticks.ppmd_5"] == summary["yardsticks"]["ppmd_5"]
    table = pd.read_parquet(folder / "metrics.parquet")
    groups = {"likelihood", "yardstick", "samples", "revisions", "validation"}
    assert set(table["group"]) == (groups if exact else groups | {"gradient_noise"})
    if not exact:
        noise = summary["gradient_noise"]
        assert (noise["gradients"], noise["sequences"]) == (16, 8)
        assert min(noise["variance"], noise["squared_norm"]) > 0
    likelihood = CellLikelihood.load(folder / "likelihood.parquet")
    assert likelihood.bits_per_byte.value == pytest.approx(summary["bits_per_byte"])
    assert likelihood.bits_per_byte.stderr == pytest.approx(summary["bits_per_byte_stderr"])
    assert len(set(likelihood.text_digests)) == 20
    samples = pd.read_parquet(folder / "samples.parquet")
    assert samples.groupby("steps").size().tolist() == [3] * (1 if exact else 2)
    assert samples["tokens"].map(len).eq(48).all()
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert ("| bits per byte | = " if exact else "| bits per byte | ≤ ") in page
    assert not any(ord(c) < 32 and c != "\n" for c in page)
    plots = {path.name for path in (folder / "plots").iterdir()}
    of_noise = set() if exact else {"loss_by_level.png", "corruption.png"}
    assert plots == {"bits_per_byte.png", "film.gif", "film.html", "revisions.png", "sample_quality.png"} | of_noise


def test_cells_are_measured_on_the_same_texts_and_yardsticks(laboratory):
    found = [laboratory.evaluate(method) for method in METHODS]
    loaded = [CellLikelihood.load(e.folder / "likelihood.parquet") for e in found]
    assert loaded[0].text_digests == loaded[1].text_digests == loaded[2].text_digests
    assert found[0].summary["yardsticks"] == found[1].summary["yardsticks"] == found[2].summary["yardsticks"]
    levels = [pd.read_parquet(e.folder / "likelihood.parquet")["level"] for e in found[:2]]
    pd.testing.assert_series_equal(*levels)


def test_yardsticks_are_fitted_on_the_train_split_and_go_by_the_evaluated_bytes(laboratory):
    summary = laboratory.evaluate("uniform").summary
    sequences = TokenShards(laboratory.root / "token_shards-byte").split("validation")
    chosen = spread_indices(20, len(sequences))
    stream = b"".join(
        bytes(int(token) for token in sequences[i] if token != 256) + b"\xff" * int((sequences[i] == 256).sum())
        for i in chosen
    )  # of a byte tokenizer; end-of-text tokens out of place do not change counts
    assert summary["bytes"] == len(stream) - stream.count(b"\xff") == sum(sequences.bytes(i) for i in chosen)
    train = "".join(d.text + "\x00" for d in read_texts(laboratory.root / "corpus-", "train")).encode()
    counts = np.bincount(np.frombuffer(train.replace(b"\x00", b"\xff"), np.uint8), minlength=256) + 1
    expected = sum(math.log2(counts.sum() / counts[b]) for b in stream) / summary["bytes"]
    assert summary["yardsticks"]["unigram_bytes"] == pytest.approx(expected)
    # The same symbols, but 257 of them and the end of text among them: nearly the same code.
    assert summary["yardsticks"]["unigram_tokens"] == pytest.approx(expected, rel=0.01)
    assert summary["yardsticks"]["ppmd_5"] < summary["yardsticks"]["unigram_bytes"]


def test_the_same_evaluation_again_gives_the_same_bytes(laboratory):
    first, second = laboratory.evaluate("uniform"), laboratory.evaluate("uniform", "again")
    assert first.folder != second.folder
    files = [path.relative_to(first.folder) for path in sorted(first.folder.rglob("*")) if path.is_file()]
    assert len(files) >= 9
    for name in files:
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name


def test_another_tokenizer_pays_for_the_same_bytes(laboratory):
    tokenizer = {"name": "bpe", "vocab_size": 300}
    summary = laboratory.evaluate("uniform", tokenizer=tokenizer, sequences=10, metrics=[]).summary
    assert summary["tokens"] == 480
    assert summary["bytes"] > 480
    assert summary["nats_per_token"] / math.log(2) * summary["tokens"] / summary["bytes"] == pytest.approx(
        summary["bits_per_byte"]
    )
    assert summary["samples"] == {"steps_2": {}, "steps_4": {}, "validation": {}}
    assert not any("cuts characters" in line for line in laboratory.logs)


def test_validation_text_stands_beside_the_samples(laboratory):
    """Thirty documents of the same twenty words share no 8-gram with each other, so nothing counts as copied."""
    samples = laboratory.evaluate("uniform").summary["samples"]
    assert samples["validation"]["copy_rate_8"] == 0.0
    assert 0 < samples["validation"]["distinct_1"] < 1
