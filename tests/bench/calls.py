"""Calls by aiohttp from a process of its own on the second core: for what wrk cannot see, single times, first tokens and answers.

``python -m tests.bench.calls`` is that process.
"""

import asyncio
import gc
import http.client
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.cores import LOAD_CORE
from tests.bench.workers import Worker, answer_questions, running_worker

CALL_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to make: ``count`` of them, or as many as fit into ``seconds``, with ``clients`` of them under way at any time.

    ``bodies`` are taken in turn. ``first`` is a text that marks the first token of a stream, ``last`` how every answer must end. Answers
    are written to the file ``answers``, one a line in the order of the calls, where one is given. With ``places`` each client calls a URL
    of its own: its place is put in for ``{}``.
    """

    url: str
    headers: Mapping[str, str]
    bodies: Sequence[str]
    clients: int = 1
    count: int = 1_000_000
    seconds: float = 60.0
    first: str = ""
    last: str = ""
    answers: str = ""
    places: Sequence[str] = ()

    def url_of(self, client: int) -> str:
        """What a client calls."""
        return self.url.format(self.places[client]) if self.places else self.url


@dataclass(frozen=True, slots=True)
class Took:
    """What calls took: how many a second, and the medians of a whole call and, of a stream, of the time to its first token."""

    rate: float
    p50_ms: float
    first_ms: float


class Caller:
    """The process that calls, seen from the bench."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def make(self, calls: Calls) -> Took:
        """Make the calls. Raises RuntimeError when one of them failed."""
        answer = self._worker.ask(asdict(calls))
        if "error" in answer:
            raise RuntimeError(f"{calls.url}: {answer['error']}")
        return Took(**answer)


@contextmanager
def running_caller() -> Iterator[Caller]:
    """The process that calls, for as long as the block runs."""
    with running_worker("tests.bench.calls", core=LOAD_CORE) as worker:
        yield Caller(worker)


def first_ms(url: str, headers: Mapping[str, str], body: str, sign: str) -> float:
    """Make a single call from this process; returns how long it took from connecting until ``sign`` was in the answer.

    Raises RuntimeError when it never was.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=CALL_LIMIT_S)
    started = time.perf_counter()
    try:
        connection.request("POST", f"{parts.path}?{parts.query}", body, dict(headers))
        response = connection.getresponse()
        read = b""
        while sign.encode() not in read:
            piece = response.read1()
            if not piece:
                raise RuntimeError(f"{url}: status {response.status}: {read[-500:]!r}")
            read += piece
        return (time.perf_counter() - started) * 1000
    finally:
        connection.close()


@dataclass(slots=True)
class _Job:
    """The calls as the process makes them."""

    calls: Calls
    bodies: list[bytes]
    deadline: float
    numbers: Iterator[int] = field(default_factory=count)
    times: list[float] = field(default_factory=list)
    first_times: list[float] = field(default_factory=list)
    answers: dict[int, bytes] = field(default_factory=dict)

    async def work(self, session: Any, client: int) -> None:
        """Be one client: call, one call after the other, until there is no more to do."""
        url = self.calls.url_of(client)
        while time.perf_counter() < self.deadline and (number := next(self.numbers)) < self.calls.count:
            started = time.perf_counter()
            async with session.post(url, data=self.bodies[number % len(self.bodies)]) as response:
                answer = await self._read(response, started) if self.calls.first else await response.read()
            self.times.append(time.perf_counter() - started)
            if not 200 <= response.status < 300 or not answer.endswith(self.calls.last.encode()):
                raise RuntimeError(f"status {response.status}: {answer[-500:]!r}")
            if self.calls.answers:
                self.answers[number] = answer

    async def _read(self, response: Any, started: float) -> bytes:
        """The end of a stream."""
        sign, end = self.calls.first.encode(), b""
        is_waiting = True
        async for piece in response.content.iter_any():
            end = (end + piece)[-4096:] if not is_waiting else end + piece
            if is_waiting and sign in end:
                self.first_times.append(time.perf_counter() - started)
                is_waiting = False
        if is_waiting:
            raise RuntimeError(f"status {response.status}: no first token in {end[-500:]!r}")
        return end

    def took(self, seconds: float) -> Took:
        """What the calls took. The answers are written on the way."""
        if self.calls.answers:
            Path(self.calls.answers).write_bytes(b"\n".join(self.answers[number] for number in sorted(self.answers)))
        first_ms = statistics.median(self.first_times) * 1000 if self.first_times else 0.0
        return Took(len(self.times) / seconds, statistics.median(self.times) * 1000, first_ms)


async def _make(calls: Calls) -> Took:
    import aiohttp

    bodies = [body.encode() for body in calls.bodies]
    timeout = aiohttp.ClientTimeout(CALL_LIMIT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=calls.headers, timeout=timeout) as session:
        # The connections are opened, and whatever is made at the first call is made, before the clock runs: with the last bodies.
        await asyncio.gather(
            *(_Job(calls, bodies, float("inf"), iter([-1 - each, calls.count])).work(session, each) for each in range(calls.clients))
        )
        started = time.perf_counter()
        job = _Job(calls, bodies, started + calls.seconds)
        await asyncio.gather(*(job.work(session, each) for each in range(calls.clients)))
        return job.took(time.perf_counter() - started)


def main() -> None:
    """Do the jobs that are asked for."""
    gc.disable()
    answer_questions(_answer)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    import aiohttp
    import uvloop

    try:
        return asdict(uvloop.run(_make(Calls(**question))))
    except (RuntimeError, OSError, aiohttp.ClientError, TimeoutError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()


if __name__ == "__main__":
    main()
