"""Structured tasks: instances are reproducible and not leaked, and checkers accept what is right and nothing else."""

from __future__ import annotations

import ast
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.data import SOURCES, TASKS
from sumi_core.data.config import CorpusConfig
from sumi_core.data.corpus import read_texts, write_corpus
from sumi_core.data.sources.task import TaskInstances
from sumi_core.data.tasks.python_function import value_of
from sumi_core.data.tasks.task import Instance, Task
from sumi_core.experiments.resolve import resolve

PRINTABLE = [chr(code) for code in range(32, 127)]
SMALL: dict[str, dict[str, Any]] = {  # few questions, so that the same ones come again
    "arithmetic": {"digits": 2},
    "brackets": {"half": 4},
    "copy": {"letters": 1},
    "csv": {"rows": 1, "most": 3},
    "json": {"letters": 1},
    "markdown": {"columns": 1, "rows": 1, "width": 1},
    "python": {"operators": 1, "examples": 1},
    "replace": {"letters": 2},
    "reverse": {"letters": 1},
    "shuffle": {"letters": 2},
    "sudoku": {"holes": 13},
}
each_task = pytest.mark.parametrize("name", TASKS.names())


def source(name: str, instances: int, seed: int = 0, **options: Any) -> TaskInstances:
    made: TaskInstances = SOURCES.build(
        "task", {"task": {"name": name, **options}, "instances": instances, "seed": seed}
    )
    return made


def test_every_task_is_tried_in_small() -> None:
    assert [*SMALL] == TASKS.names()


@each_task
def test_instances_are_decided_by_seed_and_number(name: str) -> None:
    few, more, other = source(name, 20), source(name, 40), source(name, 20, seed=1)
    assert [few.instance(number) for number in range(20)] == [more.instance(number) for number in range(20)]
    assert [own.text for own in few.documents()] == [own.text for own in more.documents()][: len([*few.documents()])]
    assert [few.instance(number) for number in range(20)] != [other.instance(number) for number in range(20)]


@each_task
def test_every_instance_has_the_length_of_the_task_and_its_answer_is_right(name: str) -> None:
    for options in ({}, SMALL[name]):
        task: Task = TASKS.build(name, options)
        for number in range(40):
            made = task.instance(random.Random(number))
            assert (len(made.question), len(made.answer)) == (task.question_length, task.answer_length)
            assert (made.question + made.answer).isascii()
            verdict = task.check(made.question, made.answer)
            assert verdict.valid
            assert verdict.solved


@each_task
def test_no_question_of_the_validation_split_is_in_training(name: str, tmp_path: Path) -> None:
    own = source(name, 1000, **SMALL[name])
    summary = write_corpus(own, CorpusConfig(validation_fraction=0.3), tmp_path, lambda line: None, lambda *_: None)
    asked = {
        split: [document.text[: own.task.question_length] for document in read_texts(tmp_path, split)]
        for split in ("train", "validation")
    }
    assert not set(asked["train"]) & set(asked["validation"])
    assert len(set(asked["train"])) == len(asked["train"]) == summary["train_documents"]
    assert sum(own.skipped.values()) == 1000 - summary["documents"]
    assert own.skipped["question asked before"] > 0, "the same questions came again, and were left out"


def mutations(instance: Instance, generator: random.Random) -> Iterator[str]:
    """Answers with one character changed, left out, added, or two exchanged."""
    answer = instance.answer
    for place, old in enumerate(answer):
        yield answer[:place] + generator.choice([own for own in PRINTABLE if own != old]) + answer[place + 1 :]
        near = generator.choice([own for own in {*answer, "a", "0"} if own != old])
        yield answer[:place] + near + answer[place + 1 :]
    yield answer[:-1]
    yield answer + answer[-1:]
    yield answer.replace(answer[0], "\ufffd")
    yield ""


@pytest.mark.parametrize("name", ["arithmetic", "copy", "reverse"])
def test_a_changed_answer_to_a_question_with_one_is_wrong(name: str) -> None:
    task: Task = TASKS.build(name, {})
    for number in range(10):
        instance = task.instance(random.Random(number))
        for answer in mutations(instance, random.Random(number)):
            assert not task.check(instance.question, answer).solved


@pytest.mark.parametrize("name", ["brackets", "replace", "shuffle", "sudoku"])
def test_one_changed_character_is_wrong_where_many_answers_are_right(name: str) -> None:
    """Right answers of these tasks lie more than one character apart, but for two of `replace`, which are two apart."""
    task: Task = TASKS.build(name, {})
    for number in range(10):
        instance = task.instance(random.Random(number))
        for answer in mutations(instance, random.Random(number)):
            if name == "brackets" and answer == instance.answer:
                continue
            assert not task.check(instance.question, answer).solved


def test_other_right_answers_are_right() -> None:
    assert TASKS.build("shuffle", {"letters": 3}).check("s:abc=", "cba").solved
    assert TASKS.build("replace", {"letters": 3}).check("x:z,abc=", "abz").solved
    assert TASKS.build("brackets", {"half": 4}).check("b:([)]=", "()()").solved is False
    assert TASKS.build("brackets", {"half": 4}).check("b:([])=", "{()}").solved
    task = TASKS.build("sudoku", {"holes": 16})
    assert task.check("#:................=", "1234341221434321").solved
    assert task.check("#:2...............=", "1234341221434321") == task.check(
        "#:.4..............=", "1234341221434321"
    )
    assert task.check("#:2...............=", "1234341221434321").valid, "a grid, though not of this puzzle"


@pytest.mark.parametrize("box", [2, 3])
def test_a_grid_has_every_digit_once_in_each_row_column_and_box(box: int) -> None:
    task = TASKS.build("sudoku", {"box": box, "holes": 3})
    answer, side = task.instance(random.Random(5)).answer, box**2
    rows = [answer[side * row : side * (row + 1)] for row in range(side)]
    boxes = [
        "".join(rows[box * down + row][box * across : box * (across + 1)] for row in range(box))
        for down, across in itertools.product(range(box), repeat=2)
    ]
    for unit in [*rows, *("".join(column) for column in zip(*rows, strict=True)), *boxes]:
        assert sorted(unit) == [str(digit) for digit in range(1, side + 1)]


@pytest.mark.parametrize(
    ("answer", "valid", "solved"),
    [
        ('{"name":"ada","age":7,"ok":true}', True, True),
        (' {"ok": true, "name": "ada", "age": 7}', True, True),
        ('{"name":"adb","age":7,"ok":true}', True, False),
        ('{"name":"ada","age":7,"ok":false}', True, False),
        ('{"name":"ada","age":7,"ok":1}', False, False),
        ('{"name":"ada","age":7.0,"ok":true}', False, False),
        ('{"name":"ada","age":true,"ok":true}', False, False),
        ('{"name":"ada","age":"7","ok":true}', False, False),
        ('{"name":"ada","age":07,"ok":true}', False, False),
        ('{"name":"ada","age":7}', False, False),
        ('{"name":"ada","age":7,"ok":true,"more":1}', False, False),
        ('{"name":"ada","name":"ada","age":7,"ok":true}', False, False),
        ('{"name":"ada","age":7,"ok":true}}', False, False),
        ('[["name","ada"],["age",7],["ok",true]]', False, False),
        ('{"name":"","age":7,"ok":true}', False, False),
        ('{"name":"adalov","age":7,"ok":true}', False, False),
        ('{"name":"ada","age":100,"ok":true}', False, False),
        ("NaN", False, False),
        ("[" * 100_000, False, False),
    ],
)
def test_an_object_is_read_as_json_under_its_schema(answer: str, valid: bool, solved: bool) -> None:
    verdict = TASKS.build("json", {}).check("j:age=07;ok=1;name=ada  =", answer)
    assert (verdict.valid, verdict.solved) == (valid, solved)


CSV = "v:m=07+12;c=30+05="
ROWS = "key,x,y,sum\nc,30,05,35\nm,07,12,19"


@pytest.mark.parametrize(
    ("answer", "valid", "solved"),
    [
        (ROWS, True, True),
        (ROWS.replace("05", "5").replace("07", "7") + " \n", True, True),
        (ROWS.replace("c,30", '"c","30"'), True, True),
        (ROWS.replace("30", "31").replace("35", "36"), True, False),
        (ROWS.replace("c,", "d,"), True, False),
        (ROWS.replace("35", "36"), False, False),
        ("key,x,y,sum\nm,07,12,19\nc,30,05,35", False, False),
        (ROWS.replace("m,", "c,"), False, False),
        (ROWS.replace("key", "Key"), False, False),
        (ROWS.replace("c,30,05,35", "c,30,05,35,"), False, False),
        (ROWS.replace("c,30,05,35", "c,30,35"), False, False),
        (ROWS.replace("30", "3e1"), False, False),
        (ROWS.replace("30", " 30"), False, False),
        (ROWS.replace("c,30", '"c,30'), False, False),
        (ROWS.replace("\nm,07,12,19", ""), False, False),
        (ROWS + "\nx,01,01,02", False, False),
        (ROWS.replace("07", "-5").replace("19", "07"), False, False),
        ("", False, False),
    ],
)
def test_rows_are_read_as_csv_with_a_key_that_rises_and_a_right_sum(answer: str, valid: bool, solved: bool) -> None:
    verdict = TASKS.build("csv", {"rows": 2}).check(CSV, answer)
    assert (verdict.valid, verdict.solved) == (valid, solved)


TABLE = "|b|x|\n|:-|-:|\n|ab|07|\n|qd|12|"


@pytest.mark.parametrize(
    ("answer", "valid", "solved"),
    [
        (TABLE, True, True),
        (TABLE.replace("|ab|07|", "| ab |  07 |  ").replace(":-|", ":----|") + "\n ", True, True),
        (TABLE.replace("07", "08"), True, False),
        (TABLE.replace("|b|", "|c|"), True, False),
        (TABLE.replace(":-|-:", "-:|-:"), True, False),
        (TABLE.replace("|ab|07|\n|qd|12|", "|qd|12|\n|ab|07|"), True, False),
        (TABLE.replace("|ab|07|", "|ab|7|"), True, False),
        (TABLE.replace(":-|-:", ":-|--"), False, False),
        (TABLE.replace(":-|-:", ":-"), False, False),
        (TABLE.replace("|ab|07|", "|ab|07|1|"), False, False),
        (TABLE.replace("|ab|07|", "|ab07|"), False, False),
        (TABLE.replace("|ab|07|", "ab|07|"), False, False),
        (TABLE.replace("07", "ab"), False, False),
        (TABLE.replace("07", ""), False, False),
        (TABLE.replace("\n|qd|12|", ""), False, False),
        (TABLE + "\n|aa|11|", False, False),
        ("|", False, False),
    ],
)
def test_a_table_is_read_row_by_row(answer: str, valid: bool, solved: bool) -> None:
    verdict = TASKS.build("markdown", {}).check("m:b<,x>;ab,07;qd,12=", answer)
    assert (verdict.valid, verdict.solved) == (valid, solved)


FUNCTION = 'def f(x):\n """f(2)=7   ;f(5)=13  """\n return '


@pytest.mark.parametrize(
    ("answer", "valid", "solved"),
    [
        ("2*x+3", True, True),
        ("x+x+3", True, True),
        (" (x+1)*2+1", True, True),
        ("x+5", True, False),
        ("13", True, False),
        ("--x", True, False),
        ("x**2", False, False),
        ("x//2", False, False),
        ("f(x)", False, False),
        ("x(2)", False, False),
        ("2x+3", False, False),
        ("2*y+3", False, False),
        ("2*x+3#", False, False),
        ("x.real", False, False),
        ("1if x else 2", False, False),
        ("(x,x)", False, False),
        ("2*x+", False, False),
        ("01*x", False, False),
        ("", False, False),
        ("(" * 100_000, False, False),
        ("-" * 100_000 + "1", False, False),
    ],
)
def test_an_expression_is_evaluated_and_never_run(answer: str, valid: bool, solved: bool) -> None:
    task = TASKS.build("python", {"operators": 3, "examples": 2})
    verdict = task.check(FUNCTION, answer.ljust(task.answer_length))
    assert (verdict.valid, verdict.solved) == (valid, solved)


def test_a_function_and_its_docstring_are_a_python_module_that_does_what_its_examples_say() -> None:
    task = TASKS.build("python", {"operators": 3})
    for number in range(50):
        made = task.instance(random.Random(number))
        document = made.question + made.answer
        (function,) = ast.parse(document).body
        assert isinstance(function, ast.FunctionDef)
        names: dict[str, Any] = {}
        exec(document, names)  # of our own generator, not of a model
        shown = (ast.get_docstring(function) or "").split(";")
        assert len(shown) == 3
        for example in shown:
            call, value = example.split("=")
            assert eval(call, names) == int(value)


def test_values_of_expressions_are_those_of_python() -> None:
    """All texts of up to four characters, with their brackets closed; what Python reads as a whole number counts."""
    values = 0
    for length in range(1, 5):
        for text in map("".join, itertools.product("x2+-*(", repeat=length)):
            closed = text + ")" * text.count("(")
            expected = None
            if not any(call in closed for call in ("x(", "2(", ")(", "**", "xx", "x2")):  # calls, powers, other names
                with contextlib.suppress(SyntaxError, TypeError):
                    expected = eval(closed, {"x": 3})
            assert value_of(closed, 3) == (expected if isinstance(expected, int) else None), closed
            values += isinstance(expected, int)
    assert values > 100


# --- closed forms ---------------------------------------------------------------------------------------------------


def right_answers(task: Task, question: str, alphabet: str) -> list[str]:
    return [
        answer
        for answer in map("".join, itertools.product(alphabet, repeat=task.answer_length))
        if task.check(question, answer).solved
    ]


@pytest.mark.parametrize(
    ("name", "options", "question", "alphabet"),
    [
        ("shuffle", {"letters": 4}, "s:abcd=", "abcde"),
        ("replace", {"letters": 5}, "x:d,abcab=", "abcd"),
        ("copy", {"letters": 3}, "c:cab=", "abc"),
        ("reverse", {"letters": 3}, "r:cab=", "abc"),
        ("arithmetic", {"digits": 3}, "+:295=", "0123456789"),
    ],
)
def test_parallel_accuracy_is_that_of_independent_exact_marginals(
    name: str, options: dict[str, int], question: str, alphabet: str
) -> None:
    """Answers are equally probable: the marginals are counts, and what they draw is a product."""
    task: Task = TASKS.build(name, options)
    right = right_answers(task, question, alphabet)
    marginals = [Counter(letters) for letters in zip(*right, strict=True)]
    chance = 0.0
    for answer in right:
        own = 1.0
        for place, letter in enumerate(answer):
            own *= marginals[place][letter] / len(right)
        chance += own
    assert task.parallel_accuracy() == pytest.approx(chance)


@pytest.mark.parametrize(("name", "options"), [("shuffle", {"letters": 3}), ("replace", {"letters": 3})])
def test_answers_are_equally_probable(name: str, options: dict[str, int]) -> None:
    """What the closed forms take for granted: the place of each instance's answer among the right ones is uniform."""
    task: Task = TASKS.build(name, options)
    places: Counter[tuple[int, ...]] = Counter()
    for number in range(3000):
        made = task.instance(random.Random(number))
        asked = made.question[2:-1] if name == "shuffle" else made.question[4:-1]
        places[tuple(asked.find(letter) for letter in made.answer) if name == "shuffle" else
               tuple(int(old != new) for old, new in zip(asked, made.answer, strict=True))] += 1  # fmt: skip
    count = 6 if name == "shuffle" else 3
    assert len(places) == count
    expected = 3000 / count
    assert sum((own - expected) ** 2 / expected for own in places.values()) < 20.5  # χ²(5), p = 0.001


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"corpus": {"source": "web-bible"}},
            "tests: evaluation.measurements: measurement 'tasks' asks the instances of a task, and the corpus is "
            "'web-bible'; write corpus.source: {name: task, task: …}, or leave tasks out",
        ),
        (
            {"tokenizer": "bpe"},
            "tests: tokenizer: measurement 'tasks' cuts questions from answers byte by byte; write tokenizer: byte",
        ),
        (
            {"shards": {"sequence_length": 64}},
            "tests: shards.sequence_length: is 64, but an instance of task 'sudoku' and its end of text have 36 "
            "tokens; write 36",
        ),
        (
            {"corpus": {"source": {"name": "task", "task": {"name": "sudoku", "holes": 17}}}},
            "tests: corpus.source.task: holes is 17, but the grid has 16 cells; leave fewer open",
        ),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(change: dict[str, Any], sentence: str) -> None:
    config = {
        "corpus": {"source": {"name": "task", "task": "sudoku"}},
        "tokenizer": "byte",
        "shards": {"sequence_length": 36},
        "evaluation": {"measurements": ["likelihood", "tasks"]},
    }
    assert resolve(config, "tests").corpus.source["task"] == {"name": "sudoku", "box": 2, "holes": 8}
    with pytest.raises(ConfigError) as raised:
        resolve({**config, **change}, "tests")
    assert str(raised.value) == sentence
