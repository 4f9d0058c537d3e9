"""Homeport as the bench runs it: all of it, with an embedded database, and one app that holds what the bench needs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cores import SERVER_CORE
from tests.bench.peers.shapes import APP_ID
from tests.bench.servers import free_port, running, uvicorn_command

GRANTS = ("llm.chat", "llm.embed", "vectors.read", "vectors.write", "tts.generate", "mcp.tools", "agent.chat")


@dataclass(frozen=True, slots=True)
class Homeport:
    """A server that runs: its address, its process and its data directory."""

    base: str
    pid: int
    data_dir: Path

    @property
    def headers(self) -> dict[str, str]:
        """What the app sends with every request."""
        return {"X-App-Id": APP_ID, "Content-Type": "application/json"}

    @property
    def postgres_pid(self) -> int:
        """The process of its embedded database."""
        file = self.data_dir / "postgres" / "data" / "postmaster.pid"
        return int(file.read_text(encoding="utf-8").split("\n", 1)[0])

    def add_provider(self, name: str, *options: str) -> None:
        """Add a model provider, in place of the one of that name that another row of the same run has left."""
        run_command(self.data_dir, "models", "remove", name, harmless="No provider")
        run_command(self.data_dir, "models", "add", name, *options, "--quiet")

    def add_mcp_server(self, name: str, *command: str) -> None:
        """Register an MCP server on this machine; an earlier row of the same run may have done it."""
        run_command(self.data_dir, "mcp", "add", name, "--quiet", "--", *command)


@contextmanager
def running_homeport(
    folder: Path, name: str = "homeport", *, core: int | None = SERVER_CORE, is_another: bool = False
) -> Iterator[Homeport]:
    """Homeport, for as long as the block runs. Rows of the same run share the data directory of the same name. ``is_another``: a server
    runs on it already."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    data_dir = folder / name
    command = uvicorn_command("tests.bench.peers.homeport_peer:create", port, is_factory=True)
    with running(command, f"{base}/health", folder / f"{name}-{port}.log", _environment(data_dir), core=core) as pid:
        if not is_another:
            register_app(data_dir)
        yield Homeport(base, pid, data_dir)


def register_app(data_dir: Path) -> None:
    """Register the app of the bench, and grant it what the rows need."""
    run_command(data_dir, "apps", "register", "bench", "--id", APP_ID, "--quiet")
    run_command(data_dir, "apps", "grant", APP_ID, *GRANTS)


def run_command(data_dir: Path, *arguments: str, harmless: str = "already") -> None:
    """Run a command of the CLI. A failure that says ``harmless`` is none: another row of the same run may have been here before."""
    command = [sys.executable, "-m", "homeport", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **_environment(data_dir)}, capture_output=True, text=True, timeout=120, check=False, input=""
    )
    if done.returncode and harmless not in done.stderr:
        raise RuntimeError(f"homeport {' '.join(arguments)}: {done.stderr}")


def _environment(data_dir: Path) -> dict[str, str]:
    return {"HOMEPORT_DATA_DIR": str(data_dir), "HOMEPORT_LOG_LEVEL": "warning", "HOMEPORT_OLLAMA_URL": "off"}
