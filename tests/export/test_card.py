"""What an export says of its model: the record, the card, and the card's own code, which is run."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sumi_core.data.batch import Batch
from sumi_core.data.noise import Noise
from sumi_core.data.shards import TokenShards
from sumi_core.evaluation.calibration import Calibration
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import Context, Model
from sumi_core.export.loading import load_exported
from sumi_core.export.record import ExportError
from sumi_core.export.weights import write_weights
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.attention import Bidirectional, Causal
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.objectives.feedback import Same
from sumi_core.stages.base import StageContext
from sumi_core.stages.exported_model import build as build_exported_model
from sumi_core.stages.identity import stage_fingerprint, stages_of
from sumi_core.stages.store import Artifact
from tests.export.conftest import card_front, experiment
from tests.models.stock import lively

Trained = Callable[..., tuple[StageContext, Denoiser]]
EUROBERT, LLAMA = Bidirectional.stock_class, Causal.stock_class


def test_the_record_walks_back_to_what_made_the_model(trained: Trained) -> None:
    context, _ = trained("absorbing")
    build_exported_model(context)
    record = json.loads((context.folder / "sumi.json").read_text())
    upstream = [name for name in stages_of(context.experiment) if name != "evaluation"]
    assert record["fingerprints"] == {name: stage_fingerprint(context.experiment, name) for name in upstream}
    assert record["inputs"] == {
        "corpus": "c" * 16,
        "token_shards": "s" * 16,
        "tokenizer": "t" * 16,
        "pretrained_denoiser": "p" * 16,
    }
    assert record["experiment"] == context.experiment.to_dict()
    assert record["process"] == {"name": "absorbing"}
    assert record["schedule"]["name"] == "cosine"
    assert record["sampler"]["name"] == "ancestral"
    assert record["vocabulary"]["mask_id"] == record["vocabulary"]["tokens"] == record["vocabulary"]["states"] - 1
    assert (record["schema_version"], record["key"]) == (1, "cell.absorbing")


@pytest.mark.parametrize("kind", ["uniform", "absorbing", "autoregressive", "conditioned", "blocks"])
def test_the_card_has_figures_licence_lineage_and_limits(kind: str, trained: Trained) -> None:
    context, _ = trained(kind)
    summary = build_exported_model(context)
    front, body = card_front(context.folder)
    assert "sumi" in front["tags"]
    assert front["library_name"] == ("transformers" if summary["stock_loadable"] else "sumi")
    assert ("pipeline_tag" in front) is (kind == "autoregressive")
    for expected in (
        f"# cell.{kind}",
        "CC0-1.0",
        "| Validation bits per byte, during training | 2.5000 ± 0.1250 |",
        "| Training tokens | 12,345 |",
        f"{summary['parameters']:,} parameters",
        f"| exported_model | `{stage_fingerprint(context.experiment, 'exported_model')}` |",
        "sequences of 24 tokens",
        "load_exported",
    ):
        assert expected in body, expected
    assert ("its own noisy token left out" in body) is (kind != "autoregressive")
    assert ("trust" in body or "no remote code" in body) is summary["stock_loadable"]
    assert "None" not in body


@pytest.mark.parametrize("kind", ["uniform", "blocks", "absorbing", "autoregressive"])
def test_the_card_says_how_much_a_prediction_moves_with_its_own_token(
    kind: str, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the measurement `calibration` finds it on the same sequences; the same in every export."""
    monkeypatch.setattr(
        "sumi_core.evaluation.calibration_plot.plot_calibration", lambda curve, table, path, title: path
    )
    found = []
    context, denoiser = trained(kind)
    for _ in range(2):
        build_exported_model(context)
        found.append(json.loads((context.folder / "sumi.json").read_text())["own_token_sensitivity"])
    assert found[0] == found[1]
    body = card_front(context.folder)[1]
    if kind == "autoregressive":
        assert found[0] is None
        assert "sensitivity" not in body
    elif kind == "absorbing":
        assert found[0]["value"] == 0
        assert "| Own-token sensitivity at 50% noise | 0 by definition |" in body
        assert "only masks are predicted here" in body
    else:
        value, stderr = found[0]["value"], found[0]["stderr"]
        assert f"| Own-token sensitivity at 50% noise | {value:.4f} ± {stderr:.4f} |" in body
        assert "4 positions of each of 16 validation sequences" in body
        options = Calibration.Options(noise=[0.5], probes=4)
        text = TokenShards(context.inputs["token_shards"].folder).split("validation")
        opened = load_exported(context.folder)
        parts, cpu = opened.parts, torch.device("cpu")
        model = Model(denoiser, parts.objective, parts.sampler, parts.process, opened.tokenizer, cpu)
        measured = Calibration(options).run(model, Context(EvaluationConfig(sequences=16), text, context.folder, 7))
        assert measured.summary["calibration"]["own_token_sensitivity_at_0.5"] == pytest.approx(value, abs=1e-6)


MODES = {
    "uniform": [{"name": "whole", "trained": True, "exact": False}],
    "autoregressive": [{"name": "ar", "trained": True, "exact": True}],
    "masked_blocks": [{"name": "canvas", "trained": True, "exact": False, "lengths": [6], "read_out": "previous"}],
    "two_modes": [
        {"name": "ar", "trained": True, "exact": True},
        {"name": "canvas", "trained": True, "exact": False, "lengths": [4, 2], "read_out": "own"},
        {"name": "speculative", "trained": True, "exact": True, "lengths": [4, 2], "read_out": "own"},
    ],
    "masked_two_modes": [
        {"name": "ar", "trained": True, "exact": True},
        {"name": "canvas", "trained": False, "exact": False, "lengths": [6], "read_out": "previous"},
        {"name": "speculative", "trained": False, "exact": True, "lengths": [6], "read_out": "previous"},
    ],
}


@pytest.mark.parametrize("kind", MODES)
def test_record_and_card_list_the_modes_of_a_model(kind: str, trained: Trained) -> None:
    context, _ = trained(kind)
    build_exported_model(context)
    assert json.loads((context.folder / "sumi.json").read_text())["modes"] == MODES[kind]
    body = card_front(context.folder)[1]
    table = body.split("## Modes\n")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [mode["name"] for mode in MODES[kind]]
    assert table.count("not trained") == sum(not mode["trained"] for mode in MODES[kind])
    for mode in MODES[kind]:
        assert f"Mode `{mode['name']}`" in body


def card_snippets(folder: Path) -> list[str]:
    """The Python of a card, in order, each opening this folder."""
    body = card_front(folder)[1].replace("this/folder", str(folder))
    return [part.split("```")[0] for part in body.split("```python\n")[1:]]


@pytest.mark.parametrize("kind", ["two_modes", "masked_two_modes"])
def test_stock_code_writes_in_each_mode_as_the_card_says(kind: str, trained: Trained) -> None:
    """Every line of Python of the card runs; speculation writes the very text of stock ``generate``, in passes that
    write at least a token each."""
    context, _ = trained(kind)
    build_exported_model(context)
    snippets = card_snippets(context.folder)
    assert len(snippets) == 4
    causal, canvas, speculative, sumi = snippets
    names: dict[str, Any] = {}
    exec(causal.replace("max_new_tokens=64", "max_new_tokens=4"), names)
    exec(canvas, names)
    exec(speculative, names)
    exec(sumi.replace("length=128, steps=64", "length=12, steps=2"), {})
    opened, ids = names["model"], names["ids"]
    written = names["prompt"]["input_ids"]
    begun, tokens = written.shape[1], json.loads((context.folder / "sumi.json").read_text())["vocabulary"]["tokens"]
    with torch.no_grad():
        while written.shape[1] < ids.shape[1]:
            best = opened(written).logits[:, -1:, :tokens].argmax(-1)
            written = torch.cat([written, best], 1)
    assert torch.equal(ids, written)
    assert ids.shape[1] == begun + 32
    assert names["passes"] <= 32


def test_other_logits_of_a_pass_that_drafts_stop_the_export(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of a canvas behind a text is compared too, not the two streams alone."""
    from sumi_core.export import stock as compared

    context, _ = trained("two_modes")
    original, shapes = compared.stock_arguments, []

    def shifted(given: DenoiserInput) -> dict[str, torch.Tensor]:
        arguments = original(given)
        shapes.append(given.tokens.shape[1])
        if given.tokens.shape[1] == 12 + 2 * 4:  # half of the text and two canvases
            arguments["position_ids"] = arguments["position_ids"] + torch.arange(20) // 12
        return arguments

    monkeypatch.setattr(compared, "stock_arguments", shifted)
    with pytest.raises(ExportError, match="logits that differ from the training model's by"):
        build_exported_model(context)
    assert shapes == [24, 48, 20]


@pytest.mark.parametrize("kind", ["blocks", "masked_blocks"])
def test_stock_code_runs_two_streams_as_the_card_says(kind: str, trained: Trained) -> None:
    """The card's own lines give the logits of a block; the export compared both streams with them."""
    context, denoiser = trained(kind)
    build_exported_model(context)
    exported = load_exported(context.folder)
    body = card_front(context.folder)[1].replace("this/folder", str(context.folder))
    snippet = body.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(snippet, names)
    layout = exported.parts.layout
    assert isinstance(layout, Blocks)
    n = layout.options.length
    ids, block = names["ids"], names["block"]
    assert ids.shape[1] == 1 + n
    z = block[:, -n:]
    with torch.no_grad():
        given = DenoiserInput(torch.cat([ids[:, 1:], z], 1))
        wanted = layout.of(denoiser, torch.cat([ids[:, 1:], z], 1), int(ids[0, 0]))(given).logits()[:, n:]
    torch.testing.assert_close(names["logits"], wanted, rtol=0, atol=1e-5)
    generation = json.loads((context.folder / "generation_config.json").read_text())
    mask = exported.parts.mask_id
    assert generation.get("suppress_tokens") == (None if mask is None else [mask])
    samples = exported.parts.sampler.sample(exported.denoiser, num=2, length=2 * n, steps=2, seed=0)
    assert samples.nfe.tolist() == [4, 4]


@pytest.mark.parametrize("kind", ["residual", "masked_residual"])
def test_stock_code_feeds_a_prediction_back_as_the_card_says(kind: str, trained: Trained) -> None:
    """The card's own lines give the logits of a pass with feedback."""
    context, denoiser = trained(kind)
    assert build_exported_model(context)["stock_loadable"]
    exported = load_exported(context.folder)
    body = card_front(context.folder)[1].replace("this/folder", str(context.folder))
    assert "Feedback `residual_context`, trained on source `" in body
    names: dict[str, Any] = {}
    for snippet in body.split("```python\n")[1:3]:
        exec(snippet.split("```")[0], names)
    process, source = exported.parts.process, exported.parts.objective.feedback  # type: ignore[attr-defined]
    assert process is not None
    level = torch.full((1, 1), 0.5, dtype=torch.float64)
    given = DenoiserInput(names["ids"], level[:, 0])
    noise = Noise(0, "path", 0, [0])
    fed = Same(source.options).feed(denoiser, lambda d: d, process, given, level, noise)
    with torch.no_grad():
        wanted, without = denoiser(fed).logits(), denoiser.logits(names["ids"])
    torch.testing.assert_close(names["logits"], wanted, rtol=1e-4, atol=1e-4)
    assert float((wanted - without).abs().max()) > 0.01


def test_an_export_holds_the_model_that_its_likelihood_asks(trained: Trained, tmp_path: Path) -> None:
    context, _ = trained("residual")
    predicting = experiment("uniform", tmp_path / "text.txt")
    other = lively(Denoiser(predicting.model, 257), seed=8)
    (tmp_path / "other").mkdir()
    write_weights(other, tmp_path / "other" / "weights.safetensors")
    asked = {"name": "reference", "share": 0.5, "of": {"cell": "a.s0", "experiment": predicting.to_dict()}}
    context.experiment.objective["feedback"] = asked
    context.references = {"objective.feedback.of": Artifact("pretrained_denoiser", "o" * 16, tmp_path / "other", {})}
    build_exported_model(context)
    shutil.rmtree(tmp_path / "other")
    assert str(tmp_path) not in (context.folder / "sumi.json").read_text().replace(str(tmp_path / "text.txt"), "")
    exported = load_exported(context.folder)
    x = torch.randint(257, (2, 24), generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.arange(2), torch.arange(2), 2, 0, 0)
    readings = exported.parts.objective.readings
    assert [*readings] == ["diffusion_reference", "diffusion_same", "diffusion"]
    found = [reading(exported.denoiser, batch, 1e-3).total for reading in readings.values()]
    assert len({float(value.sum()) for value in found}) == 3


def test_an_error_that_is_not_known_is_in_no_card(trained: Trained) -> None:
    context, _ = trained("uniform")
    summary = context.inputs["pretrained_denoiser"].manifest["summary"]
    for unknown in (None, math.nan):  # as the record of this version, and of earlier ones, has it
        summary["validation_bits_per_byte_stderr"] = unknown
        build_exported_model(context)
        card = (context.folder / "README.md").read_text(encoding="utf-8")
        assert "| Validation bits per byte, during training | 2.5000 |" in card
        json.loads((context.folder / "sumi.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_the_python_of_the_card_runs(trained: Trained) -> None:
    context, _ = trained("uniform")
    build_exported_model(context)
    body = card_front(context.folder)[1].replace("this/folder", str(context.folder))
    snippets = [part.split("```")[0] for part in body.split("```python\n")[1:]]
    assert len(snippets) == 3
    names: dict[str, Any] = {}
    exec(snippets[0], names)
    assert names["logits"].shape[-1] == names["model"].config.vocab_size
    exec(snippets[2].replace("length=128, steps=64", "length=16, steps=2"), names)
    assert names["samples"].tokens.shape == (4, 16)


@pytest.mark.parametrize("kind", ["uniform", "uniform_posterior"])
def test_stock_transformers_and_stock_diffusers_write_as_the_card_says(
    kind: str, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's own lines: in every step the scheduler gets the model's posterior."""
    schedulers = pytest.importorskip("diffusers")
    context, denoiser = trained(kind)
    build_exported_model(context)
    process = load_exported(context.folder).parts.process
    body = card_front(context.folder)[1].replace("this/folder", str(context.folder))
    snippets = [part.split("```")[0] for part in body.split("```python\n")[1:]]
    (snippet,) = [one for one in snippets if "diffusers" in one]
    calls: list[tuple[torch.Tensor, int, torch.Tensor]] = []
    original = schedulers.DiscreteDDIMScheduler.step

    def watched(self: Any, logits: torch.Tensor, step: int, z: torch.Tensor, **options: Any) -> Any:
        calls.append((logits, step, z))
        assert options == {"temperature": 1.0}
        return original(self, logits, step, z, **options)

    monkeypatch.setattr(schedulers.DiscreteDDIMScheduler, "step", watched)
    names: dict[str, Any] = {}
    exec(snippet.replace("steps, tokens = 64", "steps, tokens = 5"), names)
    assert [step for _, step, _ in calls] == [0, 1, 2, 3, 4]
    assert names["z"].shape == (1, 24)
    for logits, step, z in calls:
        level = process.time_of_alpha(torch.tensor([[step / 5]], dtype=torch.float64))
        with torch.no_grad():
            own = process.predict(denoiser, DenoiserInput(z), level)
        wanted = process.log_posterior(own, z, level)
        torch.testing.assert_close(logits.log_softmax(-1).double(), wanted, rtol=0, atol=1e-4)


def test_only_models_that_stock_diffusers_can_write_with_say_so(trained: Trained) -> None:
    context, _ = trained("absorbing")
    build_exported_model(context)
    assert "diffusers" not in card_front(context.folder)[1]
