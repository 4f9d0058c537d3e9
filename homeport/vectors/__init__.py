"""Vectors: each app's own namespaces, searched by similarity, filled from vectors or from texts."""

from adapters.pgvector import Match, Namespace
from homeport.vectors.documents import Document, make_plan
from homeport.vectors.ingest import Ingest, Ingested
from homeport.vectors.vectors import DEFAULT_WORKSPACE, Vectors, check_workspace, namespace_name

__all__ = [
    "DEFAULT_WORKSPACE",
    "Document",
    "Ingest",
    "Ingested",
    "Match",
    "Namespace",
    "Vectors",
    "check_workspace",
    "make_plan",
    "namespace_name",
]
