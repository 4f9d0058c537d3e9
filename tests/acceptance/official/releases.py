"""The releases of the official clients that the suite runs, and how each is installed (``python -m tests.acceptance.official.releases``).

Each is installed once, from a file beside this that pins it by its hash, into a folder of its own below the environment of Python, and
without the libraries that it needs: those are the environment's. What is installed is not changed, with one exception in form: the SDK
for TypeScript of 1.7.28 is on no registry but is part of Python's source distribution, and esbuild makes one file of JavaScript of it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.npm import installed, node

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CACHE = Path(sys.prefix) / "sdks"
INSTALL_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Release:
    """A release of an official client. ``methods``: how many public methods it has, so that counting none is noticed.

    ``served``: how many of them this server serves.
    """

    name: str
    methods: int
    served: int
    command: Callable[[], list[str]]
    environment: Callable[[], dict[str, str]] = dict

    def __str__(self) -> str:
        return self.name


def python_release(version: str, methods: int, served: int) -> Release:
    """A release of realtimex-sdk, from its requirements file, or the one of the environment."""

    def environment() -> dict[str, str]:
        folders = [str(ROOT)] if version == "1.7.28" else [str(python_package(version)), str(ROOT)]
        return {"PYTHONPATH": os.pathsep.join(folders)}

    return Release(f"python-{version}", methods, served, lambda: [sys.executable, "-m", "tests.acceptance.official.scenario"], environment)


def javascript_release(version: str, methods: int, served: int, files: Callable[[], tuple[Path, list[Path]]]) -> Release:
    """A release of @realtimex/sdk: ``files`` are its module, and the sources that tell which methods are private."""

    def command() -> list[str]:
        module, sources = files()
        return [node(), str(HERE / "scenario.mjs"), str(module), *map(str, sources)]

    return Release(f"javascript-{version}", methods, served, command)


@cache
def python_package(version: str) -> Path:
    """The folder that a release of realtimex-sdk is installed in."""
    lock_file = HERE / f"requirements-{version}.txt"
    return _once(lock_file, lambda folder: _pip("install", "--no-deps", "--target", str(folder), "--requirement", str(lock_file)))


def npm_files() -> tuple[Path, list[Path]]:
    """The module of @realtimex/sdk that npm has, and its declarations."""
    package = installed(HERE) / "node_modules/@realtimex/sdk/dist"
    return package / "index.mjs", [package / "index.d.ts"]


@cache
def typescript_files() -> tuple[Path, list[Path]]:
    """The SDK for TypeScript as one module, and its sources."""
    esbuild = installed(HERE) / "node_modules/esbuild/bin/esbuild"
    lock_file = HERE / "requirements-source.txt"

    def build(folder: Path) -> None:
        _pip("download", "--no-deps", "--no-build-isolation", "--no-binary=:all:", "--dest", str(folder), "--requirement", str(lock_file))
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as file:
            members = [each for each in file.getmembers() if re.search(r"^[^/]+/typescript/(package\.json|src/.*\.ts)$", each.name)]
            file.extractall(folder, members, filter="data")
        (package,) = folder.glob("*/typescript")
        output = package / "dist/index.mjs"
        _run([node(), str(esbuild), str(package / "src/index.ts"), "--bundle", "--platform=node", "--format=esm", f"--outfile={output}"])

    (package,) = _once(lock_file, build).glob("*/typescript")
    return package / "dist/index.mjs", sorted(package.glob("src/**/*.ts"))


RELEASES = [
    python_release("1.2.5", 42, 42),
    python_release("1.3.6", 76, 75),
    python_release("1.4.5", 87, 75),
    python_release("1.7.28", 214, 75),
    javascript_release("1.2.4", 38, 38, npm_files),
    javascript_release("1.7.28", 230, 91, typescript_files),
]


def _once(lock_file: Path, make: Callable[[Path], object]) -> Path:
    """The folder that is made from a lock file; the first of several runs makes it, the others wait."""
    folder = CACHE / f"{lock_file.stem}-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "complete").touch()
    return folder


def _pip(*arguments: str) -> None:
    _run([sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", "--require-hashes", *arguments[1:]])


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S)
    assert run.returncode == 0, f"{' '.join(command)}: {run.stderr[-1000:]}"


def main() -> None:
    """Install all releases; those that need what this machine has not are told by the tests that are skipped for it."""
    for release in RELEASES:
        with suppress(pytest.skip.Exception):
            release.command()
            release.environment()


if __name__ == "__main__":
    main()
