"""Texts cut into chunks that a model can take: at the ends of sentences, with some of the text before repeated at the start of each.

Pure functions, in time that grows with the text alone. A chunk is a piece of the text, unchanged: ``text[chunk.start:chunk.end]``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from homeport.errors import InvalidRequest

SIZE = 1000
OVERLAP = 150
MIN_SIZE = 50
MAX_SIZE = 20_000

# A run of marks is looked at from its first one only, and never in parts: a long one would take quadratic time.
_END = re.compile(
    r"""(?P<paragraph> \n (?: [ \t\r]*+ \n )++ )
      | (?<! [.!?…] ) [.!?…]++ ["'“”’«»)\]]*+ (?= \s | \Z )
      | [。！？]++ [」』”’）]*+""",  # noqa: RUF001 - these are the characters that are meant
    re.VERBOSE,
)
# What a full stop does not end a sentence after: abbreviations, single letters (J. Smith, e.g.), and the numbers of a list.
_ABBREVIATION = re.compile(
    r"""(?: \b (?: Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No|Nr|Fig|cf|approx|ca|bzw|[A-Za-z] )
          | (?: ^ | \n ) \s{0,4} \d{1,3} ) \. \Z""",
    re.VERBOSE,
)
_ABBREVIATION_LENGTH = 12
_WORD_START = re.compile(r"(?<=\s)\S")
_NOT_BLANK = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text, and where in it, in characters; it neither begins nor ends with a blank."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence, or a part of one that is too long. ``is_last`` of its paragraph."""

    start: int
    end: int
    is_last: bool = False


def check_sizes(size: int, overlap: int) -> None:
    """Raise InvalidRequest unless a text can be cut into chunks of ``size`` characters that repeat ``overlap`` of them."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InvalidRequest(f"The size of a chunk must be {MIN_SIZE} to {MAX_SIZE} characters, and {size} is not.")
    if not 0 <= overlap <= size // 2:
        raise InvalidRequest(f"The overlap must be 0 to half of the chunk's size ({size // 2} characters), and {overlap} is not.")


def find_sentences(text: str) -> Iterator[tuple[int, int, bool]]:
    """Where each sentence begins and ends, and whether it is the last of its paragraph."""
    start = 0
    held: tuple[int, int] | None = None  # until it is known whether a paragraph ends behind it
    for match in _END.finditer(text):
        is_paragraph = match["paragraph"] is not None
        if not is_paragraph and text[match.end() - 1] == "." and _is_abbreviation(text, start, match.end()):
            continue
        span = _trim(text, start, match.start() if is_paragraph else match.end())
        start = match.end()
        if span is not None:
            if held is not None:
                yield *held, False
            held = span
        if is_paragraph and held is not None:
            yield *held, True
            held = None
    span = _trim(text, start, len(text))
    if held is not None:
        yield *held, span is None
    if span is not None:
        yield *span, True


def split_text(text: str, *, size: int = SIZE, overlap: int = OVERLAP) -> list[Chunk]:
    """Chunks of at most ``size`` characters that together hold everything of ``text`` but blanks; none for a blank text.

    A chunk ends with a sentence, and with a paragraph where one ends in its second half. It begins with the last sentences of the chunk
    before, as many as ``overlap`` characters hold, or with its last words where they do not hold one. ``overlap`` is at most half of
    ``size``. What is repeated gives way where it would leave no room for a whole new sentence.
    """
    pieces = list(_pieces(text, size, size - overlap))
    chunks: list[Chunk] = []
    first = 0
    while first < len(pieces):
        start = pieces[first].start
        if chunks and overlap:
            start = _overlap_start(text, pieces, first, chunks[-1], overlap, room=size - (pieces[first].end - start))
        last = _last_that_fits(pieces, first, start + size)
        chunks.append(Chunk(text[start : pieces[last].end], start, pieces[last].end))
        first = last + 1
    return chunks


def split_chunk(chunk: Chunk, size: int) -> list[Chunk]:
    """The same piece of the text in chunks of at most ``size`` characters that do not overlap."""
    return [Chunk(part.text, chunk.start + part.start, chunk.start + part.end) for part in split_text(chunk.text, size=size, overlap=0)]


def _pieces(text: str, size: int, part_size: int) -> Iterator[_Piece]:
    """The sentences of the text, those longer than ``size`` in parts of at most ``part_size``."""
    for start, end, is_last in find_sentences(text):
        is_long = end - start > size
        while is_long and end - start > part_size:
            cut = _wrap(text, start, part_size)
            yield _Piece(start, cut)
            start = _skip_blanks(text, cut, end)
        yield _Piece(start, end, is_last)


def _is_abbreviation(text: str, start: int, end: int) -> bool:
    return _ABBREVIATION.search(text[max(start, end - _ABBREVIATION_LENGTH) : end]) is not None


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The part without blanks around it; None when there is nothing else."""
    start = _skip_blanks(text, start, end)
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None


def _skip_blanks(text: str, start: int, end: int) -> int:
    found = _NOT_BLANK.search(text, start, end)
    return found.start() if found else end


def _wrap(text: str, start: int, size: int) -> int:
    """Where to end a part of at most ``size`` characters: at the end of a line in its second half, else at a blank, else anywhere."""
    limit = start + size
    cut = text.rfind("\n", start + size // 2, limit + 1)
    if cut < 0:
        cut = next((position for position in range(limit, start, -1) if text[position].isspace()), limit)
    while text[cut - 1].isspace():
        cut -= 1
    return cut


def _last_that_fits(pieces: list[_Piece], first: int, limit: int) -> int:
    """The number of the last piece for a chunk that has to end at ``limit``."""
    last = first
    while last + 1 < len(pieces) and pieces[last + 1].end <= limit:
        last += 1
    if last + 1 == len(pieces):
        return last
    halfway = (pieces[first].start + limit) // 2
    for number in range(last, first - 1, -1):
        if pieces[number].end < halfway:
            break
        if pieces[number].is_last:
            return number
    return last


def _overlap_start(text: str, pieces: list[_Piece], first: int, before: Chunk, overlap: int, room: int) -> int:
    """Where a chunk begins whose first new piece is number ``first``: in the chunk ``before``, or at that piece when there is no ``room``.

    ``room`` is how many characters are left beside the new piece.
    """
    new = pieces[first].start
    earliest = max(new - room, before.end - overlap, before.start + 1)
    if earliest >= before.end:
        return new
    number = first
    while number and pieces[number - 1].start >= earliest:
        number -= 1
    if number < first:
        return pieces[number].start
    found = _WORD_START.search(text, earliest, before.end)
    if found is not None:
        return found.start()
    return earliest if not text[earliest].isspace() else new
