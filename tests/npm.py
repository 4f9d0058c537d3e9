"""Packages for Node.js, installed once for each lock file, below the environment of Python; with no code of theirs run at installation."""

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

CACHE = Path(sys.prefix) / "npm"
INSTALL_TIMEOUT_S = 300


def node() -> str:
    """The program. Skips the test where there is none; fails it in CI."""
    return shutil.which("node") or _missing("node was not found")


@cache
def installed(lock_folder: Path) -> Path:
    """The folder with the ``node_modules`` of a ``package-lock.json``; the first of several runs installs, the others wait.

    Skips the test where that cannot be done; fails it in CI.
    """
    digest = hashlib.sha256((lock_folder / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = CACHE / digest
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(lock_folder, folder)
    return folder


def _install(lock_folder: Path, folder: Path) -> None:
    npm = shutil.which("npm") or _missing("npm was not found")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock_folder / name, folder)
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
