"""Starts the peers: one server process each, on the first core, so that the load on the second does not slow it."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bench.cores import LOAD_CORE, SERVER_CORE, pin

START_LIMIT_S = 180


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: list[str], url: str, log: Path, environment: Mapping[str, str] | None = None, *, core: int | None = SERVER_CORE
) -> Iterator[int]:
    """Run a server until the block ends; gives its process id once ``url`` answers 200. Raises RuntimeError with the end of its log."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            preexec_fn=lambda: pin(core),  # noqa: PLW1509 the bench has one thread
        )
    try:
        wait_until_up(url, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_stand_in(folder: Path, *, core: int | None = LOAD_CORE) -> Iterator[str]:
    """The stand-in for a model server; gives its base URL."""
    port = free_port()
    base_url = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, "-m", "contract.upstream", "--port", str(port)]
    with running(command, f"{base_url}/models", folder / "stand-in.log", core=core):
        yield base_url


def wait_until_up(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return as soon as ``url`` answers 200."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"{url} did not come up; the end of its log:\n{end}")


def uvicorn_command(application: str, port: int, *, is_factory: bool = False) -> list[str]:
    """The command that serves a peer, the same for all."""
    options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", application, *options, *(["--factory"] if is_factory else [])]
