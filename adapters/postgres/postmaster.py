"""The server process of one PostgreSQL data directory, whoever started it: find it, start it, stop it.

Callers hold the start lock of the data directory, so that no two processes start or stop its server at once.

*Settings.* A laptop has other things to do, and yet what people notice is vector search and durability:

- ``fsync``, ``full_page_writes`` and ``synchronous_commit`` stay on. What was committed survives a power cut.
- ``shared_buffers`` 128 MB: the kernel's cache holds the rest, and gives it back when others need it.
- ``maintenance_work_mem`` 256 MB: taken only while an index is built; an HNSW graph that does not fit in it is built many times slower.
- ``wal_level = minimal``: no replica reads this server's log, so building an index writes its data once instead of twice.
- ``max_wal_size`` 512 MB and ``min_wal_size`` 64 MB bound the space that the log takes.
- ``dynamic_shared_memory_type = mmap`` where ``/dev/shm`` is small: containers give it 64 MB, and a parallel index build fails there.
- ``jit`` off: short queries, and the compiler would cost more than it saves. ``random_page_cost`` 1.1: the disk is an SSD.
- The server log gets the server's own life (start, stop, crash) but no query, no parameter and no error that the client is
  told anyway. It is cut to its last part at a start when it has grown.

They are written to ``postgresql.conf`` at each start; ``ALTER SYSTEM`` wins over them. No TCP port and the socket's place are given
on the command line, which wins over everything.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from adapters.postgres.account import Account, allowed_names
from adapters.postgres.binaries import EmbeddedPostgresError

SUPERUSER = "postgres"
ROLE = "homeport"
PORT = 5432  # only a part of the socket's name
SOCKET_NAME = f".s.PGSQL.{PORT}"
POLL_S = 0.005
SILENT_S = 60.0
START_S = 600.0
STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
LOG_LIMIT_BYTES = 1024 * 1024
LOG_KEPT_BYTES = 64 * 1024
FULL_DISK_BYTES = 128 * 1024
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - its size is read, nothing is written
SMALL_SHARED_MEMORY_BYTES = 512 * 1024 * 1024

SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",
    "effective_cache_size": "2GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "lc_messages": "'C'",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "unix_socket_permissions": "0700",
}

log = structlog.get_logger(__name__)


class Postmaster:
    """The server of the data directory ``data``, run as ``account`` from ``binaries``, with its log in ``log_path``."""

    def __init__(self, binaries: Path, account: Account, data: Path, log_path: Path, socket_dir: Path) -> None:
        self._binaries = binaries
        self._account = account
        self._data = data
        self._log_path = log_path
        self._socket_dir = socket_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def ensure_running(self) -> None:
        """Return when the server answers: one that runs already, or else a new one. Raises EmbeddedPostgresError."""
        started_at = heard_at = time.monotonic()
        while (state := self._ping()) != Ping.OK:
            now = time.monotonic()
            if state == Ping.REJECT:  # starting, recovering or stopping
                heard_at = now
            elif self._find() is None:
                self._judge_last_attempt()
                self._spawn()
            if now - heard_at > SILENT_S or now - started_at > START_S:
                raise EmbeddedPostgresError(
                    f"The server of {self._data} (process {self._find()}) does not answer. Wait if it is recovering from a crash, "
                    f"else end that process and start again. The log {self._log_path} says:\n{self._last_lines()}"
                )
            time.sleep(POLL_S)

    def shut_down(self) -> None:
        """Stop the server, whoever started it: first cleanly, then less so. Nothing that was committed is lost either way."""
        for number, patience_s in STOP_STEPS:
            pid = self._find()
            if pid is None:
                return
            if number != signal.SIGINT:
                log.warning("embedded database does not stop", pid=pid, next_signal=number.name)
            with suppress(ProcessLookupError):  # it may just have ended
                os.kill(pid, number)
            deadline = time.monotonic() + patience_s
            while self._find() is not None and time.monotonic() < deadline:
                time.sleep(POLL_S)

    def revive(self) -> None:
        """Start the server again if it has ended meanwhile, whyever. Raises EmbeddedPostgresError."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None  # how that one ended says nothing about the next
        self.ensure_running()

    def let_go(self) -> None:
        """Forget a server that others still need."""
        if self._process is not None:
            # It outlives this object on purpose; without an exit code, Popen would warn about that.
            self._process.returncode = 0
            self._process = None

    def _ping(self) -> Ping:
        conninfo = make_conninfo(host=str(self._socket_dir), port=PORT, user=SUPERUSER, dbname="postgres", connect_timeout=2)
        return Ping(PGconn.ping(os.fsencode(conninfo)))

    def _find(self) -> int | None:
        """The process id of the running server, also one that does not answer yet."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        pid = self._recorded_pid()
        return pid if pid is not None and self._is_postmaster(pid) else None

    def _recorded_pid(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _is_postmaster(self, pid: int) -> bool:
        """Whether ``pid`` is a server of this data directory, not a later process that got the number of a dead one."""
        import psutil  # most starts do not need it

        try:
            return self._marker() in psutil.Process(pid).cmdline()
        except psutil.Error:
            return False

    def _marker(self) -> str:
        """An argument that only servers of this data directory carry: the number that initdb gave it."""
        with (self._data / "global" / "pg_control").open("rb") as file:
            return f"cluster_name=homeport-{int.from_bytes(file.read(8), sys.byteorder)}"

    def _judge_last_attempt(self) -> None:
        """Raise if a server that we started has ended for a reason that will not go away."""
        if self._process is None:
            return
        self._process = None
        reason = self._last_lines(self._log_start)
        if shutil.disk_usage(self._data).free < FULL_DISK_BYTES:
            reason += "\nNo space left on the disk"  # where there may have been no room for these words in the log
        if "is still in use" not in reason:
            raise EmbeddedPostgresError(
                f"The database in {self._data} does not start. {advice(reason)}The log {self._log_path} says:\n{reason}"
            )
        # The server before was killed, and some of its processes are still finishing their work. They end by themselves.
        time.sleep(0.1)

    def _spawn(self) -> None:
        self._configure()
        stale_pid = self._recorded_pid()
        # PostgreSQL refuses to start while the process named in postmaster.pid lives, also when that number has gone to another
        # program since. This variable is how pg_ctl tells it which number to overlook; its other checks remain.
        environment = {"PATH": os.defpath, "LC_ALL": "C"} | ({"PG_GRANDPARENT_PID": str(stale_pid)} if stale_pid else {})
        options = {"listen_addresses": "", "unix_socket_directories": ".", "port": str(PORT)}
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        with open_log(self._log_path) as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [self._binaries / "bin" / "postgres", "-D", folder_name(self._data, self._account), "-c", self._marker(), *arguments],
                cwd=self._data,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is not for the server
                **self._account.credentials(),
            )

    def _configure(self) -> None:
        settings = dict(SETTINGS)
        if sys.platform == "linux" and _shared_memory_bytes() < SMALL_SHARED_MEMORY_BYTES:
            settings["dynamic_shared_memory_type"] = "mmap"
        notice = "# Written at each start. Put settings of your own in place with ALTER SYSTEM."
        self._write("postgresql.conf", [notice, *(f"{name} = {value}" for name, value in settings.items())])
        self._write("pg_hba.conf", ["local all all peer map=homeport"])
        names = [name.replace('"', '""') for name in allowed_names(self._account)]
        self._write("pg_ident.conf", [f'homeport "{name}" {role}' for name in names for role in (ROLE, SUPERUSER)])

    def _write(self, name: str, lines: list[str]) -> None:
        """Replace a file of the server. Its folder may belong to another user, so no link of his is followed."""
        partial = self._data / f"{name}.partial"
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if not self._account.is_current:
                os.fchown(file.fileno(), self._account.uid, self._account.gid)
            file.write("\n".join(lines) + "\n")
        partial.replace(self._data / name)

    def _last_lines(self, start: int = 0) -> str:
        with self._log_path.open("rb") as file:
            file.seek(max(start, self._log_path.stat().st_size - 4096))
            return "\n".join(file.read().decode(errors="replace").strip().splitlines()[-8:])


def folder_name(folder: Path, account: Account) -> str:
    """How ``account``, started in ``folder``, can name it although the folders above may be closed to it."""
    return str(folder) if account.is_current or sys.platform != "linux" else "/proc/self/cwd"


def advice(reason: str) -> str:
    """What to do about a common reason; empty when there is nothing to say."""
    if "No space left" in reason:
        return "The disk is full: free some space and start again. "
    if "ermission denied" in reason or "Read-only file system" in reason:
        return "It may not be written: check who owns the data directory, or choose another one with HOMEPORT_DATA_DIR. "
    return ""


def _shared_memory_bytes() -> int:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return status.f_frsize * status.f_blocks


def open_log(path: Path) -> BinaryIO:
    """The server log, ready to be appended to; only its end is kept when it has grown."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    size = os.fstat(descriptor).st_size
    if size > LOG_LIMIT_BYTES:
        end = os.pread(descriptor, LOG_KEPT_BYTES, size - LOG_KEPT_BYTES)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, end)
    file = os.fdopen(descriptor, "ab")
    file.seek(0, os.SEEK_END)
    return file
