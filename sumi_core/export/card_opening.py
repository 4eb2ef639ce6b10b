"""How an exported model is opened: lines of a model card that run, in each of its modes, with stock code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sumi_core.models import ATTENTION_PATTERNS

if TYPE_CHECKING:
    from sumi_core.models.attention import StockClass


def opening(record: dict[str, Any], summary: dict[str, Any]) -> Iterator[str]:
    """The section of a model card. record: sumi.json. summary: the stage's."""
    if summary["stock_loadable"]:
        attention = record["experiment"]["model"]["attention"]["name"]
        stock = ATTENTION_PATTERNS.get(attention).stock_class
        assert stock is not None
        modes = [mode["name"] for mode in record["modes"]]
        yield f"Stock transformers (5 or later), no remote code; it opens as `{stock.name}`."
        for mode in modes:
            yield ""
            yield from _READERS[mode](record, stock)
        if modes == ["whole"] and _stock_schedulers_write(record):
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


def _reading_whole(record: dict[str, Any], stock: StockClass) -> Iterator[str]:
    """One pass over a text: what it predicts of each token."""
    yield "Mode `whole`, one pass over a text, which denoises all of its tokens:"
    yield ""
    yield from _begin(stock)
    yield 'logits = model(**tokenizer("Some text", return_tensors="pt")).logits'
    yield "```"


def _reading_causally(record: dict[str, Any], stock: StockClass) -> Iterator[str]:
    """Stock generation."""
    yield "Mode `ar`, token by token, with stock `generate`:"
    yield ""
    yield from _begin(stock)
    yield "# Texts begin after an end-of-text token."
    yield 'prompt = tokenizer(tokenizer.eos_token + "Some text", return_tensors="pt")'
    yield "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0]))"
    yield "```"


def _reading_a_canvas(record: dict[str, Any], stock: StockClass) -> Iterator[str]:
    """One block through stock code: the clean text causally, the block's tokens all seeing each other."""
    n, previous = _blocks(record)
    yield f"Mode `canvas`, block by block: a block of {n} tokens is denoised given the text before it, through a 4-D"
    if any(mode["name"] == "ar" for mode in record["modes"]):
        yield "mask. One pass gives what it predicts of each token of the block:"
    else:
        yield "mask. Stock `generate` reads the weights causally, which they were not trained for. One pass gives what"
        yield "it predicts of each token of the block:"
    yield ""
    yield from _begin(stock, "import torch")
    yield "# An end-of-text token, then whole blocks of text, then a block in noise."
    yield f'ids = tokenizer(tokenizer.eos_token + "Some text. " * {n}, return_tensors="pt").input_ids[:, : 1 + {n}]'
    yield f"block = {_noise(record, n)}"
    if previous:
        yield "# The slot before a token predicts it: the last clean token stands in the block."
        yield f"block = torch.cat([ids[:, -1:], block], 1){'[:, :1]' if n == 1 else ''}"
        yield "seen, both = ids.shape[1] - 1, torch.cat([ids[:, :-1], block], 1)"
    else:
        yield "seen, both = ids.shape[1], torch.cat([ids, block], 1)"
    yield "mask = torch.ones(both.shape[1], both.shape[1], dtype=torch.bool).tril()"
    yield "mask[seen:, seen:] = True"
    yield f"logits = model(both, attention_mask=mask.view(1, 1, *mask.shape)).logits[:, seen : seen + {n}]"
    yield "```"


def _reading_with_drafts(record: dict[str, Any], stock: StockClass) -> Iterator[str]:
    """Greedy speculation: a pass that drafts, and one that reads the drafts causally, until enough stands."""
    (n, previous), tokens = _blocks(record), record["vocabulary"]["tokens"]
    yield "Mode `speculative`, token by token with drafts: one pass gives the next token exactly and drafts those"
    yield "after it, a second one reads them causally and keeps those that mode `ar` would have written. This writes"
    yield "the most probable tokens, the very text of mode `ar` without sampling:"
    yield ""
    yield from _begin(stock, "import torch")
    yield 'ids = tokenizer(tokenizer.eos_token + "Some text", return_tensors="pt").input_ids'
    yield "end, passes = ids.shape[1] + 32, 0"
    yield "while ids.shape[1] < end:"
    yield "    seen = ids.shape[1]"
    yield f"    block = {_noise(record, n)}"
    if previous:
        yield "    # The slot before a token predicts it: a copy of the last clean token begins the block in its"
        yield "    # place, and the block does not see the original."
        yield "    both = torch.cat([ids, ids[:, -1:], block], 1)"
        yield "    place = torch.arange(both.shape[1]) - (torch.arange(both.shape[1]) >= seen).long()"
    else:
        yield "    both = torch.cat([ids, block], 1)"
        yield "    place = torch.arange(both.shape[1])"
    yield "    mask = torch.ones(both.shape[1], both.shape[1], dtype=torch.bool).tril()"
    yield "    mask[seen:, seen:] = True"
    if previous:
        yield "    mask[seen:, seen - 1] = False"
    yield "    with torch.no_grad():"
    yield "        logits = model(both, attention_mask=mask.view(1, 1, *mask.shape), position_ids=place[None]).logits"
    yield f"        drafts = logits[..., :{tokens}].argmax(-1)[:, seen - 1 :]"
    yield "        # The first is exact; the slots of the block that predict the same token are not needed."
    yield f"        drafts = torch.cat([drafts[:, :1], drafts[:, 2:{n + 1}]], 1)"
    yield f"        wanted = model(torch.cat([ids, drafts], 1)).logits[:, seen:, :{tokens}].argmax(-1)"
    yield "    stands = 1 + int((drafts[:, 1:] == wanted[:, :-1]).long().cumprod(1).sum())"
    yield "    ids = torch.cat([ids, drafts[:, :stands], wanted[:, stands - 1 : stands]], 1)[:, :end]"
    yield "    passes += 2"
    yield "print(tokenizer.decode(ids[0]))"
    yield "```"


def _begin(stock: StockClass, *first: str) -> Iterator[str]:
    """The lines that every snippet begins with."""
    yield "```python"
    yield from first
    yield f"from transformers import {stock.auto}, AutoTokenizer"
    yield ""
    yield f'model = {stock.auto}.from_pretrained("this/folder")'
    yield 'tokenizer = AutoTokenizer.from_pretrained("this/folder")'


def _blocks(record: dict[str, Any]) -> tuple[int, bool]:
    """The length of blocks, and whether the slot before a token predicts it."""
    layout = record["experiment"]["layout"]
    return layout["length"], layout["read_out"] == "previous"


def _noise(record: dict[str, Any], n: int) -> str:
    """Python for a block of pure noise, ``[1, n]``."""
    tokens, mask = record["vocabulary"]["tokens"], record["vocabulary"]["mask_id"]
    return f"torch.randint({tokens}, (1, {n}))" if mask is None else f"torch.full((1, {n}), {mask})"


_READERS = {
    "ar": _reading_causally,
    "canvas": _reading_a_canvas,
    "speculative": _reading_with_drafts,
    "whole": _reading_whole,
}


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
