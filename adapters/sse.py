"""Reading Server-Sent Events from bytes that arrive in arbitrary pieces."""

from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT_BYTES = 1_048_576
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """A line or an event is longer than MAX_EVENT_BYTES."""


class ServerSentEvent(NamedTuple):
    """One event: its name (``message`` unless given) and its data, lines joined by LF."""

    name: str
    data: bytes


class EventParser:
    """Turns pieces of a text/event-stream into events. Lines end with LF or CRLF; comments, ids and retry times are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []
        self._size_bytes = 0
        self._is_at_start = True

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events that this piece completes. Raises EventTooLarge."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLarge
        for line in lines:
            if (event := self._read(line.removesuffix(b"\r"))) is not None:
                yield event

    def finish(self) -> Iterator[ServerSentEvent]:
        """The event that the end of the stream cut short, if any: some servers leave out the last blank line."""
        if self._rest:
            yield from self.feed(b"\n")
        if (event := self._read(b"")) is not None:
            yield event

    def _read(self, line: bytes) -> ServerSentEvent | None:
        if self._is_at_start:
            self._is_at_start = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size_bytes += len(value)
            if self._size_bytes > MAX_EVENT_BYTES:
                raise EventTooLarge
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        name, data = self._name, self._data
        self._name, self._data, self._size_bytes = "", [], 0
        return ServerSentEvent(name or "message", b"\n".join(data)) if data else None
