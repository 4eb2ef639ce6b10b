"""What orchestration costs: a cell through Dagster and MLflow against the same stages called directly, and re-asking.

    python benchmarks/orchestration.py [--experiment smoke] [--repeats 3]

Every measurement is a whole process in a fresh project folder. The data stages are computed beforehand in both, so the
cell's own work is what is timed. Prints medians and the ratios to the direct computation.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]

DIRECT = """
import sys
from pathlib import Path
from sumi_core.lineage.project import Project
from sumi_core.stages.computation import Computation
from sumi_core.experiments.sweeps import select_cells
from sumi_core.trainer.launcher import SubprocessLauncher
project = Project.find()
quiet = lambda *_: None
for cell in select_cells(project.sweeps(), [sys.argv[1]]):
    Computation(project.store, launcher=SubprocessLauncher(log=quiet), log=quiet).ensure_all(cell.experiment, cell.key)
"""


def timed(project: Path, *command: str) -> float:
    """Wall seconds of a command in a project folder; its output is shown only when it fails."""
    environment = {**os.environ, "SUMI_PROJECT": str(project), "PYTHONPATH": str(HERE)}
    for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "SUMI_STORE"):
        environment.pop(name, None)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return seconds


def measure(experiment: str, cell: str) -> dict[str, float]:
    """One round: fresh projects, each with its data ready, then the cell both ways, then asked again."""
    sumi = [sys.executable, "-m", "pipelines.cli"]
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ("direct", "orchestrated"):
            project = Path(folder) / way
            shutil.copytree(HERE / "experiments", project / "experiments")
            timed(project, *sumi, "init")
            command = [sys.executable, "-c", DIRECT, cell] if way == "direct" else [*sumi, "run", cell]
            timed(project, *command)
            for stage in ("pretrained_denoiser", "exported_model", "evaluation", "ablation_report"):
                shutil.rmtree(project / ".sumi" / "store" / stage, ignore_errors=True)
            seconds[way] = timed(project, *command)
            seconds[f"{way}, asked again"] = timed(project, *command)
    return seconds


def main() -> None:
    """Repeat the rounds and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="smoke")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cell = arguments.experiment
    rounds = [measure(arguments.experiment, cell) for _ in range(arguments.repeats)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    for name, seconds in medians.items():
        print(f"{name:<28} {seconds:7.2f} s   {seconds / medians['direct']:6.2f} × direct")
    print(f"{'overhead of a cell':<28} {medians['orchestrated'] - medians['direct']:7.2f} s")


if __name__ == "__main__":
    main()
