"""Searching what the owner has put into vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.pgvector import Match
from homeport.agents.builtin.describing import cut, output, schema, show_json
from homeport.errors import InvalidRequest
from homeport.models import Models
from homeport.tools import BuiltinTool, McpTool, ToolContext, ToolOutput
from homeport.vectors import Vectors
from homeport.vectors.vectors import DEFAULT_WORKSPACE

MAX_TEXT = 3000
MAX_METADATA = 500
MAX_NAMED = 20

_SEARCH = McpTool(
    "search_vectors",
    "Search documents",
    "Search the user's stored documents and notes by meaning. Returns the passages that fit the query best, each with the id of its "
    "document. Ask with a full sentence or a few telling words; search again with other words when the answer is not there.",
    schema(
        {
            "query": {"type": "string", "minLength": 1, "maxLength": 4000, "description": "What to look for."},
            "workspace": {
                "type": "string",
                "maxLength": 200,
                "description": "Which collection of documents to search. Leave it out for the one of this conversation.",
            },
            "top_k": {"type": "integer", "minimum": 1, "maximum": 20, "description": "How many passages to return; 5 when left out."},
            "document_id": {"type": "string", "maxLength": 900, "description": "Search only in this document."},
        },
        ["query"],
    ),
    is_read_only=True,
    is_idempotent=True,
)


def vector_tools(vectors: Vectors, models: Models) -> Sequence[BuiltinTool]:
    """The tools about vectors. What the embedding of a query costs is the agent's own work, like what its model is asked: the owner
    needs no permission for it beside the one to read its vectors."""

    async def search(context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
        principal = context.principal
        workspace = await _find_workspace(vectors, context, arguments.get("workspace"))
        if workspace is None:
            return output("No documents are stored yet.", {"matches": []})
        made_by = await vectors.embedding_of(principal.owner_id, workspace)
        provider, model = (made_by.provider, made_by.model) if made_by else (None, None)
        embedded = await models.embed([arguments["query"]], caller=principal, provider=provider, model=model)
        wanted = {"documentId": arguments["document_id"]} if arguments.get("document_id") else None
        found = await vectors.query(principal, workspace, vector=embedded.vectors[0], top_k=arguments.get("top_k", 5), filter=wanted)
        shown = [_shape(match) for match in found]
        if not shown:
            return output(f"Nothing was found in '{workspace}'.", {"workspace": workspace, "matches": []})
        return output("\n\n".join(map(_show, shown)), {"workspace": workspace, "matches": shown})

    return [BuiltinTool(_SEARCH, "vectors.read", search)]


async def _find_workspace(vectors: Vectors, context: ToolContext, named: str | None) -> str | None:
    """The workspace of vectors that is meant; without a name that of the conversation, or else the default one. None: there is neither.

    Raises InvalidRequest for a name that there is not.
    """
    there = await vectors.list_workspaces(context.principal.owner_id)
    if named:
        if named not in there:
            names = ", ".join(there[:MAX_NAMED]) or "none"
            raise InvalidRequest(f"There is no workspace '{named[:80]}' with documents. There are: {names}.", code="WORKSPACE_NOT_FOUND")
        return named
    return next((name for name in (context.workspace, DEFAULT_WORKSPACE) if name in there), None)


def _shape(match: Match) -> dict[str, Any]:
    metadata = {name: value for name, value in match.metadata.items() if name != "text"}
    text = match.metadata.get("text")
    return {
        "id": match.id,
        "score": round(match.score, 4),
        "text": cut(text, MAX_TEXT) if isinstance(text, str) else "",
        "metadata": show_json(metadata, MAX_METADATA),
    }


def _show(match: Mapping[str, Any]) -> str:
    return f"[{match['id']}] score {match['score']}, {match['metadata']}\n{match['text'] or '(no text is stored with this vector)'}"
