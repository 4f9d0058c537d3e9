"""What a test needs from the operating system: installed where possible; elsewhere the test is skipped with the line that would do it.

With ``CI=true`` nothing is skipped: what cannot be had is a failure.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

INSTALL_TIMEOUT_S = 600
NO_SERVICES = Path("/usr/sbin/policy-rc.d")


def require_package(name: str) -> None:
    """Return when Debian's package ``name`` is installed, now or by this call; else skip the test, or fail it in CI."""
    if _is_installed(name):
        return
    if not _can_install():
        missing(name)
    with _one_at_a_time(), _no_services_started():
        run = _apt("install", "--yes", "--no-install-recommends", name)
    if run.returncode:
        missing(name, run.stderr.strip().splitlines()[-1:])


def available_packages(pattern: str) -> list[str]:
    """The names, sorted, of Debian's packages that match a regular expression; none on other systems."""
    if not shutil.which("apt-cache"):
        return []
    if _can_install():
        with _one_at_a_time():
            _update()
    run = subprocess.run(["apt-cache", "search", "--names-only", pattern], capture_output=True, text=True, check=False, timeout=60)
    return sorted(line.split(" ", 1)[0] for line in run.stdout.splitlines() if re.search(pattern, line.split(" ", 1)[0]))


def missing(name: str, reason: list[str] | None = None) -> NoReturn:
    """Skip the test for want of a package, saying how to get it; fail it in CI."""
    line = f"needs the system package {name}: sudo apt-get install {name}" + "".join(f" ({text})" for text in reason or [])
    if os.environ.get("CI") == "true":
        pytest.fail(line)
    pytest.skip(line)


def _is_installed(name: str) -> bool:
    if not shutil.which("dpkg-query"):
        return False
    run = subprocess.run(["dpkg-query", "--show", "--showformat=${Status}", name], capture_output=True, text=True, check=False, timeout=60)
    return run.stdout == "install ok installed"


def _can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


@cache
def _update() -> None:
    _apt("update")


def _apt(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if command != "update":
        _update()
    return subprocess.run(
        ["apt-get", "-o", "DPkg::Lock::Timeout=120", command, *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_TIMEOUT_S,
    )


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Several processes run tests at once, and apt gives up where another apt is at work."""
    with (Path(tempfile.gettempdir()) / "homeport-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Debian starts what it installs, on the standard ports; this script, asked before each start, says no."""
    if NO_SERVICES.exists():
        yield
        return
    NO_SERVICES.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    NO_SERVICES.chmod(0o755)
    try:
        yield
    finally:
        NO_SERVICES.unlink(missing_ok=True)
