"""What people read: figures with errors, escapes, tables."""

import io
import math
import xml.etree.ElementTree as ElementTree

import pytest

from sumi_core.base.text import (
    counted,
    excerpt,
    fenced,
    markdown_table,
    render_text_table,
    short_bytes,
    short_count,
    short_duration,
    short_interval,
    visible,
    with_error,
)
from sumi_core.reports.blocks import Bullets, Heading, Paragraph, Picture, Preformatted, Table, html_page, markdown_page


def test_invisible_characters_become_escapes():
    assert visible("a\x1b[31mb\tc\r\nd") == "a\\x1b[31mb\\tc\\r\nd"
    assert visible("x\u202ey\u200bz\u2028\ud800\x00\x7f") == "x\\u202ey\\u200bz\\u2028\\ud800\\x00\\x7f"
    assert visible("naïve 日本語 – “quoted” \ufffd") == "naïve 日本語 – “quoted” \ufffd"


def test_a_fence_is_longer_than_any_in_the_text():
    assert fenced("plain") == "```text\nplain\n```"
    block = fenced("a ```` b\n```\nc")
    assert block.startswith("`````text\n")
    assert block.endswith("\n`````")


def test_excerpt_is_one_line():
    assert excerpt("one\ntwo\x07") == "one↵two\\x07"
    assert len(excerpt("x" * 500, 40)) == 40


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((2.3129, 0.0123, "≤"), "≤ 2.313 ± 0.012"),
        ((2.3129, 0.00123, "="), "= 2.3129 ± 0.0012"),
        ((2.0, 0.0), "2.000"),
        ((2.0, None), "2.000"),
        ((2.0, math.nan), "2.000"),
        ((math.nan, 1.0), "–"),
        ((None,), "–"),
        ((-0.5, 0.25), "-0.500 ± 0.250"),
    ],
)
def test_with_error(arguments, shown):
    assert with_error(*arguments) == shown


def test_counted():
    assert [counted(n, "cell") for n in (0, 1, 2)] == ["0 cells", "1 cell", "2 cells"]


def test_short_numbers():
    assert [short_count(v) for v in (None, 12, 1234, 4_096_000, 3.1e15)] == ["–", "12", "1.23 k", "4.1 M", "3.10e15"]
    assert [short_duration(v) for v in (None, 8, 75, 3725)] == ["–", "8 s", "1 min 15 s", "1 h 02 min"]
    assert [short_bytes(v) for v in (None, 900, 864215040, 2**34)] == ["–", "900 B", "824 MiB", "16 GiB"]


def test_intervals_show_their_width():
    assert short_interval(-0.1, 0.25) == "-0.100 to +0.250"
    assert short_interval(0.00012, 0.00034) == "+0.00012 to +0.00034"
    assert short_interval(None, 0.1) == short_interval(0.1, math.nan) == "–"


ROWS = [{"cell": "a|b", "bits": "≤ 2.0 ± 0.1"}, {"cell": "yard\x1bstick", "note": "n"}]


def test_markdown_table_escapes_and_fills():
    assert markdown_table(ROWS).splitlines() == [
        "| cell | bits | note |",
        "| --- | --- | --- |",
        "| a\\|b | ≤ 2.0 ± 0.1 |  |",
        "| yard\\x1bstick |  | n |",
    ]


def test_text_table_is_aligned():
    header, rule, first, second = render_text_table(ROWS).splitlines()
    assert header.index("bits") == first.index("≤")
    assert header.index("note") == second.index("n")
    assert set(rule) == {"-", " "}


def test_a_wide_table_goes_on_below_itself():
    rows = [{"cell": "one", "a": "x" * 10, "b": "y" * 10, "c": "z" * 10}, {"cell": "[yardstick]", "a": "1"}]
    wide, narrow = render_text_table(rows, 50), render_text_table(rows, 37)
    assert wide == render_text_table(rows)
    assert narrow.split("\n\n") == [
        "cell         a           b\n-----------  ----------  ----------\none          xxxxxxxxxx  yyyyyyyyyy\n"
        "[yardstick]  1",
        "cell  c\n----  ----------\none   zzzzzzzzzz",  # who has nothing in these columns needs no line
    ]
    assert len(render_text_table(rows, 5).split("\n\n")) == 3, "one column at least, however narrow"
    empty = [{**row, "c": ""} for row in rows]
    assert len(render_text_table(empty, 5).split("\n\n")) == 2, "and none that nobody has anything in"


def test_what_an_output_cannot_show_is_written_in_ascii():
    file = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="plain")
    print(f"title … 日 ± \ud800 └─\n{render_text_table(ROWS)}", file=file)
    file.seek(0)
    shown = file.read()
    assert "<= 2.0 ± 0.1" in shown
    assert shown.startswith("title ... \\u65e5 ± \\ud800 `-\n")


def test_a_page_is_the_same_in_markdown_and_html(tmp_path):
    picture = tmp_path / "a_plot.png"
    picture.write_bytes(b"not looked at")
    blocks = [
        Heading("A <b>", 1),
        Paragraph(""),
        Paragraph("text & more\x1b"),
        Bullets(["one", "two <i>"]),
        Bullets([]),
        Table(ROWS),
        Table([]),
        Preformatted("a\n```\n<script>"),
        Picture(picture, "plots/a_plot.png"),
    ]
    assert markdown_page(blocks).split("\n\n") == [
        "# A <b>",
        "text & more\\x1b",
        "* one\n* two <i>",
        markdown_table(ROWS),
        "````text\na\n```\n<script>\n````",
        "![a plot](plots/a_plot.png)\n",
    ]
    tree = ElementTree.fromstring(html_page("A <b>", blocks))
    body = tree.find("body")
    assert [element.tag for element in body] == ["h1", "p", "ul", "table", "pre", "p"]
    assert [element.text for element in body][:2] == ["A <b>", "text & more\\x1b"]
    assert body.find("pre/code").text == "a\n```\n<script>\n"
    assert [cell.text for cell in body.iter("td")] == ["a|b", "≤ 2.0 ± 0.1", None, "yard\\x1bstick", None, "n"]
    assert next(body.iter("img")).attrib == {"src": "data:image/png;base64,bm90IGxvb2tlZCBhdA==", "alt": "a plot"}


def test_text_that_looks_like_markdown_is_shown_as_it_is_written():
    said = "a *b* _c_ [d](javascript:e) ![f](http://elsewhere/g.png) &amp; `h`"
    body = ElementTree.fromstring(html_page("t", [Paragraph(said), Bullets(["__i__"])])).find("body")
    assert "".join(body.find("p").itertext()) == "a *b* _c_ [d](javascript:e) f &amp; h"
    assert body.find("ul/li").text == "__i__"
    assert not list(body.iter("img")) + list(body.iter("a"))
