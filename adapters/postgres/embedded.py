"""A PostgreSQL of its own for Homeport, in the data directory: nothing to install, nothing to run by hand.

Layout: ``<data_dir>/postgres/`` (mode 0700) with ``data/`` (the cluster), ``server.log``, and two lock files.

*Who can reach it.* Nobody but the user who runs Homeport, and root. There is no TCP port. The socket lies in the cluster's own
folder, which PostgreSQL insists on being 0700 and its own user's, so other users do not even get to the socket. Behind
that, authentication is ``peer``: the kernel says who is calling, and only the user who runs the server and root are mapped
to a role. That was chosen over a password because there is no secret to keep, to rotate, or to leak in a URL or a log.
Homeport connects as the role ``homeport``, which owns its database and is no superuser: an SQL mistake cannot run programs or
read files. ``postgres`` is the superuser, for maintenance: ``psql -h <data_dir>/postgres/data -U postgres``.

*Several processes.* Each that has started it holds a shared lock; the one that finds itself alone when it stops takes the server down.
A holder that is killed loses its lock by itself; the server it leaves is used by the next start and stopped by the next
last stop. Starting and stopping exclude each other with a second lock.

POSIX only: without ``flock`` and ``peer`` (Windows) set ``DATABASE_URL``.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import structlog
from psycopg.sql import SQL, Identifier

from adapters.postgres.account import Account, AccountError, server_account
from adapters.postgres.binaries import MAJOR_VERSION, EmbeddedPostgresError, find_binaries, make_reachable
from adapters.postgres.locks import Holders, LockTimeoutError, exclusive
from adapters.postgres.postmaster import PORT, ROLE, SOCKET_NAME, START_S, SUPERUSER, Postmaster, advice, folder_name

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

DATABASE = "homeport"
SOCKET_PATH_LIMIT = 103  # bytes; the smallest of the systems' limits, without the closing NUL
INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--auth-local=peer",
    "--auth-host=reject",
    "--encoding=UTF8",
    # Sorting is PostgreSQL's own: no index breaks when the system's or ICU's collations change with an update.
    "--locale-provider=builtin",
    "--locale=C.UTF-8",
    "--no-instructions",
)

log = structlog.get_logger(__name__)


class EmbeddedPostgres:
    """The PostgreSQL of one data directory. ``start`` and ``stop`` may be called in several processes at once."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._folder = self._data_dir / "postgres"
        self._data = self._folder / "data"
        self._holders = Holders(self._folder / "holders.lock")
        self._postmaster: Postmaster | None = None
        self._socket_link: Path | None = None
        self._url = ""

    def start(self) -> str:
        """Start the server, or join the one that runs; returns the libpq URL of the database ``homeport``.

        Blocks until it answers: about 0.1 s, the first time ever 1.5 s, longer after a crash. Calling it again changes nothing.
        Raises EmbeddedPostgresError with the reason and what to do.
        """
        if self._holders.has_joined:
            return self._url
        started_at = time.monotonic()
        with self._explained_errors():
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            account = server_account(self._data_dir)
            self._make_folder(account)
            with self._start_lock():
                self._holders.join()
                try:
                    self._bring_up(account)
                except BaseException:
                    self._leave()
                    raise
        log.info("embedded database ready", folder=str(self._data), took_ms=round((time.monotonic() - started_at) * 1000))
        return self._url

    def revive(self) -> None:
        """Start the server again if it has ended; without a start, or when it answers, nothing is changed.

        Blocks until it answers, after a crash for as long as it takes to recover. Several processes may do this at once. Raises
        EmbeddedPostgresError with the reason and what to do.
        """
        with self._explained_errors(), self._start_lock():
            if self._postmaster is not None:
                self._postmaster.revive()

    def stop(self) -> None:
        """Leave the server; the last process that leaves stops it. Calling it again, or without a start, changes nothing."""
        if not self._holders.has_joined:
            return
        with self._explained_errors(), self._start_lock():
            self._leave()

    def _bring_up(self, account: Account) -> None:
        binaries = make_reachable(find_binaries(), account)
        self._check_version()
        if not (self._data / "PG_VERSION").exists():
            self._create_cluster(binaries, account)
        socket_dir = self._socket_dir()
        self._postmaster = Postmaster(binaries, account, self._data, self._folder / "server.log", socket_dir)
        self._postmaster.ensure_running()
        place = f"host={quote(os.fsencode(socket_dir), safe='/')}&port={PORT}"
        _prepare_database(place)
        self._url = f"postgresql://{ROLE}@/{DATABASE}?{place}"

    def _leave(self) -> None:
        is_last = self._holders.leave()
        if self._postmaster is not None:
            if is_last:
                self._postmaster.shut_down()
                log.info("embedded database stopped", folder=str(self._data))
            else:
                self._postmaster.let_go()
            self._postmaster = None
        if self._socket_link is not None:
            shutil.rmtree(self._socket_link.parent, ignore_errors=True)
            self._socket_link = None

    def _make_folder(self, account: Account) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if account.is_current or account.uid != self._data_dir.stat().st_uid:
            return
        # Root acts for the owner of the data directory, who must be able to go on without root.
        for path in (self._folder / "start.lock", self._folder / "holders.lock", self._folder / "server.log"):
            path.touch(mode=0o600)
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        os.chown(self._folder, account.uid, account.gid, follow_symlinks=False)

    def _check_version(self) -> None:
        try:
            found = (self._data / "PG_VERSION").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return
        if found != str(MAJOR_VERSION):
            raise EmbeddedPostgresError(
                f"The database in {self._data} was made by PostgreSQL {found}, and this Homeport brings PostgreSQL {MAJOR_VERSION}, "
                f"which cannot read it. Dump it with the Homeport that made it (pg_dump) and restore it into a new data directory, "
                f"or choose another one with HOMEPORT_DATA_DIR."
            )

    def _create_cluster(self, binaries: Path, account: Account) -> None:
        """Make the cluster beside its place and move it there whole: a half-made one is never found."""
        partial = self._folder / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        if not account.is_current:
            os.chown(partial, account.uid, account.gid)
        run = subprocess.run(
            [binaries / "bin" / "initdb", "-D", folder_name(partial, account), *INITDB_OPTIONS],
            cwd=partial,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            capture_output=True,
            check=False,
            text=True,
            start_new_session=True,
            **account.credentials(),
        )
        if run.returncode:
            shutil.rmtree(partial, ignore_errors=True)
            reason = "\n".join((run.stderr or run.stdout).strip().splitlines()[-5:])
            raise EmbeddedPostgresError(f"A new database cannot be made in {self._folder}. {advice(reason)}PostgreSQL says:\n{reason}")
        partial.rename(self._data)

    def _socket_dir(self) -> Path:
        """Where clients find the socket: the cluster's folder, or a short link to it when its name is one that libpq cannot take."""
        name = os.fsencode(self._data / SOCKET_NAME)
        if len(name) <= SOCKET_PATH_LIMIT and b"," not in name:
            return self._data
        runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
        parent = runtime_dir if runtime_dir and os.access(runtime_dir, os.W_OK) else None
        # A folder of our own with a random name: nobody can have put something else there.
        self._socket_link = Path(tempfile.mkdtemp(prefix="homeport-", dir=parent)) / "s"
        self._socket_link.symlink_to(self._data)
        return self._socket_link

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        try:
            with exclusive(self._folder / "start.lock", START_S):
                yield
        except LockTimeoutError as error:
            raise EmbeddedPostgresError(
                f"Another process has been starting or stopping the database in {self._data} for {START_S:.0f} s. "
                "End it, or choose another data directory with HOMEPORT_DATA_DIR."
            ) from error

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, AccountError, psycopg.Error) as error:
            raise EmbeddedPostgresError(f"The database in {self._data} cannot be used. {advice(str(error))}The reason: {error}") from error


def _prepare_database(place: str) -> None:
    """Make what Homeport needs in the cluster: its role, its database, and pgvector as new as the program brings it."""
    with psycopg.connect(f"postgresql://{SUPERUSER}@/postgres?{place}", autocommit=True) as connection:
        names = {"role": Identifier(ROLE), "database": Identifier(DATABASE)}
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchall():
            connection.execute(SQL("CREATE ROLE {role} LOGIN").format(**names))
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchall():
            connection.execute(SQL("CREATE DATABASE {database} OWNER {role}").format(**names))
    with psycopg.connect(f"postgresql://{SUPERUSER}@/{DATABASE}?{place}", autocommit=True) as connection:
        query = "SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'"
        installed, available = connection.execute(query).fetchone() or (None, None)
        if installed is None:
            connection.execute("CREATE EXTENSION vector")
        elif installed != available:
            connection.execute("ALTER EXTENSION vector UPDATE")
