"""The alphabet that byte-level vocabularies are written in: a printable character for every byte (GPT-2)."""

from __future__ import annotations

from typing import Any


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2): ``[256]``.

    Printable Latin-1 characters stand for themselves, the others are moved up after U+00FF in order.
    """
    kept = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return [chr(byte) if byte in kept else chr(next(moved)) for byte in range(256)]


def bytes_of_tokens(backend: Any, eos_id: int) -> list[bytes]:
    """What each token of a byte-level vocabulary stands for: ``[V]``. Raises KeyError when a token is not written in
    the byte alphabet."""
    values = {character: byte for byte, character in enumerate(byte_alphabet())}
    table = [b""] * backend.get_vocab_size(with_added_tokens=True)
    added = backend.get_added_tokens_decoder()
    for token, index in backend.get_vocab(with_added_tokens=True).items():
        if index != eos_id:  # added tokens are written as they are
            table[index] = token.encode() if index in added else bytes(values[character] for character in token)
    return table
