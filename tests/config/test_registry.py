"""Registries: names to classes, and hints for misspelt names."""

import pytest

from sumi_core.base.registry import Registry, UnknownName, nearest
from sumi_core.corruption import PROCESSES, SCHEDULES
from tests.config.parts import FakeSource, Plain

PARTS = Registry(
    "part",
    "sumi_core.base.registry:Part",
    {"plain": "tests.config.parts:Plain", "fake": "tests.config.parts:FakeSource"},
)


def test_a_name_gives_its_class_and_options() -> None:
    assert PARTS.get("plain") is Plain
    assert PARTS.options("fake") is FakeSource.Options
    assert PARTS.names() == ["fake", "plain"]
    assert "plain" in PARTS
    assert "other" not in PARTS


def test_building_hands_on_options_and_context() -> None:
    source = PARTS.build("fake", {"path": "x", "rows": 2})
    assert isinstance(source, FakeSource)
    assert (source.options.path, source.options.rows) == ("x", 2)
    plain = PARTS.build("plain", {}, num_tokens=7)
    assert isinstance(plain, Plain)
    assert plain.context == {"num_tokens": 7}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        PROCESSES.get("unifrom")
    assert str(caught.value) == "no corruption process is called 'unifrom'; did you mean 'uniform'?"
    with pytest.raises(UnknownName) as caught:
        SCHEDULES.build("zzz", {})
    assert (
        str(caught.value)
        == "no noise schedule is called 'zzz'; known: cosine, fitted, linear, log_snr, polynomial, sqrt"
    )


def test_a_long_list_is_shown_by_its_short_form() -> None:
    assert nearest("zzz", ["b.1", "b.2", "a.1"], show=["b", "a"]) == "known: a, b"
    assert nearest("b.3", ["b.1", "a.2"], show=["a"]) == "did you mean 'b.1'?"
