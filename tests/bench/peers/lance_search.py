"""LanceDB in process: filled, indexed and searched; runs in the peers' environment, FOLDER is where its table is."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import HnswSq

from tests.bench.workers import answer_with

GRAPH = HnswSq(distance_type="cosine", num_partitions=1, m=16, ef_construction=100)
REFINED = 2  # twice as many as asked for are compared again with the vectors themselves


class LanceSearch:
    """Answers the questions of the bench, each with a method's name and its arguments."""

    def __init__(self, folder: str) -> None:
        self._database = lancedb.connect(folder)
        self._queries: Any = None

    def fill(self, vectors: str) -> str:
        """Make the table and its index; gives the library's version."""
        numbers = np.load(vectors)
        rows = range(len(numbers))
        columns = {
            "id": [f"doc-{row}" for row in rows],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), numbers.shape[1]),
            "text": [f"the text of chunk {row}" for row in rows],
            "n": list(rows),
            "part": [row % 100 for row in rows],
        }
        self._database.create_table("bench", pa.table(columns)).create_index("vector", config=GRAPH)
        return str(lancedb.__version__)

    def query(self, queries: str, clients: int, seconds: float, count: int, ef: int) -> dict[str, Any]:
        """Search in ``clients`` threads for so many seconds or queries: queries a second, and the ids found for the first."""
        if self._queries is None:
            self._queries = np.load(queries)
        # Opened anew: a table that was opened before its index was made does not use it.
        table = self._database.open_table("bench")
        numbers, done, found = iter(range(count)), [], {}
        deadline = time.perf_counter() + seconds

        def work() -> None:
            while time.perf_counter() < deadline and (number := next(numbers, None)) is not None:
                search = table.search(self._queries[number % len(self._queries)]).distance_type("cosine").limit(10)
                rows = search.select(["id", "text", "n", "part", "_distance"]).ef(ef).refine_factor(REFINED).to_list()
                done.append(number)
                if number < len(self._queries):
                    found[number] = [row["id"] for row in rows]

        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            for each in [pool.submit(work) for _ in range(clients)]:
                each.result()
        rate = len(done) / (time.perf_counter() - started)
        return {"rate": rate, "ids": [found[number] for number in sorted(found)]}


if __name__ == "__main__":
    answer_with(LanceSearch(sys.argv[1]))
