"""What drawing costs beside the network: a step's sampling arithmetic, under several noises and held to a JSON schema,
at a large V.

    python benchmarks/sampling_step.py [--vocab-size 50000] [--length 128] [--batch-size 4] [--rounds 5] [--threads 1]
        [--processes uniform absorbing clustered] [--no-schema]

Times a denoiser of 12 layers of width 768 (``--layers``, ``--width``), and the third of four steps of the ancestral
sampler, all places still in noise, with one that returns the logits which that network gave: probabilities, draws and,
held to a schema, messages through the automaton. Tokens are random strings of one to eight printable characters, in 256
clusters. Times are of the processor and not of the clock, so that what else the machine does counts for little. Prints
the median over rounds of arithmetic / network, and the spread; and how long the automaton of the schema takes, once for
all texts.
"""

from __future__ import annotations

import argparse
import dataclasses
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
    parser.add_argument("--no-schema", action="store_true", help="leave out the text that is held to a schema")
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

    held = None
    if not arguments.no_schema:
        started = time.process_time()
        language = byte_automaton(character_automaton(schema_expression(SCHEMA)))
        automaton = token_automaton(language, random_tokens(arguments.vocab_size), vocabulary.eos_id)
        states, classes = automaton.table.shape
        built = time.process_time() - started
        print(f"automaton: {states} states, {classes} classes of {arguments.vocab_size:,} tokens, {built:.1f} s, once")
        held = Languages(dict.fromkeys(range(rows), Stretch(automaton, 0, length, open_ended=True)))

    steps = {}
    for name in arguments.processes:
        process = PROCESSES.build(name, {}, vocabulary=vocabulary, schedule=SCHEDULES.build("linear", {}))
        sampler = SAMPLERS.build("ancestral", {}, process=process, vocabulary=vocabulary)
        for kind, constraints in ((name, []), (f"{name}, held to a schema", [held] if held else None)):
            if constraints is None or (constraints and name != arguments.processes[0]):
                continue
            blank = Canvas.blank(
                [torch.zeros(0, dtype=torch.int64)] * rows, [length] * rows, seed=0, steps=4, constraints=constraints
            )
            sampler.check(blank)
            steps[kind] = sampler, dataclasses.replace(sampler.start(blank), age=2)
    with torch.no_grad():
        z = torch.randint(arguments.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
        logits = denoiser.logits(z, torch.ones(rows))
        beside = {logits.shape[-1] + more: torch.nn.functional.pad(logits, (0, more)) for more in (0, 1)}  # and a mask
        network, arithmetic = [], {name: [] for name in steps}
        for _ in range(arguments.rounds):
            network.append(seconds(lambda: denoiser.logits(z, torch.ones(rows))))
            for name, (sampler, canvas) in steps.items():
                known = FromLogits(lambda tokens, level, given=beside[sampler.num_states]: given)
                arithmetic[name].append(seconds(lambda s=sampler, k=known, c=canvas: s.step(k, c)))
    print(f"network: {1000 * statistics.median(network):.0f} ms of the processor for {rows} x {length} tokens")
    for name, times in arithmetic.items():
        ratios = [own / beside for own, beside in zip(times, network, strict=True)]
        print(
            f"arithmetic, {name}: {1000 * statistics.median(times):.0f} ms; ratio to the network "
            f"{statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
