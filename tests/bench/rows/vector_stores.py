"""Ways to search the same vectors: Homeport over HTTP, the same SQL without it, a Chroma server over HTTP, LanceDB in process.

Chroma and LanceDB search as widely as it takes to find 0.99 of the nearest, in steps; both with a graph of 16 neighbours (pgvector's
default, too) that is built with 100 candidates (pgvector: 64).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.bench.calls import Caller, Calls
from tests.bench.clusters import NEAREST, Clusters, recall
from tests.bench.cores import SERVER_CORE
from tests.bench.peer_environment import QUIET, peer_program
from tests.bench.servers import free_port, running
from tests.bench.workers import Worker, running_worker

WANTED_RECALL = 0.99
WIDTHS = (40, 50, 60, 70, 80, 100, 120, 150, 200, 300)
EVERY_QUERY_S = 120.0
CHROMA_PATH = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search gave: queries a second, and the ids that were found for the first queries."""

    rate: float
    ids: list[list[str]]


@dataclass(frozen=True, slots=True)
class Store:
    """Somewhere to search: ``search(clients, seconds, queries)`` ends after so many seconds or queries."""

    what: str
    search: Callable[[int, float, int], Searched]


def over_http(
    what: str,
    caller: Caller,
    url: str,
    headers: Mapping[str, str],
    bodies: Sequence[str],
    folder: Path,
    ids_of: Callable[[Any], list[str]],
) -> Store:
    """A store that is asked with ``bodies`` at ``url``; ``ids_of`` an answer are those that it found."""
    file = folder / "answers"

    def search(clients: int, seconds: float, count: int) -> Searched:
        is_kept = count <= len(bodies)
        took = caller.make(Calls(url, headers, bodies, clients, count, seconds, answers=str(file) if is_kept else ""))
        answers = file.read_bytes().split(b"\n") if is_kept else []
        return Searched(took.rate, [ids_of(orjson.loads(answer)) for answer in answers])

    return Store(what, search)


def in_process(what: str, worker: Worker, **options: Any) -> Store:
    """A store that another process searches in itself."""

    def search(clients: int, seconds: float, count: int) -> Searched:
        answer = worker.ask({"ask": "query", "clients": clients, "seconds": seconds, "count": count, **options})
        return Searched(answer["rate"], answer["ids"])

    return Store(what, search)


def measure_recall(store: Store, nearest: list[list[int]]) -> float:
    """Which share of the nearest a store finds, over all queries."""
    return recall(store.search(1, EVERY_QUERY_S, len(nearest)).ids, nearest)


@contextmanager
def running_chroma(folder: Path, clusters: Clusters, nearest: list[list[int]], caller: Caller) -> Iterator[Store]:
    """A Chroma server that holds the vectors, for as long as the block runs."""
    data, port = folder / "chroma", free_port()
    base = f"http://127.0.0.1:{port}"
    command = [peer_program("chroma"), "run", "--path", str(data), "--host", "127.0.0.1", "--port", str(port)]

    @contextmanager
    def server(core: int | None) -> Iterator[Worker]:
        with (
            running(command, f"{base}/api/v2/heartbeat", folder / "chroma.log", QUIET, core=core),
            running_worker(
                "tests.bench.peers.chroma_store", str(port), core=core, python=peer_program("python"), environment=QUIET
            ) as store,
        ):
            yield store

    with server(None) as store:
        store.ask({"file": str(folder / "vectors.npy"), "ef_search": WIDTHS[0]})
    question = {"n_results": NEAREST, "include": ["metadatas", "distances"]}
    bodies = [orjson.dumps({"query_embeddings": [vector], **question}).decode() for vector in clusters.queries.tolist()]
    for width, wider in zip(WIDTHS, [*WIDTHS[1:], None], strict=True):
        with server(SERVER_CORE) as store:
            collection = store.ask({})
            what, url = f"a Chroma server over HTTP, ef_search {width}", f"{base}{CHROMA_PATH}/{collection}/query"
            chroma = over_http(what, caller, url, {"Content-Type": "application/json"}, bodies, folder, lambda answer: answer["ids"][0])
            if wider is None or measure_recall(chroma, nearest) >= WANTED_RECALL:
                yield chroma
                return
            store.ask({"ef_search": wider})


@contextmanager
def running_lance(folder: Path, nearest: list[list[int]]) -> Iterator[Store]:
    """A process that holds the vectors in LanceDB, for as long as the block runs."""
    module, python = "tests.bench.peers.lance_search", peer_program("python")
    data, queries = str(folder / "lance"), str(folder / "queries.npy")
    with running_worker(module, data, core=None, python=python, environment=QUIET) as worker:
        worker.ask({"ask": "fill", "vectors": str(folder / "vectors.npy")})
    with running_worker(module, data, core=SERVER_CORE, python=python, environment=QUIET) as worker:
        for width in WIDTHS:
            lance = in_process(f"LanceDB in process, IVF_HNSW_SQ, ef {width}, refined", worker, queries=queries, ef=width)
            if measure_recall(lance, nearest) >= WANTED_RECALL:
                break
        yield lance
