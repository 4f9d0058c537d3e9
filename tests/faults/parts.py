"""Load on a server while something is done to it, and connections that misbehave."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, eventually

Json = dict[str, Any]
THREADS = 4


@dataclass
class Load:
    """What came of requests that were sent one after the other, by several clients at once, until the end.

    ``acknowledged`` are the ids of what was stored, as the server said; ``refused`` counts refusals by status and code; ``took_s`` is the
    longest that any request took.
    """

    acknowledged: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    refusals: list[httpx.Response] = field(default_factory=list)
    took_s: float = 0.0

    def note(self, answer: httpx.Response | None, error: str, began_at: float) -> None:
        """Count one request."""
        self.took_s = max(self.took_s, time.monotonic() - began_at)
        if answer is None:
            self.refused[error] += 1
        elif answer.is_success:
            self.acknowledged.append(answer.json()["data"]["id"])
        else:
            self.refused[f"{answer.status_code} {answer.json().get('code')}"] += 1
            self.refusals.append(answer)

    def told(self) -> str:
        """The counts, for the table."""
        refused = ", ".join(f"{count} of {what}" for what, count in sorted(self.refused.items())) or "none"
        return f"{len(self.acknowledged)} stored, refused: {refused}, the slowest took {self.took_s:.1f} s."

    def wait_for(self, more: int = 20) -> float:
        """Return when so many more are stored; returns how long it took until the first, in seconds."""
        began_at, least = time.monotonic(), len(self.acknowledged)
        eventually(lambda: len(self.acknowledged), lambda count: count > least, PROCESS_TIMEOUT_S)
        took_s = time.monotonic() - began_at
        eventually(lambda: len(self.acknowledged), lambda count: count >= least + more, PROCESS_TIMEOUT_S)
        return took_s


@contextmanager
def load(server: Server, app_id: str, threads: int = THREADS) -> Iterator[Load]:
    """Store activities as an app as long as the block lasts."""
    seen, stop = Load(), threading.Event()

    def work(number: int) -> None:
        with httpx.Client(base_url=server.url, headers={"X-App-Id": app_id}, timeout=PROCESS_TIMEOUT_S, trust_env=False) as http:
            while not stop.is_set():
                began_at, answer, error = time.monotonic(), None, ""
                try:
                    answer = http.post("/activities", json={"raw_data": {"by": number}})
                except httpx.TransportError as reason:
                    error = type(reason).__name__
                seen.note(answer, error, began_at)
                stop.wait(0.005)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for each in workers:
        each.start()
    try:
        yield seen
    finally:
        stop.set()
        for each in workers:
            each.join(PROCESS_TIMEOUT_S)


def call(
    server: Server, method: str, path: str, app_id: str, body: Json | None = None, timeout_s: float = PROCESS_TIMEOUT_S
) -> httpx.Response:
    """Call an operation as an app, on a connection of its own."""
    return httpx.request(method, server.url + path, json=body, headers={"X-App-Id": app_id}, timeout=timeout_s, trust_env=False)


def events_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    """The names and data of the events of a stream that has ended."""
    events = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields:
            data = fields["data"]
            events.append((fields.get("event", "message"), data if data == "[DONE]" else json.loads(data)))
    return events


def memory_mb(*processes: psutil.Process) -> float:
    """The resident memory of processes, in MB."""
    return sum(process.memory_info().rss for process in processes) / 1e6


class Peak:
    """The most memory that a process had while the block lasted, and at its beginning, in MB."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self.before = self.most = memory_mb(process)

    @property
    def grown(self) -> float:
        """By how much it had grown at the most."""
        return self.most - self.before

    def __enter__(self) -> "Peak":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, memory_mb(self._process))


@contextmanager
def pinging(admin: Admin) -> Iterator[list[float]]:
    """Somebody else who uses the server meanwhile: how long each of his requests took."""
    waits: list[float] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.01):
            began_at = time.monotonic()
            assert admin.http.get("/sdk/ping", timeout=PROCESS_TIMEOUT_S).status_code == 200
            waits.append(time.monotonic() - began_at)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield waits
    finally:
        stop.set()
        thread.join()


class Connection:
    """A plain connection to a server, for what no HTTP client would do."""

    def __init__(self, server: Server, *, receive_buffer: int | None = None, timeout_s: float = PROCESS_TIMEOUT_S) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect(("127.0.0.1", server.port))

    def send(self, method: str, path: str, *lines: str, body: bytes = b"") -> None:
        """Send a head, and what is given of a body."""
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines])
        self.socket.sendall(head.encode() + b"\r\n\r\n" + body)

    def status(self) -> int:
        """The status of the next answer, with its body left unread; 0 when the connection ends without one."""
        line = b""
        try:
            while not line.endswith(b"\n") and (byte := self.socket.recv(1)):
                line += byte
        except ConnectionError:
            return 0
        return int(line.split()[1]) if line else 0

    def read_answer_body(self) -> bytes:
        """The rest of the head and the body of an answer whose length is declared, so that the connection can be used again."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = b""
        while len(body) < length:
            body += self.socket.recv(length - len(body))
        return body

    def rest(self) -> bytes:
        """All that comes until the connection ends."""
        received = b""
        try:
            while piece := self.socket.recv(65536):
                received += piece
        except ConnectionError:
            return received
        return received

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
