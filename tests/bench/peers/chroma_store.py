"""Fills a Chroma server and sets how widely it searches; runs in the peers' environment: PORT is where the server listens."""

import sys
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

from tests.bench.workers import answer_questions

COLLECTION = "bench"
GRAPH = {"space": "cosine", "max_neighbors": 16, "ef_construction": 100}


def answer(client: Any, question: dict[str, Any]) -> str:
    """Do what is asked; gives the collection's id."""
    if "file" in question:
        _fill(client.create_collection(COLLECTION, configuration={"hnsw": GRAPH}, embedding_function=None), question["file"], client)
    collection = client.get_collection(COLLECTION, embedding_function=None)
    if "ef_search" in question:
        # In force when the server has been started again.
        collection.modify(configuration={"hnsw": {"ef_search": question["ef_search"]}})
    return str(collection.id)


def _fill(collection: Any, file: str, client: Any) -> None:
    vectors = np.load(file)
    batch = client.get_max_batch_size()
    for start in range(0, len(vectors), batch):
        rows = range(start, min(start + batch, len(vectors)))
        metadata = [{"text": f"the text of chunk {row}", "n": row, "part": row % 100} for row in rows]
        collection.add(ids=[f"doc-{row}" for row in rows], embeddings=vectors[start : start + batch], metadatas=metadata)


if __name__ == "__main__":
    server = chromadb.HttpClient(host="127.0.0.1", port=int(sys.argv[1]), settings=Settings(anonymized_telemetry=False))
    answer_questions(lambda question: answer(server, question))
