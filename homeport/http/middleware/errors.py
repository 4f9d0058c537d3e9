"""Turns whatever is raised below into the surface's own error body. Nothing that is not an AppError says more than its request id."""

import asyncio
from typing import Any

from homeport.contract import Contract
from homeport.contract.routing import UndecodablePath, split_path
from homeport.errors import AppError
from homeport.http.connexion_app import ClientLeft
from homeport.http.error_bodies import DEFAULT_SURFACE
from homeport.http.exchange import Exchange, exchange_of
from homeport.http.rendering import check_error, send_error, stopping, tell


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
        try:
            await self.app(scope, receive, send)
        except ClientLeft:
            return
        except asyncio.CancelledError:
            # Only a server that stops cancels requests, those that are not done by then.
            if exchange.status:
                raise
            await self._answer(stopping(), exchange, scope, send)
        except Exception as error:  # noqa: BLE001 it is logged by tell()
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
