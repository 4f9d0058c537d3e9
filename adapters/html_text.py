"""The readable text of a web page: headings, paragraphs, lists and links, without scripts, styles and markup.

The standard library's parser takes quadratic time for pages that are made to hold it up (a minute for 60 kB). This one looks at every
character a few times at most, and understands no more of HTML than is needed for reading.
"""

import re
from html import unescape
from urllib.parse import urljoin, urlsplit

MAX_LINK_LENGTH = 500

# After the name of a tag: attributes, whose values may hold what ends a tag elsewhere.
_REST_OF_TAG = re.compile(r"""(?:[^>"'=]|=\s*+"[^"]*+"|=\s*+'[^']*+'|["'=])*+>""")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9:-]*")
_HREF = re.compile(r"""\shref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
# What stands inside of these is not for reading.
_SKIPPED = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "math", "select", "datalist"})
_PARAGRAPHS = frozenset(
    {"p", "div", "section", "article", "header", "footer", "main", "aside", "nav", "ul", "ol", "dl", "table", "blockquote", "figure"}
    | {"form", "fieldset", "details", "pre", "hr", "body", "address"}
)
_LINES = frozenset({"br", "li", "tr", "dt", "dd", "option", "summary", "figcaption", "caption", "legend"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = frozenset({"td", "th"})
_BLANKS = re.compile(r"[^\S\n]+")
_ENDS = re.compile(r" ?\n ?")
_GAPS = re.compile(r"\n{3,}")


def to_text(page: str, url: str) -> tuple[str, str]:
    """The title and the text of a page. ``url`` is its address, from which links lead on."""
    reader = _Reader(page, url)
    reader.read()
    return _tidy(reader.title), _tidy("".join(reader.pieces))


def decode_entities(text: str) -> str:
    """``&amp;`` and the like as the characters that they stand for; left as they are where they make no sense."""
    try:
        return unescape(text)
    except ValueError:  # a number of thousands of digits
        return text


class _Reader:
    def __init__(self, page: str, url: str) -> None:
        self._page = page
        self._url = url
        self._unclosed: set[str] = set()
        self._link: str | None = None
        self.title = ""
        self.pieces: list[str] = []

    def read(self) -> None:
        page, position = self._page, 0
        while (start := page.find("<", position)) >= 0:
            self._say(page[position:start])
            # What is not finished is not shown, and neither is what comes after it: looking for its end again and again takes for ever.
            if (position := self._read_markup(start)) < 0:
                return
        self._say(page[position:])

    def _read_markup(self, start: int) -> int:
        """Where the text goes on after what begins with ``<``; -1 when it does not end."""
        page = self._page
        if page.startswith("<!--", start):
            end = page.find("-->", start + 4)
            return end + 3 if end >= 0 else -1
        if page.startswith(("<!", "<?"), start):
            return page.find(">", start) + 1 or -1
        is_end = page.startswith("/", start + 1)
        if (named := _NAME.match(page, start + 1 + is_end)) is None:
            self._say("<")
            return start + 1
        if (rest := _REST_OF_TAG.match(page, named.end())) is None:
            return -1
        name = named[0].lower()
        if is_end:
            self._close(name)
            return rest.end()
        if name in _SKIPPED and (end := self._find_end(name, rest.end())) >= 0:
            return end
        if name == "title" and not self.title and (end := self._find_end(name, rest.end())) >= 0:
            self.title = decode_entities(page[rest.end() : end])
            return end
        self._open(name, rest[0])
        return rest.end()

    def _find_end(self, name: str, position: int) -> int:
        """Where the end tag of an element begins; -1 when there is none."""
        if name in self._unclosed:
            return -1
        found = re.compile(rf"</{name}(?![a-z0-9:-])", re.IGNORECASE).search(self._page, position)
        if found is None:
            self._unclosed.add(name)
            return -1
        return found.start()

    def _open(self, name: str, attributes: str) -> None:
        if name in _HEADINGS:
            self.pieces.append(f"\n\n{'#' * _HEADINGS[name]} ")
        elif name in _PARAGRAPHS:
            self.pieces.append("\n\n")
        elif name in _LINES:
            self.pieces.append("\n- " if name == "li" else "\n")
        elif name in _CELLS:
            self.pieces.append(" ")
        elif name == "a":
            self._link = self._find_link(attributes)

    def _close(self, name: str) -> None:
        if name in _HEADINGS or name in _PARAGRAPHS:
            self.pieces.append("\n\n")
        elif name == "a" and self._link is not None:
            self.pieces.append(f" ({self._link})")
            self._link = None

    def _find_link(self, attributes: str) -> str | None:
        if (found := _HREF.search(attributes[: 4 * MAX_LINK_LENGTH])) is None:
            return None
        href = decode_entities(next((group for group in found.groups() if group is not None), "")).strip()
        try:
            link = urljoin(self._url, href)
            is_web = urlsplit(link).scheme in ("http", "https")
        except ValueError:
            return None
        return link if href and not href.startswith("#") and is_web and len(link) <= MAX_LINK_LENGTH and link.isprintable() else None

    def _say(self, text: str) -> None:
        if text:
            self.pieces.append(_BLANKS.sub(" ", decode_entities(text).replace("\n", " ")))


def _tidy(text: str) -> str:
    return _GAPS.sub("\n\n", _ENDS.sub("\n", _BLANKS.sub(" ", text))).strip()
