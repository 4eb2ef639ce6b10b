"""YAML as people write it by hand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.base.options import ConfigError
from sumi_core.experiments.yaml_files import parse_override, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2E+4", -2e4),
        ("3.5e3", 3500.0),
        ("5", 5),
        ("0.25", 0.25),
        ("1_000", 1000),
        ("2026-01-02", "2026-01-02"),
        ("1e", "1e"),
        ("e3", "e3"),
        ("null", None),
        ("", None),
        ("${training.steps}", "${training.steps}"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    parsed = parse_yaml(f"key: {text}", "here")["key"]
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_being_written(number: float) -> None:
    assert float(parse_override(f"key={number!r}", "here")["key"]) == number


def test_a_block_may_be_shared_with_yaml_anchors() -> None:
    text = "a: &shared {x: 1, y: 2}\nb: {<<: *shared, y: 3}"
    assert parse_yaml(text, "here") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


LABELS = ["on", "off", "Yes", "true", "null", "~", "1e3", "1_000", "0.9", "0.90", ".5", "010", "0x1f", "2026-01-02"]


def test_keys_are_text_as_they_are_written() -> None:
    block = "".join(f"  {label}: {{on: 0.90}}\n" for label in LABELS)
    flow = ", ".join(f"{label}: [{{no: off}}]" for label in LABELS)
    data = parse_yaml(f"# für 🙂\naxes:\n{block}flow: {{{flow}}}\nreference: 0.90\nbeta: 0.90", "here")
    assert data == {
        "axes": {label: {"on": 0.9} for label in LABELS},
        "flow": {label: [{"no": False}] for label in LABELS},
        "reference": "0.90",
        "beta": 0.9,
    }
    assert parse_yaml("reference: null\nit's: {reference: 1.0, 'on': 2, \"0.90\": 3}", "here") == {
        "reference": None,
        "it's": {"reference": 1.0, "on": 2, "0.90": 3},
    }


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfon: {1e3: 1}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"on": {"1e3": 1}}


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_.+-]{1,6}", fullmatch=True), st.integers(0, 9), min_size=1))
def test_any_label_comes_back(labels: dict[str, int]) -> None:
    written = {key: value for key, value in labels.items() if not key.startswith(("-", "."))}
    assert parse_yaml("\n".join(f"{key}: {value}" for key, value in written.items()), "here") == written


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("t:\n  0.9: 1\n  0.9: 1", "here: line 3: not valid YAML: the key '0.9' is written twice"),
        ("t: {on: 1, on: 2}", "here: line 1: not valid YAML: the key 'on' is written twice"),
        ("t: {on, off}", "here: True: YAML reads this key as True; put it in quotes"),
        ("!!int 3: 4", "here: 3: YAML reads this key as 3; put it in quotes"),
    ],
)
def test_keys_that_are_not_text_or_not_alone(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "here")
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3", "here: line 3: not valid YAML: the key 'a' is written twice"),
        ("t:\n  b: 1\n  b: 1", "here: line 3: not valid YAML: the key 'b' is written twice"),
        ("[a]: 1", "here: line 1: not valid YAML: a key must be a plain word"),
        ("a: [1", "here: line 2: not valid YAML: did not find expected ',' or ']'"),
        ("a: *b", "here: line 1: not valid YAML: found undefined alias"),
        ("a: ${b", "here: a: not valid YAML: the interpolation is not complete; write ${section.key}"),
        ("5", "here: not valid YAML: expected a mapping, got a single value"),
        ("a: 1\n---\nb: 2", "here: line 2: not valid YAML: a file holds one document; remove the line ---"),
        (
            "a:\n\t- 1",
            "here: line 2: not valid YAML: a tab or one of @ ` % begins a value; indent with spaces, or quote it",
        ),
        (
            "a:\n  b: 010",
            "here: line 2: YAML would read 010 as another number; write it in decimal, or put it in quotes",
        ),
        ("a: 1:30", "here: line 1: YAML would read 1:30 as another number; write it in decimal, or put it in quotes"),
        ("a: \x00", "here: not valid YAML: unacceptable character #x0000: control characters are not allowed"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "here: line 1: not valid YAML: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed; "
            "remove it",
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence_with_their_line(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "here")
    assert str(caught.value) == complaint


def test_what_is_nested_beyond_all_measure_ends_in_one_sentence() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("[" * 20_000 + "]" * 20_000, "here")
    assert str(caught.value) == "here: nested too deeply to be read; flatten it"


def _data_or_sentence(text: str) -> object:
    try:
        return parse_yaml(text, "here")
    except ConfigError as error:
        return error


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%?, \n\t0_1e.~"), max_size=30))
def test_no_text_ends_in_anything_but_data_or_one_sentence(text: str) -> None:
    found = _data_or_sentence(text)
    if isinstance(found, ConfigError):
        assert str(found).startswith("here: ")
        assert "\n" not in str(found)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    with pytest.raises(ConfigError, match=r"x\.yaml: no such file$"):
        read_yaml(file)
    file.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match=r"x\.yaml: not UTF-8 text; save the file as UTF-8$"):
        read_yaml(file)
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: expected a mapping of sections, got list$"):
        read_yaml(file)
    file.write_text("# nothing yet\n")
    assert read_yaml(file) == {}
    with pytest.raises(ConfigError, match=r": cannot be read: Is a directory$"):
        read_yaml(tmp_path)
