"""Several sources in given proportions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import part
from sumi_core.data import SOURCES
from sumi_core.data.sources.source import Document, Source


@dataclass
class Share:
    """A part of a mixture. weight: its UTF-8 bytes, in proportion to the other parts' weights."""

    source: Annotated[Any, Field(description="where the documents of this share come from")] = part(SOURCES, None)
    weight: Annotated[
        float, Field(gt=0.0, lt=1e300, description="its UTF-8 bytes, in proportion to the other shares' weights")
    ] = 1.0


class Mixture(Source):
    """Documents of every part, thinned so that the parts' UTF-8 bytes stand in the ratio of their weights.

    As much as possible is kept without repeating anything: the scarcest part (bytes / weight smallest) whole, of the
    others a share, chosen document by document by a hash of the text, so the choice does not depend on order, on the
    seed or on the split. Weights hold in expectation, before the corpus drops duplicates; of parts with few documents
    the shares are rough.
    """

    @dataclass
    class Options:
        """parts: ``[{source: web-bible, weight: 2}, {source: {name: text, paths: […]}, weight: 1}]``."""

        parts: Annotated[list[Share], Field(description="at least two shares, each a source and its weight")] = field(
            default_factory=list
        )

        def check(self) -> None:
            """At least two parts are needed."""
            if len(self.parts) < 2:
                raise ValueError("parts needs at least two sources, each written {source: …, weight: …}")

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.sources: list[tuple[str, Source, float]] = [
            (f"{place}-{share['source']['name']}", SOURCES.from_config(share["source"]), share["weight"])
            for place, share in enumerate(options.parts)
        ]
        self.licence = " and ".join(dict.fromkeys(source.licence for _, source, _ in self.sources))

    def read(self) -> Iterator[Document]:
        """Part by part, each read twice: to measure it, and to choose. Ids begin with the part's number and name."""
        sizes = [sum(len(d.text.encode()) for d in source.documents()) for _, source, _ in self.sources]
        scale = min(size / weight for size, (_, _, weight) in zip(sizes, self.sources, strict=True))
        for size, (name, source, weight) in zip(sizes, self.sources, strict=True):
            kept = weight * scale / size
            for document in source.documents():
                if _place(document.text) < kept:
                    yield Document(f"{name}/{document.id}", document.text)
                else:
                    self.skip(f"{name}: thinned out to keep the weights", document.id)
            for reason, count in source.skipped.items():
                self.skipped[f"{name}: {reason}"] += count
                self.first_skipped.setdefault(f"{name}: {reason}", source.first_skipped[reason])

    def identity(self) -> dict[str, Any]:
        """That of every part."""
        return {name: source.identity() for name, source, _ in self.sources}


def _place(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, and not on how the corpus is split."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"sumi-mixture").digest()
    return int.from_bytes(digest, "big") / 2**64
