"""Real server processes: started, spoken to as their administrator, and ended, whatever happens in between."""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import psutil

from tests.acceptance.forking import Forked
from tests.nginx import running_nginx

# A process that imports everything and makes a database takes a while on a busy machine; what it answers afterwards does not.
PROCESS_TIMEOUT_S = 90.0
TIMEOUT_S = 5.0
MEMORY = Path("/dev/shm")
LAST_LINE = "Stop with Ctrl-C."
KEY = re.compile(r"^  (hp_local_\w+)$", re.MULTILINE)
LOG_TAIL_LINES = 30
LOG_LINE_LENGTH = 1000

Json = dict[str, Any]
Decision = Literal["granted", "denied"]
Value = TypeVar("Value")


def eventually(read: Callable[[], Value], is_it: Callable[[Value], object] = bool, timeout_s: float = TIMEOUT_S) -> Value:
    """Read until the value is as wanted; fail after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not is_it(value := read()):
        assert time.monotonic() < deadline, f"still {value!r} after {timeout_s} s"
        threading.Event().wait(0.01)
    return value


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder for data that is thrown away, in memory where that is possible: PostgreSQL writes it to the disk a hundred times."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-acceptance-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(eq=False)
class Server:
    """A ``homeport serve`` that was started."""

    process: Forked | subprocess.Popen[bytes]
    data_dir: Path
    log_path: Path
    _output: "queue.Queue[str]"
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port that it took."""
        return int(self.url.rpartition(":")[2])

    @property
    def url(self) -> str:
        """The base URL that it told; ``localhost``, as the official clients say it."""
        return self.lines[0].rpartition(" ")[2]

    @property
    def own_url(self) -> str:
        """The base URL of the process itself, whatever stands before it."""
        return f"http://localhost:{self.port}"

    @property
    def first_key(self) -> str | None:
        """The API key that it printed, if it made one."""
        found = KEY.search("\n".join(self.lines))
        return found[1] if found else None

    @property
    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text(encoding="utf-8")

    def logged(self, event: str) -> list[Json]:
        """The lines that it has logged about an event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"].startswith(event)]

    def log_tail(self) -> str:
        """The end of its log, for people."""
        return "\n".join(line[:LOG_LINE_LENGTH] for line in self.log.splitlines()[-LOG_TAIL_LINES:])

    def wait_until_announced(self) -> None:
        """Return when it has told its address, which is before it serves."""
        deadline = time.monotonic() + PROCESS_TIMEOUT_S
        while not self.lines or self.lines[-1] != LAST_LINE:
            line = self._output.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line, f"the server ended:\n{self.log}"
            self.lines.append(line.rstrip("\n"))

    def wait_until_ready(self) -> None:
        """Return when it serves."""
        self.wait_until_announced()
        assert httpx.get(f"{self.url}/health", timeout=PROCESS_TIMEOUT_S, trust_env=False).status_code == 200

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        return self.process.wait(PROCESS_TIMEOUT_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.wait()

    def processes(self) -> list[psutil.Process]:
        """What was started: the process of ``homeport serve``, whose children are its workers and whatever else it has started."""
        return [psutil.Process(self.process.pid)]

    def workers(self) -> list[psutil.Process]:
        """Its processes that serve, when there are several."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if any("spawn_main" in part for part in child.cmdline())]

    def postgres(self) -> psutil.Process | None:
        """Its embedded database, if it runs."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            pid = int((self.data_dir / "postgres" / "data" / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
            process = psutil.Process(pid)
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass(eq=False)
class Balanced(Server):
    """The first of several servers on one data directory, behind an nginx that sends each request to the next of them.

    ``url`` is where nginx listens; ``port`` stays that of the first, for what nginx would answer itself. All write one log.
    """

    others: list[Server] = field(default_factory=list)
    nginx_port: int = 0

    @property
    def port(self) -> int:
        """The port of the first server itself."""
        return int(super().url.rpartition(":")[2])

    @property
    def url(self) -> str:
        """Where nginx listens."""
        return f"http://localhost:{self.nginx_port}"

    @property
    def first_key(self) -> str | None:
        """The API key that one of them has made, if one did."""
        return super().first_key or next((each.first_key for each in self.others if each.first_key), None)

    def processes(self) -> list[psutil.Process]:
        """The processes of all of them."""
        return [process for each in (super(), *self.others) for process in each.processes()]


class Servers:
    """Starts servers in a folder and, at the end, ends whatever of them is left. ``settings`` are those of all of them."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.started: list[Server] = []
        self._balancers = ExitStack()
        self._settings = {
            "HOMEPORT_LOG_FORMAT": "json",
            "HOMEPORT_OLLAMA_URL": "off",
            "PYTHONUNBUFFERED": "1",
        } | settings

    def begin(self, data_dir: str, *arguments: str, log_path: Path | None = None, **settings: str) -> Server:
        """Start a server on the named data directory and a free port, and return at once. Several may write one log."""
        environment = os.environ | self._settings | {"HOMEPORT_DATA_DIR": str(self.folder / data_dir)} | settings
        if log_path is None:
            log_path = self.folder / f"{len(self.started)}.log"
            log_path.unlink(missing_ok=True)  # what others have left who used the folder before
        log_path.touch()
        process, lines = _begin(("serve", "--port", "0", *arguments), environment, log_path)
        server = Server(process, self.folder / data_dir, log_path, lines)
        self.started.append(server)
        return server

    def start(self, data_dir: str, *arguments: str, **settings: str) -> Server:
        """Start a server and return when it serves."""
        server = self.begin(data_dir, *arguments, **settings)
        server.wait_until_ready()
        return server

    def start_behind_nginx(self, data_dir: str, number: int, **settings: str) -> Balanced:
        """Start ``number`` servers at once on one data directory, hence on one database, and nginx before them; return when all serve."""
        first = self.begin(data_dir, **settings)
        others = [self.begin(data_dir, log_path=first.log_path, **settings) for _ in range(number - 1)]
        for each in (first, *others):
            each.wait_until_ready()
        ports = [each.port for each in (first, *others)]
        nginx_port = self._balancers.enter_context(running_nginx(self.folder / f"{data_dir}-nginx", ports))
        return Balanced(first.process, first.data_dir, first.log_path, first._output, first.lines, others, nginx_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._balancers.close()
        running = [server for server in self.started if server.process.poll() is None]
        for server in running:
            server.process.terminate()
        ended = [_end(server) for server in running]
        for server in self.started:
            if (postgres := server.postgres()) is not None:
                # Left by a server that was killed; its data is thrown away.
                postgres.send_signal(signal.SIGQUIT)
                postgres.wait(PROCESS_TIMEOUT_S)
        assert all(ended), "a server did not stop when it was told to"


def _end(server: Server) -> bool:
    """Wait for the end of a server that was told to stop; False when it had to be killed."""
    try:
        server.wait()
    except subprocess.TimeoutExpired:
        server.kill()
        return False
    return True


def _begin(
    arguments: tuple[str, ...], environment: dict[str, str], log_path: Path
) -> "tuple[Forked | subprocess.Popen[bytes], queue.Queue[str]]":
    """Start the command line; returns the process, and the lines that it tells, the last of which is empty."""
    lines: queue.Queue[str] = queue.Queue()
    told = Path(tempfile.mkdtemp(prefix="homeport-told-"), "stdout")
    os.mkfifo(told)

    def read() -> None:
        with told.open(encoding="utf-8") as output:
            shutil.rmtree(told.parent)
            for line in output:
                lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    if "LD_PRELOAD" not in environment:
        return Forked(arguments, environment, stdin=Path(os.devnull), stdout=told, stderr=log_path), lines
    # That works from a program's start only.
    with told.open("w") as output, log_path.open("a") as log:
        command = [sys.executable, "-m", "homeport", *arguments]
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=log), lines


class Admin:
    """The admin surface of a server, as the holder of a key that may do everything."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S, trust_env=False)

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Call an operation that must succeed; returns the body of its answer."""
        answer = self.http.request(method, f"/admin/v1{path}", json=body)
        assert answer.is_success, answer.text
        result: Json = answer.json()
        return result

    def register(self, name: str = "App", *, granted: tuple[str, ...] = (), **manifest: Any) -> str:
        """Register an app and grant it permissions; returns its id."""
        app_id: str = self.call("POST", "/apps", {"name": name, **manifest})["id"]
        for permission in granted:
            self.grant(app_id, permission)
        return app_id

    def grant(self, app_id: str, permission: str, state: Decision = "granted") -> None:
        """Grant or deny a permission."""
        self.call("PUT", f"/apps/{app_id}/grants/{permission}", {"state": state})

    def grants(self, app_id: str) -> dict[str, str]:
        """What is decided about an app: state by permission."""
        return {grant["permission"]: grant["state"] for grant in self.call("GET", f"/apps/{app_id}/grants")["items"]}

    def pending(self, app_id: str) -> dict[str, Json]:
        """What an app has asked for and nobody has decided: request by permission."""
        requests = self.call("GET", "/permission-requests?state=pending&limit=200")["items"]
        return {request["permission"]: request for request in requests if request["app_id"] == app_id}

    def decide(self, app_id: str, decisions: dict[str, Decision]) -> None:
        """Wait until the app asks for these permissions, then decide each."""
        pending = eventually(lambda: self.pending(app_id), lambda found: found.keys() >= decisions.keys())
        for permission, decision in decisions.items():
            self.call("POST", f"/permission-requests/{pending[permission]['id']}/decision", {"decision": decision})

    def create_key(self, *scopes: str) -> Json:
        """Make an API key; its text is in ``key``."""
        return self.call("POST", "/api-keys", {"name": "a test's own", "scopes": list(scopes or ("*",))})
