"""Cuts a stream of bytes into lines, and never holds more than one of the largest size."""

from collections.abc import Iterator
from dataclasses import dataclass

EDGE_BYTES = 200


@dataclass(frozen=True, slots=True)
class Oversized:
    """A line that was too long: how it began and ended."""

    head: bytes
    tail: bytes


class LineBuffer:
    """Holds the beginning of a line until the rest has come. A line of more than ``max_bytes`` is read past, its edges are kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._head: bytes | None = None  # of an oversized line whose end has not come yet; ``_held`` then is its tail

    def feed(self, data: bytes) -> Iterator[bytes | Oversized]:
        """The lines that are complete now, without their ends."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._hold(end)
            yield self._release()
        self._hold(rest)

    def _hold(self, piece: bytes) -> None:
        self._held += piece
        if self._head is None and len(self._held) > self._max_bytes:
            self._head = bytes(self._held[:EDGE_BYTES])
        if self._head is not None:
            del self._held[:-EDGE_BYTES]

    def _release(self) -> bytes | Oversized:
        held, self._held = bytes(self._held), bytearray()
        if self._head is None:
            return held
        head, self._head = self._head, None
        return Oversized(head, held)
