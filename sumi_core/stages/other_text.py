"""The likelihood of a text that no corpus holds: the bound and the errors of an evaluation, on other files.

The text is cut into tokens by the model's own tokenizer and packed at the model's sequence length. The output is kept
in the store as that of a measurement, under a fingerprint of the model, of the settings and of the text.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import fingerprint
from sumi_core.base.numerics import deterministic
from sumi_core.base.progress import Log, Progress, unwatched
from sumi_core.evaluation.likelihood import TextLikelihood
from sumi_core.evaluation.measurement import Context, write_findings
from sumi_core.evaluation.rolling import VERSION as ROLLING
from sumi_core.evaluation.rolling import rolling_likelihood
from sumi_core.stages.evaluation import open_model
from sumi_core.stages.measurements import ensure_measured, measurement_kind
from sumi_core.stages.store import Artifact, Store

if TYPE_CHECKING:
    from sumi_core.data.sequences import PackedSequences
    from sumi_core.data.sources.by_suffix import Files
    from sumi_core.data.sources.source import Document
    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.experiments.schema import Experiment

KIND = measurement_kind("text")
_TOGETHER = 256  # documents of a shard
_NAME_LENGTH = 40  # of the readable part


class TextError(SumiError, ValueError):
    """A text that a model cannot be measured on. One sentence: what is wrong, what to do."""


def measure_text(
    store: Store,
    exported: Path,
    model: str,
    experiment: Experiment,
    key: str,
    files: Files,
    *,
    overlap: int = 0,
    log: Log = print,
    progress: Progress = unwatched,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[Artifact, bool]:
    """The likelihood of the documents of ``files``, and whether it was found ready.

    exported: the folder of the model, whose fingerprint is ``model``. experiment: whose ``evaluation`` says on how many
    sequences, levels and seeds. overlap: tokens of the text that every sequence is given before its own, which are as
    many fewer; 0: none, as in training. Raises TextError for a text that is shorter than two sequences and for an
    overlap that leaves no room, SourceError for files that cannot be read, TokenizerError for a text that the tokenizer
    does not keep byte for byte."""
    config, content = experiment.identity()["evaluation"], files.identity()
    identity: dict[str, Any] = {
        "measurement": "text",
        "version": TextLikelihood.version,
        "config": {name: config[name] for name in TextLikelihood.reads},
        "inputs": {"exported_model": model},
        "text": content,
    }
    length = experiment.shards.sequence_length
    if overlap:
        if not 0 < overlap < length:
            raise TextError(f"an overlap of {overlap} tokens leaves no room in {length}; give at most {length - 1}")
        identity |= {"overlap": overlap, "overlap_version": ROLLING}

    def measure(folder: Path) -> dict[str, Any]:
        with deterministic(experiment.runtime.threads), tempfile.TemporaryDirectory(dir=folder) as scratch:
            opened = open_model(experiment, exported)
            packed, documents = _packed(files.documents(), opened.tokenizer, length - overlap, Path(scratch))
            batch = experiment.runtime.evaluation_batch
            context = Context(experiment.evaluation, packed, folder, batch, log=log, progress=progress)
            if overlap:
                found = rolling_likelihood(opened, packed, overlap, experiment.evaluation, progress=progress)
            else:
                found = TextLikelihood().run(opened, context)
            write_findings(found, folder)
        name = text_name(files) + (f"-overlap-{overlap}" if overlap else "")
        return {"name": name, "text": fingerprint(content), "text_documents": documents, **found.summary}

    return ensure_measured(
        store, KIND, identity, measure, key=key, experiment=experiment, provenance=provenance or {}, log=log
    )


def text_name(files: Files) -> str:
    """A name for a text that is the same for every model: of its file, or of the folder of its first, and the beginning
    of its digest."""
    first = files.found[0][1]
    shown = first.name.partition(".")[0] if len(files.found) == 1 else first.parent.name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", shown).strip("-")[:_NAME_LENGTH]
    return f"{plain or 'text'}-{fingerprint(files.identity())[:8]}"


def _packed(
    documents: Iterator[Document], tokenizer: Tokenizer, length: int, folder: Path
) -> tuple[PackedSequences, int]:
    """The documents as sequences of ``length`` tokens, and how many documents there are."""
    from sumi_core.data.sequences import PackedSequences
    from sumi_core.data.shard_building import build_shard
    from sumi_core.data.tokenization import check_round_trip

    shards: dict[str, int] = {}
    count = 0
    while group := list(itertools.islice(documents, _TOGETHER)):
        check_round_trip(tokenizer, group)
        name = f"text-{len(shards):05d}"
        shards[name] = build_shard(tokenizer, group, folder / name)["tokens"]
        count += len(group)
    packed = PackedSequences(folder, shards, length)
    if len(packed) < 2:
        raise TextError(
            f"the text has {sum(shards.values())} tokens, and an error takes two sequences of {length}; give more text"
        )
    return packed, count
