"""Pages as blocks, written as Markdown, and as HTML that markdown-it makes of it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sumi_core.base.text import fenced, markdown_table, visible

if TYPE_CHECKING:
    from markdown_it.token import Token


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
    """The Markdown page as HTML that needs nothing beside itself: its pictures are in it, and it has no scripts. Text
    is shown as it is written; only code spans and the structure of the page are Markdown's."""
    from markdown_it import MarkdownIt

    blocks = list(blocks)
    pictures = {block.address: block.path for block in blocks if isinstance(block, Picture)}
    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": True}).enable("table")
    parser.disable(["emphasis", "link", "autolink", "entity", "reference"])
    parser.add_render_rule("image", lambda _, tokens, index, *__: _picture(tokens[index], pictures))
    body = parser.render(markdown_page(blocks))
    head = f'<meta charset="utf-8"/>\n<title>{_text(title)}</title>\n<style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}</body>\n</html>\n'


def _picture(image: Token, pictures: Mapping[str, Path]) -> str:
    path = pictures.get(unquote(str(image.attrs["src"])))
    if path is None:  # what looks like a picture in some text: nothing is fetched from elsewhere
        return _text(image.content)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{_text(image.content)}"/>'


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
