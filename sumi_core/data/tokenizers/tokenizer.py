"""Text to token ids and back, byte for byte. Every tokenizer is a ``tokenizers`` pipeline in ``tokenizer.json``."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from sumi_core.base.errors import SumiError
from sumi_core.base.registry import Part
from sumi_core.base.text import reason_of
from sumi_core.data.tokenizers.alphabet import bytes_of_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

EOS = "<|endoftext|>"
_ABOUT = "sumi_tokenizer.json"

Ids: TypeAlias = "NDArray[np.integer[Any]]"
Lengths: TypeAlias = "NDArray[np.uint32]"


class TokenizerError(SumiError, ValueError):
    """A tokenizer that cannot be used. One sentence with the text or file at fault."""


class Tokenizer(Part, ABC):
    """A vocabulary of ``vocab_size`` tokens, of which ``eos_id`` ends every document and stands for no text.

    ``byte_level``: every token is a fixed string of bytes, so that lengths and bytes need no text beside the ids, and
    bytes are exact wherever a text is cut. ``ids_are_bytes``: moreover the ids are the bytes themselves.
    ``learns``: the vocabulary depends on the train split, so that another corpus makes another tokenizer.
    """

    byte_level: bool = True
    ids_are_bytes: bool = False
    learns: ClassVar[bool] = True

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.eos_id = -1
        self.backend: Any = None  # tokenizers.Tokenizer

    @abstractmethod
    def train(self, texts: Iterator[str]) -> None:
        """Fit to the train split, or load what needs no fitting."""

    @classmethod
    def expected_size(cls, options: Mapping[str, Any]) -> int | None:
        """How many tokens it will have at most with these options, or None where only the tokenizer itself can tell."""
        return None

    @property
    def vocab_size(self) -> int:
        """V, the end-of-text token included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, without end-of-text; a text that spells a special token out is text."""
        return [ids for ids, _ in self.encode_with_lengths(texts)]

    def encode_with_lengths(self, texts: Sequence[str]) -> list[tuple[Ids, Lengths]]:
        """Token ids, and the UTF-8 bytes that each token covers; the lengths of a text add up to its bytes exactly."""
        if self.ids_are_bytes:
            contents = [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
            return [(ids.astype(np.int64), np.ones(len(ids), dtype=np.uint32)) for ids in contents]
        if self.byte_level:
            encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
            rows = [np.asarray(found.ids, dtype=np.int64) for found in encoded]
            return [(ids, self._lengths[ids]) for ids in rows]
        encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.asarray(found.ids, dtype=np.int64), _lengths_from_offsets(text, found.offsets))
            for text, found in zip(texts, encoded, strict=True)
        ]

    def token_bytes(self) -> list[bytes]:
        """What each token stands for, ``[V]``, nothing for end-of-text. Raises TokenizerError where that depends on the
        tokens beside it."""
        if not self.byte_level:
            raise TokenizerError(
                "the tokens of this tokenizer are not strings of bytes, so that no text can be held to a language; use "
                "a model with a byte-level tokenizer"
            )
        return list(self._bytes)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The bytes of some tokens; end-of-text and ids outside of the vocabulary have none."""
        if self.byte_level:
            table = self._bytes
            return b"".join([table[i] for i in np.asarray(ids, dtype=np.int64).tolist() if 0 <= i < len(table)])
        kept = [int(i) for i in ids if int(i) != self.eos_id and 0 <= int(i) < self.vocab_size]
        return str(self.backend.decode(kept, skip_special_tokens=False)).encode()

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of some tokens; bytes that are not UTF-8 (a character cut in two) show as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write what stock libraries open (``tokenizer.json``, ``tokenizer_config.json``), and what this project needs
        to know beside it. Equal tokenizers give equal bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        eos = self.backend.id_to_token(self.eos_id)
        stock = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": eos,
            "eos_token": eos,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(stock, indent=1) + "\n", encoding="utf-8")
        about = {
            "vocab_size": self.vocab_size,
            "eos_id": self.eos_id,
            "byte_level": self.byte_level,
            "ids_are_bytes": self.ids_are_bytes,
        }
        (folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def _ready(self) -> None:
        """Prepare a backend that has just been made or loaded."""
        self.backend.encode_special_tokens = True  # a document may contain the characters "<|endoftext|>"
        self.backend.no_truncation()
        self.backend.no_padding()
        if self.byte_level:
            self._bytes = bytes_of_tokens(self.backend, self.eos_id)
            self._lengths = np.array([len(token) for token in self._bytes], dtype=np.uint32)


class SavedTokenizer(Tokenizer):
    """Whatever ``save`` wrote."""

    def train(self, texts: Iterator[str]) -> None:
        """Nothing to fit."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """Open what ``Tokenizer.save`` wrote. Raises TokenizerError naming the file that is missing or damaged."""
    import tokenizers

    folder = Path(folder)
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        loaded = SavedTokenizer()
        loaded.byte_level, loaded.ids_are_bytes = bool(about["byte_level"]), bool(about.get("ids_are_bytes"))
        loaded.eos_id = int(about["eos_id"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise TokenizerError(f"{folder / _ABOUT} is missing or damaged; compute the tokenizer again") from None
    try:
        loaded.backend = tokenizers.Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises a bare Exception for every kind of damage
        raise TokenizerError(
            f"{folder / 'tokenizer.json'} is missing or damaged ({reason_of(error)}); compute it again"
        ) from None
    try:
        loaded._ready()
    except KeyError as error:
        problem = f"{folder / 'tokenizer.json'} has a token outside of the byte alphabet ({error}); compute it again"
        raise TokenizerError(problem) from None
    if not 0 <= loaded.eos_id < loaded.vocab_size:
        raise TokenizerError(
            f"{folder / _ABOUT} names end-of-text {loaded.eos_id}, which is not a token; compute it again"
        )
    return loaded


def _lengths_from_offsets(text: str, offsets: Sequence[tuple[int, int]]) -> Lengths:
    """Bytes up to each token's end, less those before: what no offset covers goes to the token that follows it, what
    follows the last token to the last."""
    if not offsets:
        return np.zeros(0, dtype=np.uint32)
    ends = np.maximum.accumulate(np.array([end for _, end in offsets], dtype=np.int64))
    ends[-1] = len(text)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    upto = np.concatenate([[0], np.cumsum(widths)])
    return np.diff(upto[ends], prepend=0).astype(np.uint32)
