"""Documents as they are taken in: what each is, how it is cut, and under which names its parts are kept."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeport.chunking import OVERLAP, SIZE, Chunk, check_sizes, split_chunk, split_text
from homeport.errors import FieldProblem, InvalidRequest
from homeport.models import Models

MAX_DOCUMENTS = 1000
MAX_TEXT_LENGTH = 5_000_000
MAX_ID_LENGTH = 900
# Cutting so much text takes 10 ms; what is longer is cut in a thread, so that others need not wait.
LONG_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name of its own, and what is to be known about each of its chunks."""

    id: str
    text: str = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where documents go and how: the workspace of vectors, chunks of ``size`` characters that repeat ``overlap``, and who embeds them
    (None: the model that the workspace was filled with, else the default)."""

    workspace: str
    size: int = SIZE
    overlap: int = OVERLAP
    provider: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk of a document as it is stored: its id, the text that is embedded, its metadata."""

    id: str
    text: str = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CutDocument:
    """A document in parts. ``next_id`` is the name that one more part would have."""

    id: str
    parts: list[Part]
    next_id: str


def read_documents(documents: Sequence[Mapping[str, Any]]) -> list[Document]:
    """Documents from ``{id?, text, metadata?}``. One without an id is named after its text, so that it is not stored twice; of several with
    the same id only the last counts.

    Raises InvalidRequest, saying which one is wrong and how.
    """
    if not 1 <= len(documents) <= MAX_DOCUMENTS:
        raise InvalidRequest(f"One request takes 1 to {MAX_DOCUMENTS} documents, and this one has {len(documents)}.")
    read: dict[str, Document] = {}
    for number, each in enumerate(documents):
        text = each["text"]
        if not text.strip():
            raise _wrong(number, "text", "it is empty")
        if len(text) > MAX_TEXT_LENGTH:
            raise _wrong(number, "text", f"it has {len(text)} characters; at most {MAX_TEXT_LENGTH} can be taken")
        if "\0" in text:
            raise _wrong(number, "text", "it holds a character that cannot be stored (U+0000)")
        name = each.get("id") or hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if len(name) > MAX_ID_LENGTH:
            raise _wrong(number, "id", f"it has {len(name)} characters; at most {MAX_ID_LENGTH} can be taken")
        read[name] = Document(name, text, each.get("metadata") or {})
    return list(read.values())


def make_plan(
    workspace: str, size: int | None = None, overlap: int | None = None, provider: str | None = None, model: str | None = None
) -> Plan:
    """A plan with what is left out filled in. Raises InvalidRequest for sizes that make no sense."""
    size = SIZE if size is None else size
    overlap = min(OVERLAP, size // 2) if overlap is None else overlap
    check_sizes(size, overlap)
    return Plan(workspace, size, overlap, provider or None, model or None)


async def cut(document: Document, plan: Plan, models: Models, provider: str | None, model: str | None) -> CutDocument:
    """The document in parts that the embedding model can take whole."""
    sizes = {"size": plan.size, "overlap": plan.overlap}
    is_long = len(document.text) > LONG_TEXT
    chunks = await asyncio.to_thread(split_text, document.text, **sizes) if is_long else split_text(document.text, **sizes)
    parts = [_part(document, number, chunk) for number, chunk in enumerate(await _fit(chunks, models, provider, model))]
    return CutDocument(document.id, parts, f"{document.id}#{len(parts)}")


async def _fit(chunks: list[Chunk], models: Models, provider: str | None, model: str | None) -> list[Chunk]:
    """The chunks, those in smaller pieces that have more tokens than the model takes."""
    fitting: list[Chunk] = []
    while chunks:
        counted = await models.count_embedding_tokens([chunk.text for chunk in chunks], provider=provider, model=model)
        if counted is None:
            return chunks
        counts, limit = counted
        smaller: list[Chunk] = []
        for chunk, count in zip(chunks, counts, strict=True):
            if count <= limit or len(chunk.text) == 1:
                fitting.append(chunk)
            else:
                smaller += split_chunk(chunk, _smaller_size(len(chunk.text), count, limit))
        chunks = smaller
    return sorted(fitting, key=lambda chunk: (chunk.start, chunk.end))


def _smaller_size(length: int, count: int, limit: int) -> int:
    """A size that makes pieces of about the same length, with some room for the ends of sentences."""
    pieces = count * 11 // (limit * 10) + 1
    return max(1, min(length - 1, length * 12 // (pieces * 10)))


def _part(document: Document, number: int, chunk: Chunk) -> Part:
    place = {"text": chunk.text, "documentId": document.id, "chunk": number, "start": chunk.start, "end": chunk.end}
    return Part(f"{document.id}#{number}", chunk.text, {**document.metadata, **place})


def _wrong(number: int, name: str, detail: str) -> InvalidRequest:
    pointer = f"/documents/{number}/{name}"
    return InvalidRequest(f"{pointer}: {detail}.", problems=(FieldProblem("body", pointer, detail),))
