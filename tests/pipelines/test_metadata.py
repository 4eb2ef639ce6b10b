"""What Dagster shows of an output's folder: report, pictures, pages."""

from __future__ import annotations

import base64
from pathlib import Path

from dagster import MarkdownMetadataValue, PathMetadataValue, UrlMetadataValue

from assets.factory import IMAGE_LIMIT_BYTES, folder_metadata


def plots(folder: Path) -> Path:
    """A film of an evaluation, and pictures of several sizes."""
    (folder / "plots").mkdir()
    for name, size in (("film.html", 2_000_000), ("film.gif", 600_000), ("loss.png", IMAGE_LIMIT_BYTES)):
        (folder / "plots" / name).write_bytes(b"0" * size)
    (folder / "plots" / "table.csv").write_text("x")
    return folder / "plots"


def test_a_film_is_named_by_its_path_and_a_picture_that_is_too_large_says_so(tmp_path: Path) -> None:
    folder = plots(tmp_path)
    shown = folder_metadata(tmp_path)
    assert shown["page_film_file"] == PathMetadataValue(str(folder / "film.html"))
    picture = f"![loss](data:image/png;base64,{base64.b64encode(b'0' * IMAGE_LIMIT_BYTES).decode()})"
    assert shown["plot_loss"] == MarkdownMetadataValue(picture)
    said = f"Not shown: 600 kB, above the 500 kB of a picture in Dagster's database. It is `{folder / 'film.gif'}`."
    assert shown["plot_film"] == MarkdownMetadataValue(said)
    assert len(shown) == 3


def test_a_film_links_to_where_mlflow_shows_it(tmp_path: Path) -> None:
    plots(tmp_path)
    shown = folder_metadata(tmp_path, lambda place: f"http://mlflow/run/artifacts/evaluation/{place}")
    assert shown["page_film"] == UrlMetadataValue("http://mlflow/run/artifacts/evaluation/plots/film.html")
    assert shown["plot_film"].value.endswith(
        "It is [in MLflow](http://mlflow/run/artifacts/evaluation/plots/film.gif)."
    )
    assert "page_film_file" in shown
