"""How long single requests of any kind take, one after the other over one connection, from a process of its own on the second core."""

import http.client
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.bench.cores import LOAD_CORE
from tests.bench.workers import Worker, answer_questions, running_worker

LIMIT_S = 120
Request = tuple[str, str, Any]  # method, path, what is sent as JSON or None


@dataclass(frozen=True, slots=True)
class Times:
    """The middle and the 95th of 100 times, in milliseconds."""

    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """The figures of so many times."""
        ordered = sorted(seconds)
        return cls(statistics.median(ordered) * 1000, ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)] * 1000)


class Timer:
    """That process, seen from the bench."""

    def __init__(self, worker: Worker, base: str, headers: Mapping[str, str]) -> None:
        self._worker = worker
        self._place = {"host": urlsplit(base).netloc, "headers": dict(headers)}

    def time(self, requests: Sequence[Request]) -> Times:
        """Make the requests in turn, after the first one, which is not counted. Raises RuntimeError when an answer is not a 2xx."""
        answer = self._worker.ask({**self._place, "requests": requests})
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return Times.of(answer)


@contextmanager
def running_timer(base: str, headers: Mapping[str, str]) -> Iterator[Timer]:
    """The process that asks the server at ``base``, for as long as the block runs."""
    with running_worker("tests.bench.peers.growth_timing", core=LOAD_CORE) as worker:
        yield Timer(worker, base, headers)


def _answer(question: dict[str, Any]) -> list[float] | str:
    import orjson

    connection = http.client.HTTPConnection(question["host"], timeout=LIMIT_S)
    times = []
    try:
        for method, path, value in question["requests"]:
            body = None if value is None else orjson.dumps(value)
            started = time.perf_counter()
            connection.request(method, path, body, question["headers"])
            response = connection.getresponse()
            content = response.read()
            times.append(time.perf_counter() - started)
            if not 200 <= response.status < 300:
                return f"{method} {path}: status {response.status}: {content[:500]!r}"
    finally:
        connection.close()
    return times[1:] or times


if __name__ == "__main__":
    answer_questions(_answer)
