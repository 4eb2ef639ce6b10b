"""Training: a Lightning run, resumable to the last bit. Importing this package imports nothing heavy."""

from sumi_core.base.registry import Registry

STRATEGIES = Registry(
    "training strategy",
    "sumi_core.training.strategies.strategy:Strategy",
    {
        "ddp": "sumi_core.training.strategies.ddp:DistributedDataParallel",
    },
    key="strategy",
)
