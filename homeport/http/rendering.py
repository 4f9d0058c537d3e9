"""Answers on the wire: JSON, bytes and event streams."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import structlog

from homeport.contract import Operation
from homeport.errors import AppError, InternalError, MethodNotAllowed, Unavailable
from homeport.http.error_bodies import render_error
from homeport.replies import EventStream, Reply

log = structlog.get_logger(__name__)

_JSON_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
_NO_SNIFF = (b"x-content-type-options", b"nosniff")
_NO_HEADERS: Mapping[str, str] = {}
_NO_STORE = (b"cache-control", b"no-store")
_SOON: Mapping[str, str] = {"Retry-After": "5"}


async def send_reply(result: Any, operation: Operation, send: Any, *, is_checked: bool) -> None:
    """Send what a handler returned: plain JSON data, a Reply. With ``is_checked`` the answer is held against the contract first."""
    status, media_type, headers = operation.success_status, "application/json", _NO_HEADERS
    if isinstance(result, Reply):
        status, media_type, headers, result = result.status or status, result.media_type, result.headers, result.body
    body = result if isinstance(result, bytes) else b"" if result is None else orjson.dumps(result, option=_JSON_OPTIONS)
    if is_checked:
        check_answer(operation, status, media_type if body else "", body)
    await send_bytes(send, status, body, media_type, headers)


async def send_bytes(send: Any, status: int, body: bytes, media_type: str, headers: Mapping[str, str]) -> None:
    """Send one complete answer. Answers are not to be stored unless ``headers`` say otherwise."""
    raw = [(b"content-length", b"%d" % len(body)), _NO_SNIFF]
    if body:
        raw.append((b"content-type", media_type.encode("latin-1")))
    if headers:
        raw += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if not headers or all(name != b"cache-control" for name, _ in raw):
        raw.append(_NO_STORE)
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def send_error(error: AppError, surface: str, request_id: str, send: Any) -> None:
    """Send an error in its surface's own body. A 401 says how to authenticate."""
    body, media_type = render_error(error, surface, request_id)
    headers = dict(error.headers)
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="homeport"')
    await send_bytes(send, error.status, orjson.dumps(body), media_type, headers)


def tell(error: Exception) -> AppError:
    """What a caller may be told about whatever went wrong. The log gets what concerns its operator. Call it where the error is caught."""
    if not isinstance(error, AppError):
        log.exception("request crashed")
        return InternalError()
    if error.status >= 500:
        log.warning("request failed", code=error.code, reason=error.message, cause=repr(error.__cause__) if error.__cause__ else None)
    return error


async def send_events(stream: EventStream, operation: Operation, request_id: str, receive: Any, send: Any, *, is_checked: bool) -> None:
    """Send an event stream until it ends, the client leaves, or the server stops and cancels this; the source is closed before it returns.

    The connection ends with the stream: for some clients that is the end of the answer.
    """
    headers = [(b"content-type", b"text/event-stream"), _NO_STORE, (b"x-accel-buffering", b"no"), _NO_SNIFF, (b"connection", b"close")]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in stream.headers.items()]
    try:
        await send({"type": "http.response.start", "status": operation.success_status, "headers": headers})
        await _send_while_wanted(stream, operation, request_id, receive, send, is_checked=is_checked)
    finally:
        close = getattr(stream.frames, "aclose", None)
        if close is not None:
            await close()


def stopping() -> AppError:
    """What a request is told that is not done when the server's patience ends."""
    return Unavailable("The server is stopping. Try again when it is back.", code="SERVER_STOPPING", headers=_SOON)


async def _send_while_wanted(
    stream: EventStream, operation: Operation, request_id: str, receive: Any, send: Any, *, is_checked: bool
) -> None:
    sending = asyncio.ensure_future(_send_frames(stream, operation, request_id, send, is_checked=is_checked))
    leaving = asyncio.ensure_future(_wait_until_gone(receive))
    is_stopping = False
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        is_stopping = True
    finally:
        leaving.cancel()
        # Raises inside the source's current await, which is what ends an upstream call at once.
        sending.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
    if not sending.cancelled():
        sending.result()
    elif is_stopping:
        await _send_last(stopping(), stream, operation, request_id, send, is_checked=is_checked)


async def _send_frames(stream: EventStream, operation: Operation, request_id: str, send: Any, *, is_checked: bool) -> None:
    try:
        async for frame in stream.frames:
            if is_checked:
                check_event(operation, frame)
            await send({"type": "http.response.body", "body": frame, "more_body": True})
    except Exception as error:
        if not isinstance(error, AppError):
            log.exception("stream failed", operation=operation.id)
        told = error if isinstance(error, AppError) else InternalError()
        await _send_last(told, stream, operation, request_id, send, is_checked=is_checked)
    else:
        await send({"type": "http.response.body", "body": b""})


async def _send_last(error: AppError, stream: EventStream, operation: Operation, request_id: str, send: Any, *, is_checked: bool) -> None:
    """The status is long gone: an error can only be told in the stream."""
    if stream.error_frame is not None:
        frame = stream.error_frame(error)
    else:
        body, _ = render_error(error, operation.surface, request_id)
        frame = b"event: error\ndata: %b\n\n" % orjson.dumps(body)
    if is_checked:
        # Nothing can be told instead: the connection is cut.
        check_event(operation, frame)
    await send({"type": "http.response.body", "body": frame})


async def _wait_until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def check_answer(operation: Operation, status: int, media_type: str, body: bytes) -> None:
    """Raise InternalError when an answer is not one that the contract declares."""
    media_type = media_type.partition(";")[0]
    is_declared, validator = operation.response_validator(status, media_type)
    if not is_declared:
        raise InternalError(f"{operation.id} answered {status} {media_type or 'without a body'}, which the contract does not declare.")
    if validator is not None and media_type.endswith("json"):
        problems = validator.problems(orjson.loads(body), "response")
        if problems:
            raise InternalError(f"{operation.id} answered what the contract does not allow: {problems[0].pointer}: {problems[0].detail}")


def check_error(error: AppError, operation: Operation, request_id: str) -> AppError:
    """The error itself when the contract declares it for the operation; otherwise one that says that it does not."""
    # A method that is not possible concerns no operation, and is in no list of answers.
    if isinstance(error, InternalError | MethodNotAllowed):
        return error
    body, media_type = render_error(error, operation.surface, request_id)
    try:
        check_answer(operation, error.status, media_type, orjson.dumps(body))
    except InternalError as undeclared:
        return undeclared
    return error


def check_event(operation: Operation, frame: bytes) -> None:
    """Raise InternalError when an event is not what the contract declares: the event itself, and what its data says."""
    lines = frame.decode().split("\n")
    data = [line[6:] for line in lines if line.startswith("data: ")]
    if not data:
        return
    if len(data) > 1:
        raise InternalError(f"{operation.id} sent an event whose data is more than one line.")
    try:
        said = orjson.loads(data[0])
    except orjson.JSONDecodeError:
        said = data[0]
    event = {"event": next((line[7:] for line in lines if line.startswith("event: ")), "message"), "data": data[0]}
    _, validator = operation.response_validator(operation.success_status, "text/event-stream")
    for checked, value in ((validator, event), (operation.event_validator, said)):
        problems = checked.problems(value, "event") if checked is not None else ()
        if problems:
            first = problems[0]
            raise InternalError(f"{operation.id} sent an event that the contract does not allow: {first.pointer}: {first.detail}")
