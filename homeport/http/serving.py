"""Runs the application: binds the port, then one server process or several that share it."""

import errno
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Sequence

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from homeport.http.connexion_app import Asgi
from homeport.http.protocol import HttpProtocol, raise_descriptor_limit
from homeport.settings import Settings

APP_FACTORY = "homeport.http.app:create_app"
BACKLOG = 2048


class StartFailed(Exception):
    """The application could not start; the log says why."""


class PortUnavailable(Exception):
    """The port cannot be listened on; the message says why and what to do."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for ``host``. ``localhost`` means both loopback families, because clients that say "localhost" may try either.

    Raises PortUnavailable.
    """
    hosts = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    sockets: list[socket.socket] = []
    for each in hosts:
        try:
            sockets.append(_listen(each, sockets[0].getsockname()[1] if sockets else port))
        except OSError as error:
            # A machine without IPv6 has no ::1; that is not a reason not to start.
            if sockets and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            for open_socket in sockets:
                open_socket.close()
            raise PortUnavailable(_explain(each, port, error)) from error
    return sockets


def serve(settings: Settings, sockets: Sequence[socket.socket], app: Asgi) -> None:
    """Serve until SIGTERM or SIGINT, then stop accepting, let open requests finish within ``shutdown_s``, and return.

    ``app`` serves in this process; several processes build their own. Raises StartFailed when the application could not start.
    """
    raise_descriptor_limit()
    is_alone = settings.workers == 1
    config = uvicorn.Config(
        app if is_alone else APP_FACTORY,
        factory=not is_alone,
        workers=settings.workers,
        loop="uvloop" if os.name != "nt" else "asyncio",
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here goes by who a request says it comes from.
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_s)),
        backlog=BACKLOG,
    )
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        if is_alone:
            server = uvicorn.Server(config)
            # From here on no signal is lost: uvicorn listens to them once its event loop runs, which takes a moment. And when it is done
            # it raises the signal that stopped it once more, which must not end a clean stop with another status than 0.
            for each in before:
                signal.signal(each, server.handle_exit)
            server.run(sockets=list(sockets))
            has_failed = server.lifespan.should_exit
        else:
            workers = Workers(config, list(sockets))
            workers.run()
            has_failed = any(each.exitcode == STARTUP_FAILURE for each in workers.processes)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if has_failed:
        raise StartFailed("The server could not start; the reason stands in the log above.")


class Workers(Multiprocess):
    """Several server processes on the same sockets."""

    def terminate_all(self) -> None:
        """Stop them all, and stop listening here, too: nobody would answer."""
        for each in self.sockets:
            each.close()
        super().terminate_all()


def stop_with_parent() -> None:
    """In one of several server processes: stop as soon as the one that started them is gone, even killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="wait for the parent's end", daemon=True).start()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        # Listening from now on: another program that wants the port learns it at once, and early clients wait instead of failing.
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
    except OSError:
        listener.close()
        raise
    return listener


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is already in use. If another Homeport runs there, use that one. To see which program it is:\n"
            f"    {_who_listens(port)}\n"
            f"To choose another port:\n"
            f"    homeport serve --port {port + 1 if port < 65535 else 3001}"
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has. Choose one from 1024 up: homeport serve --port 3001"
    return f"Cannot listen on {host}:{port}: {error.strerror or error}."


def _who_listens(port: int) -> str:
    if os.name == "nt":
        return f"netstat -ano | findstr :{port}"
    return f"lsof -nP -iTCP:{port} -sTCP:LISTEN"
