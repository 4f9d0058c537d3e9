"""HTTP as uvicorn reads it, except that what is not HTTP gets an error in our own body, too."""

import os

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from homeport.errors import InvalidRequest
from homeport.http.error_bodies import DEFAULT_SURFACE, render_error


class HttpProtocol(HttpToolsProtocol):
    """One connection. The server's processes are told to use it by its name, so it is at the top of a module."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that cannot be read as a request, and close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            # They came behind a request that is being answered; nothing may be put into that answer.
            self.transport.close()
            return
        request_id = os.urandom(12).hex()
        self.logger.warning("request id of what cannot be read: %s", request_id)
        error = InvalidRequest("This is not an HTTP/1.1 request that can be read. Percent-encode whatever in the path is not ASCII.")
        content, media_type = render_error(error, DEFAULT_SURFACE, request_id)
        body = orjson.dumps(content)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        self.transport.write(STATUS_LINE[error.status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body)
        self.transport.close()
