"""Scorers: autoregressive models that say how probable a text is, whoever wrote it.

A scorer reads the ids of a sequence after a beginning-of-text token and gives nats of each of them. It reads the
model's own ids where both have the same tokenizer; else the sequence is decoded (what is not UTF-8 becomes U+FFFD),
each text in it is cut into the scorer's tokens, and the scorer's end-of-text token stands between texts. What is longer
than the scorer's context is read in pieces of that length, each after a beginning of text.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import fingerprint, known_sha256
from sumi_core.base.numerics import no_grad
from sumi_core.base.options import location
from sumi_core.base.paths import project_path
from sumi_core.base.references import referenced_folder, stage_ref
from sumi_core.base.registry import Part
from sumi_core.base.text import reason_of
from sumi_core.data.tokenizers.tokenizer import load_tokenizer
from sumi_core.evaluation.samples import split_texts
from sumi_core.models.foreign import quiet_transformers
from sumi_core.models.interface import DenoiserInput
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.reference import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sumi_core.data.tokenizers.tokenizer import Tokenizer

_TOKENIZER, _WEIGHTS = "sumi_tokenizer", "model.safetensors"  # of an exported folder
_READ = (".json", ".txt", ".model", ".safetensors")  # what stock transformers reads of a folder
_LONGEST = 1024  # tokens of a piece, whatever a stock model can take
_PROBE = 8  # tokens that a scorer is tried with


class ScorerError(SumiError, ValueError):
    """A scorer that cannot be used. One sentence that names the folder and what to do."""


@dataclass(frozen=True)
class Scores:
    """What a scorer says of N sequences. nats: ``[N]`` float64, −log p of all tokens. tokens, bytes: ``[N]``, how many
    of the scorer's tokens, and UTF-8 bytes of text, those are. entropy: ``[N]``, bits per token of the frequencies of
    the scorer's tokens in the sequence by itself."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]
    entropy: NDArray[np.float64]


@dataclass(frozen=True)
class OpenScorer:
    """A scorer, ready to read. name: how reports call it. logits: ids ``[B, L]`` → logits of the next one ``[B, L,
    V]``. begin, end: the tokens before a text and after it. longest: tokens of a piece. encode: a text as ids.
    tokenizer: of a model whose ids it reads as they are. network: its weights, to compare with a model's own. corpus:
    what it was trained on, None where that is not known."""

    name: str
    logits: Callable[[Tensor], Tensor]
    begin: int
    end: int
    longest: int
    encode: Callable[[str], Sequence[int] | NDArray[np.integer[Any]]]
    device: torch.device
    tokenizer: Tokenizer | None = None
    network: nn.Module | None = None
    corpus: Mapping[str, Any] | None = None

    def is_model(self, denoiser: nn.Module) -> bool:
        """Whether it is the very network that is measured."""
        if self.network is None:
            return False
        own, other = dict(self.network.named_parameters()), dict(denoiser.named_parameters())
        return own.keys() == other.keys() and all(value.equal(other[name].to(value)) for name, value in own.items())

    def reads_ids_of(self, tokenizer: Tokenizer) -> bool:
        """Whether a model's ids mean the same to it."""
        own = self.tokenizer
        return own is not None and own.eos_id == tokenizer.eos_id and own.backend.to_str() == tokenizer.backend.to_str()

    def score(
        self, sequences: Sequence[NDArray[np.integer[Any]]], tokenizer: Tokenizer, batch_size: int = 64
    ) -> Scores:
        """Read sequences of token ids of ``tokenizer``."""
        if self.reads_ids_of(tokenizer):
            ids = [np.asarray(own, dtype=np.int64) for own in sequences]
            sizes = [sum(len(tokenizer.decode_bytes(p)) for p in split_texts(own, tokenizer.eos_id)) for own in ids]
        else:
            texts = [[tokenizer.decode(part) for part in split_texts(own, tokenizer.eos_id)] for own in sequences]
            ids = [self._encoded(own) for own in texts]
            sizes = [sum(len(text.encode()) for text in own) for own in texts]
        nats = self._nats(ids, batch_size)
        lengths = np.array([len(own) for own in ids], dtype=np.int64)
        entropy = np.array([token_entropy(own) for own in ids])
        return Scores(nats, lengths, np.array(sizes, dtype=np.int64), entropy)

    def _encoded(self, texts: Sequence[str]) -> NDArray[np.int64]:
        parts = [np.asarray(self.encode(text), dtype=np.int64) for text in texts]
        end = np.array([self.end], dtype=np.int64)
        return np.concatenate([piece for part in parts for piece in (part, end)][:-1])

    @no_grad
    def _nats(self, sequences: Sequence[NDArray[np.int64]], batch_size: int) -> NDArray[np.float64]:
        """−log p of each sequence, ``[N]``: pieces of equal length are read together, so that none is padded."""
        total = np.zeros(len(sequences))
        by_length: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
        for number, ids in enumerate(sequences):
            for start in range(0, len(ids), self.longest):
                piece = ids[start : start + self.longest]
                by_length.setdefault(len(piece), []).append((number, piece))
        for pieces in by_length.values():
            for start in range(0, len(pieces), batch_size):
                some = pieces[start : start + batch_size]
                x = torch.from_numpy(np.stack([piece for _, piece in some])).to(self.device)
                given = torch.cat([torch.full_like(x[:, :1], self.begin), x[:, :-1]], dim=1)
                log_probs = self.logits(given).double().log_softmax(-1)
                nats = -log_probs.gather(-1, x.unsqueeze(-1)).squeeze(-1).sum(-1).cpu().numpy()
                np.add.at(total, [number for number, _ in some], nats)
        return total


def token_entropy(ids: NDArray[np.integer[Any]]) -> float:
    """−Σ p log₂ p of the frequencies of the ids, in bits per token; 0 for none."""
    _, counts = np.unique(ids, return_counts=True)
    share = counts / max(len(ids), 1)
    return float(abs((share * np.log2(share)).sum()))


class Scorer(Part, ABC):
    """An autoregressive model that texts are scored with."""

    @abstractmethod
    def opened(self, device: torch.device) -> OpenScorer:
        """Read it from its files. Raises ScorerError."""


class CellScorer(Scorer):
    """The autoregressive model of another cell of the project, or of the same one.

    of: the cell, or a group of seeds, of which that of the same seed is meant: name one cell for one scorer of all. Its
    export is computed before the evaluation and is an input of it."""

    @dataclass
    class Options(Part.Options):
        of: Annotated[Any | None, Field(description="the cell, or group of seeds, whose model scores")] = stage_ref(
            "exported_model"
        )

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        cell, there = own["of"]["cell"], own["of"]["experiment"]
        name = there["objective"]["name"]
        if OBJECTIVES.get(name).exact and OBJECTIVES.get(name).causal and there["layout"]["name"] == "whole":
            return None
        problem = f"'{cell}' cannot score texts: its objective is '{name}', whose likelihood is not exact; name a cell "
        return "evaluation.measurements", f"{problem}with objective: autoregressive"

    def opened(self, device: torch.device) -> OpenScorer:
        of = self.options.of
        folder, there = referenced_folder(of), of["experiment"]
        tokenizer = load_tokenizer(folder / _TOKENIZER)
        network = frozen(of, tokenizer.vocab_size, _WEIGHTS).to(device)
        return OpenScorer(
            f"cell {of['cell']}",
            lambda ids: network(DenoiserInput(ids)).logits()[..., : tokenizer.vocab_size],
            tokenizer.eos_id,
            tokenizer.eos_id,
            there["shards"]["sequence_length"],
            lambda text: tokenizer.encode_batch([text])[0],
            device,
            tokenizer,
            network,
            there["corpus"],
        )


class FolderScorer(Scorer):
    """A causal language model in a folder that stock transformers opens, such as GPT-2: safetensors, a tokenizer, and
    no code of its own. What it was trained on is not known, so the text it scores may have been in it.

    folder: absolute, or relative to the project's folder. The digests of its files are part of the fingerprint."""

    @dataclass
    class Options(Part.Options):
        folder: Annotated[
            str, Field(description="a folder of stock transformers with safetensors; relative to the project's folder")
        ] = location()

    def identity(self) -> dict[str, Any]:
        """The digest of every file that is read."""
        folder = self._folder()
        files = {path.name: known_sha256(path) for path in sorted(folder.iterdir()) if path.suffix in _READ}
        return {"files": fingerprint(files)}

    def opened(self, device: torch.device) -> OpenScorer:
        folder = self._folder()
        network, tokenizer = _stock(folder)
        network = network.to(device)
        begin = next((own for own in (tokenizer.bos_token_id, tokenizer.eos_token_id) if own is not None), None)
        if begin is None:
            raise ScorerError(f"{folder}: its tokenizer has no beginning- or end-of-text token; name another folder")
        end = begin if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        positions = getattr(network.config, "max_position_embeddings", None) or _LONGEST
        found = OpenScorer(
            f"folder {folder.name}",
            lambda ids: network(input_ids=ids).logits,
            int(begin),
            int(end),
            min(int(positions), _LONGEST),
            lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
            device,
        )
        _check_causal(found, folder)
        return found

    def _folder(self) -> Path:
        folder = project_path(self.options.folder)
        wanted = ("config.json", "model.safetensors", "model.safetensors.index.json")
        if not (folder / wanted[0]).is_file() or not any((folder / name).is_file() for name in wanted[1:]):
            problem = "has no config.json with model.safetensors beside it; save the model as safetensors there"
            raise ScorerError(f"evaluation.measurements: scorer folder {folder} {problem}, or name another folder")
        return folder


def _stock(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer as stock transformers opens them, without remote code. Raises ScorerError."""
    import transformers

    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map"):
            raise ScorerError(f"{folder} needs code of its own, which is not run; name a folder of a stock model")
        with quiet_transformers():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, **local
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
    except ScorerError:
        raise
    except Exception as error:  # whatever a library finds wrong with a folder
        problem = f"stock transformers cannot open it ({type(error).__name__}: {reason_of(error)})"
        raise ScorerError(f"{folder}: {problem}; copy it again, or name another folder") from None
    return model.requires_grad_(False).eval(), tokenizer


@no_grad
def _check_causal(scorer: OpenScorer, folder: Path) -> None:
    """Raise ScorerError where what follows a token changes what is predicted up to it."""
    ids = torch.full((2, _PROBE), scorer.begin, dtype=torch.int64, device=scorer.device)
    ids[1, -1] = scorer.begin - 1 if scorer.begin else 1
    first, second = scorer.logits(ids)[:, :-1]
    if not torch.allclose(first, second, rtol=0, atol=1e-4 * max(1.0, float(first.abs().max()))):
        raise ScorerError(f"{folder} is not a causal model: its predictions see what comes after; name another folder")
