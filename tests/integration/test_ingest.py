"""Documents to vectors with the built-in model and the real database."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from adapters.minilm import MAX_TOKENS
from adapters.pgvector import EmbeddingOf
from adapters.postgres import Database, Notifications
from contract.upstream import RunningUpstream
from homeport.apps import Apps
from homeport.errors import Conflict, InvalidRequest, NotFound, PermissionMissing, Unauthorized
from homeport.identity import Identity, Principal
from homeport.jobs import Job, Jobs, Timing
from homeport.models import Models
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.vectors import Document, Ingest, Ingested, Vectors, make_plan
from tests.integration.parts import eventually, key_principal

pytestmark = pytest.mark.anyio

NOTES = [
    {"id": "garden.md", "text": "Beetroot likes sun. Water it twice a week.", "metadata": {"tags": ["garden"]}},
    {"id": "tools.md", "text": "The spade stands behind the shed.", "metadata": None},
    {"text": "The bakery opens at seven in the morning."},
]
PATIENT = Timing(poll=60.0, lease=60.0, report=0.0, backoff=0.01)


@dataclass
class Parts:
    """What takes documents in, in one process."""

    ingest: Ingest
    vectors: Vectors
    models: Models
    jobs: Jobs
    identity: Identity
    apps: Apps
    worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to carry out jobs."""
        self.worker = asyncio.create_task(self.jobs.run_worker())

    async def stop(self) -> None:
        """Stop as a server does."""
        assert self.worker is not None
        self.worker.cancel()
        await asyncio.wait([self.worker])

    async def ended(self, caller: Principal, job: Job) -> Job:
        """The job when it has ended."""
        return await eventually(
            lambda: self.ingest.get(caller, str(job.id)), lambda found: found.state in ("completed", "failed", "cancelled")
        )

    async def take(self, caller: Principal, *documents: Document, workspace: str = "notes", **plan: Any) -> Ingested:
        """Take documents in now."""
        return await self.ingest.ingest(caller, documents, make_plan(workspace, **plan), ignore)

    async def stored(self, caller: Principal, workspace: str = "notes", **filter: Any) -> dict[str, dict[str, Any]]:
        """All vectors' metadata by id."""
        found = await self.vectors.query(caller, workspace, vector=[1.0] + [0.0] * 383, top_k=1000, filter=filter)
        return {match.id: match.metadata for match in found}


async def ignore(done: int, total: int) -> None:
    """Nobody wants to know how far it is."""


@asynccontextmanager
async def open_parts(url: str, data_dir: Path, environ: dict[str, str] | None = None) -> AsyncIterator[Parts]:
    """One process."""
    settings = Settings(data_dir=data_dir, ollama_url="")
    database = Database(url, 5)
    await database.open()
    notifications = Notifications(url)
    box = SecretBox(bytes(32))
    identity = Identity(database, notifications)
    models = Models(settings, database, box, environ or {})
    vectors = Vectors(settings, database, notifications, box, identity, models)
    jobs = Jobs(database, notifications, timing=PATIENT)
    parts = Parts(Ingest(identity, models, vectors, jobs), vectors, models, jobs, identity, Apps(settings, database, identity, box))
    try:
        async with notifications:
            yield parts
            if parts.worker is not None:
                await parts.stop()
    finally:
        await vectors.configs.close()
        await models.close()
        await database.close()


@pytest.fixture
async def parts(database_url: str, tmp_path: Path) -> AsyncIterator[Parts]:
    """One process that takes documents in."""
    async with open_parts(database_url, tmp_path) as parts:
        yield parts


@pytest.fixture
def caller() -> Principal:
    """A developer's key that may do everything."""
    return key_principal(uuid4())


async def test_documents_become_vectors_that_a_question_finds(parts: Parts, caller: Principal) -> None:
    parts.start()
    job = await parts.ingest.enqueue(caller, "notes", NOTES)
    assert (job.state, job.kind, job.owner_id) == ("queued", "vectors.ingest", caller.owner_id)
    done = await parts.ended(caller, job)
    assert (done.state, done.done, done.total) == ("completed", 3, 3)
    assert done.result == {"documents": 3, "chunks": 3, "embedded": 3, "deleted": 0, "provider": "native", "model": "all-MiniLM-L6-v2"}
    best, *_ = await parts.vectors.query(caller, "notes", text="When can I buy bread?", top_k=3)
    assert best.metadata["text"] == "The bakery opens at seven in the morning."
    assert await parts.vectors.embedding_of(caller.owner_id, "notes") == EmbeddingOf("native", "all-MiniLM-L6-v2")
    garden = (await parts.stored(caller, documentId="garden.md"))["garden.md#0"]
    text = NOTES[0]["text"]
    assert garden == {"tags": ["garden"], "text": text, "documentId": "garden.md", "chunk": 0, "start": 0, "end": len(text)}


async def test_chunks_know_their_place_and_are_all_there(parts: Parts, caller: Principal) -> None:
    text = " ".join(f"Sentence number {number} says something of its own." for number in range(60))
    done = await parts.take(caller, Document("long", text), size=200, overlap=50)
    stored = await parts.stored(caller)
    assert len(stored) == done.chunks == done.embedded > 10
    assert set(stored) == {f"long#{number}" for number in range(done.chunks)}
    for name, metadata in stored.items():
        assert metadata["text"] == text[metadata["start"] : metadata["end"]]
        assert name == f"long#{metadata['chunk']}"
        assert len(metadata["text"]) <= 200
    assert max(metadata["end"] for metadata in stored.values()) == len(text)


async def test_what_is_taken_in_again_is_not_embedded_again(parts: Parts, caller: Principal) -> None:
    text = "\n\n".join(f"Paragraph {number} is about subject {number} and nothing else at all." for number in range(20))
    first = await parts.take(caller, Document("a", text), Document("b", "Short."), size=100, overlap=0)
    assert (first.embedded, first.deleted) == (21, 0)
    before = await parts.stored(caller)
    again = await parts.take(caller, Document("a", text), Document("b", "Short."), size=100, overlap=0)
    assert (again.chunks, again.embedded, again.deleted) == (21, 0, 0)
    longer = await parts.take(
        caller, Document("a", text + "\n\nOne more paragraph, which is too long for the chunk before it."), size=100, overlap=0
    )
    assert (longer.chunks, longer.embedded, longer.deleted) == (21, 1, 0)
    assert (await parts.take(caller, Document("b", "Short.", {"new": True}))).embedded == 1
    assert (await parts.stored(caller)).keys() == before.keys() | {"a#20"}


async def test_a_document_that_became_shorter_leaves_nothing_behind(parts: Parts, caller: Principal) -> None:
    paragraphs = [f"Paragraph {number} is about subject {number} and nothing else at all." for number in range(6)]
    await parts.take(caller, Document("a", "\n\n".join(paragraphs)), Document("ab", "\n\n".join(paragraphs)), size=100, overlap=0)
    # The first chunks stay exactly as they were, so nothing is embedded; what is left over has to go all the same.
    shorter = await parts.take(caller, Document("a", "\n\n".join(paragraphs[:2])), size=100, overlap=0)
    assert (shorter.chunks, shorter.embedded, shorter.deleted) == (2, 0, 4)
    assert set(await parts.stored(caller, documentId="a")) == {"a#0", "a#1"}
    assert len(await parts.stored(caller, documentId="ab")) == 6


async def test_a_chunk_with_too_many_tokens_is_split_until_the_model_takes_it(parts: Parts, caller: Principal) -> None:
    # A token for nearly every character, where English has one for four.
    text = " ".join(f"x{number}q!?" for number in range(300))
    done = await parts.take(caller, Document("dense", text), size=1500, overlap=0)
    stored = sorted((await parts.stored(caller)).values(), key=lambda metadata: metadata["start"])
    assert done.chunks > 2
    counted = await parts.models.count_embedding_tokens([metadata["text"] for metadata in stored])
    assert counted is not None
    counts, limit = counted
    assert limit == MAX_TOKENS
    assert max(counts) <= limit
    assert min(counts) > limit / 8, "no crumbs"
    assert "".join("".join(metadata["text"] for metadata in stored).split()) == "".join(text.split())


async def test_another_model_is_refused_before_anything_is_embedded(
    database_url: str, tmp_path: Path, upstream: RunningUpstream, caller: Principal
) -> None:
    async with open_parts(database_url, tmp_path, {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "sk-x"}) as parts:
        await parts.take(caller, Document("a", "Some text."), provider="native")
        with pytest.raises(Conflict, match="all-MiniLM-L6-v2") as refused:
            await parts.take(caller, Document("a", "Some text."), provider="openai", model="text-embedding-3-small")
        assert refused.value.code == "EMBEDDING_MISMATCH"
        parts.start()
        job = await parts.ingest.enqueue(caller, "notes", NOTES, provider="openai", model="text-embedding-3-small")
        failed = await parts.ended(caller, job)
        assert (failed.state, failed.error_code, failed.attempts) == ("failed", "EMBEDDING_MISMATCH", 1)
        # Without a name, the workspace's own model is used, whatever the default is.
        assert (await parts.take(caller, Document("b", "Other text."))).model == "all-MiniLM-L6-v2"


async def test_a_remote_model_embeds_too(database_url: str, tmp_path: Path, upstream: RunningUpstream, caller: Principal) -> None:
    async with open_parts(database_url, tmp_path, {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "sk-x"}) as parts:
        done = await parts.take(caller, Document("a", "One. " * 500), provider="openai", model="text-embedding-3-small")
        assert (done.provider, done.model, done.embedded) == ("openai", "text-embedding-3-small", done.chunks)
        (namespace,) = await parts.vectors.list_namespaces(caller.owner_id)
        assert namespace.embedding == EmbeddingOf("openai", "text-embedding-3-small")


class Gate:
    """Models that stop before a batch until they are let on."""

    def __init__(self, models: Models, after: int) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.embedded: list[str] = []
        self._embed = models.embed
        self._after = after
        models.embed = self.embed  # type: ignore[method-assign]

    async def embed(self, texts: Sequence[str], **values: Any) -> Any:
        """Embed, but wait once some are embedded."""
        if len(self.embedded) >= self._after:
            self.reached.set()
            await self.open.wait()
        self.embedded += texts
        return await self._embed(texts, **values)


def many(number: int) -> list[dict[str, Any]]:
    return [{"id": f"note {each}", "text": f"Note {each} is about subject {each}."} for each in range(number)]


async def test_progress_counts_chunks_and_a_cancelled_job_keeps_what_it_stored(parts: Parts, caller: Principal) -> None:
    gate = Gate(parts.models, after=32)
    parts.start()
    job = await parts.ingest.enqueue(caller, "notes", many(80))
    with anyio.fail_after(30):
        await gate.reached.wait()
    halfway = await parts.ingest.get(caller, str(job.id))
    assert (halfway.state, halfway.done, halfway.total) == ("running", 32, 80)
    assert (await parts.ingest.cancel(caller, str(job.id))).state == "cancelled"
    gate.open.set()
    await parts.stop()
    assert len(await parts.stored(caller)) == 32
    found = await parts.ingest.get(caller, str(job.id))
    assert (found.state, found.done, found.result) == ("cancelled", 32, None)


async def test_a_job_goes_on_after_a_restart_without_embedding_anything_twice(database_url: str, tmp_path: Path, caller: Principal) -> None:
    async with open_parts(database_url, tmp_path) as first:
        gate = Gate(first.models, after=32)
        first.start()
        job = await first.ingest.enqueue(caller, "notes", many(80))
        with anyio.fail_after(30):
            await gate.reached.wait()
    async with open_parts(database_url, tmp_path) as second:
        counted = Gate(second.models, after=1000)
        second.start()
        done = await second.ended(caller, job)
        assert (done.state, done.done, done.total, done.attempts) == ("completed", 80, 80, 1)
        assert len(counted.embedded) == 48
        assert not set(counted.embedded) & set(gate.embedded)
        assert len(await second.stored(caller)) == 80


async def test_jobs_of_one_workspace_are_done_in_order_so_the_last_document_wins(parts: Parts, caller: Principal) -> None:
    jobs = [await parts.ingest.enqueue(caller, "notes", [{"id": "a", "text": f"Version {number}."}]) for number in range(6)]
    parts.start()
    assert [(await parts.ended(caller, job)).state for job in jobs] == ["completed"] * 6
    assert (await parts.stored(caller))["a#0"]["text"] == "Version 5."


async def test_what_cannot_be_taken_in_is_refused_at_once(parts: Parts, caller: Principal) -> None:
    async def refusal(*documents: dict[str, Any], **options: Any) -> str:
        with pytest.raises(InvalidRequest) as refused:
            await parts.ingest.enqueue(caller, "notes", documents, **options)
        return refused.value.message

    assert "1 to 1000 documents" in await refusal()
    assert "/documents/1/text: it is empty" in await refusal({"text": "a"}, {"text": " \n "})
    assert "U+0000" in await refusal({"text": "a\0b"})
    assert "/documents/0/id" in await refusal({"id": "x" * 901, "text": "a"})
    assert "49" in await refusal({"text": "a"}, size=49)
    assert "30" in await refusal({"text": "a"}, size=50, overlap=30)


async def test_a_text_that_the_database_cannot_keep_fails_the_job_with_a_sentence(parts: Parts, caller: Principal) -> None:
    parts.start()
    job = await parts.ended(caller, await parts.ingest.enqueue(caller, "notes", [{"text": "a", "metadata": {"name": "a\0b"}}]))
    assert (job.state, job.error_code, job.attempts) == ("failed", "VALIDATION_ERROR", 1)
    assert "U+0000" in (job.error or "")


async def test_the_same_text_without_an_id_is_stored_once_and_the_last_of_an_id_counts(parts: Parts, caller: Principal) -> None:
    parts.start()
    documents = [{"text": "Same."}, {"text": "Same."}, {"id": "a", "text": "First."}, {"id": "a", "text": "Last."}]
    for _ in range(2):
        job = await parts.ended(caller, await parts.ingest.enqueue(caller, "notes", documents))
        assert job.result["documents"] == 2
    stored = await parts.stored(caller)
    assert sorted(metadata["text"] for metadata in stored.values()) == ["Last.", "Same."]


async def test_embedding_needs_its_own_permission_and_jobs_belong_to_their_owner(parts: Parts, caller: Principal) -> None:
    app = await parts.apps.register("Narrow")
    narrow = await parts.identity.authenticate_app(str(app.id))
    assert narrow is not None
    with pytest.raises(PermissionMissing, match="llm.embed"):
        await parts.ingest.enqueue(narrow, "notes", NOTES)
    with pytest.raises(Unauthorized):
        await parts.ingest.enqueue(replace(narrow, id=uuid4()), "notes", NOTES)
    job = await parts.ingest.enqueue(caller, "notes", NOTES)
    for look in (parts.ingest.get, parts.ingest.cancel):
        with pytest.raises(NotFound):
            await look(key_principal(uuid4()), str(job.id))
    assert (await parts.ingest.get(caller, str(job.id))).state == "queued"
