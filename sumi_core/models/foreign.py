"""Folders of stock transformers to start from: their safetensors, what their config says, and proof that the denoiser
computes what stock code does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import fingerprint, known_sha256
from sumi_core.base.numerics import no_grad
from sumi_core.base.text import reason_of

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.models.config import ModelConfig

FILE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_OURS = "sumi.json"  # of an export, which was compared with stock code when it was made
_BLOCKS = {  # stock model types whose blocks are the denoiser's → attention pattern, auto class
    "llama": ("causal", "AutoModelForCausalLM"),
    "mistral": ("causal", "AutoModelForCausalLM"),
    "qwen3": ("causal", "AutoModelForCausalLM"),
    "eurobert": ("bidirectional", "AutoModelForMaskedLM"),
}
_TOLERANCE = 1e-4  # of float32 logits, as a share of the largest where that is > 1
_PROBE = (2, 48)  # random sequences and their length
_TABLE, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


class InitialiserError(SumiError, ValueError):
    """Weights that cannot be started from. One sentence that names the file or key and what to do."""


class Tensors:
    """The tensors of a folder, in one safetensors file or in several that an index names. Each is read when it is asked
    for. Raises InitialiserError, naming the file, for one that is missing or damaged."""

    def __init__(self, files: Mapping[Path, list[str] | None]) -> None:
        """files: the tensors that each is to hold; None: whatever it holds."""
        self._place: dict[str, Path] = {}
        for path, promised in files.items():
            with self._open(path) as file:
                held = list(file.keys())
            if lacking := sorted(set(promised or ()) - set(held)):
                raise InitialiserError(f"{path} lacks '{lacking[0]}', which {INDEX} says it holds; copy it again")
            self._place |= dict.fromkeys(held if promised is None else promised, path)

    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._place)

    def read(self, name: str) -> Tensor:
        """One tensor."""
        with self._open(self._place[name]) as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._place[name]

    @staticmethod
    @contextlib.contextmanager
    def _open(path: Path) -> Iterator[Any]:
        if not path.is_file():
            raise InitialiserError(f"there is no {path}; copy the folder again, whole")
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise InitialiserError(f"{path} is damaged ({reason_of(error)}); copy it again") from None


def weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """The safetensors files of a folder and the tensors that its index places in each. Raises InitialiserError."""
    if (folder / FILE).is_file():
        return {folder / FILE: None}
    index = folder / INDEX
    if not index.is_file():
        others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
        remedy = f"save {others[0]} as safetensors" if others else "name the folder of an exported model"
        raise InitialiserError(f"model.initialiser.folder: there is no {folder / FILE}; {remedy}")
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files: dict[Path, list[str] | None] = {}
        for name, file in sorted(placed.items()):
            if Path(file).name != file:
                raise ValueError(f"{file} is not the name of a file beside it")
            files.setdefault(folder / file, []).append(name)  # type: ignore[union-attr]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InitialiserError(f"{index} is damaged ({reason_of(error)}); copy it again") from None
    return files


def weights_identity(folder: Path) -> str:
    """A digest of the weights: of the one file, or of the several and what each holds."""
    files = weight_files(folder)
    if set(files) == {folder / FILE}:
        return known_sha256(folder / FILE)
    for path in files:
        if not path.is_file():
            raise InitialiserError(f"there is no {path}, which {INDEX} names; copy the folder again, whole")
    return fingerprint({path.name: [known_sha256(path), names] for path, names in files.items()})


def check_config(folder: Path, model: ModelConfig) -> dict[str, Any]:
    """What no tensor's shape tells must be the same too: returns config.json, empty where there is none and the tensors
    are all there is to go by. Raises InitialiserError, naming the first key that another value has, or one that is not
    supported."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        stock: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rope = stock.get("rope_parameters") or stock.get("rope_scaling") or {}
        theta = rope.get("rope_theta", stock.get("rope_theta", model.rope_theta))
        rope_type = rope.get("rope_type", rope.get("type", "default"))
    except (ValueError, AttributeError):
        raise InitialiserError(f"{path} is damaged; copy the folder again") from None
    for key, there, here in (
        ("num_heads", stock.get("num_attention_heads"), model.num_heads),
        ("num_kv_heads", stock.get("num_key_value_heads"), model.num_kv_heads),
        ("rope_theta", theta, model.rope_theta),
        ("norm_epsilon", stock.get("rms_norm_eps"), model.norm_epsilon),
    ):
        if there is not None and there != here:
            raise InitialiserError(f"{path}: {key} is {there} there and {here} here; set model.{key} to {there}")
    windowed = stock.get("use_sliding_window", True) and stock.get("sliding_window") is not None
    quantized = stock.get("quantization_config") or {}
    for key, there, supported in (
        ("model_type", stock.get("model_type"), tuple(_BLOCKS)),
        ("hidden_act", stock.get("hidden_act"), ("silu",)),
        ("rope_type", rope_type, ("default",)),
        ("partial_rotary_factor", rope.get("partial_rotary_factor", stock.get("partial_rotary_factor")), (1.0,)),
        ("sliding_window", stock["sliding_window"] if windowed else None, ()),
        ("head_dim", stock.get("head_dim"), (model.hidden_size // model.num_heads,)),
        ("attention_bias", stock.get("attention_bias"), (False,)),
        ("mlp_bias", stock.get("mlp_bias"), (False,)),
        ("quantization_config.quant_method", quantized.get("quant_method"), ()),
    ):
        if there is not None and there not in supported:
            known = " or ".join(map(str, supported)) or "none"
            raise InitialiserError(f"{path}: {key} is {there}, but only {known} is supported; start from another model")
    return stock


@no_grad
def check_logits(folder: Path, stock: Mapping[str, Any], tensors: Tensors, model: ModelConfig) -> None:
    """Compare the folder as stock transformers opens it, without remote code, with a denoiser of its weights, on random
    tokens. Raises InitialiserError where their logits differ: there is more that a model can be than a list of keys.

    Nothing is compared where config.json names no type of model, for an export of Sumi, which was compared when it was
    made, and by all processes of a training but the first."""
    if "model_type" not in stock or (folder / _OURS).is_file() or os.environ.get("RANK", "0") != "0":
        return
    from sumi_core.models.denoiser import Denoiser

    pattern, auto = _BLOCKS[stock["model_type"]]
    own = dataclasses.replace(
        model,
        attention={"name": pattern},
        time_conditioning="none",
        feedback=None,
        marker=False,
        qk_norm=any("q_norm" in name for name in tensors.names()),
        tie_embeddings=_HEAD not in tensors.names(),
    )
    table = tensors.read(_TABLE)
    denoiser = Denoiser(own, len(table), seed=None).eval()
    for name, parameter in denoiser.named_parameters():
        parameter.copy_(tensors.read(name))
    tokens = torch.randint(len(table), _PROBE, generator=torch.Generator().manual_seed(0))
    wanted, found = denoiser.logits(tokens), _stock_logits(folder, auto, tokens)
    difference, allowed = float((wanted - found).abs().max()), _TOLERANCE * max(1.0, float(found.abs().max()))
    if not difference <= allowed:
        raise InitialiserError(
            f"{folder}: stock transformers computes logits that differ by {difference:.2g} from those of a denoiser "
            f"with its weights (at most {allowed:.2g}): it is a {stock['model_type']} of another kind; start from "
            "another model"
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Stock transformers without progress bars and advice."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _stock_logits(folder: Path, auto: str, tokens: Tensor) -> Tensor:
    import transformers

    try:
        with quiet_transformers():
            opened = getattr(transformers, auto).from_pretrained(
                folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            logits: Tensor = opened.eval()(input_ids=tokens).logits
    except Exception as error:  # whatever a library finds wrong with a folder
        problem = f"stock transformers cannot open it ({type(error).__name__}: {reason_of(error)})"
        raise InitialiserError(f"{folder}: {problem}; copy it again, or start from another model") from None
    return logits
