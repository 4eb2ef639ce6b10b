"""Training: a Lightning run in a process of its own, resumable to the last bit.

Importing this package, :mod:`.launcher` or :mod:`.stage` costs nothing; torch and Lightning are imported by
:mod:`.run`, inside the training process.
"""

from typing import TYPE_CHECKING

from sumi_core.registry import Registry

if TYPE_CHECKING:
    from sumi_core.training.strategies import Strategy

STRATEGIES: "Registry[Strategy]" = Registry(
    "training strategy",
    {
        "ddp": "sumi_core.training.strategies:DistributedDataParallel",
    },
)
