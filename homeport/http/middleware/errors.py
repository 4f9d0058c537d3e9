"""Turns whatever is raised below into the surface's own error body. Nothing that is not an AppError says more than its request id."""

import asyncio
from contextlib import suppress
from typing import Any

from homeport.contract import Contract
from homeport.contract.routing import UndecodablePath, split_path
from homeport.errors import AppError
from homeport.http.connexion_app import ClientLeft
from homeport.http.error_bodies import DEFAULT_SURFACE
from homeport.http.exchange import Exchange, exchange_of
from homeport.http.rendering import check_error, send_error, stopping, tell

# A refusal may be faster than the body that it refuses. nginx, where it passes bodies on as they come, says then that the connection stays
# open and closes it nevertheless, and the client's next request is lost. So a small body that is on its way is awaited.
SMALL_BODY_BYTES = 65_536
SMALL_BODY_S = 0.5


class Errors:
    """The one place where exceptions become answers. With ``is_checked`` an error that its operation does not declare becomes another."""

    def __init__(self, app: Any, *, contract: Contract, is_checked: bool) -> None:
        self.app = app
        self.contract = contract
        self.is_checked = is_checked

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        is_body_read = False

        async def receive_noted() -> Any:
            nonlocal is_body_read
            message = await receive()
            is_body_read = not message.get("more_body", False)
            return message

        try:
            await self.app(scope, receive_noted, send)
        except ClientLeft:
            return
        except asyncio.CancelledError:
            # Only a server that stops cancels requests, those that are not done by then.
            if exchange.status:
                raise
            await self._answer(stopping(), exchange, scope, send)
        except Exception as error:  # noqa: BLE001 it is logged by tell()
            if not (is_body_read or exchange.status):
                await _await_small_body(exchange.headers, receive)
            await self._answer(tell(error), exchange, scope, send)

    async def _answer(self, error: AppError, exchange: Exchange, scope: Any, send: Any) -> None:
        if exchange.status:
            # The answer has begun: cutting it short is all that is left, and tells the client that it is not whole.
            raise RuntimeError("failed after the answer had begun") from error
        if self.is_checked and exchange.operation is not None:
            error = check_error(error, exchange.operation, exchange.request_id)
        await send_error(error, self._surface(exchange, scope), exchange.request_id, send)

    def _surface(self, exchange: Exchange, scope: Any) -> str:
        if exchange.operation is not None:
            return exchange.operation.surface
        try:
            segments = split_path(scope.get("raw_path") or scope["path"].encode())
        except UndecodablePath:
            return DEFAULT_SURFACE
        return self.contract.surface_of(segments, DEFAULT_SURFACE)


async def _await_small_body(headers: dict[bytes, bytes], receive: Any) -> None:
    """Read the rest of a small body, unless the client waits to be told to send it, or takes its time, or the server stops."""
    declared = headers.get(b"content-length", b"0")
    has_body = b"content-length" in headers or b"transfer-encoding" in headers
    if not has_body or b"expect" in headers or not declared.isdigit() or int(declared) > SMALL_BODY_BYTES:
        return
    left, more = SMALL_BODY_BYTES, True
    with suppress(TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(SMALL_BODY_S):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)
