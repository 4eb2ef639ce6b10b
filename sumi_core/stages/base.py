"""What a stage is, and what its function is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from sumi_core.base.errors import SumiError
from sumi_core.base.progress import Log, Progress, unwatched
from sumi_core.experiments.schema import Experiment
from sumi_core.stages.store import Artifact, Store


class MissingInput(SumiError, RuntimeError):
    """A stage was asked for before one of its inputs is whole."""


class ChangedSource(SumiError, RuntimeError):
    """Files that were edited while a stage read them: its output would stand under the digest of what they were."""


class Launcher(Protocol):
    """Runs a training process for a request file and returns when it has ended well."""

    def run(self, request: Path) -> None: ...


@dataclass
class StageContext:
    """What a stage function gets: the experiment, whole inputs, and a folder that is its own to write.

    experiment: with the folders of the outputs of other cells that the parts which the stage reads refer to.
    references: those outputs, and those of the sections it opens, by the key of the option that refers, such as
    ``model.initialiser.of``. tables: the folder of each token table that the experiment's parts are built from.
    fingerprints: of the stages of this experiment up to and including this one.
    recipe: a digest of the config that this stage reads. store, provenance: for a stage that keeps parts of its output
    under fingerprints of their own."""

    experiment: Experiment
    key: str
    folder: Path
    inputs: Mapping[str, Artifact]
    references: Mapping[str, Artifact] = field(default_factory=dict)
    tables: Mapping[str, Path] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    launcher: Launcher | None = None
    tracking_uri: str | None = None
    run_id: str | None = None  # the cell's MLflow run
    store: Store | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    log: Log = print
    progress: Progress = unwatched

    @property
    def folders(self) -> dict[str, Path]:
        """The folders of the inputs, by stage."""
        return {name: artifact.folder for name, artifact in self.inputs.items()}


@dataclass(frozen=True)
class Verdict:
    """What a check found. metadata: the figures that it went by."""

    passed: bool
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Something that should hold of a stage's output. warn: failing is worth a look, and no error."""

    name: str
    description: str
    run: Callable[[Artifact], Verdict]
    warn: bool = False


@dataclass(frozen=True)
class Records:
    """What MLflow keeps of a stage beside the numbers of its summary.

    files: copied as artifacts, where they exist. dataset: the output is an input of the cell's run. history: a table of
    metrics by step. model: the folder is a logged model. of_model: the numbers are those of the logged model.
    constants: patterns of the numbers that describe what was given or asked rather than what came out. in_history:
    patterns of those that are the last values of the history."""

    files: tuple[str, ...] = ("report.md",)
    dataset: bool = False
    history: str | None = None
    model: bool = False
    of_model: bool = False
    constants: tuple[str, ...] = ("*",)
    in_history: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One step from corpus to evaluation. Raise ``version`` whenever its code would give other outputs.

    reads: sections of the experiment. opens: sections that it does not read, but whose references to outputs of other
    cells are inputs of it. inputs: stages. run: writes the output into the context's folder and returns its
    summary, plain data. partition: whether cells that share their tokens share the output, or each cell has its own.
    takes_tables: the stages that write the token tables of the experiment's parts are inputs too. tables: token tables
    that this stage writes. optional: only experiments have it whose parts are built from its tables. resumable: goes on
    from what an interrupted run left in its folder. reads_source: reads files from beginning to end, so that a source
    which changes meanwhile spoils the output. doing: what the log says when it begins. group, kinds, pool: of the asset
    in Dagster."""

    name: str
    version: str
    description: str
    run: Callable[[StageContext], dict[str, Any]]
    partition: Literal["token_set", "cell"]
    reads: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    takes_tables: bool = False
    tables: tuple[str, ...] = ()
    optional: bool = False
    resumable: bool = False
    reads_source: bool = False
    checks: tuple[Check, ...] = ()
    records: Records = Records()
    doing: str = "computing"
    group: str = "model"
    kinds: frozenset[str] = frozenset()
    pool: str | None = None

    def refers(self, key: str) -> bool:
        """Whether the output of another cell that an option refers to is an input. key: of the option."""
        return key.partition(".")[0] in (*self.reads, *self.opens)
