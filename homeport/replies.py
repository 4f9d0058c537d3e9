"""What a handler may return besides a plain JSON value. Plain data: ``homeport.http`` turns it into bytes on the wire."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose status, headers or media type differ from the operation's own.

    ``body`` is JSON data, or ``bytes`` that are sent as they are with ``media_type``. ``status`` None means the first 2xx status that the
    contract declares for the operation. A plain dict or list from a handler is the same as ``Reply(body)``.
    """

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class EventStream:
    """A Server-Sent Events answer. Each item of ``frames`` is one complete frame, in bytes, ending with a blank line.

    The iterator is closed with ``aclose()`` as soon as the client leaves or the server stops.
    """

    frames: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpMessage:
    """A message of the Model Context Protocol. The answer is up to the protocol's own server, whose tools are the contract's."""

    content: Mapping[str, Any]
