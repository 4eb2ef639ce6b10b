"""Read an exported folder back: the denoiser, the parts around it, the tokenizer, the experiment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.hashing import file_sha256
from sumi_core.base.options import ConfigError
from sumi_core.experiments.references import located, stage_refs
from sumi_core.experiments.resolve import resolve_for
from sumi_core.experiments.schema import Experiment
from sumi_core.export.record import RECORD, REFERENCES, SCHEMA_VERSION, TABLES, TOKENIZER, WEIGHTS, ExportError
from sumi_core.export.weights import read_weights
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.size import num_parameters

if TYPE_CHECKING:
    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.experiments.build import Parts


_LITTLE = 2**28  # bytes


@dataclass(frozen=True)
class ExportedModel:
    """An exported model, ready to evaluate or sample. Where the evaluation that it records has parts from outside which
    are not at hand, ``experiment`` and ``parts`` have default ones in their place."""

    denoiser: Denoiser  # evaluation mode, float32, on the CPU
    parts: Parts  # process, objective, sampler
    tokenizer: Tokenizer
    experiment: Experiment
    sumi: dict[str, Any]  # sumi.json


def load_exported(folder: Path | str, *, verify: bool = True) -> ExportedModel:
    """Open an exported folder. ``verify=False`` skips the SHA-256 of the weights (of weights changed on purpose).

    Reads data only: JSON, safetensors and the tokenizer's own files. Raises ExportError naming the file that is
    missing, damaged or does not fit the others.
    """
    from sumi_core.data.tokenizers.tokenizer import TokenizerError, load_tokenizer
    from sumi_core.data.vocabulary import Vocabulary, VocabularyError, read_token_tables
    from sumi_core.experiments.build import build_parts

    folder = Path(folder)
    sumi = read_record(folder / RECORD)
    experiment = _experiment(sumi, folder / RECORD)
    if not (folder / TOKENIZER).is_dir():
        raise ExportError(f"{folder / TOKENIZER} does not exist; copy the folder again, whole")
    try:
        tokenizer = load_tokenizer(folder / TOKENIZER)
    except TokenizerError as error:
        raise ExportError(str(error)) from None
    try:
        tables = read_token_tables(folder / TABLES)
        whole = with_references(experiment, folder)
        parts = build_parts(whole, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id, tables))
    except VocabularyError as error:
        raise ExportError(f"{folder / TABLES}: {error}") from None
    recorded = sumi["vocabulary"]
    if (parts.num_tokens, parts.num_states) != (recorded["tokens"], recorded["states"]):
        raise ExportError(
            f"{folder / TOKENIZER} gives {parts.num_tokens} tokens and {parts.num_states} states where {RECORD} "
            f"records {recorded['tokens']} and {recorded['states']}; copy the folder again, whole"
        )
    path = folder / WEIGHTS
    promised = 4 * num_parameters(experiment.model, parts.num_states)
    # A record can promise more than there is memory; what little is promised is looked at tensor by tensor.
    if path.is_file() and promised > max(_LITTLE, 8 * path.stat().st_size):
        raise ExportError(f"{path} is far smaller than the model that {RECORD} describes; copy the folder again, whole")
    denoiser = Denoiser(experiment.model, parts.num_states, seed=None)
    read_weights(path, denoiser)
    if verify and file_sha256(path) != sumi["weights_sha256"]:
        raise ExportError(f"{path} differs from the SHA-256 in {RECORD}; copy the folder again, or export again")
    return ExportedModel(denoiser.eval(), parts, tokenizer, experiment, sumi)


def with_references(experiment: Experiment, folder: Path) -> Experiment:
    """A copy of an experiment whose objective finds the other cells' models that it asks in an exported folder."""
    places = {ref.key: folder / REFERENCES / ref.key for ref in stage_refs(experiment)}
    return located(experiment, {key: place for key, place in places.items() if place.is_dir()})


def read_record(path: Path) -> dict[str, Any]:
    """sumi.json as plain data. Raises ExportError when it is missing, damaged or of another schema."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(f"{path} does not exist; name a folder that Sumi exported") from None
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is damaged ({error}); copy it again") from None
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA_VERSION:
        raise ExportError(f"{path} has schema version {version}, this Sumi reads {SCHEMA_VERSION}; export again")
    lacking = {"experiment", "vocabulary", "weights_sha256"} - record.keys()
    if lacking:
        raise ExportError(f"{path} lacks {', '.join(sorted(lacking))}; copy it again")
    experiment, vocabulary = record["experiment"], record["vocabulary"]
    whole = isinstance(experiment, dict) and isinstance(experiment.get("model", {}), dict)
    if not whole or not isinstance(vocabulary, dict) or not vocabulary.keys() >= {"tokens", "states"}:
        raise ExportError(f"{path} is damaged or not ours; copy it again")
    return dict(record)


def _experiment(sumi: dict[str, Any], path: Path) -> Experiment:
    """The recorded experiment. Its evaluation is that of the cell that the export was first made for, and no part of
    the model."""
    try:
        return resolve_for("exported_model", sumi["experiment"], str(path))
    except ConfigError as error:
        raise ExportError(str(error)) from None
