"""One request to the stand-in for a model server, and the ways to answer it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson
from starlette.types import Receive, Send

FOREVER_S = 3600.0


class ClientLeft(Exception):
    """The client closed the connection before the answer was complete."""


class Cut(Exception):
    """The connection is to be cut in the middle of the answer."""


class Exchange:
    """One request and the ways to answer it, right or wrong."""

    def __init__(self, request: dict[str, Any], receive: Receive, send: Send) -> None:
        self.request = request
        self.model = str(request.get("model", request.get("model_id")))
        self.is_stream = bool(request.get("stream"))
        self.is_speech = bool(request.keys() & {"voice", "voice_id", "text", "contents"})
        self.is_embedding = "input" in request and not self.is_speech
        self._receive = receive
        self._send = send

    async def start(self, status: int, media_type: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send the head of the answer."""
        await self._send({"type": "http.response.start", "status": status, "headers": [(b"content-type", media_type.encode()), *headers]})

    async def send_head_of_json(self) -> None:
        """Send the head of a good answer and the beginning of its JSON."""
        await self.start(200, "application/json")
        await self.send(b'{"object": "list", "data": [' if self.is_embedding else b'{"id": "chatcmpl-1", "choices": [')

    async def send(self, body: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def answer(self, status: int, value: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Answer with JSON."""
        body = orjson.dumps(value)
        await self.start(status, "application/json", [(b"content-length", str(len(body)).encode()), *headers])
        await self.send(body, is_last=True)

    async def wait(self, seconds: float) -> None:
        """Do nothing for a while. Raises ClientLeft as soon as the client has gone."""
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return
        raise ClientLeft

    def argument(self, default: float) -> float:
        """The number at the end of the model's name."""
        _, dash, number = self.model.partition("-")
        return float(number) if dash else default


Behaviour = Callable[[Exchange], Awaitable[None]]
