"""The model card: what the model is, what it was made from, how good it is, how to open it, what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES
from sumi_core.layouts import LAYOUTS
from sumi_core.models import ATTENTION_PATTERNS, FEEDBACK, feedback_source

if TYPE_CHECKING:
    from sumi_core.models.attention import StockClass

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
        ("How to open it", list(_opening(record, summary))),
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
    for kind, size in summary["weights_bytes"].items():
        yield f"| Memory for the weights, {kind} | {size / 2**20:,.1f} MiB |"
    if summary["max_logit_difference"] is not None:
        yield f"| Largest logit difference to stock transformers | {summary['max_logit_difference']:.1e} |"
    yield ""
    kind = "exact" if record["process"] is None else "Monte-Carlo estimates of an upper bound"
    yield f"The validation figures are {kind}, on {record['experiment']['training']['validation_sequences']} sequences"
    yield "spread over the validation split: a look in passing. Models are compared by their evaluation, on more"
    yield f"sequences, made after this card: `sumi compare {record['key']}`."


def _is_known(value: Any) -> bool:
    """Not for one that is None, or NaN in a record of an earlier version."""
    return value is not None and value == value


def _opening(record: dict[str, Any], summary: dict[str, Any]) -> Iterator[str]:
    if summary["stock_loadable"]:
        attention = record["experiment"]["model"]["attention"]["name"]
        stock = ATTENTION_PATTERNS.get(attention).stock_class
        assert stock is not None
        if record["experiment"]["layout"]["name"] == "blocks":
            yield from _opening_blocks(record, stock)
        else:
            yield from _opening_stock(stock)
            if _stock_schedulers_write(record):
                yield from _writing_stock(record, stock)
        if record["experiment"]["model"]["feedback"]:
            yield from _opening_feedback(record)
    else:
        yield f"Stock transformers cannot open the weights: {summary['reason']}."
        yield "The tokenizer opens with AutoTokenizer."
    yield ""
    yield "Sumi, for likelihoods and samples:"
    yield ""
    yield "```python"
    yield "from sumi_core.export import load_exported"
    yield ""
    yield 'model = load_exported("this/folder")'
    yield "samples = model.parts.sampler.sample(model.denoiser, num=4, length=128, steps=64, seed=0)"
    yield "print(model.tokenizer.decode(samples.tokens[0]))"
    yield "```"


def _opening_blocks(record: dict[str, Any], stock: StockClass) -> Iterator[str]:
    """One block through stock code: the clean text causally, the block's tokens all seeing each other."""
    layout = record["experiment"]["layout"]
    n, previous = layout["length"], layout["read_out"] == "previous"
    yield f"Stock transformers (5 or later), no remote code; it opens as `{stock.name}`. The weights denoise a block of"
    yield f"{n} tokens given the text before it, through a 4-D mask. Stock `generate` reads them causally, which they"
    yield "were not trained for:"
    yield ""
    yield "```python"
    yield "import torch"
    yield f"from transformers import {stock.auto}, AutoTokenizer"
    yield ""
    yield f'model = {stock.auto}.from_pretrained("this/folder")'
    yield 'tokenizer = AutoTokenizer.from_pretrained("this/folder")'
    yield "# An end-of-text token, then whole blocks of text, then a block in noise."
    yield f'ids = tokenizer(tokenizer.eos_token + "Some text. " * {n}, return_tensors="pt").input_ids[:, : 1 + {n}]'
    noise = record["vocabulary"]["mask_id"]
    drawn = f"torch.randint({record['vocabulary']['tokens']}, (1, {n}))"
    yield f"block = {drawn if noise is None else f'torch.full((1, {n}), {noise})'}"
    if previous:
        clean = "ids[:, :-1]"
        yield "# The slot before a token predicts it: the last clean token stands in the block."
        yield f"block = torch.cat([ids[:, -1:], block], 1){'[:, :1]' if n == 1 else ''}"
        yield f"seen, both = ids.shape[1] - 1, torch.cat([{clean}, block], 1)"
    else:
        yield "seen, both = ids.shape[1], torch.cat([ids, block], 1)"
    yield "mask = torch.ones(both.shape[1], both.shape[1], dtype=torch.bool).tril()"
    yield "mask[seen:, seen:] = True"
    yield f"logits = model(both, attention_mask=mask.view(1, 1, *mask.shape)).logits[:, seen : seen + {n}]"
    yield "```"


def _opening_stock(stock: StockClass) -> Iterator[str]:
    yield f"Stock transformers (5 or later), no remote code; it opens as `{stock.name}`:"
    yield ""
    yield "```python"
    yield f"from transformers import {stock.auto}, AutoTokenizer"
    yield ""
    yield f'model = {stock.auto}.from_pretrained("this/folder")'
    yield 'tokenizer = AutoTokenizer.from_pretrained("this/folder")'
    if stock.writes:
        yield "# Texts begin after an end-of-text token."
        yield 'prompt = tokenizer(tokenizer.eos_token + "Some text", return_tensors="pt")'
        yield "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0]))"
    else:
        yield 'logits = model(**tokenizer("Some text", return_tensors="pt")).logits'
    yield "```"


def _opening_feedback(record: dict[str, Any]) -> Iterator[str]:
    """A second pass that is given what the first one predicted, through the embeddings."""
    rho, mask = record["experiment"]["model"]["feedback"]["rho"], record["vocabulary"]["mask_id"]
    tokens = record["vocabulary"]["tokens"]
    yield ""
    yield "These logits are of a pass without feedback. One that is given what it predicted takes `inputs_embeds`:"
    yield f"e = (1 − ρ a) E(z) + ρ a Σ P(v) E(v) with ρ = {rho:g}; P is the prediction, and a how much of it z does not"
    yield "say already, the chance that z is noise times H(P)/log V."
    experiment, process = record["experiment"], record["process"]["name"]
    readings = {experiment["model"]["feedback"]["reading"], experiment["parameterisation"]["name"]}
    if experiment["layout"]["name"] != "whole":
        return
    if process != "absorbing" and not (process == "uniform" and readings <= {"own", "leave_one_out"}):
        return
    yield ""
    yield "```python"
    yield "import math, torch"
    yield ""
    yield 'ids = tokenizer("Some text", return_tensors="pt").input_ids'
    if mask is not None:
        yield f"ids[:, 1:] = {mask}  # masks; a token is never noise"
    yield f"table, p = model.get_input_embeddings().weight, model(ids).logits[..., :{tokens}].softmax(-1)"
    if mask is None:
        yield f"alpha = 0.5  # share of the tokens that noise has not hit; it makes each of the {tokens} of the others"
        yield f"noise = (1 - alpha) / {tokens}"
        yield "chance = noise / (alpha * p.gather(-1, ids.unsqueeze(-1)) + noise)"
    else:
        yield f"chance = (ids == {mask}).unsqueeze(-1)"
    yield f"a = {rho:g} * chance * torch.special.entr(p).sum(-1, keepdim=True) / math.log({tokens})"
    yield f"embedded = (1 - a) * table[ids] + a * (p @ table[:{tokens}])"
    yield "logits = model(inputs_embeds=embedded).logits"
    yield "```"


def _stock_schedulers_write(record: dict[str, Any]) -> bool:
    """Whether stock diffusers has the reverse step of the model's noise, uniform, of all positions at one level. They
    carry no feedback from step to step."""
    process, experiment = record["process"], record["experiment"]
    if process is None or experiment["model"]["feedback"]:
        return False
    return process["name"] == "uniform" and experiment["clock"]["name"] == "shared"


def _writing_stock(record: dict[str, Any], stock: StockClass) -> Iterator[str]:
    """The ancestral sampler, in code of stock diffusers: it wants p(x_i | z), and time in which α = 1 − t."""
    tokens, length = record["vocabulary"]["tokens"], record["experiment"]["shards"]["sequence_length"]
    posterior = record["experiment"]["parameterisation"]["name"] == "posterior"
    yield ""
    yield "With stock diffusers (0.42 or later) beside it they write text, with no code of Sumi. It is the sampler"
    yield "`ancestral` with `grid: linear`:"
    yield ""
    yield "```python"
    yield "import torch"
    yield "from diffusers import DiscreteDDIMScheduler"
    yield f"from transformers import {stock.auto}, AutoTokenizer"
    yield ""
    yield f'model = {stock.auto}.from_pretrained("this/folder").eval()'
    yield 'tokenizer = AutoTokenizer.from_pretrained("this/folder")'
    yield f"steps, tokens = 64, {tokens}"
    yield "scheduler = DiscreteDDIMScheduler(num_inference_steps=steps)"
    yield f"z = torch.randint(tokens, (1, {length}))"
    yield "for step in range(steps):"
    yield "    with torch.no_grad():"
    yield "        logits = model(z).logits[..., :tokens]"
    if not posterior:
        yield "    # They leave a position's own token out; the scheduler wants it in."
        yield "    survived = torch.full((*z.shape, 1), step / steps, dtype=torch.float64)"
        yield "    own = torch.log1p(tokens * survived / (1 - survived))"
        yield "    logits = logits.double().scatter_add(-1, z.unsqueeze(-1), own)"
    yield "    z = scheduler.step(logits, step, z, temperature=1.0).prev_sample"
    yield "print(tokenizer.decode(z[0]))"
    yield "```"


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
