"""A model server that breaks HTTP itself: ``/<how>/v1/…`` answers in that way. What breaks only the protocol is ``contract.upstream``.

Each connection is served by a thread, which ends when its client leaves or the server ends.
"""

import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
EVENTS = b"Content-Type: text/event-stream\r\n"
TOKEN_BYTES = 10_000_000
BOMB_MB = 200
STREAM_BEGINS, WHOLE_BEGINS = b'data: {"choices": "', b'{"choices": "'
PAUSE_S = 0.01
SLOW_S = 0.5


def chunk(text: str) -> bytes:
    """A piece of a streamed answer."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}).encode() + b"\n\n"


def whole(text: str) -> bytes:
    """A whole answer."""
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}).encode()


@cache
def bomb(beginning: bytes) -> bytes:
    """A gzip file of some kilobytes that unpacks to BOMB_MB."""
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(beginning)
    for _ in range(BOMB_MB):
        packed += packer.compress(b"x" * 1_000_000)
    return packed + packer.flush()


@dataclass
class BadModel:
    """Where it is, and how many connections are open."""

    url: str = ""
    open: set[socket.socket] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    def base_url(self, how: str) -> str:
        """What a provider is configured with."""
        return f"{self.url}/{how}/v1"


def _endless_headers(model: BadModel, client: socket.socket, _stream: bool) -> None:
    client.sendall(OK)
    while not model.ended.wait(PAUSE_S):
        client.sendall(b"X-More: and more\r\n" * 100)


def _endless_header(model: BadModel, client: socket.socket, _stream: bool) -> None:
    client.sendall(OK + b"X-Long: ")
    while not model.ended.wait(PAUSE_S):
        client.sendall(b"x" * 65536)


def _endless_continue(model: BadModel, client: socket.socket, _stream: bool) -> None:
    while not model.ended.wait(PAUSE_S):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _slow_header(model: BadModel, client: socket.socket, _stream: bool) -> None:
    client.sendall(OK + b"X-Slow: ")
    while not model.ended.wait(SLOW_S):
        client.sendall(b"x")


def _silent(_model: BadModel, client: socket.socket, _stream: bool) -> None:
    while client.recv(65536):  # until it leaves
        continue


def _token(_model: BadModel, client: socket.socket, is_stream: bool) -> None:
    text = "x" * TOKEN_BYTES
    body = chunk(text) + b"data: [DONE]\n\n" if is_stream else whole(text)
    client.sendall(OK + (EVENTS if is_stream else JSON) + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _not_utf8(_model: BadModel, client: socket.socket, is_stream: bool) -> None:
    body = (chunk("caf!") + b"data: [DONE]\n\n" if is_stream else whole("caf!")).replace(b"!", b"\xe9\xff")
    client.sendall(OK + (EVENTS if is_stream else JSON) + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _half(_model: BadModel, client: socket.socket, is_stream: bool) -> None:
    body = chunk("Half") if is_stream else whole("Half")[:40]
    client.sendall(OK + (EVENTS if is_stream else JSON) + b"Content-Length: 100000\r\n\r\n" + body)


def _bomb(_model: BadModel, client: socket.socket, is_stream: bool) -> None:
    body = bomb(STREAM_BEGINS if is_stream else WHOLE_BEGINS)
    client.sendall(OK + (EVENTS if is_stream else JSON) + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _picture(_model: BadModel, client: socket.socket, is_stream: bool) -> None:
    body = chunk("Hello") + b"data: [DONE]\n\n" if is_stream else whole("Hello")
    client.sendall(OK + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _garbage(_model: BadModel, client: socket.socket, _stream: bool) -> None:
    client.sendall(bytes(range(256)) * 100)


WAYS: dict[str, Callable[[BadModel, socket.socket, bool], None]] = {
    "endless-headers": _endless_headers,
    "endless-header": _endless_header,
    "endless-continue": _endless_continue,
    "slow-header": _slow_header,
    "silent": _silent,
    "token": _token,
    "not-utf8": _not_utf8,
    "half": _half,
    "bomb": _bomb,
    "picture": _picture,
    "garbage": _garbage,
}


@contextmanager
def run_bad_model() -> Iterator[BadModel]:
    """Serve on a free port of loopback as long as the block lasts."""
    model = BadModel()
    threads: list[threading.Thread] = []
    for beginning in (STREAM_BEGINS, WHOLE_BEGINS):
        bomb(beginning)  # takes a second, which the test has not

    def serve(client: socket.socket) -> None:
        with client:
            try:
                head = b""
                while b"\r\n\r\n" not in head and (piece := client.recv(65536)):
                    head += piece
                if head:
                    WAYS[head.split(b"/")[1].decode()](model, client, b'"stream":true' in head)
            except OSError:
                return  # the client has left, as it should
            finally:
                model.open.discard(client)

    def accept(listener: socket.socket) -> None:
        while not model.ended.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            model.open.add(client)
            threads.append(threading.Thread(target=serve, args=(client,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        model.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield model
        finally:
            model.ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            for each in [*model.open]:
                each.shutdown(socket.SHUT_RDWR)
            for thread in [accepting, *threads]:
                thread.join()
