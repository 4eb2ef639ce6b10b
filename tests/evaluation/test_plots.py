"""Every plot is written, shows something, and is the same picture when drawn again."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from sumi_core.evaluation.plot_style import style_of
from sumi_core.evaluation.plots import (
    Bar,
    Gap,
    plot_comparison,
    plot_differences,
    plot_loss_by_level,
    plot_loss_history,
    plot_quality_against_steps,
    plot_task_accuracy,
)


def history(offset: float) -> pd.DataFrame:
    steps = np.arange(1, 101)
    rows = [(s, s * 4096, "train/loss", offset + 3 / s) for s in steps]
    rows += [(s, s * 4096, "validation/nats_per_token", offset + 0.1 + 3 / s) for s in steps[::20]]
    rows += [(s, s * 4096, "system/tokens_per_second", 1e5) for s in steps]
    return pd.DataFrame(rows, columns=["step", "tokens", "name", "value"])


def curve(height: float) -> pd.DataFrame:
    edges = np.linspace(0.001, 0.999, 11)
    middle = (edges[:-1] + edges[1:]) / 2
    columns = {"low": edges[:-1], "high": edges[1:], "bits_per_byte": height * middle, "noise": middle}
    return pd.DataFrame({**columns, "per_alpha": height * (1 + middle), "per_alpha_stderr": 0.1})


def quality() -> pd.DataFrame:
    rows = [("b", 0, "distinct_1", 0.6, np.nan), ("b", 8, "distinct_1", 0.9, 0.02), ("b", 64, "distinct_1", 0.7, 0.02)]
    rows += [("a", 0, "unigram_entropy", 5.0, np.nan), ("a", 128, "unigram_entropy", 5.2, 0.1)]
    return pd.DataFrame(rows, columns=["cell", "steps", "name", "value", "stderr"])


def accuracy(share: float) -> pd.DataFrame:
    rows = [(1.0, share / 3, share / 4, share / 2, 0.8), (8.0, share, share / 1.2, 1.0, 1.0)]
    return pd.DataFrame(rows, columns=["calls", "accuracy", "low", "high", "validity"])


BARS = [Bar("uniform", 2.3, 0.02, "≤", 0), Bar("autoregressive", 1.9, 0.0, "=", 1), Bar("xz", 2.0), Bar("unigram", 4.3)]
GAPS = [Gap("absorbing", -0.2, -0.25, -0.15, True, 1), Gap("hybrid", 0.01, -0.02, 0.04, False, 2)]
PLOTS = {
    "differences": lambda path: plot_differences(GAPS, path, "Differences", "uniform"),
    "history": lambda path: plot_loss_history({"uniform": history(2.0), "new": pd.DataFrame()}, path, "Loss"),
    "level": lambda path: plot_loss_by_level({"uniform": curve(2.0), "exact": pd.DataFrame()}, path),
    "comparison": lambda path: plot_comparison(BARS, path, "Bits per byte"),
    "tasks": lambda path: plot_task_accuracy({"generation": accuracy(0.6), "infilling": accuracy(0.9)}, path, 0.1),
    "quality": lambda path: plot_quality_against_steps(quality(), path),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plot_shows_something_and_is_reproducible(name, tmp_path):
    first, second = tmp_path / "a" / "plot.png", tmp_path / "b" / "plot.png"
    assert PLOTS[name](first) == first
    PLOTS[name](second)
    pixels = image.imread(first)
    assert pixels.shape[0] > 250
    assert pixels.shape[1] > 450
    drawn = (pixels[..., :3] < 0.97).any(axis=-1)
    assert 0.01 < drawn.mean() < 0.6
    assert len(np.unique(pixels[drawn].round(2), axis=0)) > 20
    assert first.read_bytes() == second.read_bytes()


def test_more_data_changes_the_picture(tmp_path):
    plot_loss_by_level({"one": curve(2.0)}, tmp_path / "one.png")
    plot_loss_by_level({"one": curve(2.0), "two": curve(1.0)}, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_several_seeds_show(tmp_path):
    """Bands around curves, a dot for each seed."""
    band = curve(2.0).assign(bits_per_byte_error=0.2, per_alpha_error=0.3)
    pictures = {
        "level": (
            lambda path, c=curve(2.0): plot_loss_by_level({"a": c}, path),
            lambda path: plot_loss_by_level({"a": band}, path),
        ),
        "history": (
            lambda path: plot_loss_history({"a": history(2.0)}, path),
            lambda path: plot_loss_history({"a": history(2.0).assign(error=0.3)}, path),
        ),
        "bars": (
            lambda path: plot_comparison([Bar("a", 2.0, 0.1, "≤", 0)], path),
            lambda path: plot_comparison([Bar("a", 2.0, 0.1, "≤", 0, (1.8, 2.2))], path),
        ),
    }
    for name, (single, several) in pictures.items():
        drawn = [image.imread(draw(tmp_path / f"{name}-{i}.png"))[..., :3] for i, draw in enumerate((single, several))]
        assert drawn[0].shape == drawn[1].shape
        assert 1e-4 < (np.abs(drawn[0] - drawn[1]) > 0.05).any(axis=-1).mean() < 0.5, name


def test_what_is_significant_is_filled(tmp_path):
    hollow = plot_differences([GAPS[1]], tmp_path / "hollow.png")
    filled = plot_differences([Gap("hybrid", 0.01, -0.02, 0.04, True, 2)], tmp_path / "filled.png")
    assert image.imread(filled)[..., :3].mean() < image.imread(hollow)[..., :3].mean()


def test_no_two_of_many_lines_look_alike():
    styles = [style_of(index) for index in range(64)]
    assert len(set(styles)) == 64
