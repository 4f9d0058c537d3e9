"""A search among 10 000, 100 000 and 1 000 000 vectors: how long, how good, and what the index takes to build and to keep."""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import psutil

from tests.bench.calls import Caller, Calls, running_caller
from tests.bench.clusters import NEAREST, PARTS, recall
from tests.bench.cores import pin_running
from tests.bench.growth.study import Panel, Series, Study, publish, show
from tests.bench.homeport_server import Homeport, register_app, running_homeport
from tests.bench.peers.growth_timing import Timer, running_timer
from tests.bench.peers.growth_vectors import TENTHS
from tests.bench.peers.shapes import APP_ID
from tests.bench.table import QUICK, Effort, Line
from tests.bench.workers import running_worker

COUNTS = (10_000, 100_000, 1_000_000)
QUICK_COUNTS = (10_000, 30_000)
CLIENTS = 16
WANTED_RECALL = 0.98
NAME = "growth-vectors"  # also of its data directory
PATH = "/sdk/llm/vectors/query"
# How a search is narrowed: the name of what is asked for in the metadata, and what it leaves.
WAYS = {"": "all", "tenth": "filter, 10 %", "part": "filter, 1 %"}
VALUES = {"tenth": TENTHS, "part": PARTS}

Figures = dict[str, list[tuple[float, float]]]


def measure_vectors(folder: Path, effort: Effort) -> list[Line]:
    """A search among 10 000 to 1 000 000 vectors of 384 numbers, with and without a filter, and what their index takes."""
    counts = QUICK_COUNTS if effort is QUICK else COUNTS
    found: Figures = defaultdict(list)
    register_app(folder / NAME)
    for count in counts:
        print(f"  {count:,} vectors …", file=sys.stderr, flush=True)
        filled = _fill(folder, count, effort.calls, found)
        # Started for each size, so that what it takes is not what an earlier one has left.
        with running_homeport(folder, NAME, core=None) as homeport, running_caller() as caller:
            pin_running([homeport.pid, homeport.postgres_pid])
            with running_timer(homeport.base, homeport.headers) as timer:
                for way in WAYS:
                    _search(homeport, caller, timer, way, count, filled, effort, found, folder)
            found["server, resident"].append((count, psutil.Process(homeport.pid).memory_info().rss / 1e6))
    series = {name: Series(name, points) for name, points in found.items()}
    publish(_study(series, counts), effort)
    return _lines(series, counts)


def _fill(folder: Path, count: int, queries: int, found: Figures) -> dict[str, Any]:
    """Fill a namespace and build its index, on all cores and without a server."""
    with running_worker("tests.bench.peers.growth_vectors", str(folder / NAME), core=None) as worker:
        filled: dict[str, Any] = worker.ask(
            {"ask": "fill", "owner": APP_ID, "workspace": _workspace(count), "count": count, "queries": queries}
        )
        built = worker.ask({"ask": "build"})
        found["upsert"].append((count, filled["took_s"]))
        found["build of the index"].append((count, built["took_s"]))
        found["table"].append((count, built["table_mb"]))
        found["vector index"].append((count, built["index_mb"]))
        found["index of the metadata"].append((count, built["metadata_mb"]))
        found["PostgreSQL while it builds"].append((count, built["peak_mb"]))
    return filled


def _search(
    homeport: Homeport,
    caller: Caller,
    timer: Timer,
    way: str,
    count: int,
    filled: dict[str, Any],
    effort: Effort,
    found: Figures,
    folder: Path,
) -> None:
    """Search in one way: how much is found, single times, and how many a second."""
    questions = [{"vector": vector, "topK": NEAREST, "workspaceId": _workspace(count)} for vector in filled["queries"]]
    if way:
        questions = [{**each, "filter": {way: number % VALUES[way]}} for number, each in enumerate(questions)]
    bodies, answers = [orjson.dumps(each).decode() for each in questions], folder / "answers"
    url = homeport.base + PATH
    caller.make(Calls(url, homeport.headers, bodies, count=len(bodies), answers=str(answers)))
    ids = [[each["id"] for each in orjson.loads(line)["results"]] for line in answers.read_bytes().split(b"\n")]
    found[f"recall@{NEAREST}, {WAYS[way]}"].append((count, recall(ids, filled["nearest"][way])))
    times = timer.time([("POST", PATH, each) for each in questions])
    found[f"p50, {WAYS[way]}"].append((count, times.p50_ms))
    found[f"p95, {WAYS[way]}"].append((count, times.p95_ms))
    rates = [caller.make(Calls(url, homeport.headers, bodies, CLIENTS, seconds=effort.seconds)).rate for _ in range(3)]
    found[f"{CLIENTS} clients, {WAYS[way]}"].append((count, sorted(rates)[1]))


def _study(series: dict[str, Series], counts: tuple[int, ...]) -> Study:
    plain = series["p50, all"]
    title = (
        f"{counts[-1] // counts[0]} times as many vectors: a search takes {plain.factor:.1f} times as long, {plain.points[-1][1]:.1f} ms"
    )
    named: dict[str, list[str]] = {
        "one at a time (ms)": [f"{each}, {way}" for each in ("p50", "p95") for way in WAYS.values()],
        "searches a second": [f"{CLIENTS} clients, {way}" for way in WAYS.values()],
        "seconds": ["upsert", "build of the index"],
        "MB": ["table", "vector index", "index of the metadata", "PostgreSQL while it builds", "server, resident"],
    }
    panels = [Panel(label, [series[name] for name in names]) for label, names in named.items()]
    panels.append(Panel("share found", [series[f"recall@{NEAREST}, {way}"] for way in WAYS.values()], is_log=False))
    rows_s = series["upsert"].points[-1][0] / series["upsert"].points[-1][1]
    notes = [
        f"At {counts[-1]:,} the upserts, {1_000:,} vectors each and committed, add {rows_s:,.0f} vectors a second without an index",
        "Upserts and builds have all cores; searches have one for server and database, and the load the other",
    ]
    return Study(NAME, title, "vectors of 384 numbers", panels, notes)


def _lines(series: dict[str, Series], counts: tuple[int, ...]) -> list[Line]:
    most = f"{counts[-1]:,}"
    lines = []
    for way in WAYS.values():
        share, p50, p95 = series[f"recall@{NEAREST}, {way}"], series[f"p50, {way}"], series[f"p95, {way}"]
        worst = min(y for _, y in share.points)
        shown = ", ".join(f"{y:.4f}" for _, y in share.points)
        lines.append(Line(NAME, f"recall@{NEAREST}, {way}", shown, f"≥ {WANTED_RECALL}", worst >= WANTED_RECALL))
        value = f"p50 {show(p50.points[-1][1])}, p95 {show(p95.points[-1][1])} ms; p50 grows as n^{p50.exponent:.2f}"
        lines.append(Line(NAME, f"a search among {most}, {way}", value))
        rates = series[f"{CLIENTS} clients, {way}"]
        lines.append(Line(NAME, f"{CLIENTS} clients among {most}, {way}", f"{rates.points[-1][1]:,.0f} searches/s, n^{rates.exponent:.2f}"))
    build, index, peak = series["build of the index"], series["vector index"], series["PostgreSQL while it builds"]
    took_s, size_mb, peak_mb = (each.points[-1][1] for each in (build, index, peak))
    value = f"{took_s:,.0f} s, n^{build.exponent:.2f}; {size_mb:,.0f} MB, PostgreSQL at most {peak_mb:,.0f} MB"
    return [*lines, Line(NAME, f"index of {most}", value)]


def _workspace(count: int) -> str:
    return f"vectors-{count}"
