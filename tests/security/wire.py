"""Requests byte by byte, as no well-behaved client sends them, and every operation of the document with values that fit."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homeport.contract.loading import each_operation
from homeport.contract.operations import Resolver
from tests.acceptance.servers import TIMEOUT_S
from tests.document import DOCUMENT

Json = dict[str, Any]

RESOLVE = Resolver(DOCUMENT)
OPERATIONS: dict[str, tuple[str, str, Json]] = {
    f"{method.upper()} {path}": (method.upper(), path, operation) for path, method, operation in each_operation(DOCUMENT)
}


@dataclass(frozen=True)
class RawAnswer:
    """An answer as it came: the names of its headers in lower case, each with its last value."""

    status: int
    headers: dict[str, str]
    body: bytes


def send_raw(port: int, *lines: str, body: bytes = b"") -> RawAnswer:
    """Send a request as it is written, header by header, and read the answer to the end of the connection."""
    request = "\r\n".join((*lines, "Connection: close", "", "")).encode("latin-1") + body
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(request)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, content = received.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return RawAnswer(int(first.split(" ")[1]), headers, content)


def path_of(path: str, operation: Json, values: Mapping[str, str] | None = None) -> str:
    """The path of an operation with these values, else with the examples of the document."""
    for parameter in map(RESOLVE, operation.get("parameters", ())):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", (values or {}).get(parameter["name"], parameter["example"]))
    return path


def body_of(operation: Json) -> Json | None:
    """A JSON body that fits: the first example of the document; None for an operation that takes none."""
    content = RESOLVE(operation.get("requestBody", {})).get("content", {}).get("application/json")
    if content is None:
        return None
    examples = [RESOLVE(example)["value"] for example in content.get("examples", {}).values()]
    value: Json = examples[0] if examples else content["example"]
    return value
