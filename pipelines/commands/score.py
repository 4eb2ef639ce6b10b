"""``sumi score``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sumi_core.base.options import MAX_SEED, ConfigError

if TYPE_CHECKING:
    import pandas as pd


def score_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or the folder of an exported model.")
    ],
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The text to score.")] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Score the text of this file instead, as a whole.")
    ] = None,
    levels: Annotated[
        int, typer.Option(min=1, max=10**4, help="Noise levels drawn for a bound; more make its error smaller.")
    ] = 64,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same figures.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a token, a line each.")] = False,
) -> None:
    """Print what each token of a text costs a model, in nats, and the text as a whole.

    Nats of an autoregressive model are exact: −log p of the token given those before it. Those of a diffusion model are
    what the token adds to the bound, with the error over noise; only their sum bounds the −log p of the text."""
    given = _text(text, file)
    from sumi_core.api import open_model

    model = open_model(name)
    scores = model.score([given], levels=levels, seed=seed)
    if as_json:
        for row in scores.drop(columns="text").to_dict("records"):
            print(
                json.dumps({str(key): None if value != value else value for key, value in row.items()}, allow_nan=False)
            )
        return
    _print(scores, model.likelihood([given], levels=levels, seed=seed))


def _text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise ConfigError("command line", "TEXT", "write a text to score, or --file FILE, and not both")
    if file is None:
        return text or ""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError("command line", "--file", f"{file} is not valid UTF-8; name a text file") from None
    except OSError as error:
        raise ConfigError("command line", "--file", f"cannot read {file}: {error.strerror}; name a text file") from None


def _print(scores: pd.DataFrame, whole: pd.DataFrame) -> None:
    from sumi_core.base.text import render_text_table, text_width, visible, with_error

    rows = [
        {
            "position": str(row["position"]),
            "token": visible(repr(row["string"])) if row["string"] else "end of text",
            "nats": with_error(row["nats"], row["nats_mc_stderr"]),
        }
        for row in scores.to_dict("records")
    ]
    total = whole.iloc[0]
    sign = "=" if total["exact"] else "≤"
    bits = with_error(total["bits_per_byte"], total["bits_per_byte_mc_stderr"], sign)
    print(render_text_table(rows, text_width(sys.stdout)))
    print(f"\n−log p {with_error(total['nats'], None, sign)} nats, {bits} bits per byte, {total['tokens']} tokens")
