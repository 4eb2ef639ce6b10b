"""The model card: what the model is, what it was made from, how good it is, how to open it, what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES
from sumi_core.export.card_opening import opening
from sumi_core.layouts import LAYOUTS
from sumi_core.models import ATTENTION_PATTERNS, FEEDBACK, feedback_source
from sumi_core.sampling.modes import MODES

_FIGURES = (  # key in the training summary → line of the card, format
    ("validation_bits_per_byte", "Validation bits per byte, during training", ".4f"),
    ("validation_nats_per_token", "Validation nats per token, during training", ".4f"),
    ("train_loss", "Last training loss", ".4f"),
    ("tokens_seen", "Training tokens", ",.0f"),
    ("steps", "Optimizer steps", ",.0f"),
    ("epochs", "Passes over the training text", ".2f"),
    ("flops", "Training FLOPs", ".3e"),
    ("seconds", "Training seconds", ",.0f"),
    ("device", "Trained on", "s"),
)


def model_card(record: dict[str, Any], summary: dict[str, Any], licence: str) -> str:
    """README.md of an export, YAML front matter included.

    record: sumi.json. summary: the stage's. licence: of the training text, as its source states it.
    """
    import yaml

    front = yaml.safe_dump(_front_matter(record, summary), sort_keys=False, allow_unicode=True)
    sections = (
        ("", [_what(record, summary)]),
        ("Training data", [_data(record, licence)]),
        ("Figures", list(_figures(record, summary))),
        ("Modes", list(_modes(record))),
        ("How to open it", list(opening(record, summary))),
        ("Limits", list(_limits(record, summary))),
        ("Lineage", list(_lineage(record))),
    )
    body = "\n\n".join("\n".join([f"## {title}\n", *lines] if title else lines) for title, lines in sections)
    return f"---\n{front}---\n\n# {record['key']}\n\n{body}\n"


def _front_matter(record: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    process = record["process"]
    kind = f"{process['name']}-diffusion" if process else "autoregressive"
    front: dict[str, Any] = {
        "library_name": "transformers" if summary["stock_loadable"] else "sumi",
        "tags": ["sumi", "diffusion-language-model" if process else "language-model", kind],
    }
    if summary["stock_loadable"] and process is None:
        front["pipeline_tag"] = "text-generation"
    return front


def _what(record: dict[str, Any], summary: dict[str, Any]) -> str:
    model, vocabulary = record["experiment"]["model"], record["vocabulary"]
    shape = (
        f"A LLaMA-style transformer with {model['attention']['name']} attention: {summary['parameters']:,} parameters, "
        f"{model['num_layers']} layers, width {model['hidden_size']}, {model['num_heads']} query and "
        f"{model['num_kv_heads']} key-value heads, SwiGLU {model['intermediate_size']}, "
        f"{vocabulary['tokens']:,} tokens{' and a mask' if vocabulary['mask_id'] is not None else ''}, "
        f"{'tied' if model['tie_embeddings'] else 'untied'} embeddings."
    )
    return f"{_describe_process(record)} {shape}"


def _describe_process(record: dict[str, Any]) -> str:
    process, schedule = record["process"], record["schedule"]
    if process is None:
        return "An autoregressive language model: it predicts each token from the ones before it."
    clock, reading = (record["experiment"][part]["name"] for part in ("clock", "parameterisation"))
    layout = record["experiment"]["layout"]["name"]
    shown = f" Layout `{layout}`: {LAYOUTS.get(layout).description}." if layout != "whole" else ""
    return (
        f"A discrete diffusion language model, process `{process['name']}` with the `{schedule['name']}` schedule: "
        f"corruption {PROCESSES.get(process['name']).description}. Clock `{clock}`: {CLOCKS.get(clock).description}. "
        f"Parameterisation `{reading}`: {PARAMETERISATIONS.get(reading).description}.{shown}"
        f"{_describe_feedback(record)}"
    )


def _describe_feedback(record: dict[str, Any]) -> str:
    form, source = record["experiment"]["model"]["feedback"], feedback_source(record["experiment"]["objective"])
    if not form or not source:
        return ""
    asked = f" of `{source['of']['cell']}`" if source.get("of") else ""
    return (
        f" Feedback `{form['name']}`, trained on source `{source['name']}`{asked}: the model reads what an earlier "
        f"pass predicted, and {FEEDBACK.get(form['name']).description}."
    )


def _data(record: dict[str, Any], licence: str) -> str:
    corpus, length = record["experiment"]["corpus"], record["experiment"]["shards"]["sequence_length"]
    source = corpus["source"]
    shown = {key: value for key, value in source.items() if key not in ("name", "licence") and value is not None}
    options = ", ".join(f"{key}: {value}" for key, value in shown.items())
    return (
        f"Source `{source['name']}`{f' ({options})' if options else ''}, licence: {licence or 'not stated'}; "
        f"{1 - corpus['validation_fraction']:.0%} of the documents, packed into sequences of {length} tokens. "
        "The licence of these weights is for whoever publishes them to state."
    )


def _figures(record: dict[str, Any], summary: dict[str, Any]) -> Iterator[str]:
    yield "| figure | value |"
    yield "|---|---|"
    yield f"| Parameters | {summary['parameters']:,} |"
    training = record["training"]
    for key, label, form in _FIGURES:
        value = training.get(key)
        if not _is_known(value):
            continue
        error = training.get(f"{key}_stderr")
        yield f"| {label} | {value:{form}}{f' ± {error:{form}}' if _is_known(error) else ''} |"
    sensitivity = record["own_token_sensitivity"]
    if sensitivity is not None:
        yield f"| Own-token sensitivity at {sensitivity['noise']:.0%} noise | {_sensitivity(sensitivity)} |"
    for kind, size in summary["weights_bytes"].items():
        yield f"| Memory for the weights, {kind} | {size / 2**20:,.1f} MiB |"
    if summary["max_logit_difference"] is not None:
        yield f"| Largest logit difference to stock transformers | {summary['max_logit_difference']:.1e} |"
    yield ""
    kind = "exact" if record["process"] is None else "Monte-Carlo estimates of an upper bound"
    yield f"The validation figures are {kind}, on {record['experiment']['training']['validation_sequences']} sequences"
    yield "spread over the validation split: a look in passing. Models are compared by their evaluation, on more"
    yield f"sequences, made after this card: `sumi compare {record['key']}`."
    if sensitivity is not None:
        yield ""
        yield from _what_sensitivity_is(sensitivity)


def _sensitivity(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "not known: no probe drew another token"
    if not found["sequences"]:
        return "0 by definition"
    error = "" if found["stderr"] is None else f" ± {found['stderr']:.4f}"
    return f"{found['value']:.4f}{error}"


def _what_sensitivity_is(found: dict[str, Any]) -> Iterator[str]:
    yield "Own-token sensitivity is the total variation between the leave-one-out predictions (Gourevitch et al.,"
    yield "2605.22765) at a position before and after another draw of the noise replaces the token there, 0 for a"
    yield "prediction that leaves its own token out:"
    if found["sequences"]:
        yield f"the mean over {found['probes']} positions of each of {found['sequences']} validation sequences, ± over"
        yield "documents. The measurement `calibration` takes more sequences and levels."
    else:
        yield "only masks are predicted here, which carry no token."


def _is_known(value: Any) -> bool:
    """Not for one that is None, or NaN in a record of an earlier version."""
    return value is not None and value == value


def _modes(record: dict[str, Any]) -> Iterator[str]:
    """What stands in sumi.json as ``modes``, as a table."""
    yield "| mode | how it writes | what it writes from | blocks of | read-out |"
    yield "|---|---|---|---|---|"
    for mode in record["modes"]:
        likelihood = "exact likelihood" if mode["exact"] else "upper bound on −log p"
        trained = "" if mode["trained"] else ", not trained"
        lengths = " or ".join(map(str, mode.get("lengths", ()))) or "–"
        description = MODES[mode["name"]].description
        yield f"| `{mode['name']}` | {description} | {likelihood}{trained} | {lengths} | {mode.get('read_out', '–')} |"


def _limits(record: dict[str, Any], summary: dict[str, Any]) -> Iterator[str]:
    length = record["experiment"]["shards"]["sequence_length"]
    yield f"- Trained on sequences of {length} tokens; longer ones are untried."
    yield "- It continues text like its training text. It was not taught to follow instructions, nor made safe."
    yield "- No attention mask separates documents within a sequence; an end-of-text token does."
    if record["process"] is not None:
        yield "- One forward pass denoises, it does not write: a text takes a sampler with many passes."
        attention = record["experiment"]["model"]["attention"]["name"]
        stock = ATTENTION_PATTERNS.get(attention).stock_class
        demands = summary["stock_loadable"] and stock is not None and stock.needs_mask
        if record["vocabulary"]["mask_id"] is None and demands:
            yield "- There is no mask token; the class demands one, so `mask_token_id` in config.json is end-of-text's."


def _lineage(record: dict[str, Any]) -> Iterator[str]:
    code = record["code"]
    commit = f"commit {code['commit']}" if code["commit"] else "no git checkout"
    changes = " with uncommitted changes" if code["dirty"] else ""
    yield f"Cell `{record['key']}`, seed {record['experiment']['seed']}; code: {commit}{changes}."
    yield "All settings and package versions are in sumi.json."
    yield ""
    yield "| stage | fingerprint |"
    yield "|---|---|"
    for stage, own in record["fingerprints"].items():
        yield f"| {stage} | `{own}` |"
