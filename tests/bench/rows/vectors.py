"""Vectors over HTTP against what PostgreSQL does alone, and beside a Chroma server and LanceDB on the same data.

Homeport and its database have the first core, as the other stores have; who asks has the second.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tests.bench.calls import Caller, Calls, running_caller
from tests.bench.clusters import NEAREST, PARTS, Clusters, id_of, metadata_of, recall
from tests.bench.cores import LOAD_CORE, pin_running
from tests.bench.homeport_server import Homeport, register_app, running_homeport
from tests.bench.peers.shapes import APP_ID
from tests.bench.rows.vector_stores import (
    WANTED_RECALL,
    Store,
    in_process,
    measure_recall,
    over_http,
    running_chroma,
    running_lance,
)
from tests.bench.table import Effort, Line, Measured, ratio
from tests.bench.workers import Worker, running_worker

BATCH = 100
AT_ONCE = 4
WORKSPACE = "bench"
NAME = "vectors"  # of a data directory with nothing but these
READY_LIMIT_S = 900
CLIENTS = (1, 16)
UNLIMITED = 10_000_000


def measure_upsert(folder: Path, effort: Effort) -> list[Line]:
    """Batches of 100 vectors of 384 numbers end to end, each new and committed, against a bare binary COPY of the same rows."""
    batches = effort.calls // 6
    vectors = Clusters.make((batches + AT_ONCE) * BATCH, 0).vectors
    file = folder / "rows.npy"
    np.save(file, vectors[: batches * BATCH])
    parts = [_records(vectors, start) for start in range(0, len(vectors), BATCH)]
    rates: dict[str, list[float]] = defaultdict(list)
    # On all cores, as the COPY is: its client has one and PostgreSQL the other.
    with running_homeport(folder, core=None) as homeport, running_caller() as caller, _bare_sql(homeport.data_dir) as bare:
        for round_ in range(effort.rounds):
            # The last ones come before the clock runs, and make the workspace; the others hold ids that are not there yet.
            for path, clients in (("/sdk/llm/vectors/upsert", 1), ("/bench/upsert", 1), ("/sdk/llm/vectors/upsert", AT_ONCE)):
                bodies = [f'{{"workspaceId": "upsert-{round_}-{clients}", "vectors": {part}}}' for part in parts]
                calls = Calls(homeport.base + path, homeport.headers, bodies, clients, batches)
                rates[path if clients == 1 else "at once over HTTP"].append(caller.make(calls).rate * BATCH)
            for name, rate in bare.ask({"ask": "copy", "file": str(file), "batch": BATCH}).items():
                rates[name].append(rate)
    measured = {name: Measured.of(values) for name, values in rates.items()}
    what = f"upsert of {BATCH} x 384, new ids, over HTTP against a binary COPY for each {BATCH} rows into a table without index"
    beside = {
        "from json": "the floor beside it: in one process, orjson parses the bodies and the same COPY takes the rows; no checks, no HTTP",
        "at once over HTTP": f"beside it, from {AT_ONCE} clients at once",
        "/bench/upsert": "beside it, the same bodies up to the database",
        "statement": f"beside it, the adapter's statement for each {BATCH} rows, values made before: it finds what is there already",
        "from lists": f"beside it, a COPY for each {BATCH} rows from lists of numbers, by pgvector's own package",
        "with key": f"beside it, a COPY for each {BATCH} rows into a table with a primary key",
        "at once": f"beside it, one COPY of all {batches * BATCH:,} rows",
    }
    return [
        ratio("vectors-upsert", what, measured["/sdk/llm/vectors/upsert"], measured["batches"], 0.5, "rows/s"),
        *(Line("vectors-upsert", text, f"{measured[name].median:,.0f} rows/s") for name, text in beside.items()),
    ]


def measure_query(folder: Path, effort: Effort) -> list[Line]:
    """The nearest 10 of 100 000 vectors over HTTP, against the same SQL on bare connections, and beside Chroma and LanceDB."""
    with _filled_homeport(folder, effort) as (homeport, caller, bare, clusters):
        nearest = clusters.find_nearest()
        place = folder / "clusters"
        with running_chroma(place, clusters, nearest, caller) as chroma, running_lance(place, nearest) as lance:
            ours = _homeport_store("Homeport over HTTP", homeport, caller, place, _questions(clusters))
            sql = in_process("the same SQL on bare connections", bare)
            stores = (ours, sql, chroma, lance)
            recalls = {store.what: measure_recall(store, nearest) for store in stores}
            rates = _rates(stores, effort)
    found = recalls[ours.what]
    what = f"recall@{NEAREST} of {effort.vectors:,} x 384, {len(nearest)} queries"
    lines = [Line("vectors-query", what, f"{found:.4f}", f"≥ {WANTED_RECALL}", found >= WANTED_RECALL)]
    unit = f"queries/s, recall {found:.4f} and {recalls[sql.what]:.4f}"
    for clients in CLIENTS:
        what = f"{_clients(clients)} over HTTP against the same SQL on as many bare connections"
        lines.append(ratio("vectors-query", what, rates[ours.what, clients], rates[sql.what, clients], 0.6, unit))
    for store in (chroma, lance):
        shown = " and ".join(f"{rates[store.what, clients].median:,.0f} queries/s with {_clients(clients)}" for clients in CLIENTS)
        lines.append(Line("vectors-query", f"beside it, {store.what}", f"{shown}, recall {recalls[store.what]:.4f}"))
    return lines


def measure_filter(folder: Path, effort: Effort) -> list[Line]:
    """A search with a filter that one vector in a hundred matches: all of topK, and how long it takes against one without."""
    with _filled_homeport(folder, effort) as (homeport, caller, _, clusters):
        place = folder / "clusters"
        url = f"{homeport.base}/sdk/llm/vectors/query"
        bodies = {"plain": _questions(clusters), "filtered": _questions(clusters, is_filtered=True)}
        store = _homeport_store("filtered", homeport, caller, place, bodies["filtered"])
        found = store.search(1, READY_LIMIT_S, len(bodies["filtered"])).ids
        times: dict[str, list[float]] = {name: [] for name in bodies}
        for _ in range(effort.rounds):
            for name, each in bodies.items():
                times[name].append(caller.make(Calls(url, homeport.headers, each, count=effort.calls)).p50_ms)
    plain, filtered = Measured.of(times["plain"]), Measured.of(times["filtered"])
    factor = filtered.median / plain.median
    full = sum(len(ids) == NEAREST for ids in found) / len(found)
    shown = recall(found, clusters.find_nearest_in_parts())
    value = (
        f"{factor:.2f} x (±{plain.spread + filtered.spread:.0%}; {filtered.median:.2f} against {plain.median:.2f} ms, recall {shown:.4f})"
    )
    return [
        Line("vectors-filter", f"p50 with a filter that 1 % of {effort.vectors:,} match, over p50 without", value, "≤ 3 x", factor <= 3),
        Line("vectors-filter", f"answers with all of topK = {NEAREST}", f"{full:.1%} of {len(found)}", "100 %", full == 1),
    ]


def _rates(stores: tuple[Store, ...], effort: Effort) -> dict[tuple[str, int], Measured]:
    """Queries a second of each store with each number of clients, in rounds that alternate."""
    rates: dict[tuple[str, int], list[float]] = {(store.what, clients): [] for store in stores for clients in CLIENTS}
    for _ in range(effort.rounds):
        for clients in CLIENTS:
            for store in stores:
                rates[store.what, clients].append(store.search(clients, effort.seconds, UNLIMITED).rate)
    return {key: Measured.of(values) for key, values in rates.items()}


@contextmanager
def _filled_homeport(folder: Path, effort: Effort) -> Iterator[tuple[Homeport, Caller, Worker, Clusters]]:
    """Homeport with the vectors and their index, who calls it, and the same database without it. The first row that asks fills it."""
    clusters = Clusters.make(effort.vectors)
    place = folder / "clusters"
    if not place.exists():
        place.mkdir()
        clusters.save(place)
        register_app(folder / NAME)
        with _bare_sql(folder / NAME, core=None) as loading:
            loading.ask({"ask": "load", "file": str(place / "vectors.npy"), "owner": APP_ID, "workspace": WORKSPACE})
    # On all cores while it builds the index.
    with running_homeport(folder, NAME, core=None) as homeport, running_caller() as caller, _bare_sql(homeport.data_dir) as bare:
        deadline = time.monotonic() + READY_LIMIT_S
        while not bare.ask({"ask": "prepare", "file": str(place / "queries.npy")}):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the vectors have no index after {READY_LIMIT_S} s")
            time.sleep(0.5)
        pin_running([homeport.pid, homeport.postgres_pid])
        yield homeport, caller, bare, clusters


def _bare_sql(data_dir: Path, core: int | None = LOAD_CORE) -> AbstractContextManager[Worker]:
    return running_worker("tests.bench.peers.bare_sql", str(data_dir), core=core)


def _homeport_store(what: str, homeport: Homeport, caller: Caller, folder: Path, bodies: list[str]) -> Store:
    url = f"{homeport.base}/sdk/llm/vectors/query"
    return over_http(what, caller, url, homeport.headers, bodies, folder, lambda answer: [each["id"] for each in answer["results"]])


def _questions(clusters: Clusters, *, is_filtered: bool = False) -> list[str]:
    """The queries as bodies, their numbers written in full; where filtered, query j asks for part ``j % PARTS``."""
    questions = [{"vector": vector, "topK": NEAREST, "workspaceId": WORKSPACE} for vector in clusters.queries.tolist()]
    if is_filtered:
        questions = [{**each, "filter": {"part": number % PARTS}} for number, each in enumerate(questions)]
    return [orjson.dumps(each).decode() for each in questions]


def _records(vectors: Any, start: int) -> str:
    """BATCH vectors as JSON, their numbers written in full, as clients write them."""
    rows = enumerate(vectors[start : start + BATCH].tolist(), start)
    return orjson.dumps([{"id": id_of(row), "vector": vector, "metadata": metadata_of(row)} for row, vector in rows]).decode()


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"
