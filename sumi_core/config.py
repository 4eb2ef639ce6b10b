"""What an experiment is: a typed, validated record from which every stage is computed.

An experiment has sections (``corpus``, ``model``, ``training`` …). Sections that name a registered part are
*components*: ``process: uniform`` or ``process: {name: clustered, clusters: 64}``; the keys beside ``name`` are the
part's own ``Options``. Everything is checked here, before anything is computed, and every complaint is one sentence
that names the file, the key, what is wrong and what to do.

Two kinds of fields: *identity* fields decide what comes out and enter the fingerprints; the ``runtime`` section
(device, threads, cadence of logs and checkpoints) says how it is computed and never does.
"""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.data import SOURCES, TOKENIZERS
from sumi_core.evaluation import METRICS
from sumi_core.models import ATTENTION_PATTERNS, PRESETS
from sumi_core.objectives import OBJECTIVES
from sumi_core.registry import Registry, UnknownName, nearest
from sumi_core.sampling import SAMPLERS


class ConfigError(ValueError):
    """A config that cannot be run. One sentence: file, key, what is wrong, what to do."""

    def __init__(self, where: str, key: str, problem: str) -> None:
        super().__init__(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")
        self.where, self.key, self.problem = where, key, problem


def _number(default: Any, *, low: float | None = None, high: float | None = None, above: float | None = None) -> Any:
    """A numeric field with its allowed range: ``low <= value <= high`` and ``value > above``."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


def _choice(default: str, *choices: str) -> Any:
    return field(default=default, metadata={"choices": choices})


def _component(registry: Registry[Any], default: str | None, *, optional: bool = False) -> Any:
    """A field that names a registered part; in a resolved experiment a dict ``{name, **options}`` or None."""
    return field(
        default_factory=lambda: {"name": default} if default else None,
        metadata={"registry": registry, "optional": optional},
    )


@dataclass
class CorpusConfig:
    """Documents and their split. The split hashes documents, never paragraphs, so that near text does not leak."""

    source: Any = _component(SOURCES, "web-bible")
    validation_fraction: float = _number(0.05, above=0.0, high=0.5)
    deduplicate: bool = True  # drop documents whose text was already seen, byte for byte


@dataclass
class ShardsConfig:
    """Packing of tokens into sequences: documents are joined with an end-of-text token and cut every ``length``."""

    sequence_length: int = _number(128, low=2)
    shard_documents: int = _number(256, low=1)  # documents tokenized into one shard: the unit of parallelism and resume


@dataclass
class ModelConfig:
    """The denoiser's dimensions. ``preset`` fills in what is not written; it is a label and no identity field."""

    preset: str | None = None
    hidden_size: int = _number(128, low=2)
    intermediate_size: int = _number(352, low=1)
    num_layers: int = _number(4, low=1)
    num_heads: int = _number(4, low=1)
    num_kv_heads: int = _number(2, low=1)
    rope_theta: float = _number(10000.0, above=0.0)
    norm_epsilon: float = _number(1e-5, above=0.0)
    tie_embeddings: bool = False
    qk_norm: bool = False
    attention: str = "bidirectional"  # an attention pattern's name
    time_conditioning: str = _choice("none", "none", "adaln")
    init_std: float = _number(0.02, above=0.0)


@dataclass
class TrainingConfig:
    """Optimisation. A step is one optimizer update on ``batch_size`` sequences, whatever the devices."""

    steps: int = _number(1000, low=1)
    batch_size: int = _number(32, low=1)  # sequences per optimizer step, over all devices and accumulation
    accumulation: int = _number(1, low=1)  # micro-batches per step
    learning_rate: float = _number(1e-3, above=0.0)
    lr_schedule: str = _choice("cosine", "cosine", "wsd", "constant")
    warmup_steps: int = _number(100, low=0)
    decay_fraction: float = _number(0.2, above=0.0, high=1.0)  # wsd: the last part of the run that decays
    final_lr_fraction: float = _number(0.1, low=0.0, high=1.0)
    beta1: float = _number(0.9, low=0.0, high=1.0)
    beta2: float = _number(0.95, low=0.0, high=1.0)
    adam_epsilon: float = _number(1e-8, above=0.0)
    weight_decay: float = _number(0.1, low=0.0)
    gradient_clip: float = _number(1.0, low=0.0)  # 0: off
    ema_decay: float = _number(0.0, low=0.0, high=0.99999)  # 0: off
    precision: str = _choice("fp32", "fp32", "bf16")
    validate_every: int = _number(500, low=1)  # optimizer steps
    validation_sequences: int = _number(128, low=1)


@dataclass
class EvaluationConfig:
    """How a finished model is measured. Cells that share it are measured on the same sequences, times and noise."""

    sequences: int = _number(512, low=2)  # validation sequences, from the first
    times_per_sequence: int = _number(8, low=1)  # stratified noise levels drawn for each sequence
    time_epsilon: float = _number(1e-3, above=0.0, high=0.4)  # the bound integrates t over [eps, 1 - eps]
    metrics: list[str] = field(default_factory=lambda: ["unigram_entropy", "distinct", "repetition", "copy_rate"])
    sampler: Any = _component(SAMPLERS, None, optional=True)  # null: the objective's own
    sampling_steps: list[int] = field(default_factory=lambda: [8, 32, 128])
    samples: int = _number(16, low=1)  # texts drawn at each number of steps
    seed: int = _number(1, low=0)


@dataclass
class RuntimeConfig:
    """How things are computed; never part of a fingerprint. Threads are fixed since they change the last bits."""

    device: str = _choice("auto", "auto", "cpu", "cuda")
    devices: int = _number(1, low=1)
    threads: int = _number(2, low=1)
    data_workers: int = _number(2, low=1)  # processes that tokenize
    evaluation_batch: int = _number(64, low=1)
    log_every: int = _number(10, low=1)  # optimizer steps
    checkpoint_every: int = _number(200, low=1)  # optimizer steps
    compile: bool = False


@dataclass
class Experiment:
    """One experiment (a cell of a sweep), resolved. Component sections are dicts ``{name, **options}``."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: Any = _component(TOKENIZERS, "byte")
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    process: Any = _component(PROCESSES, "uniform", optional=True)
    schedule: Any = _component(SCHEDULES, "linear", optional=True)  # null where there is no process
    objective: Any = _component(OBJECTIVES, "nelbo")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    seed: int = _number(0, low=0)

    def to_dict(self) -> dict[str, Any]:
        """The resolved experiment as plain data, every default written out."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """``to_dict`` without what may not enter a fingerprint: the runtime section and the preset's label."""
        data = self.to_dict()
        del data["runtime"]
        del data["model"]["preset"]
        return data


# --- merging --------------------------------------------------------------------------------------------------------


def merge(low: Any, high: Any, schema: Any = Experiment) -> Any:
    """Lay ``high`` over ``low``: mappings merge, anything else replaces. A component whose name changes is replaced
    whole, since the old part's options mean nothing to the new one."""
    if not (isinstance(low, Mapping) and isinstance(high, Mapping)):
        return copy.deepcopy(high)
    merged = dict(low)
    fields = {f.name: f for f in dataclasses.fields(schema)} if dataclasses.is_dataclass(schema) else {}
    for key, value in high.items():
        declared = fields.get(key)
        below = low.get(key)
        if declared is not None and "registry" in declared.metadata:
            value, below = _as_component(value), _as_component(below)
            if (
                isinstance(below, Mapping)
                and isinstance(value, Mapping)
                and value.get("name") not in (None, below.get("name"))
            ):
                below = None
        inner = _inner_dataclass(declared) if declared is not None else None
        merged[key] = merge(below, value, inner)
    return merged


def _as_component(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _inner_dataclass(declared: dataclasses.Field[Any]) -> Any:
    hint = typing.get_type_hints(Experiment).get(declared.name)
    return hint if dataclasses.is_dataclass(hint) else None


# --- typed resolution -----------------------------------------------------------------------------------------------


def resolve(data: Mapping[str, Any], where: str) -> Experiment:
    """Turn merged plain data into a checked Experiment. ``where`` names the file in every complaint."""
    try:
        plain = OmegaConf.to_container(OmegaConf.create(dict(data)), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(where, "", f"{_first_line(error)}; mend the interpolation") from None
    assert isinstance(plain, dict)
    model = plain.get("model")
    if isinstance(model, dict) and model.get("preset") is not None:
        if model["preset"] not in PRESETS:
            raise ConfigError(
                where,
                "model.preset",
                f"no preset is called '{model['preset']}'; {nearest(str(model['preset']), PRESETS)}",
            )
        plain["model"] = {**PRESETS[model["preset"]], **model}
    experiment = _typed(Experiment, plain, where, "")
    if experiment.process is None:
        experiment.schedule = None  # means nothing without a process, so it must not change a fingerprint
    elif experiment.schedule is None:
        raise ConfigError(
            where,
            "schedule",
            f"process '{experiment.process['name']}' needs a noise schedule; one of {', '.join(SCHEDULES.names())}",
        )
    _check(experiment, where)
    return experiment


def check_keys(data: Any, where: str, schema: Any = Experiment, prefix: str = "", extra: tuple[str, ...] = ()) -> None:
    """Refuse keys that no section knows, in one file as it is written, so that the complaint names that file."""
    if data is None or not dataclasses.is_dataclass(schema):
        return
    if not isinstance(data, Mapping):
        raise ConfigError(where, prefix.rstrip("."), f"expected a mapping of keys, got {data!r}")
    hints = typing.get_type_hints(schema)
    for key, value in data.items():
        if key in extra:
            continue
        if key not in hints:
            raise ConfigError(where, f"{prefix}{key}", f"unknown key; {nearest(str(key), [*hints, *extra])}")
        check_keys_of = hints[key]
        if dataclasses.is_dataclass(check_keys_of):
            check_keys(value, where, check_keys_of, f"{prefix}{key}.")


def _typed(schema: type[Any], data: Mapping[str, Any], where: str, prefix: str) -> Any:
    check_keys(data, where, schema, prefix)
    hints = typing.get_type_hints(schema)
    values: dict[str, Any] = {}
    for declared in dataclasses.fields(schema):
        key = f"{prefix}{declared.name}"
        if declared.name not in data:
            continue
        value, hint = data[declared.name], hints[declared.name]
        if "registry" in declared.metadata:
            values[declared.name] = _typed_component(declared, value, where, key)
        elif dataclasses.is_dataclass(hint):
            values[declared.name] = _typed(typing.cast(type[Any], hint), value or {}, where, f"{key}.")
        else:
            values[declared.name] = _typed_value(hint, value, where, key)
            _check_range(declared, values[declared.name], where, key)
    result = schema(**values)
    for declared in dataclasses.fields(schema):  # defaults of components get their options written out too
        if "registry" in declared.metadata and declared.name not in values:
            default = getattr(result, declared.name)
            setattr(result, declared.name, _typed_component(declared, default, where, f"{prefix}{declared.name}"))
    return result


def _typed_component(declared: dataclasses.Field[Any], value: Any, where: str, key: str) -> dict[str, Any] | None:
    registry: Registry[Any] = declared.metadata["registry"]
    if value is None and declared.metadata["optional"]:
        return None
    return component(registry, value, where, key)


def component(registry: Registry[Any], value: Any, where: str, key: str) -> dict[str, Any]:
    """Check one component and write out its options: ``"linear"`` → ``{"name": "linear", "clip": 0.001}``."""
    value = _as_component(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError(
            where, key, f"expected the name of a {registry.kind} ({', '.join(registry.names())}), got {value!r}"
        )
    try:
        options = registry.options(value["name"])
    except UnknownName as error:
        raise ConfigError(where, key, str(error)) from None
    given = {k: v for k, v in value.items() if k != "name"}
    typed = _typed(options, given, where, f"{key}.")
    check = getattr(typed, "check", None)  # a part may refuse combinations of its own options
    if check is not None:
        try:
            check()
        except ValueError as error:
            raise ConfigError(where, key, str(error)) from None
    return {"name": value["name"], **dataclasses.asdict(typed)}


def _typed_value(hint: Any, value: Any, where: str, key: str) -> Any:
    """Convert a plain value to its declared type with OmegaConf's rules (``1e-3`` for a float, never ``"yes"`` for an int)."""
    expected = _type_name(hint)
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)
    if value is None and not optional:
        raise ConfigError(where, key, f"expected {expected}, got null; write a value or leave the key out")
    holder = dataclasses.make_dataclass("Holder", [("value", hint, field(default=None) if optional else field())])
    try:
        node = OmegaConf.merge(OmegaConf.structured(holder), {"value": value})
        converted = OmegaConf.to_container(node, throw_on_missing=True)["value"]  # type: ignore[index, call-overload]
    except (OmegaConfBaseException, ValueError, TypeError):
        raise ConfigError(where, key, f"expected {expected}, got {value!r}") from None
    if hint is float and not isinstance(value, bool) and converted != converted:
        raise ConfigError(where, key, "expected a number, got nan")
    if hint in (int, float) and isinstance(value, bool):
        raise ConfigError(where, key, f"expected {expected}, got {value!r}")
    return converted


def _type_name(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, str(hint).replace("typing.", ""))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _check_range(declared: dataclasses.Field[Any], value: Any, where: str, key: str) -> None:
    rule = declared.metadata
    if choices := rule.get("choices"):
        if value not in choices:
            raise ConfigError(where, key, f"no such choice '{value}'; {nearest(str(value), choices)}")
    if value is None:
        return
    if (low := rule.get("low")) is not None and value < low:
        raise ConfigError(where, key, f"must be at least {low:g}, got {value:g}")
    if (high := rule.get("high")) is not None and value > high:
        raise ConfigError(where, key, f"must be at most {high:g}, got {value:g}")
    if (above := rule.get("above")) is not None and value <= above:
        raise ConfigError(where, key, f"must be above {above:g}, got {value:g}")


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
    if model.attention not in ATTENTION_PATTERNS:
        refuse(
            "model.attention",
            f"no attention pattern is called '{model.attention}'; {nearest(model.attention, ATTENTION_PATTERNS.names())}",
        )

    objective: Any = OBJECTIVES.get(experiment.objective["name"])
    if objective.needs_process and experiment.process is None:
        refuse(
            "process",
            f"objective '{experiment.objective['name']}' needs a corruption process; one of {', '.join(PROCESSES.names())}",
        )
    if not objective.needs_process and experiment.process is not None:
        refuse("process", f"objective '{experiment.objective['name']}' corrupts nothing; write process: null")
    if model.attention not in objective.attention_patterns:
        refuse(
            "model.attention",
            f"objective '{experiment.objective['name']}' needs one of {', '.join(objective.attention_patterns)}, not '{model.attention}'",
        )
    if model.time_conditioning != "none" and experiment.process is None:
        refuse(
            "model.time_conditioning",
            f"objective '{experiment.objective['name']}' has no noise level to condition on; write none",
        )

    if training.warmup_steps > training.steps:
        refuse("training.warmup_steps", f"{training.warmup_steps} warm-up steps exceed training.steps {training.steps}")
    share = training.accumulation * experiment.runtime.devices
    if training.batch_size % share:
        refuse(
            "training.batch_size",
            f"{training.batch_size} sequences cannot be split over {training.accumulation} micro-batches × {experiment.runtime.devices} devices",
        )
    for metric in experiment.evaluation.metrics:
        if metric not in METRICS:
            refuse("evaluation.metrics", f"no sample metric is called '{metric}'; {nearest(metric, METRICS.names())}")
    if not experiment.evaluation.sampling_steps or min(experiment.evaluation.sampling_steps) < 1:
        refuse("evaluation.sampling_steps", "expected at least one number of steps, each 1 or more")
