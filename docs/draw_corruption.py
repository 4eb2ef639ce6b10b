"""Draw docs/images/corruption-*.png: what each corruption process does to one sentence.

    python docs/draw_corruption.py

The tokenizer, token counts and clusters are those of the demo's corpus; they are computed in .sumi/, or found there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sumi_core.data.tokenizers.tokenizer import load_tokenizer
from sumi_core.data.vocabulary import Vocabulary, read_tables
from sumi_core.evaluation.corruption_picture import corrupted_texts, plot_corruption
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.layers import expand_presets, merge
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.sweeps import load_sweep
from sumi_core.lineage.project import Project
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import stages_of

SENTENCE = (
    "In the beginning, God created the heavens and the earth. The earth was formless and empty. Darkness was on the "
    "surface of the deep."
)
CLUSTERS = {"name": "distribution", "clusters": 64}
SPANS = {"name": "spans", "window": 0.5}
PICTURES: dict[str, dict[str, Any]] = {
    "uniform": {"process": "uniform"},
    "absorbing": {"process": "absorbing"},
    "unigram": {"process": "unigram"},
    "hybrid": {"process": {"name": "hybrid", "p_uniform": 0.2}},
    "mixture": {"process": {"name": "mixture", "share": 0.3}},
    "clustered": {"process": "clustered", "clusters": CLUSTERS},
    "uniform-spans": {"process": "uniform", "clock": SPANS},
    "structured": {"corruption": "structured", "clusters": CLUSTERS},
}


def main() -> None:
    """Draw all of them."""
    project, images = Project.find(), Path(__file__).parent / "images"
    computation = Computation(project.store)
    demo = load_sweep(project.experiments / "demo.yaml", project.experiments).cells[0].experiment.to_dict()
    for name, changes in PICTURES.items():
        experiment = resolve(merge(demo, expand_presets(changes, name)), name)
        wanted = [stage for stage in stages_of(experiment) if stage.startswith(("corpus", "token"))]
        folders = {stage: computation.ensure(experiment, "docs", stage)[0].folder for stage in wanted}
        tokenizer = load_tokenizer(folders["tokenizer"])
        tables = read_tables(experiment.token_tables(), folders, tokenizer.vocab_size)
        process = build_parts(experiment, Vocabulary(tokenizer.vocab_size, tokenizer.eos_id, tables)).process
        assert process is not None
        tokens = torch.from_numpy(tokenizer.encode_batch([SENTENCE])[0])
        picture = images / f"corruption-{name}.png"
        plot_corruption(corrupted_texts(process, tokenizer, tokens), picture, name)
        print(picture)


if __name__ == "__main__":
    main()
