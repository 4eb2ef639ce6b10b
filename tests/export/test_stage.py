"""An export is what stock transformers opens, computes as the training model did, and says where it comes from."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sumi_core.data.tokenizers.tokenizer import load_tokenizer
from sumi_core.export.record import ExportError
from sumi_core.export.stock import max_logit_difference, open_stock, write_stock_config
from sumi_core.export.tokenizer import check_stock_tokenizer, open_stock_tokenizer, write_stock_tokenizer
from sumi_core.models.attention import Bidirectional, Causal
from sumi_core.models.denoiser import Denoiser
from sumi_core.stages.base import StageContext
from sumi_core.stages.exported_model import build as build_exported_model
from tests.data.foreign import byte_level
from tests.export.conftest import TEXT, card_front

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
