"""How long the command takes to serve, and how much memory it takes."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.servers import free_port, wait_until_up
from tests.bench.table import Effort, Line, seconds


def measure_start(folder: Path, effort: Effort) -> list[Line]:
    """Time from starting the command to the first 200: the first run ever, and a run on existing data."""
    first, later = [], []
    for round_ in range(3):
        data_dir = folder / f"start-{round_}"
        first.append(_time_start(data_dir, folder)[0])
        later += [_time_start(data_dir, folder)[0] for _ in range(2)]
    return [
        seconds("start", "first run ever, to the first 200", first, 6.0),
        seconds("start", "existing data, to the first 200", later, 2.0),
    ]


def measure_memory(folder: Path, effort: Effort) -> list[Line]:
    """Resident memory of the server process, idle, before the first model call, without PostgreSQL."""
    sizes = [_time_start(folder / "memory", folder)[1] for _ in range(3)]
    size = statistics.median(sizes)
    return [Line("memory", "resident, idle, without PostgreSQL", f"{size:.0f} MB", "≤ 150 MB", size <= 150)]


def _time_start(data_dir: Path, folder: Path) -> tuple[float, float]:
    """(seconds to the first 200, resident megabytes then) of ``homeport serve``, stopped again afterwards."""
    port = free_port()
    environment = {"HOMEPORT_DATA_DIR": str(data_dir), "HOMEPORT_PORT": str(port), "HOMEPORT_OLLAMA_URL": "off"}
    log = folder / "start.log"
    with log.open("wb") as output:
        started = time.perf_counter()
        command = [sys.executable, "-m", "homeport", "serve"]
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process, log)
        took_s = time.perf_counter() - started
        return took_s, _resident_mb(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no resident memory")
