"""``sumi dev``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from pipelines.servers import Server, choose_port, serve
from sumi_core.base.files import write_atomically
from sumi_core.base.locks import locked_if_free
from sumi_core.lineage.links import mlflow_page
from sumi_core.lineage.project import Project

LOCAL = "127.0.0.1"
_ADDRESSES = "dev.json"  # in the project's home while the servers run


def dev_command(
    dagster_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the Dagster UI (3000, or the next free one).")
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the MLflow UI (5000, or the next free one).")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but the default opens both servers to others.")
    ] = LOCAL,
) -> None:
    """Open the Dagster UI and the MLflow UI on this machine, until Ctrl-C. Where they are open already, print where:
    two daemons would start each run twice."""
    project = Project.find()
    with locked_if_free(project.home / "locks" / "dev.lock") as ours:
        if not ours:
            say("open already; Ctrl-C where it was started stops it")
            for name, url in _addresses(project).items():
                say(f"{name:<8} {url}")
            return
        status = _serve(project, host, dagster_port, mlflow_port)
    raise typer.Exit(status)


def _serve(project: Project, host: str, dagster_port: int | None, mlflow_port: int | None) -> int:
    from pipelines.instance import initialise

    initialise(project)
    if host not in (LOCAL, "localhost", "::1"):
        say(f"listening on {host}: everyone who can reach this port can read the project and start computations")
    servers = servers_of(project, host, dagster_port, mlflow_port)
    write_atomically(
        project.home / _ADDRESSES, json.dumps({server.name: server.page or server.url for server in servers}) + "\n"
    )
    try:
        return serve(servers, say)
    finally:
        (project.home / _ADDRESSES).unlink(missing_ok=True)


def _addresses(project: Project) -> dict[str, str]:
    """Where the servers of another process answer; nothing while it is still choosing."""
    try:
        found: dict[str, str] = json.loads((project.home / _ADDRESSES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def servers_of(project: Project, host: str, dagster_port: int | None, mlflow_port: int | None) -> list[Server]:
    """Both servers of a project; only Dagster where MLflow already is a server elsewhere."""
    tracking, logs = project.tracking, project.home / "logs"
    servers: list[Server] = []
    mlflow_url = tracking.uri
    if tracking.uri.startswith("http"):
        say(f"{'MLflow':<8} {mlflow_page(mlflow_url, 'experiments')} (MLFLOW_TRACKING_URI)")
    else:
        port = choose_port(host, mlflow_port, 5000, "mlflow", say)
        mlflow_url = f"http://{_in_url(host)}:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking.uri, "--workers", "1"]
        command += ["--host", host, "--port", str(port)]
        if tracking.artifacts is not None:
            command += ["--artifacts-destination", tracking.artifacts.as_uri()]
        # Without its job runners the embedded server is 2 processes instead of 10.
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        page = mlflow_page(mlflow_url, "experiments")
        servers.append(
            Server("MLflow", command, mlflow_url, "/health", logs / "mlflow.log", quiet, project.root, page=page)
        )

    port = choose_port(host, dagster_port, 3000, "dagster", say)
    workspace = project.root / "workspace.yaml"
    code = ["-w", str(workspace)] if workspace.is_file() else ["-m", "pipelines.definitions"]
    command = [sys.executable, "-m", "dagster", "dev", *code, "--host", host, "--port", str(port)]
    url = f"http://{_in_url(host)}:{port}"
    environment = {
        "DAGSTER_HOME": str(project.dagster_home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "SUMI_PROJECT": str(project.root),
        "SUMI_MLFLOW_UI": mlflow_url,  # where assets link to
        "SUMI_DAGSTER_UI": url,  # where sensors request that new experiments are loaded
    }
    servers.append(Server("Dagster", command, url, "/server_info", logs / "dagster.log", environment, project.root))
    return servers


def _in_url(host: str) -> str:
    everywhere = {"0.0.0.0": LOCAL, "::": "[::1]"}
    return everywhere.get(host) or (f"[{host}]" if ":" in host else host)


def say(line: str) -> None:
    """Print a line to the terminal at once."""
    print(line, flush=True)
