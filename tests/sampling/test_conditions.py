"""What texts are to hold: prompts, gaps and languages as rows of a canvas, and what is exact about given tokens."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.base.options import ConfigError
from sumi_core.data import TOKENIZERS
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.conditions import Condition, Place, Row, languages, read_row
from sumi_core.sampling.generate import generate
from tests.corruption.enumerable import World, build_process, chi_square
from tests.models.stock import lively, small
from tests.objectives.worlds import told_posterior

HERE = Place("command line", "--")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    built: Tokenizer = TOKENIZERS.build("byte", {})
    built.train(iter([]))
    return built


def row_of(tokenizer: Tokenizer, **keys: Any) -> Row:
    return read_row(Condition(**keys), tokenizer, 16, HERE)


def shown(row: Row) -> str:
    """The row as text, with a dot for every token that has to be written."""
    return "".join(chr(i) if given else "." for i, given in zip(row.tokens.tolist(), row.frozen.tolist(), strict=True))


# --- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, "." * 16),
        ({"prompt": "In the "}, "In the ........."),
        ({"suffix": "end"}, ".............end"),
        ({"prompt": "In", "suffix": "end"}, "In...........end"),
        ({"prompt": "In", "length": 5}, "In..."),
        ({"template": "a[[3]]b[[2]]c"}, "a...b..c"),
        ({"template": "[[1]][x]]"}, ".[x]]"),
        ({"template": "a[[2]]b[[]]"}, "a..b............"),
        ({"template": "a[[]]"}, "a..............."),
    ],
    ids=str,
)
def test_given_text_stands_and_gaps_are_left(tokenizer: Tokenizer, keys: dict[str, Any], wanted: str) -> None:
    row = row_of(tokenizer, **keys)
    assert shown(row) == wanted
    assert row.stretch is None


def test_a_language_is_one_of_the_gap_and_may_end_before_it_where_nothing_follows(tokenizer: Tokenizer) -> None:
    def stretch(**keys: Any) -> tuple[int, int, bool]:
        found = row_of(tokenizer, regex="a*", **keys).stretch
        assert found is not None
        return found.begin, found.end, found.open_ended

    assert stretch() == (0, 16, True)
    assert stretch(prompt="In ") == (3, 16, True)
    assert stretch(prompt="In ", suffix="end") == (3, 13, False)
    assert stretch(template="x[[5]]") == (1, 6, False)
    assert stretch(template="x[[]]") == (1, 16, True)
    row = row_of(tokenizer, template="x[[]]yz")
    assert shown(row) == "x" + "." * 15
    assert row.stretch is not None
    assert (row.stretch.begin, row.stretch.end, row.stretch.open_ended) == (1, 16, True)


@pytest.mark.parametrize(
    ("keys", "inside", "outside"),
    [
        ({"regex": "(ab)*"}, ["", "abab"], ["a", "ba"]),
        ({"schema": {"type": "integer"}}, ["-12"], ["1.5", "a"]),
        ({"forbid": ["bad", "x"]}, ["ba d", "é\n"], ["abad", "x"]),
        ({"require": ["é"], "regex": "[a-zé]*"}, ["aé", "é"], ["a", "é."]),
        ({"regex": "a*", "forbid": ["aaa"], "require": ["aa"]}, ["aa"], ["a", "aaa", "aaaa"]),
        ({"template": "[[]]-[[]]!"}, ["a-b!", "-!", "--!!"], ["a-b", "a!", "a-b!c"]),
        ({"template": "[[]]. [[]]!", "regex": r"\d+"}, ["1. 22!"], ["1. a!", "1x 2!", ". 1!"]),
    ],
    ids=str,
)
def test_the_language_is_what_all_keys_allow(
    tokenizer: Tokenizer, keys: dict[str, Any], inside: list[str], outside: list[str]
) -> None:
    row = row_of(tokenizer, **keys)
    assert row.stretch is not None
    automaton, complete = row.stretch.automaton, row.stretch.automaton.complete(open_ended=True)
    for text in inside + outside:
        state = automaton.after(automaton.start, list(text.encode()))
        assert (state >= 0 and bool(complete[state])) == (text in inside), text


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"prompt": "x" * 16}, "--prompt: has 16 tokens, which leaves nothing to write in 16; shorten it or raise"),
        ({"suffix": "x" * 16}, "--suffix: has 16 tokens, which leaves nothing"),
        ({"prompt": "\udcff"}, "--prompt: is not UTF-8 text"),
        ({"template": "abc"}, r"--template: has no gap to fill in; write \[\[12\]\] for 12 tokens"),
        ({"template": "a[[0]]"}, "--template: has no gap to fill in"),
        ({"template": "a[[9999999999999]]"}, "--template: a gap of 9,999,999,999,999 tokens is longer than any text"),
        ({"template": "a[[ 12 ]]b[[3]]"}, r"--template: '\[\[ 12 \]\]' is not a gap; write \[\[12\]\] for 12 tokens"),
        ({"prompt": "x" * 9, "suffix": "y" * 9}, "--prompt: has 18 tokens with the suffix, which leaves nothing"),
        ({"forbid": [""]}, "--forbid: the empty text is in every text; leave it out"),
        ({"require": ["a", ""]}, "--require: the empty text is in every text; leave it out"),
        ({"template": "a[[2]]", "prompt": "b"}, "--prompt: a template is the whole text; write it into the template"),
        ({"template": "[[]]a[[2]]"}, "--template: has text after a gap of a free length and gaps of a given one"),
        ({"template": "[[2]]a", "length": 9}, "--length: is 9, but the template has 3 tokens; leave the length out"),
        ({"template": "[[2]]a[[2]]", "regex": "b"}, "--regex: the template has 2 gaps; a language needs"),
        ({"regex": "("}, r"--regex: '\(' is not a regular expression"),
        ({"regex": "a", "schema": {"type": "null"}}, "--schema: a regular expression and a schema cannot both decide"),
        ({"schema": {}}, "--schema: the schema: type is None"),
        ({"regex": "a{20}"}, "--regex: no text of the language fits into the 16 tokens .*; its shortest text has 20"),
        ({"regex": "a{600}"}, "its shortest text has many more"),
        ({"regex": "a", "forbid": ["a"]}, "--regex: no text of the language .*; no text is in it"),
        ({"template": "[[3]]", "regex": "(aa)*"}, "no text of the language fits into the 3 tokens"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(tokenizer: Tokenizer, keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"^command line: .*{complaint}"):
        row_of(tokenizer, **keys)


def test_a_tokenizer_whose_tokens_are_not_bytes_is_refused(tokenizer: Tokenizer) -> None:
    other: Tokenizer = TOKENIZERS.build("byte", {})
    other.byte_level = False
    with pytest.raises(ConfigError, match="--regex: the tokens of this tokenizer are not strings of bytes"):
        row_of(other, regex="a")


def test_rows_that_ask_for_the_same_share_an_automaton(tokenizer: Tokenizer) -> None:
    one, other = (row_of(tokenizer, prompt=prompt, regex="[ab]*") for prompt in ("x", "yz"))
    assert one.stretch is not None
    assert other.stretch is not None
    assert one.stretch.automaton is other.stretch.automaton


def test_every_row_keeps_its_own_condition(tokenizer: Tokenizer) -> None:
    keys: list[dict[str, Any]] = [
        {"prompt": "Day ", "regex": r"\d+"},
        {"template": "[[2]]: [[3]]"},
        {"template": "<[[]]>", "regex": "[a-z]*"},
        {"suffix": ".", "forbid": ["\x00", "a"], "length": 7},
        {"schema": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}},
    ]
    wanted = [r"Day \d+", r"(?s)..: ...", "<[a-z]*>", r"(?s)[^a\0]{1,6}\.", r"\[((true|false)(, (true|false))*)?\]"]
    rows = [row_of(tokenizer, **own) for own in keys]
    process = build_process("uniform", "linear", 257)
    sampler = SAMPLERS.build("ancestral", {}, process=process, vocabulary=Vocabulary(257, 256))
    drawn = sampler.sample(
        lively(Denoiser(small(), 257)),
        num=len(rows),
        length=[len(row.tokens) for row in rows],
        steps=3,
        seed=1,
        given=[(row.tokens, row.frozen) for row in rows],
        constraints=languages(rows),
    )
    for row, tokens, pattern in zip(rows, drawn.tokens.tolist(), wanted, strict=True):
        own = tokens[: len(row.tokens)]
        assert torch.equal(torch.tensor(own)[row.frozen], row.tokens[row.frozen])
        if row.stretch is None:
            continue
        text = bytes(own[: own.index(256)] if 256 in own else own).decode()
        assert re.fullmatch(pattern, text), text


# --- what is exact --------------------------------------------------------------------------------------------------

GIVEN = torch.tensor([False, True, False])


def ends(
    world: World, token: int, steps: int, told: bool, name: str = "ancestral", options: dict[str, Any] | None = None
) -> Tensor:
    """Where infilling around a given token ends, exactly: p over the states of the two free places, ``[S, S]``."""
    sampler = SAMPLERS.build(name, options or {}, process=world.process, vocabulary=Vocabulary(world.tokens, 0))
    free = torch.cartesian_prod(torch.arange(world.states), torch.arange(world.states))
    states = torch.stack([free[:, 0], torch.full_like(free[:, 0], token), free[:, 1]], 1)
    corrections = sampler.options.corrections if name != "ancestral" else 0

    def predicted(z: Tensor, t: Tensor) -> Tensor:
        return told_posterior(world, z, torch.where(GIVEN & told, 0.0, t).expand(z.shape))

    def corrected(found: Tensor, t: Tensor) -> Tensor:
        """After as many redraws of one of the two places, each as likely."""
        held = found > 0
        clean = world.process.denoiser(predicted(states[held], t))
        probs = world.process.marginal(clean, t.view(1, 1).expand(clean.shape[:2]))
        alike = [states[held][:, None, other] == states[None, :, other] for other in (2, 0)]
        kernel = sum(probs[:, i, states[:, i]] * same for i, same in zip((0, 2), alike, strict=True)) / 2
        square = torch.zeros(len(states), len(states), dtype=torch.float64)
        square[held] = kernel
        return found @ torch.linalg.matrix_power(square, corrections)

    def denoised(found: Tensor, times: Tensor) -> Tensor:
        for t, s in itertools.pairwise(times):
            held = found > 0
            probs = world.process.reverse(predicted(states[held], t), states[held], t.view(1, 1), s.view(1, 1))
            found = found[held] @ (probs[:, 0, free[:, 0]] * probs[:, 2, free[:, 1]])
            if name == "predictor_corrector" and s > 0:
                found = corrected(found, s)
        return found

    distribution = denoised(world.pi[free].prod(-1), sampler.levels(steps))
    if name == "self_correction":
        back = sampler._back(steps)
        one = torch.eye(world.states, dtype=torch.float64)
        hit = world.process.marginal(one, back[0].expand(world.states))
        noised = distribution @ (hit[free[:, 0]][:, free[:, 0]] * hit[free[:, 1]][:, free[:, 1]])
        distribution = denoised(corrected(noised, back[0]), back)
    return distribution.view(world.states, world.states)


def conditional(world: World, token: int) -> Tensor:
    """p(x_0, x_2 | x_1), ``[S, S]``, 0 on what is not a token."""
    found = torch.zeros(world.states, world.states, dtype=torch.float64)
    own = world.p.view([world.tokens] * 3)[:, token]
    found[: world.tokens, : world.tokens] = own / own.sum()
    return found


TOLD: list[tuple[str, dict[str, Any]]] = [
    ("ancestral", {}),
    ("predictor_corrector", {"corrections": 3}),
    ("self_correction", {"noise": 0.3, "corrections": 3}),
]
samplers_of_p = pytest.mark.parametrize(("name", "options"), TOLD, ids=[name for name, _ in TOLD])


@samplers_of_p
@pytest.mark.parametrize("process", ["uniform", "hybrid", "clustered", "absorbing"])
def test_a_denoiser_that_is_told_what_is_clean_fills_in_exactly(
    process: str, name: str, options: dict[str, Any]
) -> None:
    """As the steps get finer, infilling tends to p(· | given); not told, it does not, however fine they are."""
    world = World(process, tokens=3, length=3)

    def distance(steps: int, told: bool) -> float:
        return float((ends(world, 2, steps, told, name, options) - conditional(world, 2)).abs().sum() / 2)

    coarse, finer, finest = (distance(steps, told=True) for steps in (4, 16, 64))
    assert coarse > finer > finest
    assert finest < 0.012
    if process != "absorbing":  # masks tell it by themselves, and at level 1 no token can stand
        assert distance(64, told=False) > 5 * finest


@samplers_of_p
@pytest.mark.parametrize("told", [True, False])
def test_the_sampler_tells_it_and_draws_from_that_chain(told: bool, name: str, options: dict[str, Any]) -> None:
    world = World("uniform", tokens=3, length=3)
    sampler = SAMPLERS.build(name, options, process=world.process, vocabulary=Vocabulary(3, 0))
    seen: list[Tensor] = []

    def denoiser(z: Tensor, level: Tensor | None) -> Tensor:
        assert level is not None
        seen.append(level)
        return told_posterior(world, z, level if level.ndim > 1 else level[:, None])

    tokens = torch.tensor([[0, 2, 0]] * 4000)
    canvas = Canvas.of(tokens, GIVEN.expand(4000, -1), seed=3, steps=4, told=told)
    *_, final = generate(sampler, FromLogits(denoiser), canvas)
    drawn = final.tokens[:, 0] * 3 + final.tokens[:, 2]
    assert chi_square(drawn, ends(world, 2, 4, told, name, options).flatten()) > 1e-3
    assert chi_square(drawn, ends(world, 2, 4, not told, name, options).flatten()) < 1e-6
    assert {level.shape for level in seen} == ({(4000, 3)} if told else {(4000,)})


def test_first_hitting_fills_in_exactly() -> None:
    """In as many calls as there are masks, and told nothing: a given token cannot be noise."""
    world = World("absorbing", tokens=3, length=3)
    sampler = SAMPLERS.build("first_hitting", {}, process=world.process, vocabulary=Vocabulary(3, 0))
    half = torch.full((1,), 0.5, dtype=torch.float64)  # any level predicts the same
    network = FromLogits(lambda z, level: world.denoiser(z, half.expand(len(z))).nan_to_num(0.0))
    canvas = Canvas.of(torch.tensor([[0, 2, 0]] * 4000), GIVEN.expand(4000, -1), seed=3, steps=1)
    *_, final = generate(sampler, network, canvas)
    assert final.nfe.unique().tolist() == [2]
    drawn = final.tokens[:, 0] * world.states + final.tokens[:, 2]
    assert chi_square(drawn, conditional(world, 2).flatten()) > 1e-3
    assert chi_square(drawn, conditional(world, 1).flatten()) < 1e-6


@pytest.mark.parametrize("process", ["uniform", "unigram", "clustered", "hybrid", "mixture", "absorbing"])
def test_all_noise_but_masks_alone_writes_tokens(process: str) -> None:
    assert build_process(process).noise_writes_tokens is (process != "absorbing")
