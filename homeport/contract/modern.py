"""The document as OpenAPI 3.1, for tools that want that: the same operations, with every schema as JSON Schema 2020-12.

The conversion is mechanical, because the document keeps to the part of 3.0 that allows it (``nullable`` beside one type, no callbacks).
Nothing is enforced from it.
"""

from collections.abc import Callable
from typing import Any

from homeport.contract.loading import METHODS
from homeport.contract.schemas import modernize

Json = dict[str, Any]

VERSION = "3.1.0"


def to_openapi_31(document: Json) -> Json:
    """The same document in OpenAPI 3.1. Shares whatever it does not change with ``document``."""
    components = document.get("components", {})
    convert_component: dict[str, Callable[[Json], Json]] = {
        "schemas": modernize,
        "parameters": _with_schema,
        "headers": _with_schema,
        "requestBodies": _with_content,
        "responses": _response,
    }
    return document | {
        "openapi": VERSION,
        "paths": {path: _path_item(item) for path, item in document.get("paths", {}).items()},
        "components": {
            kind: {name: convert_component[kind](each) for name, each in entries.items()} if kind in convert_component else entries
            for kind, entries in components.items()
        },
    }


def _path_item(item: Json) -> Json:
    converted = item | {method: _operation(item[method]) for method in METHODS if method in item}
    return _with_each(converted, "parameters", _with_schema)


def _operation(operation: Json) -> Json:
    converted = _with_each(operation, "parameters", _with_schema)
    if "requestBody" in operation:
        converted["requestBody"] = _with_content(operation["requestBody"])
    converted["responses"] = {status: _response(response) for status, response in operation["responses"].items()}
    if "x-stream-event" in operation:
        converted["x-stream-event"] = modernize(operation["x-stream-event"])
    return converted


def _response(response: Json) -> Json:
    headers = {name: _with_schema(header) for name, header in response.get("headers", {}).items()}
    return _with_content(response) | ({"headers": headers} if headers else {})


def _with_schema(parameter: Json) -> Json:
    """A parameter, a header or the content of one media type."""
    return parameter | {"schema": modernize(parameter["schema"])} if "schema" in parameter else parameter


def _with_content(body: Json) -> Json:
    if "content" not in body:
        return body
    return body | {"content": {media_type: _with_schema(content) for media_type, content in body["content"].items()}}


def _with_each(value: Json, name: str, convert: Callable[[Json], Json]) -> Json:
    return value | {name: [convert(each) for each in value[name]]} if name in value else dict(value)
