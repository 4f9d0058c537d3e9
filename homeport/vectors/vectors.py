"""Storing vectors and finding them again. Whose they are is the owner's id; another owner's workspaces are not there."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from adapters.pgvector import EmbeddingOf, IndexKeeper, Match, Namespace, VectorBatch, VectorStore
from adapters.postgres import Database, Notifications
from homeport.errors import InvalidRequest
from homeport.identity import Identity, Principal
from homeport.models import Models
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.vectors.configs import VectorConfigs

DEFAULT_WORKSPACE = "default"
MAX_WORKSPACE_LENGTH = 200
WORKSPACE_KEY = "workspaceId"


class Vectors:
    """The vectors of every app, in Homeport's database or in the one that the app registered.

    ``indexes`` and ``configs`` have background work to be run: ``indexes.run()``, ``configs.run()``; ``configs.close()`` at the end.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        notifications: Notifications,
        secret_box: SecretBox,
        identity: Identity,
        models: Models,
    ) -> None:
        store = VectorStore(database)
        self.indexes = IndexKeeper(store)
        store.on_written = self.indexes.note_written
        self.configs = VectorConfigs(settings, store, notifications, secret_box)
        self._identity = identity
        self._models = models

    async def upsert(
        self, owner_id: UUID, workspace: str | None, records: Sequence[Mapping[str, Any]], *, embedding: EmbeddingOf | None = None
    ) -> int:
        """Add ``{id, vector, metadata?}``, or replace what has the same id; returns how many ids. The first upsert of a workspace fixes how
        many dimensions its vectors have.

        Raises InvalidRequest (also DIMENSION_MISMATCH), Conflict (EMBEDDING_MISMATCH), Unavailable.
        """
        name = check_workspace(workspace)
        batch = VectorBatch.pack(records)
        return await (await self._store(owner_id)).upsert(owner_id, name, batch, embedding=embedding)

    async def query(
        self,
        principal: Principal,
        workspace: str | None,
        *,
        vector: Sequence[float] | None = None,
        text: str | None = None,
        top_k: int,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Match]:
        """The ``top_k`` vectors that are most similar to ``vector``, or to the embedding of ``text``, the best first.

        Only those count whose metadata contain ``filter``. A text is embedded by the model that the workspace was filled with, where that
        is known, else by the default one. Raises InvalidRequest, PermissionMissing (a text needs ``llm.embed`` as well), Unavailable, and
        what embedding raises.
        """
        name, wanted = _place(workspace, filter)
        store = await self._store(principal.owner_id)
        if text is not None:
            vector = await self._embed(principal, store, name, text)
        if vector is None:
            raise InvalidRequest("A query needs a vector, or a text to be turned into one.", code="NOTHING_ASKED")
        return await store.query(principal.owner_id, name, vector, top_k=top_k, filter=wanted)

    async def delete(
        self, owner_id: UUID, workspace: str | None, *, ids: Sequence[str] | None = None, filter: Mapping[str, Any] | None = None
    ) -> int:
        """Delete the vectors with these ids, or whose metadata contain ``filter``; with both, those that meet both. Returns how many."""
        name, wanted = _place(workspace, filter)
        if ids is None and wanted is None:
            raise InvalidRequest("Say what to delete: deleteAll true, ids, or a filter that is not empty.", code="NOTHING_ASKED")
        return await (await self._store(owner_id)).delete(owner_id, name, ids=ids, filter=wanted)

    async def delete_stale(self, owner_id: UUID, workspace: str, filter: Mapping[str, Any], kept: Sequence[str]) -> int:
        """Delete the vectors whose metadata contain ``filter``, but for those with the ids ``kept``. Returns how many."""
        return await (await self._store(owner_id)).delete(owner_id, check_workspace(workspace), filter=filter, kept=kept)

    async def count(self, owner_id: UUID, workspace: str | None) -> int:
        """How many vectors a workspace has, counted; 0 when it is not there."""
        return await (await self._store(owner_id)).count(owner_id, check_workspace(workspace))

    async def compare(self, owner_id: UUID, workspace: str, metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
        """Which of these ids are there, and whether they have exactly this metadata."""
        return await (await self._store(owner_id)).compare(owner_id, check_workspace(workspace), metadata)

    async def list_values(self, owner_id: UUID, workspace: str, name: str, filter: Mapping[str, Any]) -> set[str]:
        """The different values of ``name`` in the metadata that contain ``filter``, as texts."""
        return await (await self._store(owner_id)).list_values(owner_id, check_workspace(workspace), name, filter)

    async def delete_workspace(self, owner_id: UUID, workspace: str | None) -> int:
        """Delete a workspace with all its vectors; returns how many there were. Afterwards it may be made anew with other dimensions."""
        return await (await self._store(owner_id)).delete_namespace(owner_id, check_workspace(workspace))

    async def list_workspaces(self, owner_id: UUID) -> list[str]:
        """The names of an owner's workspaces, sorted."""
        return await (await self._store(owner_id)).list_workspaces(owner_id)

    async def list_namespaces(self, owner_id: UUID) -> list[Namespace]:
        """An owner's workspaces with their sizes and dimensions, sorted by name."""
        return await (await self._store(owner_id)).list_namespaces(owner_id)

    async def embedding_of(self, owner_id: UUID, workspace: str) -> EmbeddingOf | None:
        """Which model the texts of a workspace were embedded by, where that is known."""
        return await (await self._store(owner_id)).embedding_of(owner_id, check_workspace(workspace))

    async def _store(self, owner_id: UUID) -> VectorStore:
        return await self.configs.store_for(owner_id)

    async def _embed(self, principal: Principal, store: VectorStore, workspace: str, text: str) -> Sequence[float]:
        await self._identity.require(principal, "llm.embed")
        made_by = await store.embedding_of(principal.owner_id, workspace)
        provider, model = (made_by.provider, made_by.model) if made_by else (None, None)
        result = await self._models.embed([text], caller=principal, provider=provider, model=model)
        return result.vectors[0]


def namespace_name(owner_id: UUID, workspace: str | None) -> str:
    """What the reference calls a namespace: the owner and the workspace in one name."""
    return f"sdk_{owner_id}_{check_workspace(workspace)}"


def check_workspace(workspace: str | None) -> str:
    """The name of a workspace of vectors; nothing is the default one. Raises InvalidRequest."""
    name = workspace or DEFAULT_WORKSPACE
    if len(name) > MAX_WORKSPACE_LENGTH or any(character < " " or character == "\x7f" for character in name):
        raise InvalidRequest(f"A workspaceId has at most {MAX_WORKSPACE_LENGTH} characters and no control characters.")
    return name


def _place(workspace: str | None, filter: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any] | None]:
    """The workspace, and the filter or None. Clients also name the workspace in the filter, and send what they leave out as null."""
    wanted = {name: value for name, value in (filter or {}).items() if value is not None}
    inner = wanted.get(WORKSPACE_KEY)
    if isinstance(inner, str) and inner and workspace in (None, "", inner):
        workspace = wanted.pop(WORKSPACE_KEY)
    return check_workspace(workspace), wanted or None
