"""What an experiment is: a typed, validated record from which every stage is computed.

An experiment has sections (``corpus``, ``model``, ``training`` …). Sections that name a registered part are
*components*: ``process: uniform`` or ``process: {name: clustered, late: 2}``; the keys beside ``name`` are the part's
own ``Options``. ``corruption: structured`` is short for a process and a clock. Everything is checked here, before
anything is computed, and every complaint is one sentence that names the file, the key, what is wrong and what to do.

Two kinds of fields: *identity* fields decide what comes out and enter the fingerprints; the ``runtime`` section
(device, threads, cadence of logs and checkpoints) says how it is computed and never does. Upper limits are set where
anything beyond can only be a slip of the keyboard.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sumi_core.corruption import CLOCKS, CORRUPTION_PRESETS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.data import CLUSTERINGS, SOURCES, TOKENIZERS
from sumi_core.evaluation import METRICS
from sumi_core.models import ATTENTION_PATTERNS, INITIALISERS, PRESETS
from sumi_core.objectives import OBJECTIVES
from sumi_core.registry import nearest
from sumi_core.sampling import SAMPLERS
from sumi_core.training import STRATEGIES
from sumi_core.typed import (
    ConfigError,
    as_component,
    choice,
    component,
    number,
    part,
    parts,
    parts_in,
    type_hints,
    typed,
)
from sumi_core.typed import check_keys as check_schema_keys

MAX_SEED = 2**32 - 1  # what every random generator in use accepts


@dataclass
class CorpusConfig:
    """Documents and their split. The split hashes documents, never paragraphs, so that near text does not leak."""

    source: Any = part(SOURCES, "web-bible")
    validation_fraction: float = number(0.05, above=0.0, high=0.5)
    deduplicate: bool = True  # drop documents whose text was already seen, byte for byte


@dataclass
class ShardsConfig:
    """Packing of tokens into sequences: documents are joined with an end-of-text token and cut every ``length``."""

    sequence_length: int = number(128, low=2, high=2**20)
    shard_documents: int = number(256, low=1, high=10**6)  # in a shard: the unit of parallelism and resume


@dataclass
class ModelConfig:
    """The denoiser's dimensions. ``preset`` fills in what is not written; it is a label and no identity field."""

    preset: str | None = None
    hidden_size: int = number(128, low=2, high=2**16)
    intermediate_size: int = number(352, low=1, high=2**20)
    num_layers: int = number(4, low=1, high=1000)
    num_heads: int = number(4, low=1, high=1024)
    num_kv_heads: int = number(2, low=1, high=1024)
    rope_theta: float = number(10000.0, above=0.0)
    norm_epsilon: float = number(1e-5, above=0.0)
    tie_embeddings: bool = False
    qk_norm: bool = False
    attention: Any = part(ATTENTION_PATTERNS, "bidirectional")
    time_conditioning: str = choice("none", "none", "adaln", "token")
    init_std: float = number(0.02, above=0.0, high=10.0)
    initialiser: Any = part(INITIALISERS, "random")  # where the weights start


@dataclass
class TrainingConfig:
    """Optimisation. A step is one optimizer update on ``batch_size`` sequences, whatever the devices."""

    steps: int = number(1000, low=1, high=10**9)
    batch_size: int = number(32, low=1, high=2**20)  # sequences per optimizer step, over all devices and accumulation
    accumulation: int = number(1, low=1, high=2**16)  # micro-batches per step
    learning_rate: float = number(1e-3, above=0.0)
    lr_schedule: str = choice("cosine", "cosine", "wsd", "constant")
    warmup_steps: int = number(100, low=0, high=10**9)
    decay_fraction: float = number(0.2, above=0.0, high=1.0)  # wsd: the last part of the run that decays
    final_lr_fraction: float = number(0.1, low=0.0, high=1.0)
    beta1: float = number(0.9, low=0.0, below=1.0)
    beta2: float = number(0.95, low=0.0, below=1.0)
    adam_epsilon: float = number(1e-8, above=0.0)
    weight_decay: float = number(0.1, low=0.0)
    gradient_clip: float = number(1.0, low=0.0)  # 0: off
    ema_decay: float = number(0.0, low=0.0, below=1.0)  # 0: off
    precision: str = choice("fp32", "fp32", "bf16")
    validate_every: int = number(500, low=1, high=10**9)  # optimizer steps
    validation_sequences: int = number(128, low=1, high=10**7)


@dataclass
class EvaluationConfig:
    """How a finished model is measured. Cells that share it are measured on the same sequences, times and noise."""

    sequences: int = number(512, low=2, high=10**7)  # validation sequences, spread over the split
    times_per_sequence: int = number(8, low=1, high=10**4)  # stratified noise levels drawn for each sequence
    time_epsilon: float = number(1e-3, above=0.0, high=0.4)  # the bound integrates t over [eps, 1 - eps]
    metrics: Any = parts(METRICS, "unigram_entropy", "distinct", "repetition", "copy_rate")
    sampler: Any = part(SAMPLERS, None, optional=True)  # null: the objective's own
    sampling_steps: list[int] = field(default_factory=lambda: [8, 32, 128])
    samples: int = number(16, low=1, high=10**5)  # texts drawn at each number of steps
    gradient_sequences: int = number(8, low=0, high=10**5)  # that the noise of the gradient is measured on; 0: not
    seed: int = number(1, low=0, high=MAX_SEED)


@dataclass
class RuntimeConfig:
    """How things are computed; never part of a fingerprint. Threads are fixed since they change the last bits."""

    device: str = choice("auto", "auto", "cpu", "cuda")
    devices: int = number(1, low=1, high=2**16)
    strategy: Any = part(STRATEGIES, "ddp")  # how more than one device share a training
    threads: int = number(2, low=1, high=1024)
    data_workers: int = number(2, low=1, high=1024)  # processes that tokenize
    evaluation_batch: int = number(64, low=1, high=2**20)
    log_every: int = number(10, low=1)  # optimizer steps
    checkpoint_every: int = number(200, low=1, high=10**9)  # optimizer steps
    compile: bool = False


@dataclass
class Experiment:
    """One experiment (a cell of a sweep), resolved. Component sections are dicts ``{name, **options}``."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: Any = part(TOKENIZERS, "byte")
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    clusters: Any = part(CLUSTERINGS, "surface")  # of tokens, for processes that know some
    model: ModelConfig = field(default_factory=ModelConfig)
    process: Any = part(PROCESSES, "uniform", optional=True)
    schedule: Any = part(SCHEDULES, "linear", optional=True)  # null where there is no process
    clock: Any = part(CLOCKS, "shared", optional=True)  # null where there is no process
    parameterisation: Any = part(PARAMETERISATIONS, "leave_one_out", optional=True)  # null where there is no process
    objective: Any = part(OBJECTIVES, "nelbo")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    seed: int = number(0, low=0, high=MAX_SEED)

    def to_dict(self) -> dict[str, Any]:
        """The resolved experiment as plain data, every default written out."""
        return dataclasses.asdict(self)

    def recipe(self) -> dict[str, Any]:
        """``to_dict`` without what decides no result: the runtime section and the preset's label."""
        data = self.to_dict()
        del data["runtime"]
        del data["model"]["preset"]
        return data

    def identity(self) -> dict[str, Any]:
        """``recipe`` as fingerprints hold it: without the places where parts find what they are made from, whose
        content their own identity tells."""
        data = self.recipe()
        for _, registry, found in parts_in(Experiment, data):
            for option in dataclasses.fields(registry.options(found["name"])):
                if option.metadata.get("location"):
                    del found[option.name]
        return data


# --- merging --------------------------------------------------------------------------------------------------------


def merge(low: Any, high: Any, schema: Any = Experiment) -> Any:
    """Lay ``high`` over ``low``: mappings merge, an empty section changes nothing, anything else replaces. A component
    whose name changes is replaced whole, since the old part's options mean nothing to the new one."""
    if high is None and dataclasses.is_dataclass(schema):
        return copy.deepcopy(low)
    if not (isinstance(low, Mapping) and isinstance(high, Mapping)):
        low = {}
    if not isinstance(high, Mapping):
        return copy.deepcopy(high)
    merged = dict(low)
    fields = {f.name: f for f in dataclasses.fields(schema)} if dataclasses.is_dataclass(schema) else {}
    hints = type_hints(schema) if fields else {}
    for key, value in high.items():
        below, inner = merged.get(key), hints.get(key)
        if key in fields and (registry := fields[key].metadata.get("registry")):
            value, below = as_component(value), as_component(below)
            if isinstance(below, Mapping) and isinstance(value, Mapping):
                renamed = value.get("name") not in (None, below.get("name"))
                below = None if renamed else below
                name = value.get("name", (below or {}).get("name"))
                inner = registry.options(name) if isinstance(name, str) and name in registry else None
        merged[key] = merge(below, value, inner)
    return merged


def spelt_out(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A layer of keys with ``corruption: structured`` replaced by the process and clock that the preset stands for.
    What the layer itself writes of them is laid on top. Raises ConfigError for a name that is no preset's."""
    if "corruption" not in data:
        return data
    name = data["corruption"]
    if not isinstance(name, str) or name not in CORRUPTION_PRESETS:
        raise ConfigError(
            where, "corruption", f"no preset is called {name!r}; {nearest(str(name), CORRUPTION_PRESETS)}"
        )
    preset = CORRUPTION_PRESETS[name]
    for key, meant in preset.items():
        written = as_component(data.get(key, meant))
        if not isinstance(written, Mapping) or written.get("name", meant["name"]) != meant["name"]:
            problem = f"'{name}' means {key}: {meant['name']}, and {key} is written beside it; drop one of them"
            raise ConfigError(where, "corruption", problem)
    return merge(preset, {key: value for key, value in data.items() if key != "corruption"})


# --- resolution -----------------------------------------------------------------------------------------------------


def resolve(data: Mapping[str, Any], where: str) -> Experiment:
    """Turn merged plain data into a checked Experiment. ``where`` names the file in every complaint."""
    plain = _interpolated(spelt_out(data, where), where)
    model = plain.get("model")
    if isinstance(model, dict) and model.get("preset") is not None:
        preset = model["preset"]
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ConfigError(where, "model.preset", f"no preset is called {preset!r}; {nearest(str(preset), PRESETS)}")
        plain["model"] = {**PRESETS[preset], **model}
    experiment: Experiment = typed(Experiment, plain, where)
    around_process = (("schedule", SCHEDULES), ("clock", CLOCKS), ("parameterisation", PARAMETERISATIONS))
    for section, registry in around_process:
        if experiment.process is None:
            setattr(experiment, section, None)  # means nothing without a process, so it must not change a fingerprint
        elif getattr(experiment, section) is None:
            raise ConfigError(
                where,
                section,
                f"process '{experiment.process['name']}' needs a {registry.kind}; one of {', '.join(registry.names())}",
            )
    if experiment.evaluation.sampler is None:  # written out with its options, so that they enter the fingerprint
        default = OBJECTIVES.get(experiment.objective["name"]).default_sampler
        experiment.evaluation.sampler = component(SAMPLERS, default, where, "evaluation.sampler")
    _check(experiment, where)
    return experiment


def resolve_recorded(recorded: Mapping[str, Any], where: str) -> Experiment:
    """An experiment as a record holds it. All dimensions are written out there: no preset of today is looked up.

    Raises ConfigError, naming ``where``, for a record that does not fit this version."""
    return resolve({**recorded, "model": {**recorded.get("model", {}), "preset": None}}, where)


def check_keys(data: Any, where: str, prefix: str = "", extra: tuple[str, ...] = ()) -> None:
    """Refuse keys that no section knows, in one file as it is written, so that the complaint names that file."""
    for key in data if isinstance(data, Mapping) else ():
        if key not in (*type_hints(Experiment), *extra, "corruption"):
            for section, hint in type_hints(Experiment).items():
                if dataclasses.is_dataclass(hint) and key in type_hints(hint):
                    problem = f"unknown key; did you mean '{section}.{key}'?"
                    raise ConfigError(where, f"{prefix}{key}", problem)
    check_schema_keys(data, where, Experiment, prefix, (*extra, "corruption"))


def _interpolates(data: Any) -> bool:
    if isinstance(data, Mapping):
        return any(_interpolates(value) for value in data.values())
    if isinstance(data, list):
        return any(_interpolates(value) for value in data)
    return isinstance(data, str) and "${" in data


def _refuse_resolvers(data: Any, where: str, key: str = "") -> None:
    """An experiment names its own keys only: the environment would leak into records and exports."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            _refuse_resolvers(value, where, f"{key}.{name}".lstrip("."))
    elif isinstance(data, list):
        for value in data:
            _refuse_resolvers(value, where, key)
    elif isinstance(data, str) and re.search(r"\$\{[^}]*:", data):
        raise ConfigError(where, key, f"{data!r} asks a resolver; interpolate keys of the experiment only")


def _interpolated(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Plain data with ``${training.steps}`` and the like replaced by what they name."""
    if not _interpolates(data):
        return copy.deepcopy(dict(data))
    _refuse_resolvers(data, where)
    try:
        plain = OmegaConf.to_container(OmegaConf.create(dict(data)), resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        raise ConfigError(where, str(key), f"{str(error).splitlines()[0]}; mend the interpolation") from None
    assert isinstance(plain, dict)
    return typing.cast(dict[str, Any], plain)


# --- rules that span fields -----------------------------------------------------------------------------------------


def _check(experiment: Experiment, where: str) -> None:
    model, training = experiment.model, experiment.training

    def refuse(key: str, problem: str) -> typing.NoReturn:
        raise ConfigError(where, key, problem)

    if model.hidden_size % model.num_heads:
        refuse(
            "model.num_heads",
            f"{model.num_heads} heads do not divide hidden_size {model.hidden_size}; choose a divisor",
        )
    if (model.hidden_size // model.num_heads) % 2:
        refuse(
            "model.num_heads",
            f"a head would be {model.hidden_size // model.num_heads} wide; rotary embeddings need an even width",
        )
    if model.num_heads % model.num_kv_heads:
        refuse(
            "model.num_kv_heads",
            f"{model.num_kv_heads} key-value heads do not divide num_heads {model.num_heads}; choose a divisor",
        )
    if problem := INITIALISERS.get(model.initialiser["name"]).refusal(model):
        refuse("model.initialiser", problem)

    name = experiment.objective["name"]
    objective: Any = OBJECTIVES.get(name)
    if objective.needs_process and experiment.process is None:
        refuse("process", f"objective '{name}' needs a corruption process; one of {', '.join(PROCESSES.names())}")
    if not objective.needs_process and experiment.process is not None:
        refuse("process", f"objective '{name}' corrupts nothing; write process: null")
    if refused := objective.refusal(experiment):
        refuse(*refused)
    causal = ATTENTION_PATTERNS.get(model.attention["name"]).causal
    if objective.causal not in (None, causal):
        fitting = [p for p in ATTENTION_PATTERNS.names() if ATTENTION_PATTERNS.get(p).causal == objective.causal]
        refuse(
            "model.attention",
            f"objective '{name}' cannot train {model.attention['name']} attention; choose {' or '.join(fitting)}",
        )
    if model.time_conditioning != "none" and experiment.process is None:
        refuse("model.time_conditioning", f"objective '{name}' has no noise level to condition on; write none")

    if training.warmup_steps > training.steps:
        refuse(
            "training.warmup_steps",
            f"{training.warmup_steps} warm-up steps exceed training.steps {training.steps}; "
            f"set it to {training.steps} or less too",
        )
    share = training.accumulation * experiment.runtime.devices
    if training.batch_size % share:
        refuse(
            "training.batch_size",
            f"{training.batch_size} sequences cannot be split over {training.accumulation} micro-batches × "
            f"{experiment.runtime.devices} devices; choose a multiple of {share}",
        )
    sampler_name = experiment.evaluation.sampler["name"]
    sampler: Any = SAMPLERS.get(sampler_name)
    if sampler.needs_process and experiment.process is None:
        refuse("evaluation.sampler", f"sampler '{sampler_name}' needs a corruption process; leave it out")
    if sampler.causal not in (None, causal):
        refuse(
            "evaluation.sampler",
            f"sampler '{sampler_name}' cannot write with {model.attention['name']} attention; leave it out",
        )
    if not experiment.evaluation.sampling_steps or min(experiment.evaluation.sampling_steps) < 1:
        refuse("evaluation.sampling_steps", "expected at least one number of steps, each 1 or more")
