"""Tasks for lm-evaluation-harness made of texts that a model has not seen: YAML files and their questions as JSON.

    cloze      a text goes on with its own next words, or with words from elsewhere in the split: which?
    pairs      a sentence, and the same one with two neighbouring words exchanged: which is likelier?
    rolling    the likelihood of whole texts: perplexities and bits per byte
    next_word  a text is written on, up to the next space: is that its next word?

What is asked depends on the texts and the seed alone. The YAML names its questions by their absolute path, since the
harness knows no other; a folder that has moved is written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.errors import SumiError
from sumi_core.base.files import json_text, write_atomically
from sumi_core.data.noise import address_generator

if TYPE_CHECKING:
    import numpy as np

_CONTEXT, _GOES_ON, _OPTIONS = 24, 3, 4  # words of a context and of its options, and how many of these there are
_SENTENCE = (6, 20)  # words of a sentence, at least and at most
_ROLLING = 2000  # characters of a text
_CHOICES = {"metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}], "output_type": "multiple_choice"}

#: The YAML of each task, but for the path of its questions.
TASKS: dict[str, dict[str, Any]] = {
    "cloze": {
        **_CHOICES,
        "doc_to_text": "{{context}}",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": " ",
    },
    "pairs": {
        **_CHOICES,
        "doc_to_text": "",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "next_word": {
        "output_type": "generate_until",
        "doc_to_text": "{{context}} ",
        "doc_to_target": "{{word}}",
        "generation_kwargs": {"until": [" ", "\n"], "max_gen_toks": 16, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


class TaskError(SumiError, ValueError):
    """Texts that no task can be made of. One sentence: what is wrong, what to do."""


def write_tasks(
    texts: Iterable[str], folder: Path, *, prefix: str = "sumi", questions: int = 100, seed: int = 0
) -> list[str]:
    """Write every task into ``folder`` and return their names, ``<prefix>_<task>``.

    questions: of each task, fewer where there are no more texts. Raises TaskError for texts that are too few or too
    short to ask about."""
    words = [text.split() for text in texts]
    long = [own for own in words if len(own) > _CONTEXT + _GOES_ON]
    if len(long) < 2:
        raise TaskError(
            f"fewer than two texts have more than {_CONTEXT + _GOES_ON} words; take a corpus with longer documents"
        )
    ask: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
        "cloze": lambda random: _cloze(long, random),
        "pairs": lambda random: _pair(long, random),
        "next_word": lambda random: _next_word(long, random),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for task, settings in TASKS.items():
        if task == "rolling":
            docs = [{"text": " ".join(own)[:_ROLLING]} for own in long[:questions]]
        else:
            docs = [ask[task](address_generator(seed, f"harness_{task}", 0, number)) for number in range(questions)]
        data = folder / f"{task}.jsonl"
        write_atomically(data, "".join(json_text(doc, None) + "\n" for doc in docs))
        described = {
            "task": f"{prefix}_{task}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
            "test_split": "test",
            **settings,
            "metadata": {"version": 1.0},
        }
        # JSON is YAML, and needs no library to write.
        text = json_text(described) + "\n"
        write_atomically(folder / f"{task}.yaml", text)
    return [f"{prefix}_{task}" for task in TASKS]


def _passage(texts: Sequence[Sequence[str]], count: int, random: np.random.Generator) -> list[str]:
    """So many words in a row from one of the texts, each place in it as likely."""
    own = texts[int(random.integers(len(texts)))]
    begin = int(random.integers(len(own) - count + 1))
    return list(own[begin : begin + count])


def _cloze(texts: Sequence[Sequence[str]], random: np.random.Generator) -> dict[str, Any]:
    passage = _passage(texts, _CONTEXT + _GOES_ON, random)
    right = " ".join(passage[_CONTEXT:])
    options = [right]
    for _ in range(100):  # of a corpus that repeats itself there may be fewer
        other = " ".join(_passage(texts, _GOES_ON, random))
        if len(options) < _OPTIONS and other not in options:
            options.append(other)
    order = random.permutation(len(options)).tolist()
    shown = [options[place] for place in order]
    return {"context": " ".join(passage[:_CONTEXT]), "choices": shown, "gold": shown.index(right)}


def _pair(texts: Sequence[Sequence[str]], random: np.random.Generator) -> dict[str, Any]:
    low, high = _SENTENCE
    words = _passage(texts, int(random.integers(low, high + 1)), random)
    places = [at for at in range(len(words) - 1) if words[at] != words[at + 1]]
    at = places[int(random.integers(len(places)))] if places else 0
    changed = [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
    options = [" ".join(words), " ".join(changed)]
    gold = int(random.integers(2))
    return {"choices": options if gold == 0 else options[::-1], "gold": gold}


def _next_word(texts: Sequence[Sequence[str]], random: np.random.Generator) -> dict[str, Any]:
    passage = _passage(texts, _CONTEXT + 1, random)
    return {"context": " ".join(passage[:-1]), "word": passage[-1]}
