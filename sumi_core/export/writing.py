"""An exported model: weights, tokenizer, record and model card in one folder, opened again with stock code.


model.safetensors     the weights, under the names of stock transformers
config.json           for stock transformers; absent where no stock class has the architecture
tokenizer.json …      for AutoTokenizer, the mask included
sumi_tokenizer/       the tokenizer as it was trained
sumi_tables.safetensors  what the process knows of each token, where it is made from such knowledge
sumi_references/      the weights of other cells' models that the likelihood is read with, where there are any
sumi.json             process, objective, vocabulary, lineage, the resolved experiment
README.md             the model card
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sumi_core.base.hashing import file_sha256
from sumi_core.data.tokenizers.tokenizer import load_tokenizer
from sumi_core.data.vocabulary import Vocabulary, read_tables, write_token_tables
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.modes import modes_of
from sumi_core.experiments.schema import Experiment
from sumi_core.export.card import model_card
from sumi_core.export.record import CARD, REFERENCES, TABLES, TOKENIZER, WEIGHTS, Made, build_record, write_record
from sumi_core.export.sensitivity import own_token_sensitivity
from sumi_core.export.stock import max_logit_difference, stock_class, why_not_stock, write_stock_config
from sumi_core.export.tokenizer import check_stock_tokenizer, write_stock_tokenizer
from sumi_core.export.weights import memory_bytes, read_weights, write_weights
from sumi_core.layouts.layout import Whole
from sumi_core.models.denoiser import Denoiser
from sumi_core.objectives.reference import REFERENCE_WEIGHTS

_CHECKED_POSITIONS = 256  # at most: the comparison with stock code need not pay for long sequences


def write_export(experiment: Experiment, made: Made, folder: Path) -> dict[str, Any]:
    """Write the export and compare it with the training model. Returns the summary:

    stock_loadable, stock_class, reason (why not), max_logit_difference (None without a stock class), parameters,
    num_states, weights_bytes by type, file_bytes.
    Raises ExportError when weights and model do not fit, or stock code computes other logits or token ids.
    """
    tokenizer = load_tokenizer(made.tokenizer)
    tables = read_tables(made.tables, tokenizer.vocab_size)
    parts = build_parts(experiment, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id, tables))
    mask_id = parts.mask_id
    denoiser = Denoiser(experiment.model, parts.num_states, seed=None).eval()
    read_weights(made.weights, denoiser)

    write_weights(denoiser, folder / WEIGHTS)
    if tables:
        write_token_tables(tables, folder / TABLES)
    shutil.copytree(made.tokenizer, folder / TOKENIZER, ignore=_leave_out, dirs_exist_ok=True)
    for key, place in made.references.items():
        own = folder / REFERENCES / key
        own.mkdir(parents=True)
        shutil.copyfile(place / REFERENCE_WEIGHTS, own / REFERENCE_WEIGHTS)
    length = experiment.shards.sequence_length
    write_stock_tokenizer(
        made.tokenizer,
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
        difference = max_logit_difference(
            denoiser,
            folder,
            found,
            length=min(length, _CHECKED_POSITIONS),
            layout=None if type(parts.layout) is Whole else parts.layout,
            drafts=any(mode.name == "speculative" for mode in modes_of(experiment)),
            eos_id=tokenizer.eos_id,
        )
    stock = {
        "stock_loadable": found is not None,
        "stock_class": found.name if found is not None else None,
        "reason": why_not_stock(experiment.model),
        "max_logit_difference": difference,
    }
    sha256 = file_sha256(folder / WEIGHTS)
    sensitivity = own_token_sensitivity(denoiser, parts, tokenizer, experiment, made.shards)
    record = build_record(experiment, made, parts, stock=stock, weights_sha256=sha256, sensitivity=sensitivity)
    write_record(record, folder)
    parameters = denoiser.num_parameters()
    summary = {
        **stock,
        "parameters": parameters,
        "num_states": parts.num_states,
        "weights_bytes": memory_bytes(parameters),
        "file_bytes": (folder / WEIGHTS).stat().st_size,
    }
    (folder / CARD).write_text(model_card(record, summary, made.licence), encoding="utf-8")
    return summary


def _leave_out(folder: str, names: list[str]) -> set[str]:
    """What a stage's folder holds that belongs to the store, not to the tokenizer."""
    return {"manifest.json", "plots", "report.md"} & set(names)
