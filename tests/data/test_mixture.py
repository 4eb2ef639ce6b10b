"""Mixtures: shares of bytes, nothing twice, and a choice that depends on each text alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.data import SOURCES
from sumi_core.data.sources.source import Document, Source
from sumi_core.experiments.resolve import resolve
from sumi_core.stages.identity import stage_fingerprint


def write(path: Path, texts: list[str]) -> dict[str, Any]:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return {"name": "jsonl", "paths": [path.name], "licence": f"licence of {path.stem}"}


def mixture(*parts: tuple[dict[str, Any], float]) -> Source:
    config = {"name": "mixture", "parts": [{"source": source, "weight": weight} for source, weight in parts]}
    made = resolve({"corpus": {"source": config}}, "test.yaml").corpus.source
    return SOURCES.build("mixture", {"parts": made["parts"]})


def size(documents: list[Document], part: str) -> int:
    return sum(len(d.text.encode()) for d in documents if d.id.startswith(part))


@pytest.fixture
def texts() -> tuple[list[str], list[str]]:
    made = random.Random(0)
    return [f"a{n}" * made.randint(1, 60) for n in range(2000)], [f"日{n}" * made.randint(1, 60) for n in range(1500)]


def test_bytes_stand_in_the_ratio_of_the_weights(project: Path, texts: tuple[list[str], list[str]]) -> None:
    parts = write(project / "a.jsonl", texts[0]), write(project / "b.jsonl", texts[1])
    whole = [sum(len(t.encode()) for t in side) for side in texts]
    for weights in [(1.0, 1.0), (3.0, 1.0), (1.0, 9.0)]:
        made = mixture((parts[0], weights[0]), (parts[1], weights[1]))
        found = list(made.documents())
        sizes = [size(found, "0-jsonl/"), size(found, "1-jsonl/")]
        assert sum(sizes) == sum(len(d.text.encode()) for d in found)
        assert sizes[0] / sizes[1] == pytest.approx(weights[0] / weights[1], rel=0.1)
        scarce = 0 if whole[0] / weights[0] < whole[1] / weights[1] else 1
        assert sizes[scarce] == whole[scarce], "the scarcest part is kept whole"
        assert len({d.id for d in found}) == len(found), "nothing is repeated"


def test_the_choice_does_not_depend_on_order(project: Path, texts: tuple[list[str], list[str]]) -> None:
    fixed = write(project / "a.jsonl", texts[0][:200])
    forwards = {d.text for d in mixture((fixed, 1), (write(project / "b.jsonl", texts[1]), 1)).documents()}
    backwards = {d.text for d in mixture((fixed, 1), (write(project / "b.jsonl", texts[1][::-1]), 1)).documents()}
    assert forwards == backwards
    assert len(forwards) < len(texts[1])


def test_what_was_left_out_is_counted_once(project: Path, texts: tuple[list[str], list[str]]) -> None:
    a, b = write(project / "a.jsonl", texts[0]), write(project / "b.jsonl", [*texts[1][:100], " "])
    made = mixture((a, 1), (b, 1))
    found = list(made.documents())
    assert made.skipped == {
        "0-jsonl: thinned out to keep the weights": 2000 - sum(d.id.startswith("0-") for d in found),
        "1-jsonl: empty document": 1,
    }
    assert made.first_skipped["1-jsonl: empty document"] == "b.jsonl:101"
    assert made.licence == "licence of a and licence of b"


def test_mixtures_nest_and_are_identified_by_their_parts(project: Path, texts: tuple[list[str], list[str]]) -> None:
    a, b = write(project / "a.jsonl", texts[0][:50]), write(project / "b.jsonl", texts[1][:50])
    nested = {"name": "mixture", "parts": [{"source": a}, {"source": b, "weight": 2}]}
    made = mixture((nested, 1), (b, 1))
    assert {d.id.split("b.jsonl")[0] for d in made.documents()} >= {"0-mixture/1-jsonl/", "1-jsonl/"}
    before = made.identity()
    write(project / "a.jsonl", texts[0][:51])
    assert mixture((nested, 1), (b, 1)).identity() != before


def test_where_parts_lie_is_no_part_of_what_a_mixture_is(project: Path, texts: tuple[list[str], list[str]]) -> None:
    a, b = write(project / "a.jsonl", texts[0][:5]), write(project / "b.jsonl", texts[1][:5])
    elsewhere = {**a, "paths": [str(project / "a.jsonl")]}

    def corpus_fingerprint(*shares: Any) -> str:
        mixed = {"name": "mixture", "parts": [{"source": share} for share in shares]}
        return stage_fingerprint(resolve({"corpus": {"source": mixed}}, "test.yaml"), "corpus")

    assert corpus_fingerprint(a, b) == corpus_fingerprint(elsewhere, b)
    assert corpus_fingerprint(a, b) != corpus_fingerprint(b, a)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([], "test.yaml: corpus.source: parts needs at least two sources, each written {source: …, weight: …}"),
        (
            [{"source": "web-bible"}, {"source": "web-bibel"}],
            "test.yaml: corpus.source.parts[1].source: no corpus source is called 'web-bibel'; "
            "did you mean 'web-bible'?",
        ),
        (
            [{"source": "web-bible"}, {"source": {"name": "text", "path": "x"}}],
            "test.yaml: corpus.source.parts[1].source.path: unknown key; did you mean 'paths'?",
        ),
        (
            [{"source": "web-bible"}, {"source": "python-stdlib", "weight": 0}],
            "test.yaml: corpus.source.parts[1].weight: must be above 0, got 0",
        ),
        (
            [{"source": "web-bible"}, {"source": "python-stdlib", "weight": "much"}],
            "test.yaml: corpus.source.parts[1].weight: expected a number, got 'much'",
        ),
        (
            [{"source": "web-bible"}, "python-stdlib"],
            "test.yaml: corpus.source.parts[1]: expected a mapping of keys, got 'python-stdlib'",
        ),
    ],
)
def test_mistakes_are_found_in_the_config(project: Path, parts: list[Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"corpus": {"source": {"name": "mixture", "parts": parts}}}, "test.yaml")
    assert str(caught.value) == sentence
