"""What a request, a start and the memory of a server cost with 10, 100 and 1 000 operations, beside routers as they come."""

import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.bench.growth.study import Panel, Series, Study, publish
from tests.bench.homeport_server import register_app
from tests.bench.load import Target, measure
from tests.bench.peers.growth_server import CHAT, DOCUMENT, FIRST, write_document
from tests.bench.peers.shapes import APP_ID, LAST, chat_body
from tests.bench.servers import free_port, running, uvicorn_command
from tests.bench.table import QUICK, Effort, Line

COUNTS = (10, 100, 1_000)
STARTS = 3
# How each is called in the code of the peers, and a path that says that it is there without much work.
PEERS = {"FastAPI": ("fastapi", "/docs"), "Connexion as it comes": ("connexion", "/openapi.json")}


def measure_operations(folder: Path, effort: Effort) -> list[Line]:
    """A request, the start and the memory with 10, 100 and 1 000 operations, and the last operation of other routers."""
    started: dict[int, float] = {}
    resident: dict[int, float] = {}
    targets: list[Target] = []
    json_headers = {"X-App-Id": APP_ID, "Content-Type": "application/json"}
    body = json.dumps(chat_body()).encode()
    with ExitStack() as servers:
        for count in COUNTS:
            base, started[count], resident[count] = _start_homeport(servers, folder, count, 1 if effort is QUICK else STARTS)
            targets += [
                Target(f"ping {count}", base + FIRST, {"X-App-Id": APP_ID}),
                Target(f"chat {count}", base + CHAT, json_headers, body),
                Target(f"last {count}", base + LAST.format(number=1), {"X-App-Id": APP_ID}),
            ]
            for name, (factory, path) in PEERS.items():
                base = _start_peer(servers, folder, factory, path, count)
                targets.append(Target(f"{name} {count}", base + LAST.format(number=1), {"X-App-Id": APP_ID}))
        rounds, seconds = (2, 1) if effort is QUICK else (5, 2)
        rates = measure(targets, folder, rounds=rounds, seconds=seconds)

    def cost(name: str, key: str) -> Series:
        return Series(name, [(count, 1e6 / rates[f"{key} {count}"].median) for count in COUNTS])

    last = cost("last operation", "last")
    ours = [cost("GET /sdk/ping, the first operation", "ping"), last, cost("POST of a chat, validated", "chat")]
    peers = [cost(f"{name}, last operation", name) for name in PEERS]
    start = Series("start to the first 200", list(started.items()))
    memory = Series("resident, idle", list(resident.items()))
    growth = [(each.factor - 1) * 100 for each in ours]
    title = f"A request costs {min(growth):+.0f} to {max(growth):+.0f} % with 100 times as many operations"
    each_ms = (started[COUNTS[-1]] - started[COUNTS[0]]) / (COUNTS[-1] - COUNTS[0]) * 1000
    each_kb = (resident[COUNTS[-1]] - resident[COUNTS[0]]) / (COUNTS[-1] - COUNTS[0]) * 1000
    notes = [
        f"An operation more takes {each_ms:.2f} ms of a start and {each_kb:.0f} kB of memory",
        "The documents are made from the real one: cut down to its first operations, or multiplied with other paths, other components and "
        "handlers loaded anew; existing data, and the bundle in its cache, as at every start but the first",
    ]
    panels = [Panel("one core (µs a request)", [*ours, *peers]), Panel("start (s)", [start]), Panel("memory (MB)", [memory])]
    publish(Study("growth-operations", title, "operations in the document", panels, notes), effort)
    spread = max(rates[f"last {count}"].spread for count in COUNTS)
    values = ", ".join(f"{y:.0f}" for _, y in last.points)
    what = f"cost of the last operation at {COUNTS[-1]:,} against {COUNTS[0]}"
    lines = [
        Line(
            "growth-operations",
            what,
            f"{last.factor:.3f} x, n^{last.exponent:.2f} (±{spread:.0%}; {values} µs)",
            "≤ 1.05",
            last.factor <= 1.05,
        )
    ]
    lines += [Line("growth-operations", f"beside it, {each.name}", each.says().partition(": ")[2]) for each in [*ours[::2], *peers]]
    lines.append(Line("growth-operations", "start and memory, an operation more", f"{each_ms:.2f} ms and {each_kb:.0f} kB"))
    return lines


def _start_homeport(servers: ExitStack, folder: Path, count: int, starts: int) -> tuple[str, float, float]:
    """(its address, the median of the seconds to the first 200 on existing data, its resident megabytes then)."""
    document, data_dir = folder / f"document-{count}", folder / f"operations-{count}"
    write_document(document, count)
    environment = {
        "HOMEPORT_DATA_DIR": str(data_dir),
        "HOMEPORT_LOG_LEVEL": "warning",
        "HOMEPORT_OLLAMA_URL": "off",
        DOCUMENT: str(document),
    }
    register_app(data_dir)
    took = []
    for number in range(starts + 1):
        port = free_port()
        command = uvicorn_command("tests.bench.peers.growth_server:create", port, is_factory=True)
        server = running(command, f"http://127.0.0.1:{port}/health", folder / f"operations-{count}.log", environment)
        is_last = number == starts
        before = time.perf_counter()
        with ExitStack() as only:
            pid = (servers if is_last else only).enter_context(server)
            if number:  # the first fills the cache
                took.append(time.perf_counter() - before)
            if is_last:
                resident = psutil.Process(pid).memory_info().rss / 1e6
    return f"http://127.0.0.1:{port}", statistics.median(took), resident


def _start_peer(servers: ExitStack, folder: Path, factory: str, path: str, count: int) -> str:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = uvicorn_command(f"tests.bench.peers.growth_routers:{factory}", port, is_factory=True)
    log = folder / f"{factory}-{count}.log"
    servers.enter_context(running(command, base + path, log, {"BENCH_OPERATIONS": str(count)}))
    return base
