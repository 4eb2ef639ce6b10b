"""The stage ``exported_model``: weights, tokenizer, record and model card in one folder, opened again with stock code.

model.safetensors     the weights, under the names of stock transformers
config.json           for stock transformers; absent where no stock class has the architecture
tokenizer.json …      for AutoTokenizer, the mask included
sumi_tokenizer/       the tokenizer as it was trained
sumi_tables.safetensors  what the process knows of each token, where it is made from such knowledge
sumi.json             process, objective, vocabulary, lineage, the resolved experiment
README.md             the model card
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from sumi_core.data.vocabulary import Vocabulary, read_tables, write_token_tables
from sumi_core.export.card import model_card
from sumi_core.export.record import CARD, TABLES, TOKENIZER, WEIGHTS, build_record, write_record
from sumi_core.export.stock import max_logit_difference, stock_class, why_not_stock, write_stock_config
from sumi_core.export.tokenizer import check_stock_tokenizer, write_stock_tokenizer
from sumi_core.export.weights import memory_bytes, read_weights, write_weights
from sumi_core.lineage.fingerprint import file_sha256
from sumi_core.models.denoiser import Denoiser
from sumi_core.parts import build_parts, needed_tables

if TYPE_CHECKING:
    from sumi_core.stages import StageContext

_CHECKED_POSITIONS = 256  # at most: the comparison with stock code need not pay for long sequences


def build_exported_model(context: StageContext) -> dict[str, Any]:
    """Write the export and compare it with the training model. Returns the summary:

    stock_loadable, stock_class, reason (why not), max_logit_difference (None without a stock class), parameters,
    num_states, weights_bytes by type, file_bytes.
    Raises ExportError when weights and model do not fit, or stock code computes other logits or token ids.
    """
    from sumi_core.data.tokenizers import load_tokenizer

    experiment, folder, inputs = context.experiment, context.folder, context.inputs
    tokenizer = load_tokenizer(inputs["tokenizer"].folder)
    tables = read_tables(needed_tables(experiment), context.folders, tokenizer.vocab_size)
    parts = build_parts(experiment, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id, tables))
    mask_id = parts.mask_id
    denoiser = Denoiser(experiment.model, parts.num_states, seed=None).eval()
    read_weights(inputs["pretrained_denoiser"].folder / "weights.safetensors", denoiser)

    write_weights(denoiser, folder / WEIGHTS)
    if tables:
        write_token_tables(tables, folder / TABLES)
    shutil.copytree(inputs["tokenizer"].folder, folder / TOKENIZER, ignore=_leave_out, dirs_exist_ok=True)
    length = experiment.shards.sequence_length
    write_stock_tokenizer(
        inputs["tokenizer"].folder,
        folder,
        num_tokens=parts.num_tokens,
        num_states=parts.num_states,
        eos_id=tokenizer.eos_id,
        mask_id=mask_id,
        length=length,
    )
    check_stock_tokenizer(folder, tokenizer, num_states=parts.num_states, mask_id=mask_id)

    found, difference = stock_class(experiment.model), None
    if found is not None:
        write_stock_config(
            experiment.model,
            folder,
            num_states=parts.num_states,
            length=length,
            eos_id=tokenizer.eos_id,
            mask_id=mask_id,
        )
        difference = max_logit_difference(denoiser, folder, found, length=min(length, _CHECKED_POSITIONS))
    stock = {
        "stock_loadable": found is not None,
        "stock_class": found.name if found is not None else None,
        "reason": why_not_stock(experiment.model),
        "max_logit_difference": difference,
    }
    sha256 = file_sha256(folder / WEIGHTS)
    record = build_record(context, parts, stock=stock, weights_sha256=sha256)
    write_record(record, folder)
    licence = str(inputs["corpus"].summary["licence"])
    parameters = denoiser.num_parameters()
    summary = {
        **stock,
        "parameters": parameters,
        "num_states": parts.num_states,
        "weights_bytes": memory_bytes(parameters),
        "file_bytes": (folder / WEIGHTS).stat().st_size,
    }
    (folder / CARD).write_text(model_card(record, summary, licence), encoding="utf-8")
    return summary


def _leave_out(folder: str, names: list[str]) -> set[str]:
    """What a stage's folder holds that belongs to the store, not to the tokenizer."""
    return {"manifest.json", "plots", "report.md"} & set(names)
