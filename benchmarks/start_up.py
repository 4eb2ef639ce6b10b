"""What commands cost that read and do not compute: CPU-seconds, and their ratio to an empty Python.

    python benchmarks/start_up.py [--project .] [--name demo] [--repeats 5]

Every measurement is a whole process; user and system time of the process and its children are added. With a project
whose experiment is computed, `compare`, `lineage` and `run` show what they cost when everything is done.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def cpu_seconds(project: Path, *command: str) -> float | None:
    """CPU-seconds of a command, None where it fails: it may need something computed."""
    environment = {**os.environ, "SUMI_PROJECT": str(project), "PYTHONPATH": str(HERE)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling the libraries anew is not what is measured
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent if done.returncode == 0 else None


def main() -> None:
    """Measure all commands in turn, several times, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=HERE)
    parser.add_argument("--name", default="demo", help="an experiment of the project")
    parser.add_argument("--cell", help="a cell of it, for lineage; default: the experiment's name")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    name, cell = arguments.name, arguments.cell or arguments.name
    sumi = (sys.executable, "-m", "pipelines.cli")
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "sumi --help": (*sumi, "--help"),
        "sumi list": (*sumi, "list"),
        f"sumi list {name}": (*sumi, "list", name),
        f"sumi plan {name}": (*sumi, "plan", name),
        f"sumi compare {name}": (*sumi, "compare", name),
        f"sumi lineage {cell}": (*sumi, "lineage", cell),
        "sumi doctor": (*sumi, "doctor"),
    }
    if (arguments.project / ".sumi" / "store" / "ablation_report").is_dir():
        commands[f"sumi run {name}"] = (*sumi, "run", name)
    project, spent = arguments.project.resolve(), dict[str, list[float | None]]()
    for _ in range(arguments.repeats + 1):
        for label, command in commands.items():
            spent.setdefault(label, []).append(cpu_seconds(project, *command))
    medians = {
        label: statistics.median(found)
        for label, seconds in spent.items()
        if (found := [value for value in seconds[1:] if value is not None])  # the first round fills the caches
    }
    for label in commands:
        if label in medians:
            print(f"{label:<28} {medians[label]:7.2f} s   {medians[label] / medians['python -c pass']:6.1f} × python")
        else:
            print(f"{label:<28} fails in this project: it needs something computed")


if __name__ == "__main__":
    main()
