"""YAML as people write it by hand: plain data only, a key once, ``1e-3`` a number, a date no date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sumi_core.base.options import ConfigError

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the three differences above. YAML 1.1 reads ``1e-3`` as text and ``2026-01-02`` as a date."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"^[-+]?([0-9][0-9_]*)(\.[0-9_]*)?([eE][-+]?[0-9]+)$"),
    list("-+0123456789"),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        if key_node.value in seen and key_node.tag != f"{_TAG}merge":
            problem = f"the key '{key_node.value}' is written twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        seen.add(key_node.value)
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, where: str) -> Any:
    """The one document in ``text`` as plain data. Raises ConfigError with the line of a mistake."""
    try:
        return _Loader(text).get_single_data()  # a SafeLoader: plain data only
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:  # the latter: tags on text they do not fit
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if isinstance(error, KeyError | AttributeError):
            problem = "a tag stands before text that is no such value; remove the tag"
        raise ConfigError(where, f"line {mark.line + 1}" if mark else "", f"not valid YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(where, "", "nested too deeply to be read; flatten it") from None


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping a file holds; an empty file is an empty one. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(file), "", "no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), "", "not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(str(file), "", f"cannot be read: {error.strerror}") from None
    data = parse_yaml(text, str(file))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(str(file), "", f"expected a mapping of sections, got {type(data).__name__}")
    return data
