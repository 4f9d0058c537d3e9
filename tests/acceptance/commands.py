"""Short commands of the command line, each in a process of its own."""

import os
import subprocess
import tempfile
from pathlib import Path

from tests.acceptance.forking import Forked
from tests.acceptance.servers import PROCESS_TIMEOUT_S


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """The environment of a command that works on ``data_dir``."""
    # With compiled modules kept, as on a user's machine.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {"HOMEPORT_DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"} | settings


def homeport(data_dir: Path, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory(prefix="homeport-command-") as name:
        streams = {stream: Path(name, stream) for stream in ("stdin", "stdout", "stderr")}
        for stream, path in streams.items():
            path.write_text(stdin if stream == "stdin" else "", encoding="utf-8")
        command = Forked(arguments, environment(data_dir, **settings), **streams)
        try:
            status = command.wait(PROCESS_TIMEOUT_S)
        finally:
            command.kill()
        told, wrong = (streams[each].read_text(encoding="utf-8") for each in ("stdout", "stderr"))
        return subprocess.CompletedProcess(arguments, status, told, wrong)
