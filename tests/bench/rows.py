"""The rows of the bench. Each runs on its own and gives lines of the table."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import Measured, Target, measure
from tests.bench.peers.shapes import APP_ID, GENERATED, chat_body, upsert_body
from tests.bench.servers import free_port, running, uvicorn_command, wait_until_up

GRANTS = ("llm.chat", "vectors.write")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int = 5
    seconds: int = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was measured, and whether it meets its target."""

    row: str
    what: str
    value: str
    target: str
    is_met: bool


def measure_ping(folder: Path, effort: Effort) -> list[Line]:
    """Authenticated GET /sdk/ping with all operations loaded."""
    rates = _compare(folder, effort, "/sdk/ping", None, ("homeport", "fastapi", "starlette"))
    return [
        _ratio("ping", "GET /sdk/ping, authenticated, against FastAPI", rates["homeport"], rates["fastapi"], 2.0),
        _ratio("ping", "the same against bare Starlette, nothing checked", rates["homeport"], rates["starlette"], 0.4),
    ]


def measure_chat_validation(folder: Path, effort: Effort) -> list[Line]:
    """A chat body, validated, up to the handler."""
    body = json.dumps(chat_body()).encode()
    rates = _compare(folder, effort, "/bench/chat", body, ("homeport", "fastapi"))
    return [_ratio("chat-validation", "POST chat body, validated, against FastAPI", rates["homeport"], rates["fastapi"], 2.0)]


def measure_upsert_validation(folder: Path, effort: Effort) -> list[Line]:
    """100 vectors of 384 numbers, validated, up to the database call."""
    body = json.dumps(upsert_body()).encode()
    rates = _compare(folder, effort, "/bench/upsert", body, ("homeport", "fastapi"))
    return [_ratio("upsert-validation", "POST 100 x 384 vectors, validated, against FastAPI", rates["homeport"], rates["fastapi"], 6.0)]


def measure_last_operation(folder: Path, effort: Effort) -> list[Line]:
    """What the last operation costs against the first, with all operations of the contract and GENERATED more."""
    with _homeport(folder) as base:
        first, last = f"{base}/bench/group00/item000/1", f"{base}/bench/group{(GENERATED - 1) // 10:02}/item{GENERATED - 1:03}/1"
        headers = {"X-App-Id": APP_ID}
        rates = measure(
            [Target("first", first, headers), Target("last", last, headers)], folder, rounds=effort.rounds, seconds=effort.seconds
        )
    cost = rates["first"].median / rates["last"].median
    spread = rates["first"].spread + rates["last"].spread
    value = f"{cost:.3f} (±{spread:.0%}; {rates['first'].median:,.0f} and {rates['last'].median:,.0f} requests/s)"
    return [
        Line("last-operation", f"cost of the last of {GENERATED} generated operations against the first", value, "≤ 1.05", cost <= 1.05)
    ]


def measure_start(folder: Path, effort: Effort) -> list[Line]:
    """Time from starting the command to the first 200: the first run ever, and a run on existing data."""
    first, later = [], []
    for round_ in range(3):
        data_dir = folder / f"start-{round_}"
        first.append(_time_start(data_dir, folder)[0])
        later += [_time_start(data_dir, folder)[0] for _ in range(2)]
    return [_seconds("first run ever, to the first 200", first, 6.0), _seconds("existing data, to the first 200", later, 2.0)]


def measure_memory(folder: Path, effort: Effort) -> list[Line]:
    """Resident memory of the server process, idle, before the first model call, without PostgreSQL."""
    sizes = [_time_start(folder / "memory", folder)[1] for _ in range(3)]
    size = statistics.median(sizes)
    return [Line("memory", "resident, idle, without PostgreSQL", f"{size:.0f} MB", "≤ 150 MB", size <= 150)]


ROWS: dict[str, Callable[[Path, Effort], list[Line]]] = {
    "ping": measure_ping,
    "chat-validation": measure_chat_validation,
    "upsert-validation": measure_upsert_validation,
    "last-operation": measure_last_operation,
    "start": measure_start,
    "memory": measure_memory,
}


def _compare(folder: Path, effort: Effort, path: str, body: bytes | None, names: tuple[str, ...]) -> dict[str, Measured]:
    headers = {"X-App-Id": APP_ID, **({"Content-Type": "application/json"} if body else {})}
    with _homeport(folder) as homeport, _peer("fastapi", folder) as fastapi, _peer("starlette", folder) as starlette:
        bases = {"homeport": homeport, "fastapi": fastapi, "starlette": starlette}
        targets = [Target(name, bases[name] + path, headers, body) for name in names]
        return measure(targets, folder, rounds=effort.rounds, seconds=effort.seconds)


@contextmanager
def _peer(name: str, folder: Path) -> Iterator[str]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    path = "/openapi.json" if name == "fastapi" else "/sdk/ping"
    with running(uvicorn_command(f"tests.bench.peers.{name}_peer:app", port), base + path, folder / f"{name}.log"):
        yield base


@contextmanager
def _homeport(folder: Path) -> Iterator[str]:
    """Homeport with its bench operations, an embedded database, and one app that holds what the bench needs."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    environment = {"HOMEPORT_DATA_DIR": str(folder / "homeport"), "HOMEPORT_LOG_LEVEL": "warning", "HOMEPORT_OLLAMA_URL": "off"}
    command = uvicorn_command("tests.bench.peers.homeport_peer:create", port, is_factory=True)
    with running(command, f"{base}/health", folder / "homeport.log", environment):
        _homeport_command(environment, "apps", "register", "bench", "--id", APP_ID, "--quiet")
        _homeport_command(environment, "apps", "grant", APP_ID, *GRANTS)
        yield base


def _homeport_command(environment: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "homeport", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)
    # A second row of the same run finds the app registered already.
    if done.returncode and "already" not in done.stderr:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")


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


def _ratio(row: str, what: str, ours: Measured, theirs: Measured, target: float) -> Line:
    ratio = ours.median / theirs.median
    value = f"{ratio:.2f} x (±{ours.spread + theirs.spread:.0%}; {ours.median:,.0f} against {theirs.median:,.0f} requests/s)"
    return Line(row, what, value, f"≥ {target} x", ratio >= target)


def _seconds(what: str, values: list[float], target: float) -> Line:
    median = statistics.median(values)
    return Line("start", what, f"{median:.2f} s ({min(values):.2f} to {max(values):.2f})", f"≤ {target:.0f} s", median <= target)
