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


@contextmanager
def run_external(root: Path) -> Iterator[str]:
    """Run a cluster of PostgreSQL in ``root`` on a free loopback port while the block lasts; the URL of a database in it."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-external-"))
    account = server_account(folder)
    root = make_reachable(root, account)
    password_file = folder / "password"
    password_file.write_text(PASSWORD, encoding="utf-8")
    if not account.is_current:
        for path in (folder, password_file):
            os.chown(path, account.uid, account.gid)
    data = folder / "data"
    run_as: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C"}, **account.credentials()}
    initdb = [str(root / "bin/initdb"), "-D", str(data), "-U", "owner", "-A", "scram-sha-256", "--pwfile", str(password_file), "-E", "UTF8"]
    subprocess.run([*initdb, "--no-sync"], capture_output=True, check=True, **run_as)
    port = _free_port()
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off", "timezone": "Asia/Tokyo"}
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([root / "bin" / "postgres", "-D", data, *arguments], stdout=log, stderr=log, **run_as)
    try:
        url = f"postgres://owner:{ENCODED_PASSWORD}@127.0.0.1:{port}/postgres?connect_timeout=5"
        _wait(url, server)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder)


def _wait(url: str, server: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at and server.poll() is None:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
        time.sleep(0.02)
    raise AssertionError(f"the external PostgreSQL does not answer at {url}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
