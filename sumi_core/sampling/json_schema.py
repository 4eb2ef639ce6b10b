"""JSON schemas as regular expressions, for a subset in which nothing is lost or gained.

A value is written in one way: keys in the order of ``properties``, ``", "`` between items, ``": "`` after keys, as
Python's own library writes it. A string escapes quotes, backslashes and the control characters that have a short
escape; the other control characters do not occur. Numbers have at most 15 digits before and after the point, as many as
every reader keeps, and no exponent. A keyword outside of the subset is refused, since leaving it out would make texts
that the schema does not allow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.sampling.regular import ATOM, PatternError, character_automaton, literal

DIGITS = 15
_PLAIN = r'[^"\\\x00-\x1f]'
_CHARACTER = rf'(?:{_PLAIN}|\\["\\bfnrt])'
_WHOLE = rf"[1-9]\d{{0,{DIGITS - 1}}}"
_SCALARS = {
    "integer": rf"(?:0|-?{_WHOLE})",
    "number": rf"-?(?:0|{_WHOLE})(?:\.\d{{1,{DIGITS}}})?",
    "boolean": "(?:true|false)",
    "null": "null",
}
_ANNOTATIONS = {"$schema", "$id", "$comment", "title", "description", "default", "examples"}
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern"},
    **{name: set[str]() for name in _SCALARS},
}


class SchemaError(SumiError, ValueError):
    """A schema outside of the subset. One sentence: where, what, and what to do."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place or 'the schema'}: {problem}")


def schema_expression(schema: Any, place: str = "") -> str:
    """The regular expression of all texts of a schema's values. place: of the schema in the one that holds it, as in
    ``properties.age``. Raises SchemaError."""
    if not isinstance(schema, Mapping):
        raise SchemaError(place, f"expected a mapping of keywords, got {schema!r}")
    keywords = set(schema) - _ANNOTATIONS
    if keywords & {"enum", "const"}:
        return _listed(schema, keywords, place)
    kind = schema.get("type")
    if kind is None and (unknown := sorted(keywords - set().union(*_KEYWORDS.values()))):
        raise SchemaError(place, f"keyword '{unknown[0]}' is not supported; write a type, an enum or a const instead")
    if not isinstance(kind, str) or kind not in _KEYWORDS:
        raise SchemaError(place, f"type is {kind!r}; write one of {', '.join(_KEYWORDS)}, or an enum or const")
    _refuse_others(keywords - {"type"}, _KEYWORDS[kind], place, f"type '{kind}'")
    if kind == "object":
        return _object(schema, place)
    if kind == "array":
        return _array(schema, place)
    return _string(schema, place) if kind == "string" else _SCALARS[kind]


def _refuse_others(keywords: set[str], known: set[str], place: str, beside: str) -> None:
    for keyword in sorted(keywords - known):
        also = f"; beside {beside} there may be {', '.join(sorted(known))}" if known else ""
        raise SchemaError(place, f"keyword '{keyword}' is not supported beside {beside}{also}; leave it out")


def _listed(schema: Mapping[str, Any], keywords: set[str], place: str) -> str:
    """Values that are written out. A type beside them must be theirs."""
    name = "enum" if "enum" in keywords else "const"
    _refuse_others(keywords - {name, "type"}, set(), place, name)
    values = schema["enum"] if name == "enum" else [schema["const"]]
    if not isinstance(values, list) or not values:
        raise SchemaError(place, f"enum is {values!r}; write a list of values")
    if "type" in schema and (wrong := [value for value in values if not _is_of(value, schema["type"])]):
        raise SchemaError(place, f"{name} holds {wrong[0]!r}, which is not of type {schema['type']!r}; leave it out")
    try:
        texts = [_text(value) for value in values]
    except (TypeError, ValueError):
        raise SchemaError(place, f"{name} holds a value that JSON cannot write; leave it out") from None
    return f"(?:{'|'.join(map(literal, texts))})"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return bool(kind == ("null" if value is None else "boolean"))
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
    return kind in types and isinstance(value, types[kind])


def _object(schema: Mapping[str, Any], place: str) -> str:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise SchemaError(place, "properties must be a mapping and required a list")
    if schema.get("additionalProperties", False) is not False:
        raise SchemaError(place, "additionalProperties must be false; list every property instead")
    for name in properties:
        if name not in required:
            raise SchemaError(place, f"property '{name}' may be missing; add it to required")
    for name in required:
        if name not in properties:
            raise SchemaError(place, f"required property '{name}' has no schema; add it to properties")
    inside = f"{place}.properties" if place else "properties"
    members = [
        f"{literal(_text(name))}: {schema_expression(own, f'{inside}.{name}')}" for name, own in properties.items()
    ]
    return rf"\{{{', '.join(members)}\}}"


def _array(schema: Mapping[str, Any], place: str) -> str:
    if "items" not in schema or "maxItems" not in schema:
        raise SchemaError(place, "an array needs items and maxItems")
    least, most = _bounds(schema, "minItems", "maxItems", place)
    item = schema_expression(schema["items"], f"{place}.items" if place else "items")
    if most == 0:
        return r"\[\]"
    filled = f"{item}(?:, {item}){{{max(least, 1) - 1},{most - 1}}}"
    return rf"\[{filled}\]" if least else rf"\[(?:{filled})?\]"


def _string(schema: Mapping[str, Any], place: str) -> str:
    if "pattern" in schema:
        _refuse_others(set(schema) & {"minLength", "maxLength"}, set(), place, "pattern")
        return f'"(?:{_body(schema["pattern"], place)})"'
    least, most = _bounds(schema, "minLength", "maxLength", place)
    return f'"{_CHARACTER}{{{least},{"" if most is None else most}}}"'


def _bounds(schema: Mapping[str, Any], low: str, high: str, place: str) -> tuple[int, Any]:
    least, most = schema.get(low, 0), schema.get(high)
    for name, value in ((low, least), (high, most)):
        if value is not None and (type(value) is not int or value < 0):
            raise SchemaError(place, f"{name} is {value!r}; write a number of at least 0")
    if most is not None and most < least:
        raise SchemaError(place, f"{high} {most} is below {low} {least}")
    return least, most


def _body(pattern: Any, place: str) -> str:
    """A pattern without its anchors. A schema's pattern may match anywhere in the string; one with both anchors means
    the whole of it."""
    body = pattern[1:-1] if isinstance(pattern, str) else ""
    if not isinstance(pattern, str) or pattern != f"^{body}$" or _ends_in_escape(body):
        raise SchemaError(place, f"pattern {pattern!r} does not name the whole string; write '^…$'")
    try:
        alternatives, whole = character_automaton(body), character_automaton(f"{_PLAIN}*")
    except PatternError as error:
        raise SchemaError(place, f"pattern {error}") from None
    if _has_bare_alternatives(body):
        raise SchemaError(place, f"pattern {pattern!r} has alternatives outside of a group; write '^(?:…)$'")
    if not alternatives.difference(whole).empty():
        raise SchemaError(
            place,
            f"pattern {pattern!r} allows quotes, backslashes or control characters, which JSON escapes; exclude them, "
            f"as in {_PLAIN}",
        )
    return body


def _ends_in_escape(body: str) -> bool:
    return (len(body) - len(body.rstrip("\\"))) % 2 == 1


def _has_bare_alternatives(body: str) -> bool:
    depth = 0
    for character in ATOM.sub("x", body):
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            return True
    return False
