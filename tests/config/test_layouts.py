"""Layouts in an experiment: what stands in its recipe, and what does not fit them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.size import experiment_size
from sumi_core.stages.identity import experiment_fingerprints

BLOCKS: dict[str, Any] = {"model": {"attention": "causal"}, "layout": {"name": "blocks", "length": 8}}


def test_whole_texts_stand_in_no_recipe_and_blocks_do() -> None:
    """Layouts came later: what was computed without them keeps its fingerprint."""
    assert "layout" not in resolve({}, "a.yaml").recipe()
    assert resolve({}, "a.yaml").to_dict()["layout"] == {"name": "whole", "anneal": 0.0}
    assert resolve({"layout": {"name": "whole", "anneal": 0.5}}, "a.yaml").recipe()["layout"]["anneal"] == 0.5
    assert resolve(BLOCKS, "a.yaml").recipe()["layout"] == {
        "name": "blocks",
        "length": 8,
        "read_out": "own",
        "growth": [],
        "also": [],
    }
    before, after = (
        experiment_fingerprints(resolve({**BLOCKS, "layout": {"name": "blocks", "length": n}}, "a.yaml"))
        for n in (8, 16)
    )
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["pretrained_denoiser", "exported_model", "evaluation"]


def test_blocks_are_written_block_by_block_and_cost_both_streams() -> None:
    blocks, whole = resolve(BLOCKS, "a.yaml"), resolve({}, "a.yaml")
    assert blocks.evaluation.sampler["name"] == "blockwise"
    assert 1.5 < experiment_size(blocks, 257).flops / experiment_size(whole, 257).flops < 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"layout": {"name": "blocks", "length": 7}}, "layout.length: blocks of 7 tokens do not divide"),
        ({"clock": "spans"}, "clock: layout 'blocks' gives each block a level of its own"),
        ({"model": {}}, "model.attention: layout 'blocks' reads the clean text causally"),
        ({"process": None, "objective": "autoregressive"}, "layout: objective 'autoregressive' has no noise"),
        (
            {"parameterisation": "posterior", "layout": {"name": "blocks", "length": 1, "read_out": "previous"}},
            "layout.read_out: previous with blocks of one token never reads",
        ),
        (
            {"evaluation": {"sampler": "ancestral"}},
            "cannot write under layout 'blocks'; choose autoregressive or blockwise",
        ),
        (
            {"evaluation": {"sampler": "left_to_right"}},
            "cannot write under layout 'blocks'; choose autoregressive or blockwise",
        ),
        (
            {"evaluation": {"sampler": "speculative"}},
            "evaluation.sampler: sampler 'speculative' reads the model's autoregressive mode, which objective 'nelbo' "
            "does not train; write objective: joint",
        ),
        ({"evaluation": {"sampler": "autoregressive"}}, "'autoregressive' reads the model's autoregressive mode"),
        (
            {
                "objective": "joint",
                "evaluation": {"sampler": {"name": "speculative", "shape": "fan", "draft_steps": 2}},
            },
            "draft_steps above 1 need shape: linear",
        ),
        (
            {"layout": {"name": "whole", "anneal": 0.5}},
            "layout.anneal: opens what a causal pattern hides, and causal attention would hide it again",
        ),
        ({"layout": "whole"}, "model.attention: objective 'nelbo' cannot train causal attention"),
        ({"layout": "whole", "model": {}, "evaluation": {"sampler": "blockwise"}}, "cannot write under layout 'whole'"),
        ({"layout": {"name": "blocks", "growth": [1, 3]}}, "layout.growth: blocks of 3 tokens do not divide"),
        ({"layout": {"name": "blocks", "growth": [2], "also": [4]}}, "growth and also would both choose"),
        ({"layout": {"name": "blocks", "also": [0]}}, "block lengths of 1 or more"),
        (
            {"parameterisation": "posterior", "layout": {"name": "blocks", "growth": [1], "read_out": "previous"}},
            "layout.read_out: previous with blocks of one token never reads",
        ),
        ({"objective": "joint", "layout": "whole"}, "layout: objective 'joint' needs a clean stream"),
        (
            {"objective": {"name": "joint", "diffusion": "autoregressive"}},
            "objective.diffusion: 'autoregressive' has no noise",
        ),
        (
            {"objective": "joint", "model": {"attention": "causal", "time_conditioning": "token"}},
            "model.time_conditioning: tells the denoiser a noise level",
        ),
        (
            {"objective": {"name": "joint", "autoregressive_weight": 0, "diffusion_weight": 0}},
            "objective: autoregressive_weight and diffusion_weight are both 0",
        ),
        (
            {"objective": {"name": "joint", "autoregressive_weight": 0}},
            "objective: autoregressive_weight is 0, so the model would be ranked by a mode that is not trained",
        ),
        (
            {"layout": {"name": "blocks", "growth": [1, 2, 4]}, "training": {"steps": 3, "warmup_steps": 1}},
            "layout.growth: 4 block lengths do not fit into 3 training step(s)",
        ),
        (
            {"layout": {"name": "blocks", "also": [4]}, "training": {"steps": 1, "warmup_steps": 1}},
            "layout.also: 2 block lengths do not fit into 1 training step(s)",
        ),
        (
            {"evaluation": {"measurements": ["likelihood", {"name": "readings", "block_lengths": [4, 12]}]}},
            "evaluation.measurements: readings: blocks of 12 tokens do not divide",
        ),
        (
            {
                "parameterisation": "posterior",
                "layout": {"name": "blocks", "read_out": "previous"},
                "evaluation": {"measurements": ["likelihood", {"name": "readings", "block_lengths": [1]}]},
            },
            "evaluation.measurements: readings: under read_out: previous a block of one token is predicted without",
        ),
    ],
)
def test_what_does_not_fit_a_layout_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        resolve({**BLOCKS, **data}, "a.yaml")
