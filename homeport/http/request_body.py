"""Reads a request body once: JSON through orjson, forms through Starlette's parser, anything else as bytes."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from homeport.contract import Body, Operation
from homeport.contract.operations import FORM_TYPES
from homeport.contract.parameters import coerce, describe
from homeport.errors import FieldProblem, InvalidRequest, UnsupportedMediaType

ABSENT: Any = object()
MAX_FORM_FIELDS = 1000
MAX_FORM_FILES = 100
# Each takes a hundred times the memory of its brackets.
MAX_CONTAINERS = 2_000_000


async def read_request_body(
    operation: Operation, headers: Mapping[bytes, bytes], receive: Any
) -> tuple[Any, dict[str, Any], FormData | None]:
    """(the body, a form's files, the form to close afterwards). The body is ABSENT when none was sent and none is required.

    Raises UnsupportedMediaType, InvalidRequest.
    """
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise UnsupportedMediaType("The body is compressed, and none is unpacked here. Send it without Content-Encoding.")
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    media_type = content_type.partition(";")[0].strip().lower()
    body = operation.bodies.get(media_type)
    if body is not None and media_type in FORM_TYPES:
        form = await _read_form(media_type, headers, receive)
        try:
            return *_sort_form(form, body), form
        except InvalidRequest:
            await form.close()
            raise
    content = await read_bytes(receive)
    if not content:
        if operation.is_body_required:
            raise InvalidRequest("A request body is required.")
        return ABSENT, {}, None
    if body is None:
        known = ", ".join(operation.bodies)
        raise UnsupportedMediaType(f"The body is of type '{media_type or 'unknown'}'. Send it with Content-Type: {known}.")
    if body.validator is None:
        return content, {}, None
    value = parse_json(content)
    problems = body.validator.problems(value, "body")
    if problems:
        raise InvalidRequest(describe(problems), problems=problems)
    return value, {}, None


async def read_bytes(receive: Any) -> bytes:
    """The whole body, however it was cut. Its size is bounded by the body limit at the edge."""
    chunks = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The client left before the body was complete.")
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def parse_json(content: bytes) -> Any:
    """Parse strictly: no NaN, no Infinity, UTF-8 only, bounded depth and number of lists and objects. Raises InvalidRequest."""
    # Brackets within texts are counted, too; nobody sends texts with so many.
    if len(content) > MAX_CONTAINERS and content.count(b"[") + content.count(b"{") > MAX_CONTAINERS:
        raise InvalidRequest(f"The body holds more than {MAX_CONTAINERS} lists and objects.")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error


async def _read_form(media_type: str, headers: Mapping[bytes, bytes], receive: Any) -> FormData:
    async def chunks() -> Any:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("The client left before the body was complete.")
            yield message.get("body", b"")
            more = message.get("more_body", False)

    raw = Headers(raw=list(headers.items()))
    try:
        if media_type == "multipart/form-data":
            return await MultiPartParser(raw, chunks(), max_files=MAX_FORM_FILES, max_fields=MAX_FORM_FIELDS).parse()
        return await FormParser(raw, chunks()).parse()
    except (MultiPartException, HTTPException, KeyError, UnicodeDecodeError) as error:
        raise InvalidRequest("The form cannot be read: its encoding is broken, or it has too many parts.") from error


def _sort_form(form: FormData, body: Body) -> tuple[dict[str, Any], dict[str, Any]]:
    fields: dict[str, Any] = {}
    files: dict[str, list[UploadFile]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(value)
            continue
        schema = body.properties.get(name, {})
        if schema.get("type") == "array":
            fields.setdefault(name, []).append(coerce(schema.get("items", {}), value))
        elif schema.get("type") == "object":
            fields[name] = parse_json(value.encode())
        else:
            fields[name] = coerce(schema, value)
    problems = body.validator.problems(fields, "body") if body.validator else ()
    missing = sorted(body.required_files - files.keys())
    problems += tuple(FieldProblem("body", f"/{name}", "a file is required here") for name in missing)
    if problems:
        raise InvalidRequest(describe(problems), problems=problems)
    return fields, files
