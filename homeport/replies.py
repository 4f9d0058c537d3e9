"""What a handler may return besides a plain JSON value. Plain data: ``homeport.http`` turns it into bytes on the wire."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from homeport.errors import AppError


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

    The iterator is closed with ``aclose()`` as soon as the client leaves or the server stops. ``error_frame`` makes the last frame of a
    stream that fails; None: an event named ``error`` with the surface's own error body.
    """

    frames: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    error_frame: Callable[[AppError], bytes] | None = None


class Closable(Protocol):
    """Something that holds on to work until it is closed."""

    async def aclose(self) -> None:
        """Stop the work."""


class Frames:
    """The frames of an EventStream and the source that they are made of, closed together: a generator that was never started would not
    close its source."""

    def __init__(self, frames: AsyncGenerator[bytes], source: Closable) -> None:
        self._frames = frames
        self._source = source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._frames)

    async def aclose(self) -> None:
        """Stop making frames, then close the source."""
        await self._frames.aclose()
        await self._source.aclose()


@dataclass(frozen=True, slots=True)
class McpMessage:
    """A message of the Model Context Protocol. The answer is up to the protocol's own server, whose tools are the contract's."""

    content: Mapping[str, Any]
