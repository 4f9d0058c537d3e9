"""Bodies that are too large, packed, or made to be dear to read."""

import gzip
import time
import zlib
from collections.abc import Callable

import psutil
import pytest

from tests.acceptance.servers import Admin, Server
from tests.faults.parts import Connection, Peak, pinging
from tests.faults.table import Row

MB = 1_000_000
PIECE = b" " * 65_536
# What is read before a chunked body is refused is at most HOMEPORT_MAX_BODY_BYTES (32 MiB), in pieces and once more as one.
MOST_MB = 120
BOUNDARY = "a-boundary"
FORM_HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'.encode()


def pour(client: Connection, size: int, *, is_chunked: bool, first: bytes = b"") -> int:
    """Send so many bytes, as long as the server takes them; returns how many it took."""
    sent = 0
    try:
        while sent < size:
            piece = first or PIECE
            client.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            sent += len(piece)
            first = b""
        if is_chunked:
            client.socket.sendall(b"0\r\n\r\n")
    except ConnectionError:
        return sent
    return sent


def head_of(key: str, *lines: str) -> tuple[str, ...]:
    """The lines of a head with a credential."""
    return (f"Authorization: Bearer {key}", *lines)


def process_of(server: Server) -> psutil.Process:
    """The process that serves."""
    return psutil.Process(server.process.pid)


@pytest.mark.parametrize("size_mb", [pytest.param(50, id="50MB"), pytest.param(1000, id="1GB", marks=pytest.mark.long)])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize(
    ("method", "path", "content_type", "status"),
    [
        ("POST", "/sdk/llm/chat", "application/json", 413),
        ("POST", "/sdk/stt/transcribe", f"multipart/form-data; boundary={BOUNDARY}", 413),
        ("GET", "/sdk/ping", "application/json", 200),
    ],
    ids=["json", "form", "none"],
)
def test_a_body_that_is_too_large(
    server: Server, admin: Admin, row: Row, *, size_mb: int, is_chunked: bool, method: str, path: str, content_type: str, status: int
) -> None:
    what = "chunked" if is_chunked else "declared"
    row.fault(
        f"{size_mb} MB, {what}, to {method} {path}",
        done="A client sends it all before it looks for an answer.",
        promised=f"{status if is_chunked else 413}, memory within {MOST_MB} MB, and the connection can be used again.",
    )
    size = size_mb * MB // len(PIECE) * len(PIECE)
    first = FORM_HEAD.ljust(len(PIECE), b" ") if content_type.startswith("multipart") else b""
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    with Connection(server) as client, Peak(process_of(server)) as peak:
        client.send(method, path, *head_of(admin.key, f"Content-Type: {content_type}", length))
        assert pour(client, size, is_chunked=is_chunked, first=first) == size, "the rest is read, so that the answer can be"
        told = client.status()
        client.read_answer_body()
        client.send("GET", "/health")
        assert client.status() == 200
    # What an operation does not read does not count, unless its size is declared.
    assert told == (status if is_chunked else 413)
    assert peak.grown < MOST_MB
    row.happened(f"{told}; the server had grown by {peak.grown:.0f} MB at the most; the next request on the connection was served.")


@pytest.mark.long
def test_a_body_without_end_behind_an_answer(server: Server, admin: Admin, row: Row) -> None:
    row.fault(
        "A body that never ends",
        done="A client sends chunk after chunk to an operation that takes no body, and goes on after the answer.",
        promised="The answer comes at once; what follows is thrown away, and the connection is ended after half a minute.",
    )
    with Connection(server) as client:
        client.send("GET", "/sdk/ping", *head_of(admin.key, "Transfer-Encoding: chunked"))
        assert client.status() == 200
        began_at = time.monotonic()
        while pour(client, 1, is_chunked=False, first=b"1\r\nx\r\n"):
            assert time.monotonic() < began_at + 60
            time.sleep(0.05)
    row.happened(f"Ended after {time.monotonic() - began_at:.0f} s.")


def bomb(megabytes: int) -> bytes:
    """A gzip file of some kilobytes that unpacks to so much."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b"0" * MB) for _ in range(megabytes)) + packer.flush()


# Made when they are sent: some take seconds.
BODIES: dict[str, tuple[Callable[[], bytes], int, tuple[str, ...]]] = {
    "packed with gzip": (lambda: gzip.compress(b'{"raw_data": {}}'), 415, ("Content-Encoding: gzip",)),
    "a gzip bomb of 1 GB": (lambda: bomb(1000), 415, ("Content-Encoding: gzip",)),
    "200 000 levels deep": (lambda: b'{"raw_data": ' + b"[" * 200_000, 400, ()),
    "a million keys": (lambda: b'{"raw_data": {%b}}' % b",".join(b'"k%d":1' % number for number in range(1_000_000)), 201, ()),
    "a number of 100 000 digits": (lambda: b'{"raw_data": {"n": %b}}' % (b"9" * 100_000), 400, ()),
    "a number beyond all range": (lambda: b'{"raw_data": {"n": 1e400}}', 400, ()),
    "ten million empty lists": (lambda: b'{"raw_data": {"n": [%b[]]}}' % (b"[]," * 10_000_000), 400, ()),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if "1 GB" in name else ()) for name in BODIES])
def test_a_body_that_is_dear_to_read(server: Server, admin: Admin, row: Row, name: str) -> None:
    make, status, lines = BODIES[name]
    body = make()
    row.fault(
        f"A body: {name}",
        done=f"{len(body) / 1e6:.1f} MB are sent to POST /activities while somebody else uses the server.",
        promised=f"{status}, in bounded memory, and others are served.",
    )
    with Connection(server) as client, Peak(process_of(server)) as peak, pinging(admin) as waits:
        length = f"Content-Length: {len(body)}"
        client.send("POST", "/activities", *head_of(admin.key, "Content-Type: application/json", length, *lines), body=body)
        told = client.status()
    row.happened(f"{told}; the server had grown by {peak.grown:.0f} MB at the most; others waited for up to {max(waits, default=0):.2f} s.")
    assert told == status
    assert peak.grown < 1000
