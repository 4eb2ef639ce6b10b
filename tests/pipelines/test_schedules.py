"""Schedules and sensors as Dagster evaluates them, over the definitions of a real project in a process of its own."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from pipelines.schedules import reload_location, sweep_schedules
from sumi_core.experiments.sweeps import load_sweeps
from sumi_core.lineage.project import Project
from sumi_core.stages import DATA_STAGES
from sumi_core.stages.computation import Computation
from tests.pipelines.homes import ADDRESSES
from tests.pipelines.tiny import EXPERIMENT, enter, write_texts

# Prints what each evaluation asks for, in the order of events that a user would cause.
PROGRAM = """
import json, sys
from pathlib import Path
import dagster as dg
from pipelines.definitions import defs
from pipelines.instance import open_instance
from sumi_core.lineage.project import Project

repository, file = defs.get_repository_def(), Path("experiments/tiny.yaml")
instance, cursor, told = open_instance(Project.find()), None, {}

@dg.job
def nothing(): pass

def note(event, tick):
    keys = [request.partition_key for request in tick.run_requests]
    run_keys = [request.run_key for request in tick.run_requests]
    told[event] = {"keys": keys, "run_keys": run_keys, "why": tick.skip_message}
    return tick.run_requests

def scheduled(event):
    with dg.build_schedule_context(instance, repository_def=repository) as context:
        return note(event, repository.get_schedule_def("sweep_tiny").evaluate_tick(context))

def sensed(event, name="edited_experiments"):
    global cursor
    with dg.build_sensor_context(instance, repository_def=repository, cursor=cursor) as context:
        tick = repository.get_sensor_def(name).evaluate_tick(context)
        if name == "edited_experiments":
            cursor = tick.cursor
        return note(event, tick)

def ended(requests, status):
    for request in requests:
        instance.create_run_for_job(nothing, tags=dict(request.tags), status=status)

def edit(old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))

sensed("nobody asked", "sweeps_under_way")
cells = scheduled("the cron comes")
ended(cells, dg.DagsterRunStatus.STARTED)
scheduled("the cron comes again")
sensed("cells run", "sweeps_under_way")
for run in instance.get_runs():
    instance.report_run_failed(run)
ended(sensed("cells failed", "sweeps_under_way"), dg.DagsterRunStatus.FAILURE)
ended(sensed("cells failed twice", "sweeps_under_way"), dg.DagsterRunStatus.SUCCESS)
sensed("the report is made", "sweeps_under_way")
scheduled("no attempt is left")

sensed("turned on")
sensed("nothing changed")
edit("uniform: {process: uniform}", "uniform: {process: uniform, training.learning_rate: 2e-3}")
ended(sensed("a value edited"), dg.DagsterRunStatus.FAILURE)
ended(sensed("the edited cell failed"), dg.DagsterRunStatus.FAILURE)
ended(sensed("it failed twice"), dg.DagsterRunStatus.SUCCESS)
sensed("its report is made")
edit("axes:", "axes: {")
sensed("a broken file")
edit("axes: {", "axes:")
sensed("a mended file")
edit("  method:", "  method:\\n    masked: {process: absorbing}")
sensed("a new cell")
edit("\\n    masked: {process: absorbing}", "")
sensed("the new cell is gone")
Path("texts/0.txt").write_text("another text of the making\\n" * 6)
sensed("the corpus edited")
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    root = tmp_path_factory.mktemp("scheduled")
    (root / "experiments").mkdir()
    (root / "experiments" / "tiny.yaml").write_text(f"cron: '@hourly'\n{EXPERIMENT}")
    write_texts(root)
    project = Project(root)
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        computation = Computation(project.store, log=lambda _: None)
        for stage in DATA_STAGES:
            computation.ensure(project.sweeps()["tiny"].cells[0].experiment, "tiny.uniform", stage)
        environment = {key: value for key, value in os.environ.items() if key not in ADDRESSES}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


BOTH = ["tiny.uniform", "tiny.left"]


@pytest.mark.parametrize(
    ("event", "keys"),
    [
        ("nobody asked", []),
        ("the cron comes", BOTH),
        ("the cron comes again", []),
        ("cells run", []),
        ("cells failed", BOTH),
        ("cells failed twice", ["tiny"]),
        ("the report is made", []),
        ("no attempt is left", []),
        ("turned on", []),
        ("nothing changed", []),
        ("a value edited", ["tiny.uniform"]),
        ("the edited cell failed", ["tiny.uniform"]),
        ("it failed twice", ["tiny"]),
        ("its report is made", []),
        ("a broken file", []),
        ("a mended file", []),
        ("a new cell", []),
        ("the new cell is gone", ["tiny"]),
        ("the corpus edited", ["text.byte.32"]),
    ],
)
def test_what_is_asked_for(told: dict[str, dict[str, object]], event: str, keys: list[str]) -> None:
    assert told[event]["keys"] == keys, told[event]["why"]


def test_no_run_key_is_used_twice(told: dict[str, dict[str, object]]) -> None:
    """Dagster takes a sensor's run key for a run that it started already."""
    used = [key for event in told.values() for key in event["run_keys"]]  # type: ignore[attr-defined]
    assert len(used) == len(set(used)) == 10


def test_why_nothing_is_asked_for_is_told(told: dict[str, dict[str, object]]) -> None:
    assert told["the cron comes again"]["why"] == "tiny: 2 of its runs are in progress"
    assert told["no attempt is left"]["why"] == "tiny: failed, and no attempt is left: tiny.uniform, tiny.left"
    assert told["turned on"]["why"] == "watches 2 cells from now on"
    assert told["nothing changed"]["why"] == "no recipe has changed"
    by_hand = "not loaded by Dagster yet: tiny.masked; reload the code location in the Dagster UI (Deployment)"
    assert told["a new cell"]["why"] == by_hand


class WebServer(http.server.BaseHTTPRequestHandler):
    """Keeps what it is asked, and reloads nothing."""

    asked: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        reloaded: dict[str, object] = {
            "__typename": "WorkspaceLocationEntry",
            "locationOrLoadError": {"__typename": "RepositoryLocation"},
        }
        if body["variables"]["repositoryLocationName"] == "gone":
            reloaded = {"__typename": "RepositoryLocationNotFound", "message": "no such location"}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"data": {"reloadRepositoryLocation": reloaded}}).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_dagster_is_asked_to_load_new_cells_and_a_person_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SUMI_DAGSTER_UI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # where nobody answers
    try:
        assert reload_location("pipelines.definitions") == "asked Dagster to load them"
        assert WebServer.asked[-1]["variables"] == {"repositoryLocationName": "pipelines.definitions"}
        assert "reloadRepositoryLocation(" in str(WebServer.asked[-1]["query"])
        assert reload_location("gone").endswith("Dagster UI (Deployment): no such location")
    finally:
        server.shutdown()
        server.server_close()
    assert "does not answer" in reload_location("pipelines.definitions")


def test_every_sweep_with_a_cron_has_a_schedule_of_its_own_that_is_off(tmp_path: Path) -> None:
    for name in ("a-b", "a_b", "a+b", "plain"):
        cron = "" if name == "plain" else "cron: 0 3 * * *"
        (tmp_path / f"{name}.yaml").write_text(f"description: of {name}\n{cron}\n")
    schedules = sweep_schedules(load_sweeps(tmp_path).values())
    assert {schedule.name for schedule in schedules} == {"sweep_a_dash_b", "sweep_a_b", "sweep_a_plus_b"}
    assert {schedule.default_status.value for schedule in schedules} == {"STOPPED"}
    assert {schedule.cron_schedule for schedule in schedules} == {"0 3 * * *"}
