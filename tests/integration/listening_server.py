"""A server on a loopback port that speaks just enough of PostgreSQL's protocol to hear what a client sends before it is let in."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104

# What a server may ask for after the startup message.
CLEARTEXT_PASSWORD, MD5_PASSWORD, GSS, SSPI = 3, 5, 7, 9


class ListeningServer:
    """Asks every client to identify itself in one way, notes what it sends, and closes the connection."""

    def __init__(self, listener: socket.socket, asks: int) -> None:
        self.port: int = listener.getsockname()[1]
        self.startups: list[dict[str, str]] = []
        self.answers: list[bytes] = []
        self._listener = listener
        self._asks = asks

    def serve(self) -> None:
        """Serve until the listening socket is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        message = _read(client)
        while message is not None and struct.unpack(">i", message[:4])[0] in (SSL_REQUEST, GSS_REQUEST):
            client.sendall(b"N")
            message = _read(client)
        if message is None:
            return
        texts = message[4:].split(b"\0")
        self.startups.append({name.decode(): value.decode() for name, value in zip(texts[::2], texts[1::2], strict=False) if name})
        salt = b"salt" if self._asks == MD5_PASSWORD else b""
        client.sendall(b"R" + struct.pack(">ii", 8 + len(salt), self._asks) + salt)
        kind = client.recv(1)
        self.answers.append(kind + (_read(client) or b"") if kind else b"")


def _read(client: socket.socket) -> bytes | None:
    """A message without its length; None when the client has left."""
    length = client.recv(4, socket.MSG_WAITALL)
    if len(length) < 4:
        return None
    return client.recv(struct.unpack(">i", length)[0] - 4, socket.MSG_WAITALL)


@contextmanager
def run_listening(asks: int) -> Iterator[ListeningServer]:
    """Run one while the block lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = ListeningServer(listener, asks)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        assert not thread.is_alive()
