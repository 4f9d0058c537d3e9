"""A PostgreSQL as others run it, for the tests of ``DATABASE_URL``: over TCP, with a password, of another major version."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from adapters.postgres.account import server_account
from adapters.postgres.binaries import find_binaries, make_reachable
from tests.system_packages import available_packages, require_package

DEBIAN = Path("/usr/lib/postgresql")
PACKAGE = r"^postgresql-[0-9]+-pgvector$"
PASSWORD = "p@ss:word/1"
ENCODED_PASSWORD = "p%40ss%3Aword%2F1"


def external_binaries() -> Path:
    """The folder whose ``bin`` holds a PostgreSQL with pgvector: Debian's, installed if need be.

    Debian 12 has no pgvector for its PostgreSQL 15 (nor has its backports archive; Debian 13 has). There, and away from Debian, the
    PostgreSQL 16 that the wheel also brings takes its place.
    """
    if installed := _debian_servers():
        return installed[-1]
    if packages := available_packages(PACKAGE):
        require_package(packages[-1].removesuffix("-pgvector"))
        require_package(packages[-1])
        return _debian_servers()[-1]
    return find_binaries().with_name("pginstall")


def _debian_servers() -> list[Path]:
    servers = (path.parent.parent for path in DEBIAN.glob("*/bin/initdb"))
    return sorted(root for root in servers if Path(f"/usr/share/postgresql/{root.name}/extension/vector.control").exists())


class ExternalServer:
    """A cluster in ``folder`` on a loopback port of its own, which may be stopped and started. ``url`` is that of a database in it.

    ``environment`` is what the server gets besides.
    """

    def __init__(self, root: Path, folder: Path, **environment: str) -> None:
        self._folder = folder
        self._environment = environment
        account = server_account(folder)
        self._root = make_reachable(root, account)
        password_file = folder / "password"
        password_file.write_text(PASSWORD, encoding="utf-8")
        if not account.is_current:
            for path in (folder, password_file):
                os.chown(path, account.uid, account.gid)
        self._run_as: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C"}, **account.credentials()}
        options = ["-U", "owner", "-A", "scram-sha-256", "--pwfile", str(password_file), "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [str(self._root / "bin/initdb"), "-D", str(folder / "data"), *options], capture_output=True, check=True, **self._run_as
        )
        self.port = _free_port()
        self.url = f"postgres://owner:{ENCODED_PASSWORD}@127.0.0.1:{self.port}/postgres?connect_timeout=5"
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "timezone": "Asia/Tokyo",
        }
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            command: list[str | Path] = [self._root / "bin" / "postgres", "-D", self._folder / "data", *arguments]
            run_as = {**self._run_as, "env": self._run_as["env"] | self._environment}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **run_as)
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at and self._process.poll() is None:
            with suppress(psycopg.OperationalError), psycopg.connect(self.url):
                return
            time.sleep(0.02)
        raise AssertionError(f"the external PostgreSQL does not answer at {self.url}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server with a signal, and every connection with it; return when nothing of it is left."""
        children = psutil.Process(self._process.pid).children()
        self._process.send_signal(number)
        self._process.wait(30)
        _, left = psutil.wait_procs(children, 30)
        assert not left, "processes of the external PostgreSQL do not end"


@contextmanager
def run_external(root: Path, **environment: str) -> Iterator[ExternalServer]:
    """Run a cluster of the PostgreSQL in ``root``, with this in its environment, while the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-external-"))
    server = ExternalServer(root, folder, **environment)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
