"""Pages as blocks: one description, written as Markdown or as HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sumi_core.base.text import column_names, fenced, markdown_table, one_line, visible


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the page's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text; nothing where it is empty."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list with one point per line."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows by column title, as ``markdown_table`` takes them."""

    rows: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Preformatted:
    """Verbatim text, such as a sample or a command."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG file; ``address`` is where Markdown finds it, HTML holds it itself."""

    path: Path
    address: str


Block = Heading | Paragraph | Bullets | Table | Preformatted | Picture


def markdown_page(blocks: Iterable[Block]) -> str:
    """The blocks as Markdown."""
    return "\n\n".join(filter(None, map(_markdown, blocks))) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {visible(text)}"
        case Paragraph(text):
            return visible(text)
        case Bullets(lines):
            return "\n".join(f"* {visible(line)}" for line in lines)
        case Table(rows):
            return markdown_table(rows)
        case Preformatted(text):
            return fenced(text)
        case Picture(path, address):
            return f"![{path.stem.replace('_', ' ')}]({address})"


def html_page(title: str, blocks: Iterable[Block]) -> str:
    """The blocks as a page that needs nothing beside itself: its pictures are in it, and it has no scripts."""
    body = "\n".join(filter(None, map(_html, blocks)))
    head = f'<meta charset="utf-8"/>\n<title>{_text(title)}</title>\n<style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_text(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_text(text)}</p>" if text else ""
        case Bullets(lines):
            points = "".join(f"<li>{_text(line)}</li>" for line in lines)
            return f"<ul>{points}</ul>" if points else ""
        case Table(rows):
            return _html_table(rows)
        case Preformatted(text):
            return f"<pre>{_text(text)}</pre>"
        case Picture(path, _):
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            name = _text(path.stem.replace("_", " "))
            return f'<p><img src="data:image/png;base64,{data}" alt="{name}"/></p>'


def _html_table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    names = column_names(rows)
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_text(one_line(row.get(name, '')))}</td>" for name in names) + "</tr>" for row in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _text(text: str) -> str:
    return html.escape(visible(text))


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #999; }
td { font-variant-numeric: tabular-nums; }
pre { background: #f5f5f5; padding: .7rem; white-space: pre-wrap; }
img { max-width: 100%; }
"""
