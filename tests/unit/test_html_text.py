"""What of a web page is for reading."""

import pytest

from adapters.html_text import MAX_LINK_LENGTH, decode_entities, to_text

URL = "https://example.com/notes/"


def text_of(page: str) -> str:
    return to_text(page, URL)[1]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("plain", "plain"),
        ("<p>one<p>two</p>", "one\n\ntwo"),
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("<h1>Head</h1>text<h3 class='x'>Sub</h3>", "# Head\n\ntext\n\n### Sub"),
        ("<ul><li>one<li>two</ul>", "- one\n- two"),
        ("<table><tr><td>a<td>b<tr><th>c</table>", "a b\n c".replace("\n ", "\n")),
        ("a  b\n\tc", "a b c"),
        ("1 < 2 & 3 &lt; 4 &#233;", "1 < 2 & 3 < 4 é"),
        ("a<script>if (a<b) x('</p>')</script>b<STYLE>p{}</STYLE >c", "abc"),
        ("a<svg><text>no</text></svg>b<noscript>no</noscript>", "ab"),
        ("a<!-- <p>no</p> -->b<!DOCTYPE html>c<?php no ?>d", "abcd"),
        ('<a title="x>y" href="page?a=1&amp;b=2">link</a>', "link (https://example.com/notes/page?a=1&b=2)"),
        (
            "<a href=/top>up</a> <a href='#here'>here</a> <a href='javascript:x()'>no</a> <a name=x>no</a>",
            "up (https://example.com/top) here no no",
        ),
        ("<a href='http://[bad'>bad</a>", "bad"),
        (f"<a href='/{'x' * MAX_LINK_LENGTH}'>long</a>", "long"),
        ("<p title='it\"s>in'>text", "text"),
        ("text<p unfinished", "text"),
        ("text<!-- unfinished <p>more", "text"),
        ("text<script>unfinished", "textunfinished"),
        ("</ul>text</", "text</"),
        ("", ""),
    ],
)
def test_a_page_becomes_text(page: str, expected: str) -> None:
    assert text_of(page) == expected


def test_the_title_stands_apart() -> None:
    assert to_text("<head><title>A &amp; <b>\n B</title></head><body>text</body>", URL) == ("A & <b>\nB", "text")


def test_a_number_of_thousands_of_digits_stands_for_nothing() -> None:
    text = f"&#{'9' * 5000};"
    assert decode_entities(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<!--",
        "<a ",
        "<a='",
        "</",
        "<![",
        "&",
        "<svg>",
        '<a x="',
        "<a/",
        "<a x= ",
        "<title>",
        "<a href=",
        " \n",
        "<p",
        "<script></",
        "&#1",
    ],
)
def test_no_page_takes_for_ever(piece: str) -> None:
    """With quadratic time each of these would take hours; the run's own limit would end it."""
    assert len(text_of(piece * (300_000 // len(piece)))) <= 900_000
