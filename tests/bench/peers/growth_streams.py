"""Holds streams of chats open, as many as asked for, and says how late their tokens come: ``python -m … BASE HEADERS BODY``.

The tokens are those of the stand-in's model ``clock``: each says when it was sent.
"""

import asyncio
import re
import sys
import time
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop

from homeport.http.protocol import raise_descriptor_limit
from tests.bench.workers import answer_questions

OPENING = 64  # at once
TRIES = 3
LIMIT_S = 120
TOKEN = re.compile(rb"at=(\d+);")
PATH = "/sdk/llm/chat/stream"


class Stream(asyncio.Protocol):
    """One client with its stream."""

    def __init__(self, streams: "Streams") -> None:
        self._streams = streams
        self._rest = b""
        self.answers: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = transport
        self.transport.write(self._streams.request)

    def data_received(self, data: bytes) -> None:
        """Note how late each token is."""
        now, seen = time.monotonic_ns(), self._rest + data
        last = 0
        for token in TOKEN.finditer(seen):
            self._streams.note(now, int(token[1]))
            last = token.end()
        self._rest = seen[last:][-64:]
        if not self.answers.done():
            if not seen.startswith(b"HTTP/1.1 200"):
                self.answers.set_exception(RuntimeError(seen[:500].decode(errors="replace")))
            else:
                self.answers.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """None of them ends before it is closed here."""
        self._streams.lost(self)
        if not self.answers.done():
            self.answers.set_exception(RuntimeError(f"the connection was lost: {exc}"))


class Streams:
    """Answers the questions of the bench, each with a method's name and its arguments."""

    def __init__(self, base: str, headers: str, body: str) -> None:
        place = urlsplit(base)
        self._host, self._port = place.hostname, place.port
        lines = [f"POST {PATH} HTTP/1.1", f"Host: {place.netloc}", f"Content-Length: {len(body.encode())}"]
        lines += [f"{name}: {value}" for name, value in orjson.loads(headers).items()]
        self.request = "\r\n".join([*lines, "", body]).encode()
        self._open: set[Stream] = set()
        self._lost = self._refused = 0
        self._since = 0
        self._delays: list[int] = []

    def note(self, now: int, sent: int) -> None:
        """A token has come."""
        if sent >= self._since:
            self._delays.append(now - sent)

    def lost(self, stream: Stream) -> None:
        """A connection has ended."""
        if stream in self._open:
            self._open.remove(stream)
            self._lost += 1

    async def open(self, count: int) -> float:
        """Have so many open; gives the seconds it took until each of them was answered."""
        started = time.perf_counter()
        gate = asyncio.Semaphore(OPENING)

        async def open_one() -> None:
            async with gate:
                for tries_left in reversed(range(TRIES)):
                    _, stream = await asyncio.get_running_loop().create_connection(lambda: Stream(self), self._host, self._port)
                    try:
                        async with asyncio.timeout(LIMIT_S):
                            await stream.answers
                    except RuntimeError:
                        self._refused += 1
                        if not tries_left:
                            raise
                    else:
                        self._open.add(stream)
                        return

        await asyncio.gather(*(open_one() for _ in range(count - len(self._open))))
        return time.perf_counter() - started

    async def listen(self, seconds: float) -> dict[str, Any]:
        """Listen for so long: how late each token came, in seconds, and how many streams have been lost or refused since the
        beginning; those that are refused are asked for again."""
        self._delays, self._since = [], time.monotonic_ns()
        await asyncio.sleep(seconds)
        return {"delays": [each / 1e9 for each in self._delays], "lost": self._lost, "refused": self._refused}

    async def close(self) -> int:
        """Leave all of them; gives how many were open."""
        leaving, self._open = self._open, set()
        for stream in leaving:
            stream.transport.abort()
        return len(leaving)


def main(base: str, headers: str, body: str) -> None:
    """Answer until nobody asks any more; the streams are read all the while."""
    raise_descriptor_limit()
    loop = uvloop.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    streams = Streams(base, headers, body)
    answer_questions(lambda question: asyncio.run_coroutine_threadsafe(getattr(streams, question.pop("ask"))(**question), loop).result())


if __name__ == "__main__":
    main(*sys.argv[1:])
