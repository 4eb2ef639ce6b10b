"""What Dagster sees of the project: the graph, its partitions, and jobs that never mix partitions."""

from __future__ import annotations

import copy
from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import CELLS_BY_KEY, SWEEPS_BY_NAME, TOKEN_SET_OF_CELL, known_partition, refuse_other_name
from assets.resources import SumiProject
from pipelines.definitions import defs
from pipelines.instance import TRAINER_POOL, open_instance
from pipelines.jobs import JOBS
from sumi_core.base.options import ConfigError
from sumi_core.experiments.token_sets import changed_token_set_name
from sumi_core.stages import STAGES
from sumi_core.stages.identity import stages_of
from tests.pipelines.homes import ADDRESSES, furnish

GRAPH = {
    "corpus": (),
    "tokenizer": ("corpus",),
    "token_shards": ("corpus", "tokenizer"),
    "token_clusters": ("token_shards", "tokenizer"),
    "pretrained_denoiser": ("token_clusters", "token_shards", "tokenizer"),
    "exported_model": ("corpus", "pretrained_denoiser", "token_clusters", "token_shards", "tokenizer"),
    "evaluation": ("corpus", "exported_model", "token_shards", "tokenizer"),
    "ablation_report": ("evaluation",),
}


@pytest.fixture(scope="module")
def graph() -> dg.AssetGraph:
    return defs.resolve_asset_graph()


def test_the_asset_graph_is_as_drawn(graph: dg.AssetGraph) -> None:
    found = {node.key.to_user_string(): node for node in graph.asset_nodes}
    assert {name: tuple(sorted(k.to_user_string() for k in node.parent_keys)) for name, node in found.items()} == GRAPH
    assert {name: node.group_name for name, node in found.items()} == {
        **dict.fromkeys(["corpus", "tokenizer", "token_shards", "token_clusters"], "data"),
        **dict.fromkeys(["pretrained_denoiser", "exported_model"], "model"),
        "evaluation": "evaluation",
        "ablation_report": "report",
    }
    assert all(node.description for node in found.values())


def test_the_graph_has_every_input_that_a_fingerprint_has(graph: dg.AssetGraph) -> None:
    """An input that Dagster did not know of would never make anything downstream stale there."""
    for name, stage in STAGES.items():
        ancestors = {k.to_user_string() for k in graph.get_ancestor_asset_keys(dg.AssetKey(name))}
        assert set(stage.inputs) <= ancestors
        assert graph.get(dg.AssetKey(name)).code_version == stage.version


def test_every_stage_is_guarded_by_a_check(graph: dg.AssetGraph) -> None:
    assert {key.asset_key.to_user_string() for key in graph.asset_check_keys} == set(STAGES)
    for key in graph.asset_check_keys:  # one result for all partitions would be that of whichever ran last
        check = graph.get_check_spec(key)
        assert check.partitions_def == graph.get(key.asset_key).partitions_def, key
        assert check.description, key


def test_a_cell_depends_on_its_own_token_set_and_a_sweep_on_its_cells(graph: dg.AssetGraph) -> None:
    def upstream(asset: str, parent: str, partition: str) -> set[str]:
        definition = graph.get(dg.AssetKey(asset)).partitions_def
        parent_definition = graph.get(dg.AssetKey(parent)).partitions_def
        assert definition is not None
        assert parent_definition is not None
        mapping = graph.get_partition_mapping(dg.AssetKey(asset), dg.AssetKey(parent))
        result = mapping.get_upstream_mapped_partitions_result_for_partitions(
            definition.empty_subset().with_partition_keys([partition]), definition, parent_definition
        )
        return set(result.partitions_subset.get_partition_keys())

    for key, cell in CELLS_BY_KEY.items():
        assert upstream("pretrained_denoiser", "token_shards", key) == {TOKEN_SET_OF_CELL[key]}
        assert upstream("evaluation", "exported_model", key) == {key}
        assert key in upstream("ablation_report", "evaluation", cell.sweep)


def test_clusters_are_of_the_cells_that_have_them_and_of_no_other(graph: dg.AssetGraph) -> None:
    clusters = graph.get(dg.AssetKey("token_clusters")).partitions_def
    assert clusters is not None
    with_clusters = [key for key, cell in CELLS_BY_KEY.items() if "token_clusters" in stages_of(cell.experiment)]
    assert clusters.get_partition_keys() == with_clusters
    assert 0 < len(with_clusters) < len(CELLS_BY_KEY) / 2


def test_the_demo_comes_first_and_the_smoke_tests_last() -> None:
    names = list(SWEEPS_BY_NAME)
    assert names[0] == "demo"
    smoke = [name for name in names if name.startswith("smoke")]
    assert names[-len(smoke) :] == smoke
    assert smoke[:3] == ["smoke", "smoke-blocks", "smoke-conversion"]
    assert next(cell.sweep for cell in CELLS_BY_KEY.values()) == "demo"


def test_a_run_of_a_partition_that_is_gone_from_the_files_ends_in_a_sentence() -> None:
    context = dg.build_init_resource_context(instance=None)
    SumiProject().setup_for_execution(context)  # no run, no partition
    with pytest.raises(ConfigError, match=r"^partition: demo\.unifrm: nothing in the experiment files is called so"):
        known_partition("demo.unifrm", CELLS_BY_KEY)


def test_changes_that_make_another_cell_are_refused_under_its_name() -> None:
    refuse_other_name("demo.uniform", "demo.uniform", "demo.uniform", "demo.uniform")
    with pytest.raises(ConfigError, match=r"make demo\.uniform\[seed=3\] of demo\.uniform; run `sumi run demo"):
        refuse_other_name("demo.uniform", "demo.uniform", "demo.uniform[seed=3]", "demo.uniform seed=3")


def test_a_changed_token_set_takes_no_other_name_and_renames_none() -> None:
    known = {key: CELLS_BY_KEY[key].experiment for key in ("demo.uniform", "demo.absorbing")}
    names = {key: TOKEN_SET_OF_CELL[key] for key in known}
    same = copy.deepcopy(known["demo.uniform"])
    same.training.steps += 1
    assert changed_token_set_name(same, known, names) == names["demo.uniform"]
    other = copy.deepcopy(same)
    other.corpus.validation_fraction = 0.25
    name = changed_token_set_name(other, known, names)
    assert name.startswith(f"{names['demo.uniform']}.")
    assert len(name) == len(names["demo.uniform"]) + 7


def test_every_job_has_one_kind_of_partition() -> None:
    for name in JOBS:
        assert defs.resolve_job_def(name).partitions_def is not None


def test_training_alone_waits_for_a_slot_of_the_pool_that_the_instance_knows_from_the_start(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = defs.get_repository_def().assets_defs_by_key
    pools = {key.to_user_string(): asset.op.pool for key, asset in assets.items()}
    assert {name for name, pool in pools.items() if pool is not None} == {"pretrained_denoiser"}
    assert pools["pretrained_denoiser"] == TRAINER_POOL
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    project = furnish(tmp_path, tmp_path_factory)
    monkeypatch.setenv("DAGSTER_HOME", str(project.dagster_home))  # put back to what it was at the end
    with open_instance(project) as instance:
        assert instance.event_log_storage.get_concurrency_info(TRAINER_POOL).slot_count == 1
        instance.event_log_storage.set_concurrency_slots(TRAINER_POOL, 3)
    with open_instance(project) as instance:
        assert instance.event_log_storage.get_concurrency_info(TRAINER_POOL).slot_count == 3
