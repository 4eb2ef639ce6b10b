"""What Dagster sees of the project: the graph, its partitions, and jobs that never mix partitions."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import CELLS_BY_KEY, TOKEN_SET_OF_CELL
from pipelines.definitions import defs
from pipelines.instance import TRAINER_POOL, open_instance
from sumi_core.stages import STAGES
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


def test_every_job_has_one_kind_of_partition() -> None:
    for name in ("token_set", "cell", "report"):
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
