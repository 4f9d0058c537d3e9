"""Messages over a server's standard output and input, one JSON document a line, as the library's streams of messages."""

import asyncio
import re
from collections import deque
from types import TracebackType
from typing import Self

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import ErrorData, JSONRPCError, jsonrpc_message_adapter

from adapters.mcp.failures import MAX_MESSAGE_BYTES, TOO_LARGE
from adapters.mcp.lines import LineBuffer, Oversized
from adapters.processes import ProcessLog

# What has come and is not read yet; beyond it the server has to wait.
MAX_WAITING_BYTES = 1024 * 1024
MAX_NOISE_BYTES = 500
# After so many lines without a break, others get a turn: a server that writes without end would have the whole process to itself.
LINES_A_TURN = 64
BREAK_S = 0.01
# Where libraries put the id of an answer: at the very start, or at the very end.
_ID_AT_START = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,')
_ID_AT_END = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


class _Stream:
    """What both of the library's kinds of stream are: a context that closes."""

    async def aclose(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        await self.aclose()
        return None


class Incoming(_Stream):
    """What the server says. Lines that are no messages go to the log; an answer that is too large becomes an error for its call."""

    def __init__(self, log: ProcessLog) -> None:
        self._log = log
        self._pipe: asyncio.ReadTransport | None = None
        self._buffer = LineBuffer(MAX_MESSAGE_BYTES)
        self._lines: deque[bytes | Oversized] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._arrival = asyncio.Event()
        self._taken = 0
        self.is_at_end = False

    def open(self, pipe: asyncio.ReadTransport) -> None:
        """Hold up ``pipe`` when too much has come from it."""
        self._pipe = pipe

    def feed(self, data: bytes) -> None:
        """Take what the server wrote."""
        for line in self._buffer.feed(data):
            self._lines.append(line)
            self._waiting_bytes += _size(line)
            self._arrival.set()
        if self._waiting_bytes > MAX_WAITING_BYTES and not self._is_paused:
            self._hold_up(True)

    def end(self) -> None:
        """Nothing more will come."""
        self.is_at_end = True
        self._arrival.set()

    async def receive(self) -> SessionMessage:
        """The next message. Raises EndOfStream after the last one."""
        while True:
            while self._lines:
                self._taken += 1
                if self._taken % LINES_A_TURN == 0:
                    await asyncio.sleep(BREAK_S)
                if self._lines and (message := self._read(self._take())) is not None:
                    return message
            if self.is_at_end:
                raise anyio.EndOfStream
            self._taken = 0
            self._arrival.clear()
            await self._arrival.wait()

    async def aclose(self) -> None:
        """Drop what has not been read."""
        self._lines.clear()
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def _hold_up(self, is_paused: bool) -> None:
        self._is_paused = is_paused
        if self._pipe is not None:
            (self._pipe.pause_reading if is_paused else self._pipe.resume_reading)()

    def _take(self) -> bytes | Oversized:
        line = self._lines.popleft()
        self._waiting_bytes -= _size(line)
        if self._is_paused and self._waiting_bytes <= MAX_WAITING_BYTES // 2:
            self._hold_up(False)
        return line

    def _read(self, line: bytes | Oversized) -> SessionMessage | None:
        if isinstance(line, Oversized):
            self._log.note(f"a message of more than {MAX_MESSAGE_BYTES} bytes was not read")
            return _refuse(line)
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            if line.strip():
                self._log.note(f"no message, on its standard output: {line[:MAX_NOISE_BYTES].decode(errors='replace').strip()}")
            return None


class Outgoing(_Stream):
    """What is said to the server. Sending waits while the server does not read."""

    def __init__(self) -> None:
        self._pipe: asyncio.WriteTransport | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    def open(self, pipe: asyncio.WriteTransport) -> None:
        """Begin to write to ``pipe``."""
        self._pipe = pipe

    def close(self) -> None:
        """Close the pipe after what was sent."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self._has_room.set()

    def pause(self) -> None:
        """The pipe is full."""
        self._has_room.clear()

    def resume(self) -> None:
        """The pipe has room again."""
        self._has_room.set()

    async def send(self, item: SessionMessage) -> None:
        """Send one message. Raises ClosedResourceError when it cannot be sent."""
        await self._has_room.wait()
        if self._pipe is None:
            raise anyio.ClosedResourceError
        self._pipe.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")

    async def aclose(self) -> None:
        """The library has nothing more to say; the process's end closes the pipe."""


def _size(line: bytes | Oversized) -> int:
    return len(line) if isinstance(line, bytes) else 0


def _refuse(line: Oversized) -> SessionMessage | None:
    """The error that stands for an answer, if it is one."""
    found = _ID_AT_START.match(line.head) or _ID_AT_END.search(line.tail)
    if found is None:
        return None
    error = ErrorData(code=TOO_LARGE, message="too large")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error))
