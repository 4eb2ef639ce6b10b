"""Texts of a JSON schema: valid for ``jsonschema``, and every value of the subset has one."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from sumi_core.sampling.json_schema import SchemaError, schema_expression
from sumi_core.sampling.regular import ByteAutomaton, byte_automaton, character_automaton

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "a person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer"},
        "weight": {"type": "number"},
        "sex": {"enum": ["f", "m", None]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-zé]{1,3}$"}, "maxItems": 3},
        "home": {
            "type": "object",
            "properties": {'ünit "1"': {"type": "boolean"}, "none": {"type": "null"}},
            "required": ['ünit "1"', "none"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "weight", "sex", "tags", "home"],
}
VALUES: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({"type": "integer"}, [0, 7, -12, 10**15 - 1], [1.5, "1", True]),
    ({"type": "number"}, [0, 1.5, -0.25, 123456, 0.000123], ["1", None]),
    ({"type": "boolean"}, [True, False], [0, None]),
    ({"type": "null"}, [None], [False]),
    ({"const": {"a": [1, "x"]}}, [{"a": [1, "x"]}], [{"a": [1]}]),
    ({"type": "string", "enum": ["a.b", "c"]}, ["a.b", "c"], ["axb", "d"]),
    ({"type": "string", "maxLength": 3}, ["", "abc", '"\\/', "é\n\t", "日本🙂"], ["abcd"]),
    ({"type": "string", "pattern": "^(?:a|b)*$"}, ["", "abba"], ["c"]),
    (
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2},
        [[None], [None] * 2],
        [[], [None] * 3],
    ),
    ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, [[]], [[1]]),
    ({"type": "object"}, [{}], [{"a": 1}]),
]


def language(schema: Any) -> ByteAutomaton:
    return byte_automaton(character_automaton(schema_expression(schema)))


def written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def random_text(automaton: ByteAutomaton, generator: random.Random) -> bytes:
    """Any text: bytes at random among those that lead on, to an end as soon as there is one behind 60 of them."""
    state, text = automaton.start, b""
    while not automaton.accepts[state] or (len(text) < 60 and generator.random() < 0.9):
        onwards = [byte for byte in range(256) if automaton.table[state, byte] >= 0]
        if not onwards:
            break
        if len(text) > 200:  # out of a string that has no end
            onwards = [byte for byte in onwards if byte == ord('"')] or onwards
        byte = generator.choice(onwards)
        state, text = int(automaton.table[state, byte]), text + bytes([byte])
    return text


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_the_values_of_a_schema_are_written_and_no_others(number: int) -> None:
    schema, inside, outside = VALUES[number]
    automaton = language(schema)
    for value in inside:
        jsonschema.validate(value, schema)
        assert automaton.accepted(written(value)), value
    for value in outside:
        assert not automaton.accepted(written(value)), value


@pytest.mark.parametrize("schema", [PERSON, *(schema for schema, _, _ in VALUES)], ids=str)
def test_every_text_is_json_that_the_schema_allows(schema: dict[str, Any]) -> None:
    automaton, generator = language(schema), random.Random(0)
    for _ in range(60):
        text = random_text(automaton, generator).decode()
        jsonschema.validate(json.loads(text), schema)


def test_an_object_of_all_kinds_is_written_as_json_dumps_does() -> None:
    value = {
        "name": 'O"Neil\n',
        "age": -3,
        "weight": 70.25,
        "sex": None,
        "tags": ["é", "abc"],
        "home": {'ünit "1"': True, "none": None},
    }
    jsonschema.validate(value, PERSON)
    automaton = language(PERSON)
    assert automaton.accepted(written(value))
    assert not automaton.accepted(written(dict(reversed(value.items()))))
    assert not automaton.accepted(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (True, "the schema: expected a mapping of keywords, got True"),
        ({}, "the schema: type is None; write one of object, array, string"),
        ({"type": ["string", "null"]}, r"type is \['string', 'null'\]; write one of"),
        ({"type": "integer", "minimum": 3}, "keyword 'minimum' is not supported beside type 'integer'; leave it out"),
        (
            {"type": "string", "format": "date"},
            "keyword 'format' is not supported beside type 'string'; beside type 'string' there may be maxLength, "
            "minLength, pattern; leave it out",
        ),
        ({"anyOf": [{"type": "null"}]}, "keyword 'anyOf' is not supported; write a type"),
        ({"$ref": "#/a"}, r"keyword '\$ref' is not supported; write a type"),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, "property 'a' may be missing; add it to required"),
        ({"type": "object", "required": ["a"]}, "required property 'a' has no schema"),
        ({"type": "object", "additionalProperties": True}, "additionalProperties must be false"),
        ({"type": "array", "items": {"type": "null"}}, "an array needs items and maxItems"),
        ({"type": "array", "items": {"type": "x"}, "maxItems": 2}, "items: type is 'x'"),
        ({"type": "string", "pattern": "a+"}, r"pattern 'a\+' does not name the whole string; write '\^…\$'"),
        ({"type": "string", "pattern": "^a\\$"}, "does not name the whole string"),
        ({"type": "string", "pattern": "^a|b$"}, "alternatives outside of a group"),
        ({"type": "string", "pattern": "^.*$"}, "allows quotes, backslashes or control characters"),
        ({"type": "string", "pattern": "^(a)\\1$"}, "Group references"),
        ({"type": "string", "pattern": "^a$", "maxLength": 3}, "keyword 'maxLength' is not supported beside pattern"),
        ({"type": "string", "maxLength": -1}, "maxLength is -1; write a number of at least 0"),
        ({"type": "string", "minLength": 4, "maxLength": 3}, "maxLength 3 is below minLength 4"),
        ({"type": "integer", "enum": [1, "a"]}, "enum holds 'a', which is not of type 'integer'"),
        ({"enum": []}, r"enum is \[\]; write a list of values"),
        ({"const": float("nan")}, "const holds a value that JSON cannot write"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_outside_of_the_subset_is_refused_by_name(schema: Any, complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        schema_expression(schema)
