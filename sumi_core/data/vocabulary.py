"""What noise and losses know of tokens: how many there are, which one ends a text, and what was measured of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError

from sumi_core.base.errors import SumiError
from sumi_core.base.text import reason_of

if TYPE_CHECKING:
    from torch import Tensor


class VocabularyError(SumiError, ValueError):
    """A table of tokens that is missing, damaged, or does not fit the vocabulary."""


@dataclass(frozen=True)
class Vocabulary:
    """``size`` tokens, of which ``eos_id`` ends texts. tables: by name, a number per token, ``[size]``."""

    size: int
    eos_id: int
    tables: Mapping[str, Tensor] = field(default_factory=dict)

    def table(self, name: str) -> Tensor:
        """A number per token, ``[size]``. Raises VocabularyError when it was not given."""
        if name not in self.tables:
            raise VocabularyError(f"no table '{name}' was given for these tokens; compute their token_shards again")
        return self.tables[name]


def read_tables(folders: Mapping[str, Path], size: int) -> dict[str, Tensor]:
    """Tables ``<name>.npy`` by name, each from the output of the stage that writes it.

    Raises VocabularyError for one that is damaged or of another size."""
    found: dict[str, Tensor] = {}
    for name, folder in folders.items():
        path = folder / f"{name}.npy"
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            raise VocabularyError(f"{path} is missing or damaged; delete {folder} and run its cell again") from None
        if values.shape != (size,):
            raise VocabularyError(f"{path} describes {len(values)} tokens where the tokenizer has {size}")
        found[name] = torch.from_numpy(values)
    return found


def write_token_tables(tables: Mapping[str, Tensor], path: Path) -> None:
    """Keep tables with a model that leaves the store, as safetensors."""
    from safetensors.torch import save_file

    save_file({name: values.contiguous() for name, values in tables.items()}, path)


def read_token_tables(path: Path) -> dict[str, Tensor]:
    """The tables of a model; none where the file does not exist. Raises VocabularyError when it is damaged."""
    if not path.is_file():
        return {}
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise VocabularyError(f"{path} is damaged ({reason_of(error)}); copy it again") from None
