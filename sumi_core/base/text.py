"""Figures and texts as people read them: ``≤ 2.313 ± 0.012``, escaped samples, tables, and pages made of blocks, which
are written as Markdown or as HTML."""

from __future__ import annotations

import codecs
import math
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TextIO

# Unicode categories that are invisible or act on the terminal: controls, formats (bidirectional overrides, zero-width),
# surrogates, private use, unassigned, line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
WIDTH = 100  # characters of a line where no narrower terminal says otherwise
PLAIN = "plain"  # the name of the codec error handler below
_GAP = "  "  # between the columns of a plain table
_PLAIN = {"≤": "<=", "±": "+/-", "−": "-", "…": "...", "–": "-", "×": "x", "·": ".", "→": "->", "└": "`", "─": "-"}


def visible(text: str) -> str:
    r"""Text with every invisible character but the newline written as an escape: ``\x1b``, ``\t``, ``\u202e``.

    A backslash that would be mistaken for such an escape is left alone: this is for reading, not for parsing back.
    """
    return "".join(_escaped(c) if c != "\n" and unicodedata.category(c) in _INVISIBLE else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def fenced(text: str) -> str:
    """A Markdown code block around ``text``, made visible, with a fence longer than any run of backticks in it."""
    shown = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def excerpt(text: str, length: int = 200) -> str:
    """The beginning of a text on one visible line."""
    line = visible(text.replace("\n", "↵"))
    return line if len(line) <= length else line[: length - 1] + "…"


def with_error(value: float | None, stderr: float | None = None, sign: str = "", digits: int = 3) -> str:
    """``≤ 2.313 ± 0.012``; a missing or NaN value is ``–``, a missing error is left out, and one of 0 is exact.

    ``digits`` is raised until the error shows two significant digits (at most 6).
    """
    if value is None or math.isnan(value):
        return "–"
    known = stderr is not None and not math.isnan(stderr)
    if known and stderr:
        digits = min(6, max(digits, 1 - math.floor(math.log10(abs(stderr or 1.0)))))
    shown = f"{value:.{digits}f}" + (f" ± {stderr:.{digits}f}" if known and stderr else "")
    return f"{sign} {shown}" if sign else shown


def counted(number: int, thing: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def short_count(value: float | None) -> str:
    """``1234567`` → ``1.23 M``; ``3.1e15`` → ``3.10e15``."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) >= 1e15:
        return f"{value:.2e}".replace("e+", "e")
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"


def short_bytes(value: float | None) -> str:
    """``864215040`` → ``824 MiB``."""
    if value is None or math.isnan(value):
        return "–"
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def short_interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """``+0.012 to +0.034``; ``–`` where an end is not known. ``digits`` is raised until the ends differ in two."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "–"
    if high > low:
        digits = min(6, max(digits, 1 - math.floor(math.log10(high - low))))
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def short_duration(seconds: float | None) -> str:
    """``75`` → ``1 min 15 s``."""
    if seconds is None or math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table; its columns are the keys of all rows in order of first appearance. No rows: nothing."""
    if not rows:
        return ""
    names = column_names(rows)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(visible(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    body = [line([row.get(name, "") for name in names]) for row in rows]
    return "\n".join([line(names), "|" + " --- |" * len(names), *body])


def render_text_table(rows: Sequence[Mapping[str, str]], width: int | None = None) -> str:
    """Plain aligned columns, for a log, a pipe or a file. No rows: nothing.

    A table wider than ``width`` goes on below itself: further columns, beside the first one again."""
    if not rows:
        return ""
    first, *others = column_names(rows)
    blocks: list[list[str]] = [[first]]
    for name in others:
        together = [*blocks[-1], name]
        fits = width is None or sum(_widest(rows, n) for n in together) + len(_GAP) * (len(together) - 1) <= width
        if fits or len(blocks[-1]) == 1:
            blocks[-1] = together
        else:
            blocks.append([first, name])
    tables = [(names, [row for row in rows if any(row.get(n) for n in names[1:] or names)]) for names in blocks]
    return "\n\n".join(_aligned(told, names) for names, told in tables if told)


def _aligned(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> str:
    widths = [_widest(rows, name) for name in names]
    cells = [list(names), *[[one_line(row.get(name, "")) for name in names] for row in rows]]
    lines = [_GAP.join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, _GAP.join("-" * w for w in widths))
    return "\n".join(lines)


def _widest(rows: Sequence[Mapping[str, str]], name: str) -> int:
    return max(len(name), *(len(one_line(row.get(name, ""))) for row in rows))


def one_line(text: str) -> str:
    return visible(text).replace("\n", " ")


def reason_of(error: BaseException | str, limit: int = 500) -> str:
    """What an exception of a library says, on one visible line: all of its lines, since the first often names no cause
    ("Couldn't cast"), cut after ``limit`` characters; the name of its class where it says nothing.

    >>> reason_of(ValueError("Config name is missing.\\nPlease pick one among: ['a', 'b']"))
    "Config name is missing. Please pick one among: ['a', 'b']"
    """
    words = " ".join(visible(line.strip()) for line in str(error).splitlines() if line.strip())
    return (words if len(words) <= limit else words[: limit - 1].rstrip() + "…") or type(error).__name__


def plain_characters(error: UnicodeError) -> tuple[str, int]:
    """The codec error handler ``plain``: what an output's encoding cannot show is written in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _escaped(character) for character in lost), error.end


codecs.register_error(PLAIN, plain_characters)


def filled(text: str, width: int, first: str = "", further: str = "") -> str:
    """A paragraph in lines of ``width`` characters, and no more than people like to read, which begin with ``first``
    and then ``further``; words, paths and digests stay whole."""
    return textwrap.fill(
        text,
        min(width, max(WIDTH, len(first) + 20)),
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def text_width(file: TextIO) -> int:
    """Characters of a line that is written to ``file``: those of its terminal, which a table may fill."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if file.isatty() else WIDTH


def column_names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
