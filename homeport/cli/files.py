"""Text files to be taken in as documents: which there are below a folder, and what stands in each."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

MAX_FILE_BYTES = 5_000_000
MAX_NAME_LENGTH = 900
_HTML = (".html", ".htm", ".xhtml")
# What a browser does not show, what it begins a new line for, and what it sets apart.
_SILENT = frozenset({"script", "style", "template", "noscript"})
_LINES = frozenset(("br", "dd", "dt", "li", "td", "th", "tr"))
_PARAGRAPHS = frozenset(
    ("address", "article", "blockquote", "div", "dl", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "ol", "p", "pre")
) | frozenset(("section", "table", "ul"))


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file that may hold text: its name below ``folder``, with slashes, and its size in bytes."""

    folder: Path
    name: str
    size: int

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / self.name


@dataclass(slots=True)
class Found:
    """The files of a search, how many others were passed over and why, and the names of those that could not be looked at."""

    files: list[TextFile] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: set[tuple[Path, str]] = field(default_factory=set)


def find_files(paths: Sequence[Path], pattern: str | None) -> Found:
    """The files that ``paths`` name and those below the folders that they name, sorted by name; ``pattern`` limits the latter.

    Passed over, and counted, are hidden files and folders, links that lead out of the folder, what is no regular file, and large files.
    """
    found = Found()
    seen: set[Path] = set()
    for path in paths:
        root = path.resolve()
        candidates = _below(root, found) if root.is_dir() else [root]
        folder = root if root.is_dir() else root.parent
        for file in candidates:
            name = file.relative_to(folder).as_posix()
            if file not in seen and (file == root or pattern is None or PurePosixPath(name).match(pattern)):
                seen.add(file)
                _add(found, folder, file, name)
    found.files.sort(key=lambda file: (file.folder, file.name))
    return found


def read_file(file: TextFile) -> str | None:
    """The text of a file, of HTML what a reader sees; None when it is no text. Raises OSError."""
    data = file.path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    return _without_tags(text) if file.path.suffix.lower() in _HTML else text


def _below(folder: Path, found: Found) -> Iterator[Path]:
    def note(error: OSError) -> None:
        found.skipped["unreadable"] += 1
        found.unreadable.add((folder, Path(error.filename).relative_to(folder).as_posix()))

    for place, folders, names in os.walk(folder, onerror=note):
        hidden = [name for name in (*folders, *names) if name.startswith(".")]
        found.skipped["hidden"] += len(hidden)
        links = [name for name in folders if name not in hidden and Path(place, name).is_symlink()]
        found.skipped["linked"] += len(links)
        folders[:] = sorted(name for name in folders if name not in hidden and name not in links)
        yield from (Path(place, name) for name in sorted(names) if name not in hidden)


def _add(found: Found, folder: Path, file: Path, name: str) -> None:
    try:
        status = file.stat()
        is_outside = file.is_symlink() and not file.resolve().is_relative_to(folder)
        name.encode()
    except (OSError, UnicodeEncodeError):
        found.skipped["unreadable"] += 1
        found.unreadable.add((folder, name))
        return
    if is_outside:
        found.skipped["linked"] += 1
    elif not stat.S_ISREG(status.st_mode):
        found.skipped["special"] += 1
    elif status.st_size > MAX_FILE_BYTES or len(name) > MAX_NAME_LENGTH:
        found.skipped["too large"] += 1
    else:
        found.files.append(TextFile(folder, name, status.st_size))


def _without_tags(text: str) -> str:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return "".join(reader.pieces)


class _Reader(HTMLParser):
    """Collects what a reader sees of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT and self._silent:
            self._silent -= 1
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(data)

    def _break(self, tag: str) -> None:
        if tag in _LINES or tag in _PARAGRAPHS:
            self.pieces.append("\n" if tag in _LINES else "\n\n")
