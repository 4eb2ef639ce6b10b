"""What drawing costs beside the network: a step's sampling arithmetic at a large V, under several noises, held to a
language, and by the rules of adaptive samplers.

    python benchmarks/sampling_step.py [--vocab-size 50000] [--length 128] [--batch-size 4] [--rounds 5] [--threads 1]
        [--processes uniform absorbing clustered] [--samplers confidence entropy_bound threshold] [--no-languages]

Times a denoiser of 12 layers of width 768 (``--layers``, ``--width``), and the third of four steps of the ancestral
sampler, all places still in noise, with one that returns the logits which that network gave: probabilities, draws and,
held to a JSON schema or a regular expression, messages through the automaton. The adaptive samplers write whole texts
under the first of the noises, as does what is held to a language. Tokens are random strings of one to eight printable
characters, in 256 clusters. Times are of the processor and not of the clock, so that what else the machine does counts
for little. Prints the median over rounds of arithmetic / network, and the spread; and how long each automaton takes,
once for all texts.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,8}$"}, "maxItems": 4},
    },
    "required": ["name", "age", "tags"],
}
REGEX = r"[A-Z][a-z]{0,11}( [a-z]{1,12}){2,40}\."


def random_tokens(count: int) -> list[bytes]:
    """An end of text, every printable character, and random strings of them."""
    generator = np.random.default_rng(0)
    letters = [bytes([byte]) for byte in range(0x20, 0x7F)]
    more = (bytes(generator.integers(0x20, 0x7F, size=generator.integers(1, 9)).astype(np.uint8)) for _ in range(count))
    return [b"", *letters, *more][:count]


def seconds(call: Callable[[], Any]) -> float:
    """Of one call, on all threads together."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab-size", type=int, default=50_000)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", nargs="+", default=["uniform", "absorbing", "clustered"])
    parser.add_argument("--samplers", nargs="*", default=["confidence", "entropy_bound", "threshold"])
    parser.add_argument("--no-languages", action="store_true", help="leave out texts that are held to a language")
    arguments = parser.parse_args()

    import torch

    from sumi_core.corruption import PROCESSES, SCHEDULES
    from sumi_core.data.vocabulary import Vocabulary
    from sumi_core.models.config import ModelConfig
    from sumi_core.models.denoiser import Denoiser
    from sumi_core.models.interface import FromLogits
    from sumi_core.sampling import SAMPLERS
    from sumi_core.sampling.canvas import Canvas
    from sumi_core.sampling.json_schema import schema_expression
    from sumi_core.sampling.languages import Languages, Stretch
    from sumi_core.sampling.regular import byte_automaton, character_automaton
    from sumi_core.sampling.token_automaton import token_automaton

    torch.set_num_threads(arguments.threads)
    rows, length, width = arguments.batch_size, arguments.length, arguments.width
    clusters = torch.randint(256, (arguments.vocab_size,), generator=torch.Generator().manual_seed(0))
    vocabulary = Vocabulary(arguments.vocab_size, 0, {"token_clusters": clusters})
    config = ModelConfig(
        hidden_size=width, intermediate_size=8 * width // 3, num_layers=arguments.layers, num_heads=width // 64,
        num_kv_heads=width // 64,
    )  # fmt: skip
    denoiser = Denoiser(config, arguments.vocab_size).eval()

    languages = {}
    if not arguments.no_languages:
        for kind, expression in (("JSON schema", schema_expression(SCHEMA)), ("regular expression", REGEX)):
            started = time.process_time()
            language = byte_automaton(character_automaton(expression))
            automaton = token_automaton(language, random_tokens(arguments.vocab_size), vocabulary.eos_id)
            states, classes = automaton.table.shape
            size = f"{states} states, {classes} classes of {arguments.vocab_size:,} tokens"
            print(f"automaton of the {kind}: {size}, {time.process_time() - started:.1f} s, once")
            languages[kind] = Languages(dict.fromkeys(range(rows), Stretch(automaton, 0, length, open_ended=True)))

    first = arguments.processes[0]
    cases: list[tuple[str, str, str, Languages | None]]
    cases = [(name, "ancestral", name, None) for name in arguments.processes]
    cases += [(f"{first}, held to a {kind}", "ancestral", first, held) for kind, held in languages.items()]
    cases += [(f"{first}, sampler {name}", name, first, None) for name in arguments.samplers]
    steps = {}
    for kind, name, noise, held in cases:
        process = PROCESSES.build(noise, {}, vocabulary=vocabulary, schedule=SCHEDULES.build("linear", {}))
        sampler = SAMPLERS.build(name, {}, process=process, vocabulary=vocabulary)
        nothing = [torch.zeros(0, dtype=torch.int64)] * rows
        blank = Canvas.blank(nothing, [length] * rows, seed=0, steps=4, constraints=[held] if held else [])
        sampler.check(blank)
        steps[kind] = sampler, dataclasses.replace(sampler.start(blank), age=2)
    with torch.no_grad():
        z = torch.randint(arguments.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
        logits = denoiser.logits(z, torch.ones(rows))
        beside = {logits.shape[-1] + more: torch.nn.functional.pad(logits, (0, more)) for more in (0, 1)}  # and a mask
        network: list[float] = []
        arithmetic: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(arguments.rounds):
            network.append(seconds(lambda: denoiser.logits(z, torch.ones(rows))))
            for name, (sampler, canvas) in steps.items():
                given = beside[sampler.num_states]
                known = FromLogits(functools.partial(lambda given, tokens, level: given, given))
                arithmetic[name].append(seconds(functools.partial(sampler.step, known, canvas)))
    print(f"network: {1000 * statistics.median(network):.0f} ms of the processor for {rows} x {length} tokens")
    for name, times in arithmetic.items():
        ratios = [own / beside for own, beside in zip(times, network, strict=True)]
        print(
            f"arithmetic, {name}: {1000 * statistics.median(times):.0f} ms; ratio to the network "
            f"{statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
