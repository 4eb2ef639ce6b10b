"""Any fast Hugging Face tokenizer, by folder or name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import location
from sumi_core.base.paths import project_path, readable_name
from sumi_core.base.text import reason_of
from sumi_core.data.sources.local import digests
from sumi_core.data.tokenizers.alphabet import bytes_of_tokens
from sumi_core.data.tokenizers.tokenizer import EOS, Tokenizer, TokenizerError

_TOKENIZER_FILES = {".json", ".txt", ".model"}
_READ = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")


class HuggingFace(Tokenizer):
    """Used as it is; without an end-of-text token of its own it gets one. Its code is never run, only its data."""

    learns = False

    @dataclass
    class Options:
        """path: a folder, or a name on the Hub. revision: commit, tag or branch of the Hub; a branch moves, and then
        the fingerprint cannot tell."""

        path: Annotated[str, Field(description="a folder, or a name on the Hub")] = location("")
        revision: Annotated[
            str | None, Field(description="commit, tag or branch of the Hub; only a commit never moves")
        ] = None

        def check(self) -> None:
            """A path is needed."""
            if not self.path:
                raise ValueError("path is empty; write a tokenizer's folder or name")

    def identity(self) -> dict[str, Any]:
        """Digests of the tokenizer's files, not of a model's weights, if they lie on this machine; of the Hub's the
        name and the revision. Raises TokenizerError for a name without one, which nothing would identify."""
        options, folder = self.options, project_path(self.options.path)
        if not (options.revision or folder.is_dir()):
            raise TokenizerError(
                f"tokenizer.path: there is no folder '{options.path}'; for a tokenizer of the Hub write its revision "
                "too (a commit)"
            )
        files = sorted(path for path in folder.glob("*") if path.is_file() and path.suffix in _TOKENIZER_FILES)
        name = None if folder.is_dir() else options.path
        return {
            "tokenizer": name,
            "revision": options.revision,
            "files": digests((readable_name(Path(path.name)), path) for path in files),
        }

    def train(self, texts: Iterator[str]) -> None:
        """Load it; the texts are not read. Raises TokenizerError when it cannot be opened or is not fast."""
        from transformers import AutoTokenizer

        options, local = self.options, project_path(self.options.path)
        if local.is_dir():
            _check_files(local, options.path)
            if not _has_vocabulary(local):
                problem = f"'{options.path}' holds no tokenizer.json; name a folder that save_pretrained wrote"
                raise TokenizerError(f"tokenizer.path: {problem}")
        try:
            opened: Any = AutoTokenizer.from_pretrained(
                str(local) if local.is_dir() else options.path, revision=options.revision, trust_remote_code=False
            )
        except Exception as error:  # transformers and tokenizers raise every kind, a bare Exception too
            raise TokenizerError(
                f"tokenizer.path: cannot open the tokenizer '{options.path}': {reason_of(error)}"
            ) from None
        if not opened.is_fast:
            raise TokenizerError(
                f"tokenizer.path: '{options.path}' is not a fast tokenizer; convert it to tokenizer.json"
            )
        self.backend = opened.backend_tokenizer
        _require_no_dropout(self.backend, options.path)
        if opened.eos_token_id is None:
            self.backend.add_special_tokens([EOS])
            self.eos_id = self.backend.token_to_id(EOS)
        else:
            self.eos_id = int(opened.eos_token_id)
        _require_ids_without_gaps(self.backend)
        self.byte_level = _is_byte_level(self.backend, self.eos_id)
        self._ready()


def _check_files(folder: Path, written: str) -> None:
    """Every file that transformers reads is a JSON object, and tokenizer.json one that this release of tokenizers
    opens. Raises TokenizerError, naming the file: the libraries do not."""
    import tokenizers

    for name in _READ:
        path, shown = folder / name, f"tokenizer.path: {written}/{name}"
        if not path.is_file():
            continue
        try:
            content = path.read_bytes().decode("utf-8")
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TokenizerError(f"{shown} is damaged ({reason_of(error)}); copy it again") from None
        except OSError as error:
            raise TokenizerError(f"{shown} cannot be read ({error.strerror}); fix its permissions") from None
        if not isinstance(data, dict):
            raise TokenizerError(f"{shown} holds no JSON object, but a {type(data).__name__}; copy it again")
        if name == "tokenizer.json":
            try:
                tokenizers.Tokenizer.from_str(content)
            except Exception as error:  # a bare one
                raise TokenizerError(
                    f"{shown} has a {_unread_part(data, str(error))} that tokenizers {tokenizers.__version__} cannot "
                    f"open ({reason_of(error)}); save it with a release that this one reads, or choose another "
                    "tokenizer"
                ) from None


def _has_vocabulary(folder: Path) -> bool:
    """Whether there is anything that a fast tokenizer can be made of."""
    known = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json")
    return any((folder / name).is_file() for name in known) or any(folder.glob("*.model"))


def _unread_part(data: dict[str, Any], error: str) -> str:
    """The part of a tokenizer.json that could not be read, which the error names by a type of the library's own."""
    if "tokenizer version" in error:
        return f"version {data.get('version')!r}"
    named = {"decoder": "Decoder", "normalizer": "Normalizer", "pre_tokenizer": "PreTok", "post_processor": "PostProc"}
    part = next((part for part, mark in named.items() if mark in error), "model")
    value = data.get(part)
    return f"{part} of type {value.get('type') if isinstance(value, dict) else None!r}"


def _require_no_dropout(backend: Any, written: str) -> None:
    """Raises TokenizerError where merges are left out at random: equal texts would have different tokens, in one
    output under one fingerprint."""
    if dropout := getattr(backend.model, "dropout", None):
        raise TokenizerError(
            f"tokenizer.path: {written}/tokenizer.json: model.dropout is {dropout:.3g}, so that a text has other "
            "tokens each time; set it to null"
        )


def _require_ids_without_gaps(backend: Any) -> None:
    count, largest = backend.get_vocab_size(with_added_tokens=True), max(backend.get_vocab().values())
    if largest >= count:
        raise TokenizerError(
            f"tokenizer.path: {count} tokens have ids up to {largest}; every id is a state: number them without gaps"
        )


def _is_byte_level(backend: Any, eos_id: int) -> bool:
    """Whether the vocabulary is written in the byte alphabet and decoded as such, as in GPT-2 and Llama 3."""
    decoder = json.loads(backend.to_str())["decoder"] or {}
    steps = decoder.get("decoders", [decoder])
    if [step.get("type") for step in steps] != ["ByteLevel"]:
        return False
    try:
        bytes_of_tokens(backend, eos_id)
    except KeyError:
        return False
    return True
