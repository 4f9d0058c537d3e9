"""Bounds request bodies: by what is declared, and by what really arrives."""

from typing import Any

from homeport.errors import InvalidRequest, PayloadTooLarge
from homeport.http.exchange import exchange_of


class BodyLimit:
    """Refuses bodies over ``max_bytes`` with 413, chunked ones as soon as they pass it."""

    def __init__(self, app: Any, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = exchange_of(scope).headers
            declared = headers.get(b"content-length")
            if declared is not None:
                if not declared.isdigit():
                    raise InvalidRequest("The Content-Length header is not a number.")
                if int(declared) > self.max_bytes:
                    raise self._too_large()
            elif b"transfer-encoding" in headers:
                receive = self._counted(receive)
        await self.app(scope, receive, send)

    def _counted(self, receive: Any) -> Any:
        received = 0

        async def receive_counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._too_large()
            return message

        return receive_counted

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request body is larger than {self.max_bytes} bytes (HOMEPORT_MAX_BODY_BYTES).")
