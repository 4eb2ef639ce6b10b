"""Addresses of pages in the web interfaces of MLflow and Dagster, as they are printed and stored."""

from __future__ import annotations

import os
from urllib.parse import quote, urlencode

_MLFLOW, _DAGSTER = "http://127.0.0.1:5000", "http://127.0.0.1:3000"  # where `sumi dev` answers unless a port is taken


def mlflow_page(ui: str, page: str, **query: str) -> str:
    """A page of MLflow, such as ``experiments/1``. MLflow 3 opens in a mode for language-model applications, which
    shows neither runs nor metrics: every link says that it is about training."""
    asked = urlencode({**query, "workflowType": "machine_learning"}, quote_via=quote)
    return f"{ui.rstrip('/')}/#/{page}?{asked}"


def mlflow_ui(uri: str) -> str:
    """Where MLflow's web interface answers: a server itself, or the one of `sumi dev` (SUMI_MLFLOW_UI)."""
    served = uri.startswith("http")
    return (uri if served else os.environ.get("SUMI_MLFLOW_UI", _MLFLOW)).rstrip("/")


def dagster_ui() -> str:
    """Where Dagster's web interface answers: that of `sumi dev`, or what SUMI_DAGSTER_UI names."""
    return os.environ.get("SUMI_DAGSTER_UI", _DAGSTER).rstrip("/")


def dagster_run(run_id: str) -> str:
    """The page of a Dagster run."""
    return f"{dagster_ui()}/runs/{run_id}"


def dagster_partition(asset: str, partition: str) -> str:
    """The page of one partition of an asset in Dagster."""
    return f"{dagster_ui()}/assets/{asset}?{urlencode({'view': 'partitions', 'partition': partition}, quote_via=quote)}"
