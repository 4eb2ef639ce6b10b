"""Hugging Face tokenizers of other families, made small: in the manner of Llama 2, and one that loses accents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from sumi_core.data.tokenizers.alphabet import byte_alphabet


def llama_like(folder: Path, texts: list[str], eos: str | None = "</s>") -> None:
    """Characters as tokens, blanks as ``▁``, three byte tokens for a character that no text had."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"<unk>": 256, "▁": 257}
    for character in sorted({c for text in texts for c in text if c != " "}):
        vocabulary[character] = len(vocabulary)
    if eos is not None:
        vocabulary[eos] = len(vocabulary)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _write(folder, backend, eos)


def without_accents(folder: Path) -> None:
    """Bytes as tokens, after accents were stripped."""
    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    _write(folder, backend, None)


def byte_level(folder: Path, *, eos: str | None = None, **parts: Any) -> None:
    """Bytes as tokens in the manner of GPT-2. parts: of the pipeline, and ``dropout``; a token ``<s>`` is there."""
    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())} | {"<s>": 256, "</s>": 257}
    vocabulary["aa"] = 258
    model = models.BPE(vocab=vocabulary, merges=[("a", "a")], dropout=parts.pop("dropout", None))
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    for name, part in parts.items():
        setattr(backend, name, part)
    _write(folder, backend, eos)


def _write(folder: Path, backend: tokenizers.Tokenizer, eos: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
