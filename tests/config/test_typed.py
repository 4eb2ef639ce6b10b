"""Plain data into typed records: conversions, limits, parts, and the sentence each mistake gets."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from sumi_core.base.options import ConfigError, component, part, typed
from sumi_core.base.registry import Registry
from tests.registries import REGISTRIES

PARTS = Registry(
    "part",
    "sumi_core.base.registry:Part",
    {"plain": "tests.config.parts:Plain", "fake": "tests.config.parts:FakeSource"},
)


@dataclass
class Inner:
    size: Annotated[int, Field(ge=2, le=8)] = 4
    rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5


@dataclass
class Record:
    inner: Inner = field(default_factory=Inner)
    flag: bool = False
    title: str = "x"
    note: str | None = None
    limit: float | None = None
    sizes: list[int] = field(default_factory=lambda: [1])
    kind: Literal["red", "green"] = "red"
    maker: Any = part(PARTS, "plain")
    helper: Any = part(PARTS, None, optional=True)


def complaint(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        typed(Record, data, "a.yaml")
    return str(caught.value)


def test_defaults_and_written_values() -> None:
    assert typed(Record, {}, "a.yaml") == Record()
    made = typed(Record, {"inner": {"rate": 1e-3}, "maker": "plain", "note": None, "limit": 2}, "a.yaml")
    assert made.inner == Inner(4, 1e-3)
    assert made.limit == 2.0
    assert type(made.limit) is float
    assert made.maker == {"name": "plain"}
    assert made.helper is None


def test_texts_are_read_as_the_numbers_they_hold() -> None:
    made = typed(Record, {"inner": {"size": "5", "rate": "1e-3"}, "sizes": ["2", 3], "flag": "true"}, "a.yaml")
    assert (made.inner.size, made.inner.rate, made.sizes, made.flag) == (5, 1e-3, [2, 3], True)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"tittle": "a"}, "a.yaml: tittle: unknown key; did you mean 'title'?"),
        ({"inner": {"sise": 2}}, "a.yaml: inner.sise: unknown key; did you mean 'size'?"),
        ({"inner": {1: 2}}, "a.yaml: inner.1: unknown key; known: rate, size"),
        ({"inner": 3}, "a.yaml: inner: expected a mapping of keys, got 3"),
        ({"inner": {"size": "many"}}, "a.yaml: inner.size: expected an integer, got 'many'"),
        ({"inner": {"size": 2.5}}, "a.yaml: inner.size: expected an integer, got 2.5"),
        ({"inner": {"size": True}}, "a.yaml: inner.size: expected an integer, got True; write a number"),
        ({"inner": {"rate": False}}, "a.yaml: inner.rate: expected a number, got False; write a number"),
        (
            {"inner": {"size": None}},
            "a.yaml: inner.size: expected an integer, got null; write a value or leave the key out",
        ),
        ({"inner": {"size": 1}}, "a.yaml: inner.size: must be at least 2, got 1"),
        ({"inner": {"size": 9}}, "a.yaml: inner.size: must be at most 8, got 9"),
        ({"inner": {"rate": 0}}, "a.yaml: inner.rate: must be above 0, got 0"),
        ({"inner": {"rate": 1.0}}, "a.yaml: inner.rate: must be below 1, got 1"),
        (
            {"inner": {"rate": float("nan")}},
            "a.yaml: inner.rate: expected a number, got nan; nan and inf are not accepted",
        ),
        ({"limit": float("inf")}, "a.yaml: limit: expected a number or null, got inf; nan and inf are not accepted"),
        ({"limit": "-inf"}, "a.yaml: limit: expected a number or null, got '-inf'; nan and inf are not accepted"),
        ({"flag": 1}, "a.yaml: flag: expected true or false, got 1; write true or false"),
        ({"flag": "maybe"}, "a.yaml: flag: expected true or false, got 'maybe'"),
        ({"title": 5}, "a.yaml: title: expected text, got 5; put it in quotes"),
        ({"note": False}, "a.yaml: note: expected text or null, got False; put it in quotes"),
        ({"title": ["a"]}, "a.yaml: title: expected text, got ['a']"),
        ({"sizes": 3}, "a.yaml: sizes: expected a list of integers, got 3"),
        ({"sizes": [1, None]}, "a.yaml: sizes: expected a list of integers, got [1, None]"),
        ({"sizes": [1, True]}, "a.yaml: sizes: expected a list of integers, got [1, True]; write a number"),
        ({"kind": "gren"}, "a.yaml: kind: no such choice 'gren'; did you mean 'green'?"),
        ({"maker": None}, "a.yaml: maker: expected the name of a part (fake, plain), got None"),
        ({"maker": {"size": 3}}, "a.yaml: maker: expected the name of a part (fake, plain), got {'size': 3}"),
        ({"maker": "plane"}, "a.yaml: maker: no part is called 'plane'; did you mean 'plain'?"),
        ({"maker": {"name": "plain", "size": 3}}, "a.yaml: maker.size: unknown key; there are none here"),
        ({"helper": "fake"}, "a.yaml: helper.path: is missing; write text"),
        (
            {"helper": {"name": "fake", "path": "x", "level": 10}},
            "a.yaml: helper.level: must be below 10, got 10",
        ),
        (
            {"helper": {"name": "fake", "path": "x", "weights": [0.5, float("inf")]}},
            "a.yaml: helper.weights: expected a list of numbers, got [0.5, inf]; nan and inf are not accepted",
        ),
        (
            {"helper": {"name": "fake", "path": "empty", "rows": 3}},
            "a.yaml: helper: an empty path has no rows; leave rows out",
        ),
    ],
)
def test_each_mistake_has_its_sentence(data: dict[str, Any], sentence: str) -> None:
    assert complaint(data) == sentence


def test_a_part_gets_every_option_written_out() -> None:
    made = component(PARTS, {"name": "fake", "path": "x", "share": 1}, "a.yaml", "source")
    assert made == {
        "name": "fake",
        "path": "x",
        "rows": None,
        "share": 1.0,
        "kinds": ["a"],
        "weights": [],
        "level": 3,
    }


def read_as(hint: Any, value: Any) -> Any:
    """What a field of a type makes of a value."""
    record = dataclasses.make_dataclass("Record", [("key", hint)])
    return typed(record, {"key": value}, "a.yaml").key


def _value_or_sentence(hint: Any, value: Any) -> Any:
    try:
        return read_as(hint, value)
    except ConfigError as error:
        return error


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers())))
def test_a_value_is_converted_to_its_type_or_refused(value: Any) -> None:
    for hint in (int, float, bool, str, int | None, list[int], list[float], list[str]):
        converted = _value_or_sentence(hint, value)
        if isinstance(converted, ConfigError):
            assert str(converted).startswith("a.yaml: key: expected ")
        elif value is None:
            assert converted is None
        elif typing.get_origin(hint) is list:
            assert all(type(item) is typing.get_args(hint)[0] for item in converted)
        else:
            assert type(converted) is (int if hint == int | None else hint)


def _parts() -> list[tuple[Registry, str]]:
    return [(registry, name) for registry in REGISTRIES.values() for name in registry.names()]


@pytest.mark.parametrize(("registry", "name"), _parts(), ids=[f"{r.kind}: {n}" for r, n in _parts()])
def test_options_of_registered_parts_can_be_written_as_they_are_read(registry: Registry, name: str) -> None:
    """Every option's default, written into a file, is read back as itself: its type is one the config understands."""
    options = registry.options(name)
    hints = typing.get_type_hints(options, include_extras=True)
    for declared in dataclasses.fields(options):
        if "registry" in declared.metadata:
            continue
        if declared.default is not dataclasses.MISSING:
            default = declared.default
        elif declared.default_factory is not dataclasses.MISSING:
            default = declared.default_factory()
        else:
            continue
        assert read_as(hints[declared.name], default) == default
