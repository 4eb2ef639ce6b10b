"""Stage ``tokenizer``: fitted on the train split only, and proved faithful on every validation document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sumi_core.data import TOKENIZERS
from sumi_core.data.corpus import read_texts
from sumi_core.data.tokenizers import Tokenizer, TokenizerError

if TYPE_CHECKING:
    from sumi_core.data.sources import Document
    from sumi_core.stages import StageContext


def build_tokenizer(context: StageContext) -> dict[str, Any]:
    """Fit, check and save. Raises TokenizerError, quoting the text, when a validation document does not come back."""
    config = context.experiment.tokenizer
    options = {key: value for key, value in config.items() if key != "name"}
    tokenizer = TOKENIZERS.build(config["name"], options)
    corpus = context.inputs["corpus"].folder
    tokenizer.train(document.text for document in read_texts(corpus, "train"))
    documents, tokens, size = 0, 0, 0
    for document in read_texts(corpus, "validation"):
        tokens += check_round_trip(tokenizer, document)
        documents, size = documents + 1, size + len(document.text.encode())
    tokenizer.save(context.folder)
    return {
        "tokenizer": config["name"],
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "round_trip_documents": documents,
        "bytes_per_token": size / max(tokens, 1),
    }


def check_round_trip(tokenizer: Tokenizer, document: Document) -> int:
    """Encode and decode a document; returns its tokens. Raises TokenizerError where the text first differs."""
    ids, lengths = tokenizer.encode_with_lengths([document.text])[0]
    found, wanted = tokenizer.decode_bytes(ids), document.text.encode()
    if found != wanted or int(lengths.sum()) != len(wanted):
        at = next(
            (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted))
        )
        shown = wanted[max(0, at - 20) : at + 20].decode("utf-8", errors="replace")
        back = found[max(0, at - 20) : at + 20].decode("utf-8", errors="replace")
        raise TokenizerError(
            f"tokenizer: the text of '{document.id}' does not survive a round trip: {shown!r} comes back as {back!r}; "
            "choose a tokenizer that keeps every byte"
        )
    return len(ids)
