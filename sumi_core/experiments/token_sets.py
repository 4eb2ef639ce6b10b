"""Short readable names for token sets: the corpus, tokenizer and packing that several cells share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sumi_core.base.hashing import fingerprint
from sumi_core.experiments.schema import Experiment


def token_set_names(experiments: Iterable[tuple[str, Experiment]]) -> dict[str, str]:
    """Cell key → token set name, such as ``web-bible.bpe1024.128``. Two token sets that would share a name get the
    first digits of their recipe's hash."""
    recipes = {key: _recipe(experiment) for key, experiment in experiments}
    labels = {key: _label(recipe) for key, recipe in recipes.items()}
    variants: dict[str, set[str]] = {}
    for key, label in labels.items():
        variants.setdefault(label, set()).add(fingerprint(recipes[key]))
    return {
        key: label if len(variants[label]) == 1 else f"{label}.{fingerprint(recipes[key])[:6]}"
        for key, label in labels.items()
    }


def changed_token_set_name(experiment: Experiment, known: Mapping[str, Experiment], names: Mapping[str, str]) -> str:
    """The token set name of a cell that was changed: that of a cell of the files with the same recipe, else one with
    the first digits of its own, so that no other name depends on it. known, names: the files' cells, and token sets."""
    recipe = _recipe(experiment)
    same = next((key for key, other in known.items() if _recipe(other) == recipe), None)
    return names[same] if same is not None else f"{_label(recipe)}.{fingerprint(recipe)[:6]}"


def _recipe(experiment: Experiment) -> dict[str, Any]:
    recipe = experiment.recipe()
    return {section: recipe[section] for section in ("corpus", "tokenizer", "shards")}


def _label(recipe: dict[str, Any]) -> str:
    tokenizer = f"{recipe['tokenizer']['name']}{recipe['tokenizer'].get('vocab_size', '')}"
    label = f"{recipe['corpus']['source']['name']}.{tokenizer}.{recipe['shards']['sequence_length']}"
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", label)
