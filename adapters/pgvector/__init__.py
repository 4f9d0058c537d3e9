"""Vectors in PostgreSQL with pgvector: a table a namespace, and the index that a large one gains from."""

from adapters.pgvector.batch import VectorBatch
from adapters.pgvector.index_keeper import IndexKeeper
from adapters.pgvector.registry import registry_table
from adapters.pgvector.store import EmbeddingOf, Match, Namespace, VectorStore, forget_namespaces

__all__ = ["EmbeddingOf", "IndexKeeper", "Match", "Namespace", "VectorBatch", "VectorStore", "forget_namespaces", "registry_table"]
