"""An experiment from merged plain data: precedence, presets, the rules that span fields, and what is identity."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.base.options import ConfigError
from sumi_core.base.registry import Registry
from sumi_core.corruption import PROCESSES
from sumi_core.data import SOURCES
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.experiments.layers import merge
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.models import PRESETS
from sumi_core.models.config import ModelConfig
from sumi_core.sampling import SAMPLERS
from sumi_core.stages import STAGES
from sumi_core.stages.identity import experiment_fingerprints, stage_inputs

AUTOREGRESSIVE = {"process": None, "objective": "autoregressive", "model": {"attention": "causal"}}


@pytest.fixture(autouse=True)
def _parts_with_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source and a process with options, beside the real ones."""
    for registry in (SOURCES, PROCESSES):
        monkeypatch.setitem(registry._entries, "fake", "tests.config.parts:FakeSource")
    monkeypatch.setattr("sumi_core.stages.identity._part_identity", lambda kind, component_json: {"digest": "0"})


def complaint(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(data, "a.yaml")
    return str(caught.value)


# --- merging ----------------------------------------------------------------------------------------------------------


def test_what_is_on_top_wins_and_the_rest_stays() -> None:
    low = {"training": {"steps": 5, "batch_size": 4}, "seed": 1}
    high = {"training": {"steps": 6}, "evaluation": {"sampling_steps": [4]}}
    assert merge(low, high) == {
        "training": {"steps": 6, "batch_size": 4},
        "seed": 1,
        "evaluation": {"sampling_steps": [4]},
    }
    assert low == {"training": {"steps": 5, "batch_size": 4}, "seed": 1}


def test_lists_are_replaced_and_copied() -> None:
    high = {"evaluation": {"sampling_steps": [4]}}
    merged = merge({"evaluation": {"sampling_steps": [1, 2]}}, high)
    merged["evaluation"]["sampling_steps"].append(5)
    assert high == {"evaluation": {"sampling_steps": [4]}}


def test_an_empty_section_changes_nothing() -> None:
    assert merge({"training": {"steps": 5}}, {"training": None}) == {"training": {"steps": 5}}


def test_options_of_a_part_merge_while_its_name_stays() -> None:
    low = {"process": {"name": "fake", "path": "x", "rows": 2}}
    assert merge(low, {"process": {"rows": 3}})["process"] == {"name": "fake", "path": "x", "rows": 3}
    assert merge(low, {"process": "fake"})["process"] == {"name": "fake", "path": "x", "rows": 2}


def test_a_part_among_the_options_of_a_part_merges_as_any_other() -> None:
    low = {"objective": {"name": "nelbo", "time_density": {"name": "polynomial", "exponent": 3.0}}}
    density = merge(low, {"objective": {"time_density": "cosine"}})["objective"]["time_density"]
    assert density == {"name": "cosine"}
    density = merge(low, {"objective": {"time_density": {"exponent": 2.0}}})["objective"]["time_density"]
    assert density == {"name": "polynomial", "exponent": 2.0}


def test_a_part_with_another_name_is_replaced_whole() -> None:
    low = {"process": {"name": "fake", "path": "x"}, "corpus": {"source": {"name": "fake", "path": "x"}}}
    assert merge(low, {"process": "uniform"})["process"] == {"name": "uniform"}
    assert merge(low, {"process": None})["process"] is None
    assert merge(low, {"corpus": {"source": "web-bible"}})["corpus"] == {"source": {"name": "web-bible"}}


_plain = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)

_sections = st.fixed_dictionaries({}, optional={"training": st.dictionaries(st.text(max_size=3), _plain, max_size=4)})


@given(_sections, _sections, _sections)
def test_layers_may_be_merged_from_either_end(a: Any, b: Any, c: Any) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_what_is_not_written(preset: str) -> None:
    model = resolve({"model": {"preset": preset, "num_layers": 3}}, "a.yaml").model
    written = {"preset": preset, "num_layers": 3}
    for name, value in {**PRESETS[preset], **written}.items():
        assert getattr(model, name) == value


def test_a_preset_is_a_label_and_its_dimensions_written_out_are_the_same_experiment() -> None:
    named = resolve({"model": {"preset": "tiny"}}, "a.yaml")
    written = resolve({"model": PRESETS["tiny"]}, "a.yaml")
    assert named.model.preset == "tiny"
    assert experiment_fingerprints(named) == experiment_fingerprints(written)


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"modle": {}}, "a.yaml: modle: unknown key; did you mean 'model'?"),
        ({"model": {"hiden_size": 3}}, "a.yaml: model.hiden_size: unknown key; did you mean 'hidden_size'?"),
        ({"training": {"steps": "many"}}, "a.yaml: training.steps: expected an integer, got 'many'"),
        ({"training": {"learning_rate": 0}}, "a.yaml: training.learning_rate: must be above 0, got 0"),
        ({"seed": -1}, "a.yaml: seed: must be at least 0, got -1"),
        ({"seed": 2**32}, "a.yaml: seed: must be at most 4294967295, got 4294967296"),
        ({"model": {"preset": "nanno"}}, "a.yaml: model.preset: no preset is called 'nanno'; did you mean 'nano'?"),
        (
            {"model": {"preset": ["nano"]}},
            "a.yaml: model.preset: no preset is called ['nano']; did you mean 'nano'?",
        ),
        (
            {"model": {"num_heads": 3}},
            "a.yaml: model.num_heads: 3 heads do not divide hidden_size 128; choose a divisor",
        ),
        (
            {"model": {"hidden_size": 12}},
            "a.yaml: model.num_heads: a head would be 3 wide; rotary embeddings need an even width",
        ),
        (
            {"model": {"num_kv_heads": 3}},
            "a.yaml: model.num_kv_heads: 3 key-value heads do not divide num_heads 4; choose a divisor",
        ),
        (
            {"model": {"attention": "causel"}},
            "a.yaml: model.attention: no attention pattern is called 'causel'; did you mean 'causal'?",
        ),
        (
            {"process": "unifrom"},
            "a.yaml: process: no corruption process is called 'unifrom'; did you mean 'uniform'?",
        ),
        ({"process": {"name": "uniform", "rows": 2}}, "a.yaml: process.rows: unknown key; there are none here"),
        (
            {"process": None},
            "a.yaml: process: objective 'nelbo' needs a corruption process; one of "
            + ", ".join(sorted([*PROCESSES.names(), "fake"])),
        ),
        (
            {"schedule": None},
            "a.yaml: schedule: process 'uniform' needs a noise schedule; "
            "one of cosine, fitted, linear, log_snr, polynomial, sqrt",
        ),
        (
            {**AUTOREGRESSIVE, "process": "uniform"},
            "a.yaml: process: objective 'autoregressive' corrupts nothing; write process: null",
        ),
        (
            {"process": None, "objective": "autoregressive"},
            "a.yaml: model.attention: objective 'autoregressive' cannot train bidirectional attention; choose causal",
        ),
        (
            {**AUTOREGRESSIVE, "model": {"attention": "causal", "time_conditioning": "adaln"}},
            "a.yaml: model.time_conditioning: objective 'autoregressive' has no noise level to condition on; "
            "write none",
        ),
        (
            {**AUTOREGRESSIVE, "evaluation": {"sampler": "ancestral"}},
            "a.yaml: evaluation.sampler: sampler 'ancestral' needs a corruption process; leave it out",
        ),
        (
            {"training": {"steps": 10, "warmup_steps": 11}},
            "a.yaml: training.warmup_steps: 11 warm-up steps exceed training.steps 10; set it to 10 or less too",
        ),
        (
            {"training": {"batch_size": 10, "accumulation": 4}},
            "a.yaml: training.batch_size: 10 sequences cannot be split over 4 micro-batches × 1 devices; "
            "choose a multiple of 4",
        ),
        (
            {"evaluation": {"metrics": ["distict"]}},
            "a.yaml: evaluation.metrics[0]: no sample metric is called 'distict'; did you mean 'distinct'?",
        ),
        (
            {"evaluation": {"sampling_steps": []}},
            "a.yaml: evaluation.sampling_steps: expected at least one number of steps, each 1 or more",
        ),
        ({"corpus": {"source": "fake"}}, "a.yaml: corpus.source.path: is missing; write text"),
        (
            {"training": {"steps": "${training.stepz}"}},
            "a.yaml: training.steps: Interpolation key 'training.stepz' not found; correct the interpolation",
        ),
        (
            {"training": {"steps": "${nope}"}},
            "a.yaml: training.steps: Interpolation key 'nope' not found; correct the interpolation",
        ),
    ],
)
def test_each_mistake_has_its_sentence(data: dict[str, Any], sentence: str) -> None:
    assert complaint(data) == sentence


def test_interpolations_are_resolved() -> None:
    made = resolve({"training": {"steps": 40, "warmup_steps": "${training.steps}"}}, "a.yaml")
    assert made.training.warmup_steps == 40


def test_a_schedule_means_nothing_without_a_process() -> None:
    plain = resolve(AUTOREGRESSIVE, "a.yaml")
    with_schedule = resolve({**AUTOREGRESSIVE, "schedule": "cosine"}, "a.yaml")
    assert with_schedule.schedule is None
    assert experiment_fingerprints(plain) == experiment_fingerprints(with_schedule)


def test_a_resolved_experiment_resolves_to_itself() -> None:
    for data in ({"model": {"preset": "tiny"}, "training": {"learning_rate": "3e-4"}}, AUTOREGRESSIVE):
        once = resolve(data, "a.yaml")
        assert resolve(once.to_dict(), "a.yaml") == once


# --- identity ---------------------------------------------------------------------------------------------------------


def _leaves(experiment: Experiment) -> Iterator[tuple[str, ...]]:
    """Every field of every section, and every option of a part: ``("training", "steps")``."""
    for section, value in experiment.to_dict().items():
        if isinstance(value, dict):
            yield from ((section, key) for key in value)
        else:
            yield (section,)


def _changed(value: Any) -> Any:
    """Another value of the same kind, valid or not: a fingerprint is taken of whatever is written."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, *value] or [1]
    if isinstance(value, dict):
        return {key: _changed(item) for key, item in value.items()}
    return {"name": "x"}


def _with_change(experiment: Experiment, leaf: tuple[str, ...]) -> Experiment:
    changed = copy.deepcopy(experiment)
    if len(leaf) == 1:
        setattr(changed, leaf[0], _changed(getattr(changed, leaf[0])))
        return changed
    section = getattr(changed, leaf[0])
    if isinstance(section, dict):
        section[leaf[1]] = _changed(section[leaf[1]])
    else:
        setattr(section, leaf[1], _changed(getattr(section, leaf[1])))
    return changed


EXPERIMENT = Experiment(
    tokenizer={"name": "bpe", "vocab_size": 300},
    model=ModelConfig(feedback={"name": "self_conditioning", "reading": "own"}),
    process={"name": "fake", "path": "x", "rows": 2},
    schedule={"name": "linear"},
    objective={"name": "nelbo"},
    evaluation=EvaluationConfig(sampler={"name": "ancestral", "spacing": "time"}),
)


@pytest.mark.parametrize("leaf", list(_leaves(EXPERIMENT)), ids=".".join)
def test_a_field_changes_the_stages_that_read_it_and_what_is_made_from_them_and_nothing_else(
    leaf: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Registry.get  # a part's name is changed like any other text: what it names must exist
    monkeypatch.setattr(Registry, "get", lambda own, name: known(own, name if name in own else name.removesuffix("x")))
    before, after = experiment_fingerprints(EXPERIMENT), experiment_fingerprints(_with_change(EXPERIMENT, leaf))
    touched: set[str] = set()
    for name, stage in STAGES.items():  # in order, inputs first
        if leaf != ("model", "preset") and (leaf[0] in stage.reads or touched & set(stage_inputs(EXPERIMENT, name))):
            touched.add(name)
    assert {name for name in STAGES if before[name] != after[name]} == touched
    assert bool(touched) == (leaf[0] != "runtime" and leaf != ("model", "preset"))


def test_a_part_whose_code_has_another_version_makes_another_output(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = resolve({"evaluation": {"sampler": "ancestral"}}, "a.yaml")
    before = experiment_fingerprints(experiment)
    monkeypatch.setattr(SAMPLERS.get("ancestral"), "version", "2")
    after = experiment_fingerprints(experiment)
    assert {stage for stage in before if before[stage] != after[stage]} == {"evaluation"}


def test_every_identity_section_is_read_by_a_stage() -> None:
    read = {section for stage in STAGES.values() for section in stage.reads}
    assert read == {field.name for field in dataclasses.fields(Experiment)} - {"runtime"}


def test_sections_reach_where_they_should() -> None:
    """The table above, spelt out for the ones that matter most."""

    def touched(**data: Any) -> list[str]:
        before = experiment_fingerprints(resolve({}, "a.yaml"))
        after = experiment_fingerprints(resolve(data, "a.yaml"))
        return [name for name in before if before[name] != after[name]]

    cell = ["pretrained_denoiser", "exported_model", "evaluation"]
    assert touched(runtime={"device": "cpu", "threads": 1, "log_every": 3}) == []
    assert touched(evaluation={"seed": 7}) == ["evaluation"]
    assert touched(seed=7) == cell
    assert touched(training={"steps": 2000}) == cell
    assert touched(shards={"sequence_length": 64}) == ["token_shards", *cell]
    assert touched(corpus={"deduplicate": False}) == [name for name in STAGES if name != "token_clusters"]


def test_an_experiment_cannot_ask_the_environment() -> None:
    wanted = "a.yaml: tokenizer.name: '${oc.env:HOME}' asks a resolver; interpolate keys of the experiment only"
    assert complaint({"tokenizer": {"name": "${oc.env:HOME}"}}) == wanted
    assert resolve({"seed": 3, "evaluation": {"seed": "${seed}"}}, "a.yaml").evaluation.seed == 3


def test_parts_that_undo_each_other_are_refused() -> None:
    assert "choose random" in complaint({"model": {"qk_norm": True, "initialiser": "local_heads"}})
    importance = {"name": "nelbo", "time_sampling": "importance", "time_density": "cosine"}
    assert "only under the shared clock" in complaint({"objective": importance, "clock": "spans"})
    assert resolve({"objective": importance}, "a.yaml").clock == {"name": "shared"}
    steep = {"name": "polynomial", "exponent": 8.0}
    assert "lower an exponent" in complaint({"objective": {**importance, "time_density": steep}, "schedule": steep})
    assert resolve({"objective": importance, "schedule": steep}, "a.yaml").schedule == steep
