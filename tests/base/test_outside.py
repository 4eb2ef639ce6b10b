"""Parts from outside: a package that is installed, the project's own folder, and what goes wrong with either."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.base.outside import PartError, look_again
from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.experiments.reference import explain
from sumi_core.experiments.resolve import resolve
from sumi_core.lineage.plan import plan
from sumi_core.lineage.project import Project
from sumi_core.stages.base import ChangedSource
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import experiment_fingerprints, refresh_source_identities
from tests.pipelines.tiny import EXPERIMENT, write_texts

ROOT = Path(__file__).parents[2]
SQUARED = '''
"""A schedule of the project's own."""
from sumi_core.corruption.schedules import NoiseSchedule
from .shapes import square


class Squared(NoiseSchedule):
    """α = (1 − t)²."""

    def alpha(self, t):
        return square(1 - t)

    def dalpha(self, t):
        return -2 * (1 - t)

    def time_of_alpha(self, alpha):
        return 1 - alpha.sqrt()


PARTS = {"schedule.squared": Squared}
'''
SHAPES = "def square(x):\n    return x * x\n"

Write = Callable[[str, str], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project around this process."""
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    look_again()
    yield Project(tmp_path)
    monkeypatch.undo()
    look_again()


@pytest.fixture
def write(project: Project) -> Write:
    """Write a file of the project, and look at all of them again."""

    def put(name: str, text: str) -> Path:
        file = project.root / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        refresh_source_identities()
        return file

    return put


def complaint(**data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(data, "a.yaml")
    return str(caught.value)


# --- the project's folder -------------------------------------------------------------------------------------------


def test_a_part_of_the_project_is_found_by_name_and_its_code_is_identity(write: Write) -> None:
    write("parts/shapes.py", SHAPES)
    write("parts/squared.py", SQUARED)
    assert "squared" in SCHEDULES
    assert "squared" in SCHEDULES.names()
    shipped, own = resolve({}, "a.yaml"), resolve({"schedule": "squared"}, "a.yaml")
    before = experiment_fingerprints(own), experiment_fingerprints(shipped)
    write("parts/unrelated.py", "x = 1\n")
    write("parts/shapes.py", SHAPES)
    assert (experiment_fingerprints(own), experiment_fingerprints(shipped)) == before
    loaded = set(sys.modules)
    write("parts/shapes.py", SHAPES + "def late():\n    from sklearn.neural_network import MLPClassifier\n")
    experiment_fingerprints(own)
    assert "sklearn.neural_network" not in set(sys.modules) - loaded  # what other packages hold is not looked at
    write("parts/shapes.py", SHAPES + "# a helper that the part imports\n")
    after = experiment_fingerprints(own)
    changed = [stage for stage in after if after[stage] != before[0][stage]]
    assert changed == ["pretrained_denoiser", "exported_model", "evaluation"]
    assert experiment_fingerprints(shipped) == before[1]


def test_nothing_is_imported_before_it_is_named(write: Write, project: Project) -> None:
    write("parts/loud.py", "from pathlib import Path\nPath('ran').touch()\nPARTS = {'schedule.loud': int}\n")
    assert "loud" in SCHEDULES.names()
    resolve({}, "a.yaml")
    assert not (project.root / "ran").exists()
    complaint(schedule="loud")
    assert (project.root / "ran").exists()


def test_what_is_wrong_with_a_part_is_one_sentence_and_hides_no_other(write: Write) -> None:
    write("parts/shapes.py", SHAPES)
    write("parts/squared.py", SQUARED)
    write("parts/torn.py", "PARTS = {\n")
    write("parts/made.py", "PARTS = dict(a=1)\n")
    write("parts/strange.py", "PARTS = {'schedule.number': int, 'shedule.x': int, 'process.absorbing': int}\n")
    write("parts/absent.py", "import no_such_module\nPARTS = {'schedule.absent': no_such_module.X}\n")
    write("parts/twin.py", "PARTS = {'schedule.number': float}\n")
    assert resolve({"schedule": "squared"}, "a.yaml").schedule == {"name": "squared"}
    said = complaint(schedule="squarred")
    assert said.startswith("a.yaml: schedule: no noise schedule is called 'squarred'; did you mean 'squared'?; ")
    assert "parts/torn.py cannot be read ('{' was never closed" in said
    assert 'parts/made.py cannot be read (PARTS is not a dict written as {"process.zipf": Zipf}); correct it' in said
    assert "parts/strange.py offers 'shedule.x', of no registry; did you mean 'schedule'?" in said
    assert "\n  squared " in explain("schedule")  # and none of those that cannot be used
    assert "absent" not in explain("schedule")
    with pytest.raises(PartError, match=r"'schedule\.absent' of parts/absent\.py cannot be imported"):
        explain("schedule.absent")
    assert complaint(schedule="absent") == (
        "a.yaml: schedule: 'schedule.absent' of parts/absent.py cannot be imported "
        "(ModuleNotFoundError: No module named 'no_such_module'); correct it"
    )
    assert complaint(schedule="number") == (
        "a.yaml: schedule: noise schedule 'number' is offered by parts/strange.py and by parts/twin.py; "
        "rename one of them"
    )
    assert complaint(process="absorbing") == (
        "a.yaml: process: corruption process 'absorbing' is offered by Sumi and by parts/strange.py; rename one of them"
    )
    write("parts/twin.py", "")
    assert complaint(schedule="number") == (
        "a.yaml: schedule: 'schedule.number' of parts/strange.py is not a subclass of "
        "sumi_core.corruption.schedules.NoiseSchedule; make it one"
    )


# --- a package ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package installed in it, offline."""
    source, target = tmp_path_factory.mktemp("source") / "sumi-zipf", tmp_path_factory.mktemp("target")
    shutil.copytree(ROOT / "examples" / "sumi-zipf", source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return target


def test_a_cell_with_a_part_of_a_package_is_computed_and_is_stale_once_the_package_is_edited(
    installed: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setenv("PYTHONPATH", f"{installed}:{ROOT}")  # of the training process
    axes = "axes:\n  process.name: [uniform, zipf]\n"
    (project.experiments / "own.yaml").write_text(EXPERIMENT.partition("axes:")[0] + axes)
    write_texts(project.root)
    refresh_source_identities()
    assert "zipf" in PROCESSES.names()
    assert "process.zipf.offset: a number" in explain("process.zipf").splitlines()
    assert explain("process.offset") == explain("process.zipf.offset")
    sweep = project.sweeps()["own"]
    uniform, zipf = sweep.cells
    shipped, made = experiment_fingerprints(uniform.experiment), Computation(project.store, log=lambda line: None)
    for stage in ("corpus", "tokenizer", "token_shards", "pretrained_denoiser"):
        artifact, _ = made.ensure(zipf.experiment, zipf.key, stage)
    assert artifact.summary["steps"] == 4
    code = artifact.manifest["identity"]["code"]
    assert code == {"process": {"name": "zipf", "digest": code["process"]["digest"]}}
    law = installed / "sumi_zipf" / "law.py"
    text = law.read_text(encoding="utf-8")
    try:
        law.write_text(text.replace("1 / (", "2 / ("), encoding="utf-8")
        refresh_source_identities()
        (planned,) = plan([zipf], project.store)
        assert experiment_fingerprints(uniform.experiment) == shipped
        with pytest.raises(ChangedSource, match="the code of process 'zipf' was edited after this process imported it"):
            made.ensure(zipf.experiment, zipf.key, "pretrained_denoiser")
    finally:
        law.write_text(text, encoding="utf-8")
    told = {stage.stage: (stage.state, stage.why) for stage in planned.stages}
    assert told["token_shards"] == ("done", "cached")
    assert told["pretrained_denoiser"] == ("stale", "code of process 'zipf' changed")
