"""Documents to vectors in one call: cut, embedded and stored, as a job for apps and at once for the command line.

What is stored already and has not changed is not embedded again. So taking the same documents in twice is cheap, and a job that was
interrupted goes on where it stopped.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar
from uuid import UUID

from adapters.pgvector import EmbeddingOf
from homeport.errors import Conflict, Unauthorized
from homeport.identity import Identity, Principal, principal_without_grants
from homeport.jobs import Job, JobContext, Jobs
from homeport.models import Models
from homeport.vectors.documents import CutDocument, Document, Part, Plan, cut, make_plan, read_documents
from homeport.vectors.vectors import Vectors, check_workspace

KIND = "vectors.ingest"
EMBEDDED_AT_ONCE = 32
COMPARED_AT_ONCE = 500

T = TypeVar("T")

Report = Callable[[int, int], Awaitable[None]]
"""Told after each step how many chunks are done, out of how many."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the documents: ``chunks`` they have, of which ``embedded`` are new or have changed; ``deleted`` are old ones."""

    documents: int
    chunks: int
    embedded: int
    deleted: int
    provider: str | None
    model: str | None


class Ingest:
    """Takes documents into workspaces of vectors."""

    def __init__(self, identity: Identity, models: Models, vectors: Vectors, jobs: Jobs) -> None:
        self._identity = identity
        self._models = models
        self._vectors = vectors
        self._jobs = jobs
        jobs.register(KIND, self._carry_out)

    async def enqueue(
        self,
        principal: Principal,
        workspace: str | None,
        documents: Sequence[Mapping[str, Any]],
        *,
        size: int | None = None,
        overlap: int | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> Job:
        """Have documents (``{id?, text, metadata?}``) taken in by a job. Those of one workspace are done in the order they came.

        Raises InvalidRequest, PermissionMissing (embedding needs ``llm.embed`` as well), TooManyRequests.
        """
        if await self._identity.require(principal, "llm.embed") is None:
            raise Unauthorized
        plan = make_plan(check_workspace(workspace), size, overlap, provider, model)
        payload = {"caller": principal.remember(), "plan": asdict(plan), "documents": [asdict(each) for each in read_documents(documents)]}
        return await self._jobs.enqueue(KIND, principal.owner_id, payload, lane=plan.workspace)

    async def get(self, principal: Principal, job_id: str) -> Job:
        """A job of this kind of the principal's. Raises NotFound."""
        return await self._jobs.get(principal.owner_id, job_id, kind=KIND)

    async def cancel(self, principal: Principal, job_id: str) -> Job:
        """Cancel a job; what it has stored stays. Raises NotFound."""
        return await self._jobs.cancel(principal.owner_id, job_id, kind=KIND)

    async def ingest(self, caller: Principal, documents: Sequence[Document], plan: Plan, report: Report) -> Ingested:
        """Take documents in now. One that was taken in before is replaced: what is left of it is deleted.

        Raises Conflict (EMBEDDING_MISMATCH) when the workspace was filled by another model, and what embedding and storing raise.
        """
        owner = caller.owner_id
        provider, model = await self._find_model(owner, plan)
        whole = [await cut(document, plan, self._models, provider, model) for document in documents]
        parts = [part for document in whole for part in document.parts]
        await report(0, len(parts))
        changed, shortened = await self._compare(owner, plan.workspace, whole)
        done = len(parts) - len(changed)
        await report(done, len(parts))
        for batch in _batches(changed, EMBEDDED_AT_ONCE):
            texts = [part.text for part in batch]
            result = await self._models.embed(texts, caller=caller, provider=provider, model=model)
            # All of one workspace by the same model, whatever becomes the default meanwhile.
            provider, model = result.provider, result.model
            records = [
                {"id": part.id, "vector": vector, "metadata": part.metadata} for part, vector in zip(batch, result.vectors, strict=True)
            ]
            await self._vectors.upsert(owner, plan.workspace, records, embedding=EmbeddingOf(provider, model))
            done += len(batch)
            await report(done, len(parts))
        deleted = 0
        for document in shortened:
            kept = [part.id for part in document.parts]
            deleted += await self._vectors.delete_stale(owner, plan.workspace, {"documentId": document.id}, kept)
        return Ingested(len(documents), len(parts), len(changed), deleted, provider, model)

    async def _find_model(self, owner: UUID, plan: Plan) -> tuple[str | None, str | None]:
        """Who embeds, as far as that is settled before the first text is embedded."""
        made_by = await self._vectors.embedding_of(owner, plan.workspace)
        if plan.provider is None and plan.model is None:
            return (made_by.provider, made_by.model) if made_by else (None, None)
        endpoint, model = await self._models.resolve(plan.provider, plan.model, role="embedding")
        if made_by and made_by.model != model:
            raise Conflict(
                f"The workspace '{plan.workspace[:80]}' was filled by the model {made_by.model}, and vectors of {model} cannot be compared "
                "with its own. Use that model, another workspace, or delete this one first.",
                code="EMBEDDING_MISMATCH",
            )
        return endpoint.provider, model

    async def _compare(self, owner: UUID, workspace: str, documents: Sequence[CutDocument]) -> tuple[list[Part], list[CutDocument]]:
        """The parts that are not stored exactly so, and the documents of which more is stored than they have parts.

        The parts of a document are numbered without gaps, so one look behind the last one is enough.
        """
        wanted: dict[str, Mapping[str, Any]] = {part.id: part.metadata for document in documents for part in document.parts}
        wanted |= {document.next_id: {} for document in documents}
        found: dict[str, bool] = {}
        for batch in _batches(list(wanted.items()), COMPARED_AT_ONCE):
            found |= await self._vectors.compare(owner, workspace, dict(batch))
        changed = [part for document in documents for part in document.parts if not found.get(part.id)]
        return changed, [document for document in documents if document.next_id in found]

    async def _carry_out(self, context: JobContext) -> dict[str, Any]:
        payload = context.payload
        caller = principal_without_grants(payload["caller"])
        documents = [Document(**each) for each in payload["documents"]]
        done = await self.ingest(caller, documents, Plan(**payload["plan"]), context.report)
        return {name: value for name, value in asdict(done).items() if value is not None}


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
