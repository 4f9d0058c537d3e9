"""The outermost layer: gives every request an id, every answer that id, and the log one line a request."""

import itertools
import logging
import os
import re
import time
from typing import Any

import structlog

from homeport.http.exchange import SCOPE_KEY, Exchange
from homeport.log import request_id_var

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")


class Access:
    """Request ids and the access log. A client's own ``X-Request-Id`` is kept when it is of a safe form."""

    def __init__(self, app: Any) -> None:
        self.app = app
        # Bound once: what get_logger returns looks its configuration up at every use. The factory of the application has configured it.
        self._log = structlog.get_logger("homeport.access").bind()
        self._counter = itertools.count(1)
        # Unique over processes and restarts without asking the system for randomness on each request.
        self._prefix = os.urandom(8).hex()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = self._choose_id(headers)
        exchange = scope[SCOPE_KEY] = Exchange(request_id, headers)
        request_id_var.set(request_id)

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        started = time.perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if self._log.is_enabled_for(logging.INFO):
                self._write_line(scope, exchange, time.perf_counter() - started)

    def _choose_id(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _GIVEN_ID.fullmatch(given):
            return given.decode()
        return f"{self._prefix}{next(self._counter):08x}"

    def _write_line(self, scope: Any, exchange: Exchange, took_s: float) -> None:
        self._log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            # nginx's number for a client that left before its answer.
            status=exchange.status or 499,
            ms=round(took_s * 1000, 2),
            operation=exchange.operation.id if exchange.operation else None,
            principal=str(exchange.principal.id) if exchange.principal else None,
        )
