"""MCP servers for tests: our own, which do what servers may do, and those that other people publish."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx

from adapters.mcp import HttpTarget, ServerSpec, StdioTarget
from tests.mcp_servers.npm_servers import npm_server as npm_server

HERE = Path(__file__).parent
START_S = 30


def spec_of(target: StdioTarget | HttpTarget, *, name: str = "server", revision: str = "1", timeout_s: float = 20.0) -> ServerSpec:
    """A server under an id of its own."""
    return ServerSpec(uuid4(), name, revision, target, timeout_s)


def own(**env: str) -> StdioTarget:
    """Our server over standard input and output, with a current ``mcp``."""
    return StdioTarget(sys.executable, (str(HERE / "own.py"),), env)


def bare(*moods: str) -> StdioTarget:
    """Our server in plain Python, in these moods."""
    return StdioTarget(sys.executable, ("-S", str(HERE / "bare.py"), *moods))


def module(name: str, *args: str) -> StdioTarget:
    """A server that is an installed Python module."""
    return StdioTarget(sys.executable, ("-m", name, *args))


@contextmanager
def own_over(kind: str, port: int = 0) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
    """Our server over ``http`` or ``sse`` on loopback: its URL and its process."""
    command = [sys.executable, str(HERE / "own.py"), kind, str(port)]
    with _run(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process


@contextmanager
def everything_over(kind: str, port: int) -> Iterator[str]:
    """server-everything over ``streamableHttp`` or ``sse`` on this port of loopback: its URL."""
    process = subprocess.Popen([*npm_server("everything"), kind], env={"PORT": str(port)}, stderr=subprocess.DEVNULL)
    with _run(process):
        url = f"http://127.0.0.1:{port}/{'mcp' if kind == 'streamableHttp' else 'sse'}"
        deadline = time.monotonic() + START_S
        while not _answers(port):
            assert time.monotonic() < deadline, "server-everything does not answer"
            time.sleep(0.05)
        yield url


@contextmanager
def _run(process: "subprocess.Popen[str]") -> "Iterator[subprocess.Popen[str]]":
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1, trust_env=False)
    except httpx.TransportError:
        return False
    return True
