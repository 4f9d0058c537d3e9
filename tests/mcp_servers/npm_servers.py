"""MCP servers that are published for Node.js, installed once from the lock file beside this, and started by their own files."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
CACHE = Path(sys.prefix) / "npm"
INSTALL_TIMEOUT_S = 300


def npm_server(name: str) -> list[str]:
    """The command line of ``@modelcontextprotocol/server-<name>``. Skips the test where there is no Node.js; fails it in CI."""
    return [_node(), str(_installed() / "node_modules/@modelcontextprotocol" / f"server-{name}" / "dist/index.js")]


def _node() -> str:
    return shutil.which("node") or _missing("node was not found")


@cache
def _installed() -> Path:
    """The folder with ``node_modules``, one for each lock file; the first of several runs installs, the others wait."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = CACHE / digest
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    npm = shutil.which("npm") or _missing("npm was not found")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _missing(f"npm ci took more than {INSTALL_TIMEOUT_S} s")
    if run.returncode:
        _missing(f"npm ci: {run.stderr.strip()[-300:]}")
    (folder / "complete").touch()


def _missing(reason: str) -> NoReturn:
    line = f"needs Node.js 20 or newer, npm and its registry: {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(line)
    pytest.skip(line)
