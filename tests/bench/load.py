"""Load by wrk (Debian's package), from the second core, in rounds that alternate between the peers."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cores import LOAD_CORE, pin
from tests.bench.table import Measured

CONNECTIONS = 16
SLOWEST_S = 20


@dataclass(frozen=True, slots=True)
class Target:
    """One request to send over and over."""

    name: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


def measure(targets: list[Target], folder: Path, *, rounds: int, seconds: int, connections: int = CONNECTIONS) -> dict[str, Measured]:
    """Load each target in turn, ``rounds`` times. Raises RuntimeError when any answer is not a 2xx, or there is none."""
    for target in targets:
        run_load(target, folder, 1, connections)
    rates: dict[str, list[float]] = {target.name: [] for target in targets}
    for number in range(rounds):
        # To and fro, so that none is always the one that comes after another.
        for target in targets[:: -1 if number % 2 else 1]:
            rates[target.name].append(run_load(target, folder, seconds, connections))
    if silent := [name for name, values in rates.items() if not all(values)]:
        raise RuntimeError(f"{', '.join(silent)}: nothing was answered in {seconds} s; the machine is too busy, or the round too short")
    return {name: Measured.of(values) for name, values in rates.items()}


def run_load(target: Target, folder: Path, seconds: int, connections: int, *, core: int | None = LOAD_CORE) -> float:
    """Load a target for so long; returns the requests a second. Raises RuntimeError when any answer is not a 2xx."""
    script = folder / f"{target.name}.lua"
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in target.headers.items()]
    if target.body is not None:
        lines += ['wrk.method = "POST"', f"wrk.body = [==[{target.body.decode()}]==]"]
    script.write_text("\n".join(lines), encoding="utf-8")
    # An answer that is slow, where many wait for each other, is no failure.
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", f"{SLOWEST_S}s", "-s", str(script), target.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True, preexec_fn=lambda: pin(core))
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"{target.name}: not every answer was a success:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    if rate is None:
        raise RuntimeError(f"{target.name}: wrk said nothing to read:\n{done.stdout}")
    return float(rate.group(1))
