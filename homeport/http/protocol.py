"""HTTP as uvicorn reads it, with what a server needs that strangers connect to: bounds on time and number, and errors in our own body.

uvicorn itself waits for ever for the head of a request, for the rest of a body, and for a client to read what is sent to it. Here a
head must arrive within HEAD_S, and a body must not come more slowly than BODY_BYTES_PER_S once BODY_S are over. A client that leaves
what is sent to it unread for UNREAD_S loses its connection, and whoever writes the answer sees it leave. A process takes only as many
connections as leave it file descriptors for its own work.

All of it is looked after by one timer a connection, every LOOK_S: it costs a request nothing but two readings of the clock.
"""

import fcntl
import os
import re
import resource
import struct
import termios
from asyncio import BaseTransport, TimerHandle
from contextlib import suppress
from functools import cache

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from homeport.errors import AppError, InvalidRequest, RequestTimeout, Unavailable
from homeport.http.error_bodies import DEFAULT_SURFACE, render_error

HEAD_S = 20.0
BODY_S = 20.0
BODY_BYTES_PER_S = 1024
UNREAD_S = 20.0
LOOK_S = 5.0
RETRY_AFTER_S = 5
MAX_DESCRIPTORS = 65_536
# File descriptors that are left for the database, models, tools and files. They have at least as many as all connections together
# where there are few, because a stream of a model takes two.
OWN_DESCRIPTORS = 512

_INT = struct.Struct("i")
# The offer of HTTP/2 without TLS, which Java's client makes. The parser takes no body from a request that offers another protocol, so
# the offer is hidden from it, and thereby declined.
_HTTP2_OFFER = re.compile(rb"(?i)(?<=\r\n)upgrade(?=:[ \t]*h2c[ \t]*\r\n)")
_HIDDEN_OFFER = b"ignored"


def raise_descriptor_limit() -> None:
    """Let this process, and those that it starts, have as many files and connections open as the system lets it, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@cache
def most_connections() -> int:
    """How many connections a process takes at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return max(descriptors // 2, descriptors - OWN_DESCRIPTORS)


class HttpProtocol(HttpToolsProtocol):
    """One connection. The server's processes are told to use it by its name, so it is at the top of a module."""

    # The event loop's time at which the request that is arriving began; None while none is.
    _arriving_since: float | None = None
    _body_bytes = 0
    _is_in_body = False
    # When the client last read something while the server waited for that; None while it does not wait.
    _unread_since: float | None = None
    _unread_bytes = 0
    _look_timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Take the connection, or refuse it when there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > most_connections():
            self.logger.warning("too many connections")
            busy = {"Retry-After": str(RETRY_AFTER_S)}
            self._answer(Unavailable("Too many connections are open. Close those that are not needed, or try again.", headers=busy))
        self._arriving_since = self.loop.time()
        self._look_timer = self.loop.call_later(LOOK_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever wanted it."""
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Whatever has arrived."""
        if not self._is_in_body and b"h2c" in data.lower():
            head, blank_line, rest = data.partition(b"\r\n\r\n")
            # The name is as long as the other one, so what follows stays where it is.
            data = _HTTP2_OFFER.sub(_HIDDEN_OFFER, head + blank_line) + rest
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The end of a head."""
        super().on_headers_complete()
        self._is_in_body = True

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._arriving_since = self.loop.time()
        self._body_bytes = 0

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        super().on_body(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        super().on_message_complete()
        self._arriving_since = None
        self._is_in_body = False

    def resume_writing(self) -> None:
        """The client has read enough of what was sent to it for more to be sent."""
        super().resume_writing()
        self._unread_since = None

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that cannot be read as a request, and close."""
        self._answer(InvalidRequest("This is not an HTTP/1.1 request that can be read. Percent-encode whatever in the path is not ASCII."))

    def _look(self) -> None:
        """End what takes too long."""
        now = self.loop.time()
        is_closing = self.transport.is_closing()
        if (is_closing or self.flow.write_paused) and self._is_unread(now):
            self.logger.warning("connection ended: the client did not read what was sent to it")
            self.transport.abort()
            return
        if not is_closing:
            self._look_at_request(now)
        self._look_timer = self.loop.call_later(LOOK_S, self._look)

    def _look_at_request(self, now: float) -> None:
        if self._arriving_since is None:
            # Between requests uvicorn's own timer runs, until anything arrives, be it an empty line, which begins no request.
            if self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete):
                self._arriving_since = now
        elif self._is_held_up():
            self._arriving_since, self._body_bytes = now, 0
        elif now > self._arriving_since + self._patience_s():
            self._answer(RequestTimeout(f"The request did not arrive completely within {now - self._arriving_since:.0f} s."))

    def _is_unread(self, now: float) -> bool:
        """Whether the client has read nothing for too long, although there is more for it than can be sent."""
        unread = self._count_unread()
        if self._unread_since is None or unread < self._unread_bytes:
            self._unread_since, self._unread_bytes = now, unread
        return now > self._unread_since + UNREAD_S

    def _count_unread(self) -> int:
        """How many bytes the client has not taken: here, and in the system's own buffer, which is much larger."""
        unread = int(self.transport.get_write_buffer_size())
        with suppress(OSError):  # the connection has just ended, or the system cannot tell
            unread += _INT.unpack(fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, _INT.pack(0)))[0]
        return unread

    def _is_held_up(self) -> bool:
        """Whether the request waits for us: for the answer to the one before, or to have its body read or asked for."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return bool(not self._is_body_arriving() or self.flow.read_paused or cycle.waiting_for_100_continue)

    def _is_body_arriving(self) -> bool:
        """Whether the head of the request that is arriving is complete."""
        return self.cycle is not None and self.cycle.scope is self.scope

    def _patience_s(self) -> float:
        """How long the request that is arriving may take in all."""
        if not self._is_body_arriving():
            return HEAD_S
        # What follows an answer that did not wait for it is only read so that the client gets to see that answer.
        return BODY_S + (0 if self.cycle.response_complete else self._body_bytes / BODY_BYTES_PER_S)

    def _answer(self, error: AppError) -> None:
        """Answer what never becomes a request, and close."""
        cycle = self.cycle
        is_being_answered = cycle is not None and cycle.response_started and not cycle.response_complete
        if is_being_answered or (self._arriving_since is not None and self._is_body_arriving() and cycle.response_complete):
            # It came behind a request that is being answered, or is the rest of one that was; nothing may be put behind that answer.
            self.transport.close()
            return
        request_id = os.urandom(12).hex()
        self.logger.warning("request id of what cannot be read: %s (%s)", request_id, error.code)
        content, media_type = render_error(error, DEFAULT_SURFACE, request_id)
        body = orjson.dumps(content)
        headers: list[tuple[bytes, bytes]] = [
            *self.server_state.default_headers,
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
        ]
        self.transport.write(STATUS_LINE[error.status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body)
        self.transport.close()
