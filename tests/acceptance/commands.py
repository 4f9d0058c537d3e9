"""Short commands of the command line, each in a process of its own that begins with everything imported.

Importing is most of what a short command does, and the tests run hundreds of them: a process that has imported everything once forks for
each. Tests of the program's start itself (`test_cli_serve`, `test_wheel`) start it as a person does.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.acceptance.servers import PROCESS_TIMEOUT_S

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["homeport.cli", "homeport.home", "homeport.log", "typer._adapters", __name__])
_STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """The environment of a command that works on ``data_dir``."""
    # With compiled modules kept, as on a user's machine.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {"HOMEPORT_DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"} | settings


def homeport(data_dir: Path, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory(prefix="homeport-command-") as name:
        folder = Path(name)
        for stream, content in (("stdin", stdin), ("stdout", ""), ("stderr", "")):
            (folder / stream).write_text(content, encoding="utf-8")
        process = _CONTEXT.Process(target=_run, args=(arguments, environment(data_dir, **settings), os.getcwd(), folder))
        process.start()
        status = _end_of(process, arguments)
        return subprocess.CompletedProcess(
            arguments, status, *((folder / each).read_text(encoding="utf-8") for each in ("stdout", "stderr"))
        )


def _end_of(process: BaseProcess, arguments: tuple[str, ...]) -> int:
    """Wait for the end of a command; returns its exit status."""
    process.join(PROCESS_TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired(arguments, PROCESS_TIMEOUT_S)
    return process.exitcode


def _run(arguments: tuple[str, ...], variables: dict[str, str], folder: str, streams: Path) -> None:
    """Become the command, in the process that was forked for it."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for number, (name, flags) in enumerate(_STREAMS):
        opened = os.open(streams / name, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.argv = ["homeport", *arguments]
    from homeport.cli import main

    main()
