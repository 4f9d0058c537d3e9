"""Scale-out: one, two and four server processes on one PostgreSQL behind nginx, and who used the processor meanwhile.

All four servers run all the time; three nginxes stand before the first, the first two and all of them, so that the rounds alternate.
Nothing is kept on a core. What a request costs each kind of process holds on a busy machine, too; requests a second hold on an idle one.
"""

import json
import os
import resource
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.homeport_server import Homeport, run_command, running_homeport
from tests.bench.load import Target, run_load
from tests.bench.peers.shapes import APP_ID, chat_body
from tests.bench.rows.chat import MODELS
from tests.bench.servers import running_stand_in
from tests.bench.table import Effort, Line, Measured
from tests.nginx import running_nginx

PROCESSES = (1, 2, 4)
CONNECTIONS = 32
GROWTH_OF_COST = 1.25
SERVER = "Homeport"
KINDS = (SERVER, "PostgreSQL", "nginx", "model", "load")


@dataclass(frozen=True, slots=True)
class Run:
    """One round: requests a second, and seconds of processor time by kind of process for each request."""

    rate: float
    cost_s: dict[str, float]

    @property
    def cores(self) -> float:
        """How many cores were busy with it."""
        return self.rate * sum(self.cost_s.values())


def measure_scale_out(folder: Path, effort: Effort) -> list[Line]:
    """Ping, activity insert and chat at 1, 2 and 4 processes."""
    with _running_servers(folder) as (bases, pids):
        targets = {(what, number): target for number, base in bases.items() for what, target in _targets(base).items()}
        for target in targets.values():
            run_load(target, folder, 1, CONNECTIONS, core=None)
        runs: dict[tuple[str, int], list[Run]] = {each: [] for each in targets}
        for _ in range(effort.rounds):
            for each, target in targets.items():
                runs[each].append(_run(target, folder, effort.seconds, pids))
        held = _held(pids)
    lines = [_line(what, number, done) for (what, number), done in runs.items()]
    return [*lines, *(_growth(what, runs[what, PROCESSES[0]], runs[what, PROCESSES[-1]]) for what in _targets("")), held]


def _targets(base: str) -> dict[str, Target]:
    headers = {"X-App-Id": APP_ID, "Content-Type": "application/json"}
    insert = {"raw_data": {"type": "order", "amount": 100, "note": "what an app keeps of an order " * 4}}
    chat = {**chat_body(), "provider": "scale", "model": "echo"}
    return {
        "GET /sdk/ping": Target("ping", f"{base}/sdk/ping", headers),
        "POST /activities": Target("insert", f"{base}/activities", headers, json.dumps(insert).encode()),
        "POST /sdk/llm/chat": Target("chat", f"{base}/sdk/llm/chat", headers, json.dumps(chat).encode()),
    }


@contextmanager
def _running_servers(folder: Path) -> Iterator[tuple[dict[int, str], dict[str, list[int]]]]:
    """The addresses by the number of servers behind each, and the processes by kind."""
    with ExitStack() as stack:
        upstream = stack.enter_context(running_stand_in(folder, core=None))
        servers = [
            stack.enter_context(running_homeport(folder, "scale-out", core=None, is_another=number > 0)) for number in range(PROCESSES[-1])
        ]
        servers[0].add_provider("scale", "--base-url", upstream, *(part for model in MODELS for part in ("--model", model)))
        run_command(servers[0].data_dir, "apps", "grant", APP_ID, "activities.write")
        before = _children()
        ports = [int(each.base.rpartition(":")[2]) for each in servers]
        bases = {
            number: f"http://127.0.0.1:{stack.enter_context(running_nginx(folder / f'nginx-{number}', ports[:number]))}"
            for number in PROCESSES
        }
        yield bases, _by_kind(servers, upstream, sorted(_children() - before))


def _by_kind(servers: Sequence[Homeport], upstream: str, nginx: list[int]) -> dict[str, list[int]]:
    port = int(upstream.rpartition(":")[2].partition("/")[0])
    model = [pid for pid in _children() if any(each.laddr.port == port for each in psutil.Process(pid).net_connections())]
    return {SERVER: [each.pid for each in servers], "PostgreSQL": [servers[0].postgres_pid], "nginx": nginx, "model": model}


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def _run(target: Target, folder: Path, seconds: int, pids: dict[str, list[int]]) -> Run:
    before = _used_s(pids)
    rate = run_load(target, folder, seconds, CONNECTIONS, core=None)
    if not rate:
        raise RuntimeError(f"{target.name}: not a single answer within {seconds} s")
    return Run(rate, {kind: (used - before[kind]) / (rate * seconds) for kind, used in _used_s(pids).items()})


def _used_s(pids: dict[str, list[int]]) -> dict[str, float]:
    """Seconds of processor time that each kind of process has used so far, with all it has started."""
    used = {kind: sum(_tree_s(psutil.Process(pid)) for pid in each) for kind, each in pids.items()}
    load = resource.getrusage(resource.RUSAGE_CHILDREN)  # of children that have ended: wrk, and what started the servers
    return used | {"load": load.ru_utime + load.ru_stime}


def _tree_s(process: psutil.Process) -> float:
    seconds = 0.0
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended, and its time counts as that of its parent's children
            seconds += sum(child.cpu_times()[:2])
    return seconds + sum(process.cpu_times()[:4])


def _held(pids: dict[str, list[int]]) -> Line:
    """What a server process holds after the load."""
    memory = statistics.median(psutil.Process(pid).memory_info().rss / 1024**2 for pid in pids[SERVER])
    (postgres,) = pids["PostgreSQL"]
    backends = [each for each in psutil.Process(postgres).children() if "[local]" in " ".join(each.cmdline())]
    value = f"{memory:.0f} MB, {len(backends) / len(pids[SERVER]):.1f} connections to PostgreSQL"
    return Line("scale-out", f"what each of {PROCESSES[-1]} processes holds after the load", value)


def _line(what: str, number: int, runs: list[Run]) -> Line:
    rate = Measured.of([each.rate for each in runs])
    costs = {kind: statistics.median(each.cost_s[kind] for each in runs) * 1000 for kind in KINDS}
    shares = ", ".join(f"{kind} {cost:.3f}" for kind, cost in costs.items() if cost >= 0.0005)
    cores = statistics.median(each.cores for each in runs)
    value = (
        f"{rate.median:,.0f} requests/s (±{rate.spread:.0%}); ms of processor a request: {shares}; {cores:.1f} of {os.cpu_count()} cores"
    )
    return Line("scale-out", f"{what}, {number} {'process' if number == 1 else 'processes'}", value)


def _growth(what: str, one: list[Run], many: list[Run]) -> Line:
    few, more = (statistics.median(each.cost_s[SERVER] for each in runs) for runs in (one, many))
    value = f"{more / few:.2f} x ({more * 1000:.3f} against {few * 1000:.3f} ms)"
    text = f"{what}: what {PROCESSES[-1]} processes need for a request against 1, processor time"
    return Line("scale-out", text, value, f"≤ {GROWTH_OF_COST:g} x", more / few <= GROWTH_OF_COST)
