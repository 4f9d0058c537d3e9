"""What goes wrong with a server, in words and codes for the caller. A server's own words are untrusted: one short line, no controls."""

import math

from homeport.errors import InvalidRequest, Unavailable, UpstreamError, UpstreamTimeout

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_WORDS_LENGTH = 500

# Codes of our own in the place of an answer that a transport could not get. No server's: those lie within 16 bits.
NOT_SENT = -887_001
LOST = -887_002
TOO_LARGE = -887_003


class StartFailed(Exception):
    """The server could not be started or reached; the message says why in safe words: 'its command was not found'."""


class NotSent(Exception):
    """The call did not reach the server: its session was over already."""


def cannot_start(name: str, reason: str, retry_in_s: float) -> Unavailable:
    """The server did not start, or failed a moment ago and is left alone until it is tried again."""
    seconds = max(1, math.ceil(retry_in_s))
    message = f"The MCP server '{name}' cannot be started: {reason}. Its log may say more; the next attempt is made in {seconds} s."
    error = Unavailable(message, code="MCP_SERVER_UNAVAILABLE", headers={"Retry-After": str(seconds)})
    error.retry_in_s = retry_in_s
    return error


def has_stopped(name: str) -> Unavailable:
    """The sessions are being closed."""
    return Unavailable(f"The MCP server '{name}' is being stopped. Try again.", code="MCP_SERVER_UNAVAILABLE")


def server_failed(name: str, reason: str) -> UpstreamError:
    """The server went away while it worked on the call."""
    message = f"The MCP server '{name}' failed during the call: {reason}. The call may have had an effect; the next one starts it anew."
    return UpstreamError(message, code="MCP_SERVER_FAILED")


def too_slow(name: str, limit_s: float) -> UpstreamTimeout:
    """There was no answer, and no sign of progress, within the limit."""
    return UpstreamTimeout(f"The MCP server '{name}' did not answer within {limit_s:g} s.", code="MCP_TIMEOUT")


def too_large(name: str) -> UpstreamError:
    """The answer exceeds the limit."""
    message = f"The MCP server '{name}' gave a result of more than {MAX_MESSAGE_BYTES // 1024**2} MB. Ask for less at once."
    return UpstreamError(message, code="MCP_RESULT_TOO_LARGE")


def refused_arguments(name: str, words: str) -> InvalidRequest:
    """The server knows no such tool, or does not take these arguments."""
    return InvalidRequest(f"The MCP server '{name}' does not take this call: {clean(words)}")


def bad_answer(name: str, words: str) -> UpstreamError:
    """The server answered with an error of the protocol, or with something that is no answer."""
    return UpstreamError(f"The MCP server '{name}' answered with an error: {clean(words)}", code="MCP_ERROR")


def clean(words: str) -> str:
    """What a server says as one short line without control characters."""
    line = "".join(character if character.isprintable() else " " for character in words[: 2 * MAX_WORDS_LENGTH])
    line = " ".join(line.split())
    return line if len(line) <= MAX_WORDS_LENGTH else f"{line[:MAX_WORDS_LENGTH]}…"


def find_cause(error: BaseException) -> BaseException:
    """The first error in a group, however deep; a single error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
