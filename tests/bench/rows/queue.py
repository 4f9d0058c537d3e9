"""The queue with empty work, beside Procrastinate in the same database, in rounds that alternate.

One process carries out the jobs, with as many at once and as many connections on both sides. Nothing is kept on a core.
"""

import statistics
from pathlib import Path

from tests.bench.peer_environment import QUIET, peer_program
from tests.bench.table import Effort, Line, Measured
from tests.bench.workers import running_worker

CONCURRENCY = 20
JOBS_PER_SECOND = 1000
PICK_UP_MS = 50.0


def measure_queue(folder: Path, effort: Effort) -> list[Line]:
    """Jobs claimed and finished a second, and the time from putting a job in until it starts while nothing else is to be done."""
    jobs, pickups = effort.calls * 10, effort.calls // 3
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    waits: dict[str, list[float]] = {"ours": [], "theirs": []}
    with running_worker("tests.bench.peers.homeport_queue", str(folder / "queue"), core=None) as ours:
        url = ours.ask({"ask": "url"})
        with running_worker(
            "tests.bench.peers.procrastinate_queue", url, core=None, python=peer_program("python"), environment=QUIET
        ) as theirs:
            for _ in range(effort.rounds):
                for name, worker in (("ours", ours), ("theirs", theirs)):
                    rates[name].append(worker.ask({"ask": "work", "count": jobs, "concurrency": CONCURRENCY}))
                    waits[name] += worker.ask({"ask": "wait", "count": pickups, "concurrency": CONCURRENCY})
    return [_rate_line(jobs, rates), _wait_line(waits)]


def _rate_line(jobs: int, rates: dict[str, list[float]]) -> Line:
    ours, theirs = Measured.of(rates["ours"]), Measured.of(rates["theirs"])
    value = f"{ours.median:,.0f} jobs/s (±{ours.spread:.0%}); Procrastinate {theirs.median:,.0f} (±{theirs.spread:.0%})"
    what = f"{jobs} empty jobs claimed and finished by one process, {CONCURRENCY} at once"
    return Line("queue", what, value, f"≥ {JOBS_PER_SECOND} jobs/s", ours.median >= JOBS_PER_SECOND)


def _wait_line(waits: dict[str, list[float]]) -> Line:
    ours, theirs = (statistics.quantiles(waits[name], n=20)[-1] * 1000 for name in ("ours", "theirs"))
    medians = [statistics.median(waits[name]) * 1000 for name in ("ours", "theirs")]
    value = f"{ours:.1f} ms (p50 {medians[0]:.1f}); Procrastinate {theirs:.1f} (p50 {medians[1]:.1f})"
    what = "p95 from putting a job in to its start, idle"
    return Line("queue", what, value, f"≤ {PICK_UP_MS:.0f} ms", ours <= PICK_UP_MS)
