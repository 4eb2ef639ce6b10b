"""Forward processes, noise schedules and clocks: how clean tokens become noise, and the bound that follows."""

from typing import Any

from sumi_core.base.registry import Registry

PROCESSES = Registry(
    "corruption process",
    "sumi_core.corruption.process:ForwardProcess",
    {
        "absorbing": "sumi_core.corruption.absorbing:Absorbing",
        "absorbing_uniform": "sumi_core.corruption.absorbing_uniform:AbsorbingUniform",
        "clustered": "sumi_core.corruption.clustered:Clustered",
        "hybrid": "sumi_core.corruption.hybrid:Hybrid",
        "mixture": "sumi_core.corruption.hybrid:Mixture",
        "uniform": "sumi_core.corruption.uniform:Uniform",
        "unigram": "sumi_core.corruption.unigram:Unigram",
    },
    key="process",
)

SCHEDULES = Registry(
    "noise schedule",
    "sumi_core.corruption.schedules:NoiseSchedule",
    {
        "cosine": "sumi_core.corruption.schedules:Cosine",
        "fitted": "sumi_core.corruption.fitted:Fitted",
        "linear": "sumi_core.corruption.schedules:Linear",
        "log_snr": "sumi_core.corruption.schedules:LogSnr",
        "polynomial": "sumi_core.corruption.schedules:Polynomial",
        "sqrt": "sumi_core.corruption.schedules:Sqrt",
    },
    key="schedule",
)

CLOCKS = Registry(
    "noise clock",
    "sumi_core.corruption.clocks:Clock",
    {
        "shared": "sumi_core.corruption.clocks:Shared",
        "spans": "sumi_core.corruption.clocks:Spans",
        "staircase": "sumi_core.corruption.clocks:Staircase",
    },
    key="clock",
)

#: What ``corruption: <name>`` in an experiment stands for: processes and clocks that make one idea together.
CORRUPTION_PRESETS: dict[str, dict[str, Any]] = {
    # Random corruption that preserves local structure: whole stretches stay readable while others are noise, and what
    # is replaced is first replaced by its like (docs/mathematics.md 4 and 5).
    "structured": {
        "process": {"name": "clustered"},
        "clock": {"name": "spans", "mean_length": 8.0, "window": 0.5},
    },
}

PARAMETERISATIONS = Registry(
    "parameterisation",
    "sumi_core.corruption.parameterisations:Parameterisation",
    {
        "leave_one_out": "sumi_core.corruption.parameterisations:LeaveOneOut",
        "posterior": "sumi_core.corruption.parameterisations:Posterior",
    },
    key="parameterisation",
)
