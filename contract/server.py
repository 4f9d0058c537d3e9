"""A real server for the contract run: its own process, a fresh data directory with an embedded PostgreSQL, a free port, and the stand-in as
its model provider."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from contract.upstream import RunningUpstream

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0
STOP_S = 30.0
POLL_S = 0.1
OWN_SETTINGS = re.compile(r"HOMEPORT_.*|PG.*|DATABASE_URL|.*_API_KEY|.*_API_BASE|.*_BASE_URL")
ANNOUNCED = re.compile(r"serves (?P<url>http://\S+)$.*^  (?P<key>hp_\w+)$.*^Stop with", re.MULTILINE | re.DOTALL)

SETTINGS = {
    "HOMEPORT_PORT": "0",
    "HOMEPORT_VALIDATE_RESPONSES": "true",
    "HOMEPORT_PERMISSION_WAIT_S": "0.2",
    "HOMEPORT_CHAT_TIMEOUT_S": "1",
    "HOMEPORT_STREAM_IDLE_S": "1",
    "HOMEPORT_OLLAMA_URL": "off",
    "HOMEPORT_LOG_LEVEL": "warning",
    "HOMEPORT_LOG_FORMAT": "json",
}


class StartFailed(Exception):
    """The server did not start; the message says where its log is."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers. ``key`` may do everything."""

    url: str
    key: str


@contextmanager
def run_server(folder: Path, log: Path, upstream: RunningUpstream) -> Iterator[RunningServer]:
    """Run a server on a fresh data directory in ``folder`` for as long as the block lasts. Raises StartFailed."""
    environment = {name: value for name, value in os.environ.items() if not OWN_SETTINGS.fullmatch(name)}
    environment |= SETTINGS | {"HOMEPORT_DATA_DIR": str(folder / "data")}
    environment |= {"OPENAI_API_KEY": "sk-stand-in", "OPENAI_BASE_URL": upstream.base_url}
    said = folder / "server.out"
    with said.open("w", encoding="utf-8") as out, log.open("w", encoding="utf-8") as errors:
        # In a session of its own, so that Ctrl-C ends the tests first and the server afterwards.
        process = subprocess.Popen(
            [sys.executable, "-m", "homeport", "serve"], cwd=ROOT, env=environment, stdout=out, stderr=errors, start_new_session=True
        )
    try:
        yield _wait_until_serving(process, said, log)
    finally:
        _stop(process)


def _wait_until_serving(process: "subprocess.Popen[bytes]", said: Path, log: Path) -> RunningServer:
    deadline = time.monotonic() + START_S
    while not (announced := ANNOUNCED.search(said.read_text(encoding="utf-8"))):
        if process.poll() is not None:
            raise StartFailed(f"The server ended with status {process.returncode} instead of starting; its log is {log}.")
        if time.monotonic() > deadline:
            raise StartFailed(f"The server did not start within {START_S:.0f} s; its log is {log}.")
        time.sleep(POLL_S)
    # The port is open from the beginning; the answer comes when the server is ready.
    httpx.get(f"{announced['url']}/health", timeout=START_S, trust_env=False).raise_for_status()
    return RunningServer(announced["url"], announced["key"])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
