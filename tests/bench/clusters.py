"""Vectors that lie as embeddings of texts do, what is nearest to each query by comparing with all, and how much of that was found.

Real embeddings are neither spread evenly nor in tight heaps, and how they lie decides how hard they are to search. These were made to
lie as the embeddings of 22 000 sentences by all-MiniLM-L6-v2 do, in the similarity of the 1st, 10th and 100th neighbour (0.70, 0.48 and
0.34 of a query among 20 000), of any two vectors (0.07), and in how many directions they vary near one place (about 20):

- a direction's share falls with its number, as ``number ** -0.4``;
- a cluster's centre is that of one of 300 topics plus as much of its own; there is a cluster for every five vectors;
- a vector is its cluster's centre plus noise, of a strength of the cluster's own from 0.55 to 1.65; all share one direction a little;
- queries are made like the vectors and are not among them. All have length 1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 384
TOPICS = 300
CLUSTER = 5
NOISE = 1.1
DECAY = 0.4
SHARED = 0.3
QUERIES = 1_000
NEAREST = 10
PARTS = 100
SLICE = 50
SEED = 1

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Vectors and queries, one a row. The vector in row i has the id ``doc-<i>`` and is in part ``i % PARTS``."""

    vectors: Matrix
    queries: Matrix

    @classmethod
    def make(cls, count: int, queries: int = QUERIES) -> "Clusters":
        """The same at every run."""
        random = np.random.default_rng(SEED)
        shares = (np.arange(1, DIMENSIONS + 1) ** -DECAY).astype(np.float32)
        shares /= np.linalg.norm(shares)

        def draw(rows: int) -> Matrix:
            return random.standard_normal((rows, DIMENSIONS), dtype=np.float32) * shares

        clusters = max(count // CLUSTER, 1)
        centres = draw(TOPICS)[random.integers(TOPICS, size=clusters)] + draw(clusters)
        strengths = NOISE * random.uniform(0.5, 1.5, (clusters, 1)).astype(np.float32)
        rows = random.integers(clusters, size=count + queries)
        made = centres[rows] + strengths[rows] * draw(len(rows)) + SHARED * float(np.sqrt(2 + NOISE**2)) * draw(1)
        made = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
        return cls(made[:count], made[count:])

    def find_nearest(self) -> list[list[int]]:
        """The rows of the NEAREST vectors to each query, in no order, by comparing with all of them."""
        found: list[list[int]] = _nearest(self.queries, self.vectors).tolist()
        return found

    def find_nearest_in_parts(self, parts: int = PARTS) -> list[list[int]]:
        """The same, for query j of only those whose row leaves ``j % parts`` when divided by ``parts``."""
        rows = np.empty((len(self.queries), NEAREST), int)
        for part in range(parts):
            rows[part::parts] = _nearest(self.queries[part::parts], self.vectors[part::parts]) * parts + part
        found: list[list[int]] = rows.tolist()
        return found

    def save(self, folder: Path) -> Path:
        """Write both as files for other processes; returns the folder."""
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "queries.npy", self.queries)
        return folder


def _nearest(queries: Matrix, vectors: Matrix) -> NDArray[np.int64]:
    # A slice of the queries at a time: all similarities to a million vectors would take 4 GB.
    slices = [queries[start : start + SLICE] for start in range(0, max(len(queries), 1), SLICE)]
    return np.concatenate([np.argpartition(-(each @ vectors.T), NEAREST, axis=1)[:, :NEAREST] for each in slices])


def id_of(row: int) -> str:
    """The id under which a row is stored."""
    return f"doc-{row}"


def metadata_of(row: int) -> dict[str, Any]:
    """What is stored beside a row."""
    return {"text": f"the text of chunk {row}", "n": row, "part": row % PARTS}


def recall(found: list[list[str]], nearest: list[list[int]]) -> float:
    """Which share of the nearest was found, over all queries."""
    if len(found) != len(nearest):
        raise RuntimeError(f"{len(found)} answers to {len(nearest)} queries")
    hits = sum(len(set(ids) & {id_of(row) for row in rows}) for ids, rows in zip(found, nearest, strict=True))
    return hits / sum(map(len, nearest))
