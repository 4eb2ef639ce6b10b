"""MLflow without telemetry and chatter."""

from __future__ import annotations

import logging
import os


def quiet_mlflow() -> None:
    """No telemetry, no migration chatter. Set before the first import, since MLflow reads them then."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that does not answer is told in seconds, not after minutes of retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.store.db"):
        logging.getLogger(name).setLevel(logging.WARNING)
