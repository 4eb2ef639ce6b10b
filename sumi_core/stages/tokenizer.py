"""Stage ``tokenizer``: text to token ids and back, byte for byte."""

from __future__ import annotations

from typing import Any

from sumi_core.data import TOKENIZERS
from sumi_core.stages.base import Check, Stage, StageContext, Verdict
from sumi_core.stages.store import Artifact

# What corpora seldom hold and prompts may: scripts, joined emoji, controls, odd blanks, a special token spelt out.
_ODD_TEXTS = (
    "Naïve Ελλάδα 日本語 👩\u200d🔬 e\u0301",
    "\ttabs,  blanks \r\n\n",
    "\x00\x07\u202e\ufeff",
    "<|endoftext|>",
    "",
)


def build(context: StageContext) -> dict[str, Any]:
    """Fit, check and save; see ``sumi_core.data.tokenization``. What an export needs is checked too: it is made when
    the training is over."""
    from sumi_core.data.tokenization import write_tokenizer
    from sumi_core.export.tokenizer import check_exportable

    config = context.experiment.tokenizer
    corpus = context.inputs["corpus"].folder
    summary = write_tokenizer(TOKENIZERS.from_config(config), config["name"], corpus, context.folder)
    check_exportable(context.folder)
    return summary


def _any_text_survives(artifact: Artifact) -> Verdict:
    from sumi_core.data.sources.source import Document
    from sumi_core.data.tokenization import check_round_trip
    from sumi_core.data.tokenizers.tokenizer import TokenizerError, load_tokenizer

    texts = [Document(f"odd text {number}", text) for number, text in enumerate(_ODD_TEXTS, start=1)]
    try:
        check_round_trip(load_tokenizer(artifact.folder), texts)  # as it was saved, and opened again
    except TokenizerError as error:
        return Verdict(False, str(error))
    return Verdict(True)


STAGE = Stage(
    "tokenizer",
    "1",
    "Text to token ids and back, byte for byte; checked on every validation document.",
    build,
    "token_set",
    doing="making the tokenizer",
    reads=("tokenizer",),
    inputs=("corpus",),
    reads_source=True,
    checks=(
        Check(
            "any_text_survives",
            "Texts such as corpora seldom hold come back byte for byte from the tokenizer as it was saved.",
            _any_text_survives,
            warn=True,  # the corpus itself survives: the stage has seen to that
        ),
    ),
    group="data",
    kinds=frozenset({"huggingface"}),
)
