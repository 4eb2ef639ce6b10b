"""Execute the code cells of a notebook and keep their outputs: ``python examples/execute.py NOTEBOOK``.

A line that begins with ``!`` runs in a shell, as in Jupyter. What the last expression of a cell gives is its output:
tables and figures as a notebook shows them, anything else as text. Needs nothing beyond Sumi's own packages.

Like Jupyter, it runs whatever the notebook says with your rights: execute only notebooks that you trust. Sumi itself
never runs it on a checkpoint or a configuration.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, executed in order in the current folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"], cell["outputs"] = count, _outputs("".join(cell["source"]), names, count)
    return notebook


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for line in [line for line in source.splitlines() if line.startswith("!")]:
            print(_shell(line.removeprefix("!")), end="")
        body = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("!"))).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        shown = {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": _shown(value)}
        outputs.append(shown)
    return outputs


def _shell(command: str) -> str:
    """What a command prints. Raises CalledProcessError where it fails, with what it complained of."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def _shown(value: Any) -> dict[str, Any]:
    """A value by media type, as Jupyter shows it."""
    from matplotlib.figure import Figure

    if isinstance(value, Figure):
        image = io.BytesIO()
        value.savefig(image, format="png", dpi=80, metadata={"Software": None})
        return {"image/png": base64.b64encode(image.getvalue()).decode("ascii"), "text/plain": ["<Figure>"]}
    shown: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
    html = getattr(value, "_repr_html_", None)
    if html is not None and (text := html()):
        shown["text/html"] = text.splitlines(keepends=True)
    return shown


def main() -> None:
    """Execute the notebooks named on the command line, and write them back."""
    for name in sys.argv[1:]:
        path = Path(name)
        notebook = execute(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
