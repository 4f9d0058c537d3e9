"""``homeport serve`` as a person meets it: a process, its output, its exit status."""

import os
import queue
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.commands import environment, homeport

# On a busy machine; what imports everything and makes a database takes longest.
PROCESS_TIMEOUT_S = 90.0
ANSWER_TIMEOUT_S = 30.0
KEY = re.compile(r"^  (hp_local_\w+)$", re.MULTILINE)


@dataclass
class Server:
    """A running ``homeport serve`` that has said where it is."""

    process: subprocess.Popen[str]
    data_dir: Path
    errors: Path
    lines: list[str] = field(default_factory=list)

    @property
    def banner(self) -> str:
        """What it has printed."""
        return "\n".join(self.lines)

    @property
    def url(self) -> str:
        """Its base URL, from the first line."""
        return self.lines[0].rpartition(" ")[2]

    @property
    def first_key(self) -> str:
        """The API key that it printed."""
        found = KEY.search(self.banner)
        assert found, self.banner
        return found[1]

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        """Ask it; it may still be starting, for its socket listens before that."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.get(self.url + path, headers=headers, timeout=PROCESS_TIMEOUT_S, trust_env=False)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PROCESS_TIMEOUT_S)

    def postgres_pid(self) -> int:
        """The process id of its embedded database."""
        return int((self.data_dir / "postgres" / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


@contextmanager
def serving(data_dir: Path, errors: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """``homeport serve`` on a free port, with its standard error in ``errors``; killed at the end unless it has ended."""
    command = [sys.executable, "-m", "homeport", "serve", "--port", "0", *arguments]
    with (
        errors.open("w", encoding="utf-8") as log,
        subprocess.Popen(command, env=environment(data_dir, **settings), stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        server = Server(process, data_dir, errors)
        try:
            _read_banner(server)
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PROCESS_TIMEOUT_S)


def _read_banner(server: Server) -> None:
    lines: queue.Queue[str] = queue.Queue()
    output = server.process.stdout
    assert output is not None

    def read() -> None:
        for line in output:
            lines.put(line.rstrip("\n"))
        lines.put("(end)")

    threading.Thread(target=read, daemon=True).start()
    while not server.lines or server.lines[-1] != "Stop with Ctrl-C.":
        server.lines.append(lines.get(timeout=PROCESS_TIMEOUT_S))
        assert server.lines[-1] != "(end)", server.errors.read_text(encoding="utf-8")


def is_alive(pid: int) -> bool:
    """Whether a process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is no child of ours."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        threading.Event().wait(0.02)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that the tests of this module use one after the other; its database is made by the first."""
    return tmp_path_factory.mktemp("home") / "data"


def test_the_first_start_prints_a_working_key_and_the_second_prints_none(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    with serving(data_dir, tmp_path / "first") as server:
        key = server.first_key
        assert server.get("/health").json() == {"status": "ok"}
        assert server.get("/sdk/ping", key).json()["mode"] == "development"
        assert f'curl -H "Authorization: Bearer {key}" {server.url}/sdk/ping' in server.banner
        assert f"{server.url}/docs" in server.banner
        assert str(data_dir) in server.banner
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        postgres = server.postgres_pid()
        assert server.stop() == 0
    wait_until_gone(postgres)

    with serving(data_dir, tmp_path / "second") as server:
        assert "hp_local_" not in server.banner
        assert server.get("/sdk/ping", key).status_code == 200
        assert server.stop(signal.SIGINT) == 0
    assert key not in (tmp_path / "first").read_text(encoding="utf-8")


def test_a_server_that_is_stopped_while_it_prepares_leaves_no_database_behind(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    command = [sys.executable, "-m", "homeport", "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment(data_dir), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PROCESS_TIMEOUT_S
        while not (data_dir / "postgres").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            threading.Event().wait(0.005)
        process.terminate()
        _, errors = process.communicate(timeout=PROCESS_TIMEOUT_S)
        assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert not (data_dir / "postgres" / "data" / "postmaster.pid").exists()


def test_several_workers_serve_and_stop_together(data_dir: Path, tmp_path: Path) -> None:
    with serving(data_dir, tmp_path / "errors", "--workers", "2") as server:
        assert server.get("/health").status_code == 200
        postgres = server.postgres_pid()
        workers = [child.pid for child in psutil.Process(server.process.pid).children()]
        assert len(workers) >= 2
        assert server.stop() == 0
    for pid in [*workers, postgres]:
        wait_until_gone(pid)


def test_a_taken_port_is_named_together_with_the_way_out(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = homeport(data_dir, "serve", "--port", port)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f"Port {port}" in ended.stderr
    assert "homeport serve --port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_wrong_setting_is_named_at_once_with_what_was_meant(data_dir: Path) -> None:
    ended = homeport(data_dir, "serve", HOMEPORT_PROT="3002", HOMEPORT_LOG_LEVEL="loud")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "HOMEPORT_PROT: no such setting (did you mean HOMEPORT_PORT?)" in ended.stderr
    assert "HOMEPORT_LOG_LEVEL: " in ended.stderr


def test_options_win_over_the_environment_also_in_worker_processes(data_dir: Path, tmp_path: Path) -> None:
    elsewhere = {
        "HOMEPORT_DATA_DIR": str(tmp_path / "not used"),
        "HOMEPORT_HOST": "192.0.2.1",
        "HOMEPORT_PORT": "1",
        "HOMEPORT_WORKERS": "1",
    }
    with serving(
        data_dir, tmp_path / "errors", "--host", "127.0.0.1", "--workers", "2", "--data-dir", str(data_dir), **elsewhere
    ) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.get("/health").status_code == 200
    assert not (tmp_path / "not used").exists()


def test_other_machines_reach_it_only_when_something_is_said_to_encrypt(data_dir: Path, tmp_path: Path) -> None:
    refused = homeport(data_dir, "serve", "--host", "0.0.0.0", "--port", "0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Put a proxy with TLS in front and say so with HOMEPORT_BEHIND_PROXY=true" in refused.stderr
    with serving(data_dir, tmp_path / "errors", "--host", "0.0.0.0", HOMEPORT_BEHIND_PROXY="true") as server:
        assert server.url.startswith("http://localhost:")
        assert server.get("/health").status_code == 200
    assert "Set HOMEPORT_ALLOWED_HOSTS to the names that clients use" in (tmp_path / "errors").read_text(encoding="utf-8")


def test_a_database_that_cannot_be_reached_ends_the_start_without_showing_the_password(tmp_path: Path) -> None:
    url = "postgresql://somebody:hunter2@127.0.0.1:1/nothing"
    ended = homeport(tmp_path / "data", "serve", "--port", "0", DATABASE_URL=url)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "reached" in ended.stderr
    assert "hunter2" not in ended.stderr
    assert "Traceback" not in ended.stderr
