"""Servers that live and die together."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.commands.dev import servers_of
from pipelines.servers import Server, choose_port, serve
from sumi_core.base.options import ConfigError
from sumi_core.lineage.project import Project
from tests.pipelines.homes import ADDRESSES, furnish

# A server that answers every path and, asked to, starts a child, ignores SIGTERM, or dies by itself.
FAKE = """
import http.server, signal, subprocess, sys, threading, time
port, behaviour = int(sys.argv[1]), sys.argv[2]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *a): pass
if behaviour == "child":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
if behaviour == "dies":
    print("out of luck", flush=True); sys.exit(7)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fake(name: str, behaviour: str, folder: Path) -> Server:
    port = free_port()
    command = [sys.executable, "-c", FAKE, str(port), behaviour]
    return Server(name, command, f"http://127.0.0.1:{port}", "/", folder / f"{name}.log")


def group_of(server: Server) -> list[psutil.Process]:
    assert server.process is not None
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # it may end while it is looked at
            if process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == server.process.pid:
                found.append(process)
    return found


def remaining(server: Server) -> list[psutil.Process]:
    """What is still there of a server once the kernel has had time to end what was killed."""
    for _ in range(100):
        if not group_of(server):
            break
        time.sleep(0.1)
    return group_of(server)


def test_a_signal_stops_every_server_and_what_it_started(tmp_path: Path) -> None:
    servers = [fake("one", "child", tmp_path), fake("two", "plain", tmp_path)]
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line == "Ctrl-C stops both":
            assert len(group_of(servers[0])) == 2
            os.kill(os.getpid(), signal.SIGINT)

    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert serve(servers, say) == 0
    assert {f"{s.name:<8} {s.url}" for s in servers} <= set(said)
    assert said[-1] == "stopping"
    assert [remaining(s) for s in servers] == [[], []]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_the_death_of_one_stops_the_other_and_shows_its_log(tmp_path: Path) -> None:
    servers = [fake("steady", "plain", tmp_path), fake("frail", "dies", tmp_path)]
    said: list[str] = []
    assert serve(servers, said.append) == 1
    assert "frail ended with status 7" in said[-1]
    assert "out of luck" in said[-1]
    assert remaining(servers[0]) == []


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('still loading', flush=True); import time; time.sleep(300)"]
    silent = Server("silent", command, f"http://127.0.0.1:{free_port()}", "/", tmp_path / "silent.log")
    said: list[str] = []
    assert serve([silent], said.append, start_seconds=1.5) == 1
    assert "silent does not answer after 2 s" in said[-1]
    assert "still loading" in said[-1]
    assert remaining(silent) == []


def test_servers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves no time to stop anything: the kernel tells the servers."""
    port = free_port()
    program = (
        "import sys; from pathlib import Path; from pipelines.servers import Server, serve\n"
        f"fake = Server('one', [sys.executable, '-c', {FAKE!r}, '{port}', 'plain'], 'http://127.0.0.1:{port}', '/', "
        f"Path({str(tmp_path / 'one.log')!r}))\n"
        "serve([fake], lambda line: print(line, fake.process.pid, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline().split()[-1]))
    parent.kill()
    parent.wait()
    assert server.wait(20) is None or not server.is_running()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def test_a_taken_port_is_refused_when_asked_for_and_stepped_over_otherwise(taken: int) -> None:
    said: list[str] = []
    with pytest.raises(ConfigError, match=f"--mlflow-port: port {taken} on 127.0.0.1 is taken"):
        choose_port("127.0.0.1", taken, 5000, "mlflow", said.append)
    chosen = choose_port("127.0.0.1", None, taken, "mlflow", said.append)
    assert chosen > taken
    assert said == [f"port {taken} is taken, so mlflow gets {chosen}"]


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--host: cannot listen on 192\.0\.2\.1"):
        choose_port("192.0.2.1", None, 5000, "mlflow", lambda _: None)


def test_an_mlflow_server_elsewhere_is_used_and_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    servers = servers_of(Project(tmp_path), "127.0.0.1", None, None)
    assert [server.name for server in servers] == ["Dagster"]
    assert servers[0].environment["SUMI_MLFLOW_UI"] == "http://mlflow.example:5000"
    assert "http://mlflow.example:5000" in capsys.readouterr().out


def test_both_interfaces_open_and_close_with_one_command(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The real thing: `sumi dev` in a project, both interfaces asked, then Ctrl-C."""
    furnish(tmp_path, tmp_path_factory)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "one.yaml").write_text("description: a test\n")
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: definitions.py\n")
    (tmp_path / "definitions.py").write_text("from dagster import Definitions\ndefs = Definitions()\n")
    environment = {k: v for k, v in os.environ.items() if k not in ADDRESSES}
    ports = [str(free_port()), str(free_port())]
    command = [sys.executable, "-c", "from pipelines.cli import app; app()", "dev"]
    command += ["--dagster-port", ports[0], "--mlflow-port", ports[1]]
    dev = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**environment, "SUMI_PROJECT": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert dev.stdout is not None
    lines = []
    for line in dev.stdout:
        lines.append(line)
        if "Ctrl-C stops both" in line:
            break
    urls = re.findall(r"http://127\.0\.0\.1:\d+", "".join(lines))
    try:
        assert sorted(url.rsplit(":", 1)[1] for url in urls) == sorted(ports), "".join(lines)
        pages = [urllib.request.urlopen(url, timeout=20).read() for url in urls]
        assert any(b"Dagster" in page for page in pages)
        assert any(b"MLflow" in page for page in pages)
        servers = psutil.Process(dev.pid).children(recursive=True)
        assert len(servers) >= 4
        again = subprocess.run(
            command[:4],
            cwd=tmp_path,
            env={**environment, "SUMI_PROJECT": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert again.returncode == 0, again.stderr
        assert "open already" in again.stdout
        assert set(re.findall(r"http://127\.0\.0\.1:\d+", again.stdout)) == set(urls)
    finally:
        dev.send_signal(signal.SIGINT)
        output, _ = dev.communicate(timeout=60)
    assert dev.returncode == 0, output
    deadline = time.monotonic() + 10
    while any(server.is_running() for server in servers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [server.pid for server in servers if server.is_running()] == []
