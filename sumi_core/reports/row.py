"""A row of a comparison, and the meaning of its columns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sumi_core.experiments.sweeps import Cell

SEED_AXIS = "seed"
TRAINING_METRICS = (
    "parameters",
    "tokens_seen",
    "supervised_share",
    "flops",
    "total_flops",
    "seconds",
    "tokens_per_second",
    "peak_memory_bytes",
)

COLUMNS = {
    "kind": "cell, group (cells that differ only in their seed) or yardstick",
    "name": "what it is called; a group by its cells' name without the seed",
    "state": "of a cell, as `sumi list` prints it: done, failed, stale …; of a group, done if a cell of it has figures",
    "why": "why it is in its state",
    "objective": "what was minimised",
    "process": "the corruption process; empty without one",
    "schedule": "its noise schedule",
    "seed": "of training: initial weights, order of the data, noise; empty for a group",
    "group": "the group that a cell is one seed of; its figures stand for it in ranks and differences",
    "seeds": "training seeds in the figure",
    "seeds_planned": "training seeds that the sweep has",
    "exact": "whether bits_per_byte is exact (true) or an upper bound (false)",
    "reading": "the likelihood that bits_per_byte is, of those that its model has: autoregressive, diffusion …",
    "bits_per_byte": "of the validation text; of a group, the mean over its seeds; empty without figures",
    "stderr": "one standard error: √(stderr_documents² + stderr_seeds²), over documents alone where there is one seed",
    "stderr_documents": "its part over validation documents, the models as they are; Monte-Carlo noise is in it",
    "stderr_seeds": "its part over training seeds, the documents as they are: s / √seeds; empty for one seed",
    "mc_stderr": "the Monte-Carlo noise alone, over noise levels and noise; of a group, at most this",
    "draw_deviation": "standard deviation of a mean sequence's bound from one draw of noise level and noise, in bits "
    "per byte: the noise that K draws a sequence make small; of a group, the root of the mean variance",
    "documents": "validation documents behind the figure",
    "effective_documents": "how many documents of one size would say as much: (Σ bytes)² / Σ bytes²",
    "rank": "1 + the number of methods that are significantly better, corrected over all pairs; empty for one seed",
    "reference": "the row that differences are taken to: the one that the file names, else the best",
    "difference": "bits_per_byte minus that of the reference, over what both were measured on; above 0 is worse",
    "difference_stderr": "its standard error: √(difference_stderr_documents² + difference_stderr_seeds²)",
    "difference_stderr_documents": "its part over documents: paired if `paired`, else of two independent figures",
    "difference_stderr_seeds": "its part over seeds, paired if `paired_seeds`; empty where a side has one seed",
    "difference_low_95": "95 % interval of the difference by Student's t for either source of error, not corrected: "
    "the primary one",
    "difference_high_95": "its upper end",
    "difference_bootstrap_low_95": "95 % interval by resampling documents and seeds, not corrected; too narrow for two "
    "or three seeds",
    "difference_bootstrap_high_95": "its upper end",
    "seeds_compared": "training seeds of each side in the difference",
    "paired": "whether both were measured on the same texts",
    "paired_seeds": "whether each seed was compared with itself",
    "p_adjusted": "two-sided p of the difference (Student's t), Holm-corrected over the differences to the "
    "reference where the file names one, else over all pairs of methods; empty where a side has one seed",
    "significant": "whether p_adjusted < 0.05; empty where a side has one seed: that compares trained models",
    "parameters": "of the denoiser",
    "tokens_seen": "in training; of a group, as every cost, the mean over its seeds",
    "supervised_share": "share of the tokens seen that had a loss: all of them under uniform noise, the masked ones "
    "under absorbing noise, those whose clock ran under span clocks; mean over the training",
    "flops": "spent in training, forward and backward: 6 for each weight that multiplies a token, plus attention "
    "and time conditioning",
    "total_flops": "flops, and those of the trainings of other cells that the weights come from",
    "seconds": "of training, by the clock",
    "tokens_per_second": "of training, without validation and checkpoints",
    "peak_memory_bytes": "the most held in training: allocated on a GPU, resident in the process on a CPU; of a group, "
    "the largest",
    "gradient_norm": "of an update before clipping, mean over the last tenth of training",
    "gradient_variance": "trace of the covariance of the training gradient of one batch at the final weights, over "
    "noise levels and noise alone; empty where it was not measured",
    "gradient_variance_stderr": "its standard error over pairs of gradients",
    "fingerprint": "of the evaluation",
    "mlflow_run_id": "where the figures were read, if that was MLflow",
}  # and axis.<axis>: the label of a cell on each axis; reading.<name>, initial.<name>: bits per byte of a reading, and
# its error, after the training and before


@dataclass
class Row:
    """A cell, a group of cells that differ only in their seed, or a yardstick. Its fields are the columns of JSON, CSV
    and Parquet, explained in ``COLUMNS``; None is null, or empty. ``labels`` (axis → label) and ``readings`` (bits per
    byte by reading, and ``<reading>_stderr``), ``initial_readings`` (the same before training) become a column each."""

    kind: str
    name: str
    state: str = "done"
    why: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    readings: dict[str, float] = field(default_factory=dict)
    initial_readings: dict[str, float] = field(default_factory=dict)
    objective: str | None = None
    process: str | None = None
    schedule: str | None = None
    seed: int | None = None
    group: str | None = None
    seeds: int | None = None
    seeds_planned: int | None = None
    exact: bool | None = None
    reading: str | None = None
    bits_per_byte: float | None = None
    stderr: float | None = None
    stderr_documents: float | None = None
    stderr_seeds: float | None = None
    mc_stderr: float | None = None
    draw_deviation: float | None = None
    documents: int | None = None
    effective_documents: float | None = None
    rank: int | None = None
    reference: str | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    difference_stderr_documents: float | None = None
    difference_stderr_seeds: float | None = None
    difference_low_95: float | None = None
    difference_high_95: float | None = None
    difference_bootstrap_low_95: float | None = None
    difference_bootstrap_high_95: float | None = None
    seeds_compared: int | None = None
    paired: bool | None = None
    paired_seeds: bool | None = None
    p_adjusted: float | None = None
    significant: bool | None = None
    parameters: int | None = None
    tokens_seen: int | None = None
    supervised_share: float | None = None
    flops: float | None = None
    total_flops: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    gradient_norm: float | None = None
    gradient_variance: float | None = None
    gradient_variance_stderr: float | None = None
    fingerprint: str | None = None
    mlflow_run_id: str | None = None

    @classmethod
    def of_cell(cls, cell: Cell, state: str, why: str) -> Row:
        """What is known of a cell before it is measured."""
        config = cell.experiment
        return cls(
            "cell",
            cell.key,
            state,
            why,
            labels=dict(cell.labels),
            objective=config.objective["name"],
            process=config.process["name"] if config.process else None,
            schedule=config.schedule["name"] if config.process else None,
            seed=config.seed,
        )

    @property
    def sign(self) -> str:
        """``=`` exact, ``≤`` an upper bound, nothing for a yardstick."""
        return {True: "=", False: "≤", None: ""}[self.exact]

    def flat(self) -> dict[str, Any]:
        """The row with a column for each axis and each reading."""
        plain = asdict(self)
        several = {"axis": "labels", "reading": "readings", "initial": "initial_readings"}
        named = {f"{kind}.{name}": value for kind, key in several.items() for name, value in plain.pop(key).items()}
        return {**plain, **named}
