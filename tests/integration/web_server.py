"""A web server on loopback that answers as a test says, in real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WebServer:
    """``answers`` are by path; ``asked`` are the heads of the requests that came."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_left: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def page(
        self, path: str, body: str | bytes, content_type: str = "text/plain; charset=utf-8", status: str = "200 OK", **headers: str
    ) -> str:
        """Have a page answered; returns its address."""
        content = body.encode() if isinstance(body, str) else body
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Length: {len(content)}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        self.answers[path] = ("\r\n".join(lines) + "\r\n\r\n").encode() + content
        return self.url(path)

    def redirect(self, path: str, to: str, status: str = "302 Found") -> str:
        """Have a redirect answered; returns its address."""
        return self.page(path, "", status=status, Location=to)


@asynccontextmanager
async def web_server() -> AsyncIterator[WebServer]:
    web = WebServer()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            web.asked.append(head)
            answer = web.answers[head.split(" ")[1]]
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            web.is_left.set()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    web.port = server.sockets[0].getsockname()[1]
    async with server:
        yield web
