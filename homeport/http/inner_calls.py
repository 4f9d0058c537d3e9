"""Runs another operation for a request that is being answered, in this process and without a socket.

The operation sees an ordinary request with the credentials of the outer one: who is calling, whether they may, and whether it is
well-formed is decided by the same layers as ever. The outer request's id goes along, so that the log tells what belongs together.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from homeport.contract import Operation
from homeport.contract.tools import PlacedArguments
from homeport.http.exchange import SCOPE_KEY, Exchange, exchange_of

Run = Callable[[Operation, dict[str, str], Any, Any, Any], Awaitable[None]]
"""Sends a request whose operation is known through the layers: (operation, path parameters, scope, receive, send)."""


@dataclass(slots=True)
class Answer:
    """What an operation has answered, whole."""

    status: int = 0
    media_type: str = ""
    body: bytes = b""

    async def take(self, message: Any) -> None:
        """Take the next message of the answer, as ASGI's ``send`` does."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.media_type = dict(message["headers"]).get(b"content-type", b"").decode("latin-1")
        else:
            self.body += message.get("body", b"")


async def call_operation(operation: Operation, arguments: PlacedArguments, outer: Any, run: Run) -> Answer:
    """The answer of an operation to the caller of the request whose ASGI scope is ``outer``. Raises whatever the operation raises."""
    outer_exchange = exchange_of(outer)
    names = credential_headers(operation)
    headers = [(name, value) for name, value in outer_exchange.headers.items() if name in names]
    content = b"" if arguments.body is None else orjson.dumps(arguments.body)
    if content:
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    scope = {
        "type": "http",
        "method": operation.method,
        "path": operation.path,
        "query_string": arguments.query,
        "headers": headers,
        "state": outer["state"],
        SCOPE_KEY: Exchange(outer_exchange.request_id, dict(headers)),
    }
    answer = Answer()
    await run(operation, arguments.path, scope, body_once(content), answer.take)
    return answer


def credential_headers(operation: Operation) -> frozenset[bytes]:
    """The headers in which the operation looks for credentials."""
    schemes = [scheme for requirement in operation.security for _, scheme in requirement.schemes]
    return frozenset(b"authorization" if scheme["type"] == "http" else scheme["name"].lower().encode() for scheme in schemes)


def body_once(content: bytes) -> Callable[[], Awaitable[Any]]:
    """An ASGI ``receive`` with one body. Nobody leaves: when the outer request's client does, what waits here is cancelled."""
    messages = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.get_running_loop().create_future()

    return receive
