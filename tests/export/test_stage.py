"""An export is what stock transformers opens, computes as the training model did, and says where it comes from."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sumi_core.data.batch import Batch
from sumi_core.data.noise import Noise
from sumi_core.data.shards import TokenShards
from sumi_core.data.tokenizers.tokenizer import load_tokenizer
from sumi_core.evaluation.calibration import Calibration
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import Context, Model
from sumi_core.export.loading import load_exported
from sumi_core.export.record import ExportError
from sumi_core.export.stock import max_logit_difference, open_stock, write_stock_config
from sumi_core.export.tokenizer import check_stock_tokenizer, open_stock_tokenizer, write_stock_tokenizer
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
from tests.data.foreign import byte_level
from tests.export.conftest import TEXT, experiment
from tests.models.stock import lively

Trained = Callable[..., tuple[StageContext, Denoiser]]
EUROBERT, LLAMA = Bidirectional.stock_class, Causal.stock_class
STOCK = {
    "uniform": "EuroBertForMaskedLM",
    "absorbing": "EuroBertForMaskedLM",
    "autoregressive": "LlamaForCausalLM",
    "tied_autoregressive": "LlamaForCausalLM",
    "blocks": "LlamaForCausalLM",
    "masked_blocks": "LlamaForCausalLM",
    "two_modes": "LlamaForCausalLM",
    "masked_two_modes": "LlamaForCausalLM",
}


def card_front(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.mark.parametrize("kind", STOCK)
def test_stock_transformers_opens_an_export_and_computes_the_same(kind: str, trained: Trained) -> None:
    import transformers

    context, denoiser = trained(kind)
    summary = build_exported_model(context)
    auto = transformers.AutoModelForCausalLM if "Causal" in STOCK[kind] else transformers.AutoModelForMaskedLM
    stock = auto.from_pretrained(context.folder, trust_remote_code=False)
    assert type(stock).__name__ == summary["stock_class"] == STOCK[kind]
    assert summary["stock_loadable"] is True
    assert summary["reason"] is None
    assert 0 <= summary["max_logit_difference"] <= 1e-4
    assert summary["num_states"] == stock.config.vocab_size == denoiser.num_states
    assert summary["parameters"] == denoiser.num_parameters() == stock.num_parameters()
    assert summary["weights_bytes"]["bfloat16"] == 2 * summary["parameters"]
    tokens = torch.arange(denoiser.num_states)[None]
    with torch.no_grad():
        assert (stock(tokens).logits - denoiser.logits(tokens)).abs().max() < 1e-4
    if config_tied := denoiser.config.tie_embeddings:
        assert stock.get_input_embeddings().weight is stock.get_output_embeddings().weight
    assert stock.config.tie_word_embeddings is config_tied
    json.dumps(summary)


def test_only_the_absorbing_tokenizer_has_a_mask(trained: Trained) -> None:
    context, denoiser = trained("absorbing", {"name": "bpe", "vocab_size": 300})
    build_exported_model(context)
    tokenizer = open_stock_tokenizer(context.folder)
    mask = denoiser.num_states - 1
    assert len(tokenizer) == denoiser.num_states
    assert tokenizer.mask_token_id == mask
    config = json.loads((context.folder / "config.json").read_text())
    assert config["mask_token_id"] == mask
    text = f"In the {tokenizer.mask_token} was"
    ids = tokenizer(text)["input_ids"]
    assert ids.count(mask) == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "In the  was"


@pytest.mark.parametrize("kind", ["uniform", "autoregressive"])
def test_special_ids_are_ids_the_model_has(kind: str, trained: Trained) -> None:
    context, denoiser = trained(kind)
    build_exported_model(context)
    record = json.loads((context.folder / "sumi.json").read_text())
    config = json.loads((context.folder / "config.json").read_text())
    eos = record["vocabulary"]["eos_id"]
    special = {key: value for key, value in config.items() if key.endswith("_token_id")}
    assert special
    assert set(special.values()) == {eos}
    tokenizer = open_stock_tokenizer(context.folder)
    assert tokenizer.mask_token is None
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id == eos
    assert len(tokenizer) == denoiser.num_states
    assert tokenizer(["a", "abc"], padding=True, return_tensors="pt")["input_ids"].shape == (2, 3)


def test_a_hugging_face_tokenizer_keeps_its_ids_and_gets_a_mask(trained: Trained, tmp_path: Path) -> None:
    """End-of-text in front, a template that adds it, a pre-tokenizer of its own: nothing of it may shift an id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    folder = tmp_path / "theirs"
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    context, denoiser = trained("absorbing", {"name": "huggingface", "path": str(folder)})
    assert build_exported_model(context)["num_states"] == backend.get_vocab_size() + 1
    tokenizer = open_stock_tokenizer(context.folder)
    assert (tokenizer.eos_token_id, tokenizer.mask_token_id) == (0, denoiser.num_states - 1)
    assert tokenizer("In the", add_special_tokens=False)["input_ids"] == backend.encode("In the").ids[1:]


def test_a_prompt_is_not_put_into_a_frame(trained: Trained, tmp_path: Path) -> None:
    from tokenizers import processors

    frame = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)])
    byte_level(tmp_path / "framed", eos="</s>", post_processor=frame)
    context, _ = trained("autoregressive", {"name": "huggingface", "path": str(tmp_path / "framed")})
    build_exported_model(context)
    stock = open_stock_tokenizer(context.folder)
    assert stock(stock.eos_token + "ab")["input_ids"] == [257, 97, 98], "as the card says"
    assert stock("ab")["input_ids"] == [97, 98]

    framed = open_stock_tokenizer(tmp_path / "framed")
    framed.save_pretrained(context.folder)
    with pytest.raises(ExportError, match="stock AutoTokenizer gives ids"):
        check_stock_tokenizer(
            context.folder, load_tokenizer(context.inputs["tokenizer"].folder), num_states=259, mask_id=None
        )


def test_who_may_read_the_folder_may_read_the_weights(trained: Trained) -> None:
    context, _ = trained("uniform")
    context.folder.chmod(0o755)
    build_exported_model(context)
    assert (context.folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_causal_export_generates_with_stock_code(trained: Trained) -> None:
    context, _ = trained("autoregressive")
    build_exported_model(context)
    stock, tokenizer = open_stock(context.folder, LLAMA), open_stock_tokenizer(context.folder)
    prompt = tokenizer(tokenizer.eos_token + "word", return_tensors="pt")
    written = stock.generate(**prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert written.shape == (1, prompt["input_ids"].shape[1] + 5)


@pytest.mark.parametrize(
    ("kind", "word"),
    [("conditioned", "time_conditioning"), ("qk_norm", "qk_norm"), ("self_conditioned", "self_conditioning")],
)
def test_other_architectures_are_exported_and_say_why_stock_code_cannot_open_them(
    kind: str, word: str, trained: Trained
) -> None:
    context, _ = trained(kind)
    summary = build_exported_model(context)
    assert summary["stock_loadable"] is False
    assert summary["max_logit_difference"] is None
    assert word in summary["reason"]
    assert not (context.folder / "config.json").exists()
    assert (context.folder / "model.safetensors").exists()
    assert summary["reason"] in card_front(context.folder)[1]
    assert len(open_stock_tokenizer(context.folder)) == summary["num_states"]


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
    torch.testing.assert_close(names["logits"], wanted, rtol=1e-4, atol=1e-4)
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


def test_an_export_is_quiet_and_needs_no_network(
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    context, _ = trained("absorbing")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an export used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    build_exported_model(context)
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.messages, [str(warning.message) for warning in recwarn]) == ("", "", [], [])


def test_other_logits_of_stock_code_stop_the_export(trained: Trained) -> None:
    context, denoiser = trained("uniform")
    build_exported_model(context)
    with torch.no_grad():
        denoiser.model.norm.weight[0] += 0.5
    with pytest.raises(ExportError, match="logits that differ from the training model's by"):
        max_logit_difference(denoiser, context.folder, EUROBERT, length=8)


def test_weights_that_are_no_numbers_stop_the_export(trained: Trained) -> None:
    context, denoiser = trained("uniform")
    build_exported_model(context)
    with torch.no_grad():
        denoiser.model.norm.weight[0] = float("nan")
    with pytest.raises(ExportError, match="by nan"):
        max_logit_difference(denoiser, context.folder, EUROBERT, length=8)


def test_weights_that_stock_code_would_make_up_are_noticed(trained: Trained) -> None:
    """A config with one more layer opens in stock code, with random weights where the file has none."""
    context, denoiser = trained("uniform")
    build_exported_model(context)
    denoiser.config.num_layers += 1
    write_stock_config(
        denoiser.config, context.folder, num_states=denoiser.num_states, length=24, eos_id=0, mask_id=None
    )
    with pytest.raises(ExportError, match="missing_keys"):
        open_stock(context.folder, EUROBERT)


def test_damaged_training_weights_are_named(trained: Trained) -> None:
    context, _ = trained("uniform")
    weights = context.inputs["pretrained_denoiser"].folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"weights\.safetensors is not a complete safetensors file"):
        build_exported_model(context)
    weights.unlink()
    with pytest.raises(ExportError, match=r"weights\.safetensors does not exist"):
        build_exported_model(context)


@pytest.mark.parametrize(
    ("num_tokens", "num_states", "mask_id", "message"),
    [(-1, -1, None, "tokens, but the model has"), (1, 2, 1, "a further token would get id")],
)
def test_a_tokenizer_of_another_size_is_refused(
    num_tokens: int, num_states: int, mask_id: int | None, message: str, trained: Trained, tmp_path: Path
) -> None:
    """Sizes and ids are given relative to the tokenizer's own."""
    context, denoiser = trained("uniform")
    size = denoiser.num_states
    with pytest.raises(ExportError, match=message):
        write_stock_tokenizer(
            context.inputs["tokenizer"].folder,
            tmp_path,
            num_tokens=size + num_tokens,
            num_states=size + num_states,
            eos_id=0,
            mask_id=None if mask_id is None else size + mask_id,
            length=8,
        )


def test_stock_ids_that_differ_from_those_of_the_training_are_noticed(trained: Trained) -> None:
    context, denoiser = trained("uniform", {"name": "bpe", "vocab_size": 300})
    build_exported_model(context)
    trained_with = load_tokenizer(context.folder / "sumi_tokenizer")
    path = context.folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["merges"] = data["model"]["merges"][:5]
    path.write_text(json.dumps(data))
    with pytest.raises(ExportError, match="stock AutoTokenizer gives ids"):
        check_stock_tokenizer(context.folder, trained_with, num_states=denoiser.num_states, mask_id=None)


def test_a_state_that_is_neither_token_nor_mask_gets_a_name(trained: Trained, tmp_path: Path) -> None:
    context, denoiser = trained("uniform")
    size = denoiser.num_states
    write_stock_tokenizer(
        context.inputs["tokenizer"].folder,
        tmp_path,
        num_tokens=size,
        num_states=size + 2,
        eos_id=0,
        mask_id=size + 1,
        length=8,
    )
    tokenizer = open_stock_tokenizer(tmp_path)
    assert len(tokenizer) == size + 2
    assert tokenizer.mask_token_id == size + 1
    assert tokenizer.convert_ids_to_tokens(size) == f"<|state_{size}|>"
