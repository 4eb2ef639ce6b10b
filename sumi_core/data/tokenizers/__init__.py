"""Text to token ids and back, byte for byte: a file a tokenizer, and what a new one is made of."""

from sumi_core.data.tokenizers.alphabet import byte_alphabet, bytes_of_tokens
from sumi_core.data.tokenizers.tokenizer import EOS, Ids, Lengths, Tokenizer, TokenizerError, load_tokenizer

__all__ = [
    "EOS",
    "Ids",
    "Lengths",
    "Tokenizer",
    "TokenizerError",
    "byte_alphabet",
    "bytes_of_tokens",
    "load_tokenizer",
]
