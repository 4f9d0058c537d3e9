"""The environment of the peers that Homeport does not use itself: ``.venv-bench``, installed at first use from its own lock file."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-bench"
LOCK_FILE = ROOT / "requirements-bench.txt"
INSTALL_LIMIT_S = 1800
# None of them is to call anybody but the servers of the bench.
QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "NO_PROXY": "*",
}


def peer_program(name: str) -> str:
    """A program of the environment, such as ``python``. Raises RuntimeError with what pip said when it cannot be installed."""
    with LOCK_FILE.open("rb") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # of two that start at the same time one installs
        _install(hashlib.sha256(lock_file.read()).hexdigest())
    return str(FOLDER / "bin" / name)


def _install(wanted: str) -> None:
    """Make the environment unless it is the one that was made from the lock file with this sum."""
    stamp = FOLDER / "installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing the peers into {FOLDER.name} (once; some minutes and 1.5 GB) …", file=sys.stderr, flush=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(FOLDER))
        _run(str(FOLDER / "bin/python"), "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(LOCK_FILE))
        stamp.write_text(wanted, encoding="utf-8")


def _run(*command: str) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
