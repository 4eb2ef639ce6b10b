"""YAML and ``key=value`` as OmegaConf reads them: plain data only, a key once, ``1e-3`` a number, a date as text. Keys
are text as they are written: ``on``, ``0.90`` and ``null`` may be labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sumi_core.base.options import ConfigError

#: What libyaml and OmegaConf say of mistakes → what to do about them.
_CLEARER = (
    (re.compile(r"found duplicate key (.+)"), r"the key '\1' is written twice"),
    (re.compile(r"found unhashable key"), "a key must be a plain word"),
    (re.compile(r"but found another document"), "a file holds one document; remove the line ---"),
    (
        re.compile(r"found character .*that cannot start any token"),
        "a tab or one of @ ` % begins a value; indent with spaces, or quote it",
    ),
    (re.compile(r"YAML node expansion exceeds.+"), "its aliases expand to too many values; write them out"),
    (re.compile(r"could not determine a constructor for the tag (\S+)"), r"the tag \1 is not allowed; remove it"),
    (re.compile(r"no viable alternative at input .+"), r"the interpolation is not complete; write ${section.key}"),
)

_NULL = ("", "~", "null", "Null", "NULL")
_OLD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


def parse_yaml(text: str, where: str) -> Any:
    """The mapping or list in ``text`` as plain data; nothing is an empty mapping. Raises ConfigError with the line of a
    mistake."""
    quoted = _quote_labels(text)
    data = _plain(lambda: OmegaConf.create(quoted), where)
    _refuse_old_numbers(quoted, where)
    _refuse_other_keys(data, where)
    return data


def parse_override(item: str, where: str) -> dict[str, Any]:
    """``training.steps=10`` → ``{"training": {"steps": 10}}``. Raises ConfigError."""
    found: dict[str, Any] = _plain(lambda: OmegaConf.from_dotlist([item]), where)
    _refuse_old_numbers(item.partition("=")[2], where)
    return found


def _quote_labels(text: str) -> str:
    """The same YAML with every plain key in quotes, and what the file's ``reference`` is, a label too: YAML would take
    ``on`` for true, and ``0.90`` and ``9e-1`` for one number. Text that is not YAML is returned as it is."""
    places: list[tuple[int, int]] = []
    expected, is_reference = "", False
    try:
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if isinstance(token, yaml.ScalarToken):
                is_key = expected == "key" and token.value != "<<"
                if token.plain and (is_key or (expected == "label" and token.value not in _NULL)):
                    places.append((token.start_mark.index, token.end_mark.index))
                is_reference = expected == "key" and token.value == "reference" and token.start_mark.column == 0
                expected = ""
            elif isinstance(token, yaml.KeyToken):
                expected = "key"
            elif isinstance(token, yaml.ValueToken):
                expected, is_reference = "label" if is_reference else "", False
            elif not isinstance(token, yaml.AnchorToken):
                expected = ""
    except (yaml.YAMLError, RecursionError):
        return text
    for start, end in reversed(places):
        inner = text[start:end].replace("'", "''")
        text = f"{text[:start]}'{inner}'{text[end:]}"
    return text


def _refuse_other_keys(data: Any, where: str) -> None:
    """Keys that are not text in spite of quotes: those with a tag, and those of ``{on, off}``. Raises ConfigError."""
    if isinstance(data, list):
        for item in data:
            _refuse_other_keys(item, where)
    elif isinstance(data, dict):
        for key, item in data.items():
            if not isinstance(key, str):
                raise ConfigError(where, str(key), f"YAML reads this key as {key!r}; put it in quotes")
            _refuse_other_keys(item, where)


def _refuse_old_numbers(text: str, where: str) -> None:
    """YAML 1.1 reads 010 as 8 and 1:30 as 90, which is hardly ever meant. Raises ConfigError."""
    if not _OLD_NUMBER.search(text):
        return
    for token in yaml.scan(text, Loader=yaml.CSafeLoader):
        if isinstance(token, yaml.ScalarToken) and token.plain and _OLD_NUMBER.fullmatch(token.value):
            problem = f"YAML would read {token.value} as another number; write it in decimal, or put it in quotes"
            raise ConfigError(where, f"line {token.start_mark.line + 1}", problem)


def _plain(read: Callable[[], Any], where: str) -> Any:
    try:
        return OmegaConf.to_container(read())
    except RecursionError:
        raise ConfigError(where, "", "nested too deeply to be read; flatten it") from None
    except AssertionError:  # a number or a truth value and nothing else
        raise ConfigError(where, "", "not valid YAML: expected a mapping, got a single value") from None
    # The last three: a tag on text that it does not fit.
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, KeyError, AttributeError) as error:
        if "RecursionError" in str(error) or "recursion depth" in str(error):
            raise ConfigError(where, "", "nested too deeply to be read; flatten it") from None
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        if isinstance(error, KeyError | AttributeError) and not isinstance(error, OmegaConfBaseException):
            problem = "a tag stands before text that is not a value of its type; remove the tag"
        for pattern, clearer in _CLEARER:
            problem = pattern.sub(clearer, problem)
        place = f"line {mark.line + 1}" if mark else str(getattr(error, "full_key", None) or "")
        raise ConfigError(where, place, f"not valid YAML: {problem}") from None


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping a file holds; an empty file is an empty one. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(str(file), "", "no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), "", "not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(str(file), "", f"cannot be read: {error.strerror}") from None
    data = parse_yaml(text, str(file))
    if not isinstance(data, dict):
        raise ConfigError(str(file), "", f"expected a mapping of sections, got {type(data).__name__}")
    return data
