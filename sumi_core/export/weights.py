"""A denoiser's weights in a safetensors file: plain tensors by name, and nothing that could execute."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sumi_core.base.text import reason_of
from sumi_core.export.record import ExportError
from sumi_core.models.denoiser import Denoiser

BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2, "int8": 1}
_HEAD, _TABLE = "lm_head.weight", "model.embed_tokens.weight"


def write_weights(denoiser: Denoiser, path: Path) -> None:
    """Write every parameter once (of a tied head and table, the table), in the form transformers reads."""
    from safetensors.torch import save_file

    save_file(denoiser.weights(), path, metadata={"format": "pt"})
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes it private; give it the folder's permissions


def read_weights(path: Path, denoiser: Denoiser) -> None:
    """Fill the denoiser from a file that holds exactly its parameters, by name and shape.

    A tied head may be in the file or not. Raises ExportError naming the file when it is missing, damaged, or of
    another model; the denoiser is then left as it was.
    """
    tensors = _read(path)
    parameters = denoiser.weights()
    if _TABLE in parameters and _HEAD not in parameters:
        tensors.pop(_HEAD, None)
    lacking, strange = sorted(parameters.keys() - tensors.keys()), sorted(tensors.keys() - parameters.keys())
    if lacking or strange:
        what = f"lacks {_few(lacking)}" if lacking else f"holds {_few(strange)}, unknown to the model"
        raise ExportError(f"{path} {what}; it is of another model or vocabulary than the recorded one")
    for name, parameter in parameters.items():
        if tensors[name].shape != parameter.shape or not tensors[name].is_floating_point():
            raise ExportError(
                f"{path}: {name} is {_kind(tensors[name])} where the model has {_kind(parameter)}; "
                "it is of another model or vocabulary than the recorded one"
            )
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            parameter.copy_(tensors[name])


def memory_bytes(parameters: int) -> dict[str, int]:
    """Memory for the weights alone, by the type they are held in."""
    return {kind: parameters * size for kind, size in BYTES_PER_WEIGHT.items()}


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise ExportError(f"{path} does not exist; make the folder again, or copy it whole") from None
    except (SafetensorError, OSError) as error:
        raise ExportError(
            f"{path} is not a complete safetensors file ({reason_of(error)}); make or copy it again"
        ) from None
    return tensors


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
