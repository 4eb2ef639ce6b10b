"""Fingerprints: equal data, equal name; anything two processes could write differently is refused."""

from __future__ import annotations

import hashlib
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.base.hashing import LENGTH, canonical_json, file_sha256, fingerprint, flatten

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def test_a_fingerprint_is_the_same_for_ever() -> None:
    """A change of this value would make every finished output unfindable."""
    data = {"stage": "corpus", "config": {"rate": 1e-3, "n": 3, "on": True, "none": None, "text": "é"}, "list": [1, 2]}
    assert canonical_json(data) == (
        r'{"config":{"n":3,"none":null,"on":true,"rate":0.001,"text":"\u00e9"},"list":[1,2],"stage":"corpus"}'
    )
    assert fingerprint(data) == hashlib.sha256(canonical_json(data).encode()).hexdigest()[:16]
    assert fingerprint({}) == "44136fa355b3678a"


@given(plain)
def test_it_is_sixteen_hex_digits_of_what_json_reads_back(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value
    assert len(fingerprint(value)) == LENGTH == 16
    assert set(fingerprint(value)) <= set(string.hexdigits.lower())


@given(st.dictionaries(st.text(max_size=4), plain, min_size=2, max_size=5))
def test_the_order_of_keys_is_no_difference(value: dict[str, Any]) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


@given(plain, plain)
def test_different_data_has_different_names(a: Any, b: Any) -> None:
    assert (fingerprint(a) == fingerprint(b)) == (canonical_json(a) == canonical_json(b))


def test_kinds_are_told_apart() -> None:
    values: list[Any] = [None, False, 0, 0.0, "", "0", "None", [], [None], {}, {"": None}, [[]], 1, 1.0, True]
    assert len({fingerprint(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [1, {2}]}}, r"^a\.b\[1\] is a set; only plain data can be fingerprinted$"),
        ({"a": Path("x")}, r"^a is a PosixPath; only plain data can be fingerprinted$"),
        ({"a": np.float64(1.0)}, r"^a is a float64; only plain data can be fingerprinted$"),
        (np.int64(1), r"^value is a int64; only plain data can be fingerprinted$"),
        (b"x", r"^value is a bytes; only plain data can be fingerprinted$"),
        ({"a": {1: 2}}, r"^a has the key 1; only text keys serialise the same everywhere$"),
        ({None: 2}, r"^value has the key None; only text keys serialise the same everywhere$"),
    ],
)
def test_what_is_not_plain_data_is_refused_where_it_stands(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fingerprint(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": [value]})


def test_file_sha256(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc" * 100_000)
    assert file_sha256(file) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_flatten() -> None:
    assert dict(flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None})) == {"a.b": 1, "a.c.d": [1, 2], "e": None}
